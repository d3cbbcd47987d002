"""How a client reaches otpd."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Pem = str | Path | bytes
"""A PEM file by its path, or its content as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS to the server; with `certificate` and `key` also a proof of who calls."""

    ca: Pem | None = None
    """Authorities of the server's certificate; None: those that gRPC brings along."""
    certificate: Pem | None = None
    """The client's certificate, with those that lead to its authority."""
    key: Pem | None = None
    """The private key of `certificate`."""
    server_name: str | None = None
    """The name that the server's certificate must have; None: that of the address."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls: a certificate goes with its key, and a key with its certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a call is tried again after UNAVAILABLE, always with the same request id.

    Where otpd says when (`grpc-retry-pushback-ms`), that is when; else after a while that
    grows. A call that would not come to its end before its deadline is not tried again:
    who waits for it learns of it at once.
    """

    max_attempts: int = 5
    """How often at most, the first try included; 1: never again."""
    initial_backoff: float = 0.2
    """Seconds before the second try, give or take a fifth."""
    max_backoff: float = 2.0
    """Seconds that it grows to."""
    multiplier: float = 2.0
    """By which it grows."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("retry: max_attempts counts the first try, so it is 1 or more")
        if self.initial_backoff < 0 or self.max_backoff < 0 or self.multiplier < 1:
            raise ValueError("retry: a backoff is 0 or more seconds, its multiplier 1 or more")


_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")


def targets(address: str | Sequence[str], *, one_name: bool = True) -> tuple[str, ...]:
    """Make gRPC targets of what was configured.

    One address is a target of its own: `dns:///otpd:50051`, whose name may stand for any
    number of replicas; `otpd:50051` is the same. Of several, IP addresses of one kind
    become one target with all of them, if they go by one name; each name is one.
    """
    addresses = [address] if isinstance(address, str) else list(address)
    if not addresses:
        raise ValueError("address: none was given")
    others: list[str] = []
    literal: dict[str, list[str]] = {}
    for one in addresses:
        if one.startswith(_SCHEMES):
            others.append(one)
            continue
        host, port = _split(one)
        if not host or not port:
            raise ValueError(f"address: {one!r} is neither HOST:PORT nor a gRPC target")
        version = _ip_version(host)
        if version is None:
            others.append(f"dns:///{one}")
        else:
            literal.setdefault(f"ipv{version}", []).append(one)
    groups = [
        f"{scheme}:{group}"
        for scheme, ones in literal.items()
        for group in ([",".join(ones)] if one_name else ones)
    ]
    return (*groups, *others)


def is_loopback(target: str) -> bool:
    """Tell whether what is sent to a target stays on this machine."""
    scheme, _, rest = target.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return True
    if scheme in {"ipv4", "ipv6"}:
        return all(_host_is_loopback(_split(one)[0]) for one in rest.split(","))
    # With another authority than none, somebody's name server says where it is.
    name = rest.removeprefix("///")
    return scheme == "dns" and not name.startswith("/") and _host_is_loopback(_split(name)[0])


def _host_is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _ip_version(host: str) -> int | None:
    """Tell which kind of IP address it is; None: none."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def _split(address: str) -> tuple[str, str]:
    """Split into host and port; the port is empty where there is none."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") and rest[1:].isdecimal() else ""
    host, _, port = address.rpartition(":")
    return (host, port) if port.isdecimal() and ":" not in host else (address, "")
