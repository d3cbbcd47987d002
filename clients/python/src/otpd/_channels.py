"""How channels to otpd are set up: balancing, health, keepalive, credentials."""

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
"""A bearer token, or what tells the one that is valid now."""

Metadata = Callable[[], Mapping[str, str]]
"""Tells what an attempt carries beside; called for each."""

_SERVICE_CONFIG = json.dumps(
    {
        # Every replica answers for every other.
        "loadBalancingConfig": [{"round_robin": {}}],
        # A replica that stops, or whose store does not answer, is left out before a call
        # is lost to it.
        "healthCheckConfig": {"serviceName": _messages.SERVICE},
    }
)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where otpd is, and how it is reached."""

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
        """Put it together, unless it would show a token to the network."""
        # Each certificate has its own name or address, unless one name is given for all.
        reached = targets(address, one_name=tls is None or tls.server_name is not None)
        if token is not None and tls is None and not allow_plaintext_token:
            far = [target for target in reached if not is_loopback(target)]
            if far:
                raise ValueError(
                    f"token: it would go to {far[0]} in plain text; give tls=Tls(…), or"
                    " allow_plaintext_token=True where a mesh does the TLS"
                )
        return Connection(reached, tls, token, keepalive, metadata)

    def options(self, target: str) -> list[tuple[str, str | int]]:
        """The channel's arguments."""
        milliseconds = int(self.keepalive * 1000)
        return [
            ("grpc.service_config", _SERVICE_CONFIG),
            # Not what somebody's name server says.
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.primary_user_agent", f"otpd-python/{version('otpd')}"),
            ("grpc.keepalive_time_ms", milliseconds),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            # A replica that restarts is back in seconds; gRPC would look again after up to
            # two minutes, and try to connect for twenty seconds.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.min_reconnect_backoff_ms", 2_000),
            ("grpc.dns_min_time_between_resolutions_ms", 5_000),
            # Clients of one process do not share connections, nor the end of them.
            ("grpc.use_local_subchannel_pool", 1),
            # A proxy of the environment is not this machine.
            ("grpc.enable_http_proxy", 0 if is_loopback(target) else 1),
            *self._names(target),
        ]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The channel's credentials; None: plain text."""
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_content(self.tls.ca),
            private_key=_content(self.tls.key),
            certificate_chain=_content(self.tls.certificate),
        )

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """What proves to otpd, at each call, who calls; and what the caller adds."""
        added = tuple(self.metadata().items()) if self.metadata else ()
        if self.token is None:
            return added
        token = self.token if isinstance(self.token, str) else self.token()
        return (*added, ("authorization", f"Bearer {token}"))

    def _names(self, target: str) -> list[tuple[str, str | int]]:
        """What the server is called, where it is not by its address."""
        name = self.tls.server_name if self.tls else None
        names: list[tuple[str, str | int]] = []
        if name is not None:
            names.append(("grpc.ssl_target_name_override", name))
        if "," in target:
            # A list of addresses is no authority of HTTP/2.
            names.append(("grpc.default_authority", name or "otpd"))
        return names


def _content(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()
