"""Synchronous client, safe to share between threads."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from otpd import _failure, _messages
from otpd._attempts import Attempts
from otpd._channels import Connection, Metadata, Token
from otpd._failure import Failure
from otpd.options import RetryPolicy, Tls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from otpd._messages import Method, Reply, Request
    from otpd.options import ReceiptRequest
    from otpd.results import Cancellation, Channel, Sent, Status, Verification


class Transport(Protocol):
    """Carries single attempts: the network, or a fake."""

    targets: int
    """Number of targets that calls are distributed over."""

    def now(self) -> float:
        """Return the seconds since an arbitrary moment."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def turn(self) -> int:
        """Return the number of the call, which selects its first target."""

    def attempt(
        self, method: Method[Request, Reply], request: Request, timeout: float, turn: int
    ) -> Reply:
        """Make one attempt; raises `Failure`."""

    def close(self) -> None:
        """Close all connections."""


class Client:
    """Client of otpd; threads may share it. Use one for all calls of a process.

    `address` is `dns:///NAME:PORT`, whose name may resolve to any number of replicas, or a
    list of addresses; calls are distributed over all replicas that serve. `timeout` is the
    deadline of a call with its retries, in seconds. Without TLS, `token` is sent only to
    loopback, unless `allow_plaintext_token` is set. `metadata` is called for each attempt and
    returns its additional metadata, such as the `traceparent` of a trace. The client connects
    at the first call, so a client that was made before a fork works after it.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        tls: Tls | None = None,
        token: Token | None = None,
        allow_plaintext_token: bool = False,
        timeout: float = 5.0,
        retry: RetryPolicy | None = None,
        keepalive: float = 30.0,
        metadata: Metadata | None = None,
    ) -> None:
        connection = Connection.of(
            address,
            tls=tls,
            token=token,
            allow_plaintext_token=allow_plaintext_token,
            keepalive=keepalive,
            metadata=metadata,
        )
        self._set_up(_Network(connection), timeout, retry)

    @classmethod
    def _over(cls, transport: Transport, timeout: float, retry: RetryPolicy | None) -> Self:
        """Make a client that uses another transport than the network."""
        client = cls.__new__(cls)
        client._set_up(transport, timeout, retry)
        return client

    def _set_up(self, transport: Transport, timeout: float, retry: RetryPolicy | None) -> None:
        self._transport = transport
        self._timeout = timeout
        self._retry = retry or RetryPolicy()

    def send(
        self,
        recipient: str,
        *,
        purpose: str = "",
        channel: Channel | None = None,
        locale: str = "",
        region: str = "",
        client_ip: str = "",
        variables: Mapping[str, str] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Send a code to a phone number in any common written form, or to an e-mail address.

        `client_ip` is the IP address of the end user, for rate limits. `request_id` is the
        idempotency key: give the same one to repeat a call. If it is missing, each call
        generates its own and keeps it for its retries. Raises an `OtpError`.
        """
        request = _messages.send_request(
            recipient,
            purpose=purpose,
            channel=channel,
            locale=locale,
            region=region,
            client_ip=client_ip,
            variables=variables,
            request_id=request_id,
        )
        reply = self._call(_messages.SEND, request, request.request_id, timeout)
        return _messages.sent(reply, request.request_id)

    def verify(
        self,
        recipient: str,
        code: str,
        *,
        purpose: str = "",
        challenge_id: str = "",
        region: str = "",
        client_ip: str = "",
        receipt: ReceiptRequest | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Verification:
        """Verify a code as the user entered it. A wrong code is a result, not an exception.

        With `challenge_id` the code must belong to that challenge. With `receipt` the result has a
        receipt for another service. Raises an `OtpError`.
        """
        request = _messages.verify_request(
            recipient,
            code,
            purpose=purpose,
            challenge_id=challenge_id,
            region=region,
            client_ip=client_ip,
            receipt=receipt,
            request_id=request_id,
        )
        reply = self._call(_messages.VERIFY, request, request.request_id, timeout)
        return _messages.verification(reply, request.request_id)

    def cancel(
        self,
        recipient: str = "",
        *,
        purpose: str = "",
        region: str = "",
        challenge_id: str = "",
        reset_failures: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Cancellation:
        """Cancel the live code of a recipient or of a challenge. Raises an `OtpError`.

        `reset_failures` requires the caller's permission may_reset_failures.
        """
        request = _messages.cancel_request(
            recipient,
            purpose=purpose,
            region=region,
            challenge_id=challenge_id,
            reset_failures=reset_failures,
            request_id=request_id,
        )
        reply = self._call(_messages.CANCEL, request, request.request_id, timeout)
        return _messages.cancellation(reply, request.request_id)

    def status(
        self,
        recipient: str = "",
        *,
        purpose: str = "",
        region: str = "",
        challenge_id: str = "",
        timeout: float | None = None,
    ) -> Status:
        """Return the state of a code; does not count as an attempt. Raises an `OtpError`."""
        request = _messages.status_request(
            recipient, purpose=purpose, region=region, challenge_id=challenge_id
        )
        return _messages.status(self._call(_messages.STATUS, request, "", timeout))

    def close(self) -> None:
        """Close all connections. A later call opens them again."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
        self,
        method: Method[Request, Reply],
        request: Request,
        request_id: str,
        timeout: float | None,
    ) -> Reply:
        transport = self._transport
        attempts = Attempts(
            self._retry,
            now=transport.now(),
            timeout=self._timeout if timeout is None else timeout,
            targets=transport.targets,
            turn=transport.turn(),
            request_id=request_id,
        )
        while True:
            left = attempts.begin(transport.now())
            try:
                return transport.attempt(method, request, left, attempts.turn)
            except Failure as failure:
                pause = attempts.pause_after(failure, transport.now())
            transport.sleep(pause)


class _Network:
    """One channel per target; gRPC itself handles forks."""

    def __init__(self, connection: Connection) -> None:
        self.targets = len(connection.targets)
        self._connection = connection
        self._turns = itertools.count()
        self._lock = threading.Lock()
        self._channels: list[grpc.Channel] = []

    def turn(self) -> int:
        return next(self._turns)

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def attempt(
        self, method: Method[Request, Reply], request: Request, timeout: float, turn: int
    ) -> Reply:
        channel = self._open()[turn % self.targets]
        call = channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.reply.FromString,
        )
        try:
            reply: Reply = call(request, timeout=timeout, metadata=self._connection.call_metadata())
        except grpc.RpcError as error:
            raise _read(error) from error
        return reply

    def close(self) -> None:
        with self._lock:
            channels, self._channels = self._channels, []
        for channel in channels:
            channel.close()

    def _open(self) -> list[grpc.Channel]:
        with self._lock:
            if not self._channels:
                self._channels = [self._channel(one) for one in self._connection.targets]
            return self._channels

    def _channel(self, target: str) -> grpc.Channel:
        credentials = self._connection.credentials()
        options = self._connection.options(target)
        if credentials is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, credentials, options)


def _read(error: Any) -> Failure:  # noqa: ANN401 - the error of gRPC is also a call
    trailers = [(key, value) for key, value in error.trailing_metadata() or ()]
    return _failure.read(error.code(), error.details(), trailers)
