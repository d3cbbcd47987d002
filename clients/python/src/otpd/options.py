"""Options of the connection to otpd, and addresses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Pem = str | Path | bytes
"""PEM file by its path, or its content as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS to the server; with `certificate` and `key` mutual TLS."""

    ca: Pem | None = None
    """Certificate authorities of the server; None: those that gRPC includes."""
    certificate: Pem | None = None
    """Client certificate, followed by its intermediate certificates."""
    key: Pem | None = None
    """Private key of `certificate`."""
    server_name: str | None = None
    """Name that the server's certificate must have; None: that of the address."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls: a certificate goes with its key, and a key with its certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRequest:
    """Receipt that `verify` asks for, to be passed to another service."""

    audience: str
    """That service, as it is configured for this caller (receipt_audiences)."""
    nonce: str
    """Value that the service drew for this session: 16 to 128 visible ASCII characters."""
    include_recipient: bool = False
    """Also states the phone number or e-mail address; needs may_include_recipient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Retries of a call after UNAVAILABLE, always with the same idempotency key.

    The delay is that of otpd (`grpc-retry-pushback-ms`) if it gives one, otherwise an
    exponential backoff. If the next attempt would start after the deadline, the call fails at
    once.
    """

    max_attempts: int = 5
    """Maximum number of attempts, the first included; 1: no retries."""
    initial_backoff: float = 0.2
    """Seconds before the second attempt, with a jitter of a fifth."""
    max_backoff: float = 2.0
    """Maximum backoff in seconds."""
    multiplier: float = 2.0
    """Growth factor of the backoff."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("retry: max_attempts counts the first try, so it is 1 or more")
        if self.initial_backoff < 0 or self.max_backoff < 0 or self.multiplier < 1:
            raise ValueError("retry: a backoff is 0 or more seconds, its multiplier 1 or more")


_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")


def targets(address: str | Sequence[str], *, one_name: bool = True) -> tuple[str, ...]:
    """Convert the configured addresses to gRPC targets.

    A single address is one target: `dns:///otpd:50051`, whose name may resolve to any
    number of replicas; `otpd:50051` is the same. In a list, the IP addresses of one version
    become one target if `one_name` is set; each host name is a target.
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
    """Return whether the target is on this machine."""
    scheme, _, rest = target.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return True
    if scheme in {"ipv4", "ipv6"}:
        return all(_host_is_loopback(_split(one)[0]) for one in rest.split(","))
    # With an authority, the name server of that authority decides the address.
    name = rest.removeprefix("///")
    return scheme == "dns" and not name.startswith("/") and _host_is_loopback(_split(name)[0])


def _host_is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _ip_version(host: str) -> int | None:
    """Return the version of an IP address; None: not an IP address."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def _split(address: str) -> tuple[str, str]:
    """Split into host and port; the port is empty if there is none."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") and rest[1:].isdecimal() else ""
    host, _, port = address.rpartition(":")
    return (host, port) if port.isdecimal() and ":" not in host else (address, "")
