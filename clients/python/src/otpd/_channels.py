"""Channels to otpd: load balancing, health checks, keepalive, credentials."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from otpd import _messages
from otpd.options import Pem, Tls, is_loopback, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

Token = str | Callable[[], str]
"""Bearer token, or a function that returns the current one."""

Metadata = Callable[[], Mapping[str, str]]
"""Function that returns additional metadata, called for each attempt."""

_SERVICE_CONFIG = json.dumps(
    {
        # All replicas are equal.
        "loadBalancingConfig": [{"round_robin": {}}],
        # No call goes to a replica that stops, or that cannot reach its store.
        "healthCheckConfig": {"serviceName": _messages.SERVICE},
    }
)


@dataclass(frozen=True, slots=True)
class Connection:
    """Targets and options of the connection to otpd."""

    targets: tuple[str, ...]
    tls: Tls | None
    token: Token | None
    keepalive: float
    metadata: Metadata | None = None

    @staticmethod
    def of(
        address: str | Sequence[str],
        *,
        tls: Tls | None,
        token: Token | None,
        allow_plaintext_token: bool,
        keepalive: float,
        metadata: Metadata | None = None,
    ) -> Connection:
        """Create the connection, unless a token would cross the network unencrypted."""
        # Each certificate has its own name or address, unless one name is set for all.
        reached = targets(address, one_name=tls is None or tls.server_name is not None)
        if token is not None and tls is None and not allow_plaintext_token:
            remote = [target for target in reached if not is_loopback(target)]
            if remote:
                raise ValueError(
                    f"token: would be sent unencrypted to {remote[0]}; set tls=Tls(…), or"
                    " allow_plaintext_token=True if a service mesh provides TLS"
                )
        return Connection(reached, tls, token, keepalive, metadata)

    def options(self, target: str) -> list[tuple[str, str | int]]:
        """Return the channel options."""
        milliseconds = int(self.keepalive * 1000)
        return [
            ("grpc.service_config", _SERVICE_CONFIG),
            # Not from a name server, which may not be trusted.
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.primary_user_agent", f"otpd-python/{version('otpd')}"),
            ("grpc.keepalive_time_ms", milliseconds),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            # A replica restarts within seconds. By default gRPC would reconnect after up to
            # two minutes, with a connection timeout of twenty seconds.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.min_reconnect_backoff_ms", 2_000),
            ("grpc.dns_min_time_between_resolutions_ms", 5_000),
            # Clients of one process do not share connections, nor their failures.
            ("grpc.use_local_subchannel_pool", 1),
            # A proxy from the environment cannot reach this machine's loopback.
            ("grpc.enable_http_proxy", 0 if is_loopback(target) else 1),
            *self._names(target),
        ]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the channel credentials; None: plaintext."""
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_content(self.tls.ca),
            private_key=_content(self.tls.key),
            certificate_chain=_content(self.tls.certificate),
        )

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of an attempt: the token, and those that the caller adds."""
        added = tuple(self.metadata().items()) if self.metadata else ()
        if self.token is None:
            return added
        token = self.token if isinstance(self.token, str) else self.token()
        return (*added, ("authorization", f"Bearer {token}"))

    def _names(self, target: str) -> list[tuple[str, str | int]]:
        """Return the options with the server's name, if it differs from the address."""
        name = self.tls.server_name if self.tls else None
        names: list[tuple[str, str | int]] = []
        if name is not None:
            names.append(("grpc.ssl_target_name_override", name))
        if "," in target:
            # A list of addresses is not a valid authority in HTTP/2.
            names.append(("grpc.default_authority", name or "otpd"))
        return names


def _content(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()
