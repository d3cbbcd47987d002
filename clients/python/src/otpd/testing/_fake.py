"""The fake, and clients that call it without a network."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import grpc

from otpd._failure import Failure
from otpd._wire import otp_pb2
from otpd.aio import AsyncClient
from otpd.client import Client
from otpd.testing import _reading
from otpd.testing._policy import Policy, milliseconds
from otpd.testing._rules import Rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message as Protobuf

    from otpd._messages import Method, Reply, Request
    from otpd.options import RetryPolicy
    from otpd.results import Channel
    from otpd.testing._receipts import ReceiptSigner

_STATUS_OF: Mapping[str, grpc.StatusCode] = {
    "RECIPIENT_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "PURPOSE_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "CODE_MALFORMED": grpc.StatusCode.INVALID_ARGUMENT,
    "REQUEST_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "CALLER_UNKNOWN": grpc.StatusCode.UNAUTHENTICATED,
    "PURPOSE_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "DESTINATION_BLOCKED": grpc.StatusCode.PERMISSION_DENIED,
    "RESET_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "NO_ROUTE": grpc.StatusCode.FAILED_PRECONDITION,
    "RESEND_TOO_SOON": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "SEND_LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "VERIFY_LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "VERIFY_DELAYED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "VERIFY_LOCKED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "STORE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "OVERLOADED": grpc.StatusCode.UNAVAILABLE,
    "SHUTTING_DOWN": grpc.StatusCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}
# Failures of the network, without a reason.
_STATUSES: Mapping[str, grpc.StatusCode] = {"UNAVAILABLE": grpc.StatusCode.UNAVAILABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Message that otpd would have sent."""

    recipient: str
    """In canonical form."""
    purpose: str
    code: str
    channel: Channel
    challenge_id: str
    resent: bool
    """True if it has the same code as the previous message."""
    locale: str
    variables: Mapping[str, str]


@dataclass(slots=True)
class _Planned:
    """Planned failure."""

    reason: str
    retry_after: float | None
    after: bool


class FakeOtpd:
    """otpd without authentication, as in development. Its clock moves only by `advance`."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        variables: Iterable[str] = (),
        now: datetime | None = None,
        receipts: ReceiptSigner | None = None,
    ) -> None:
        """Start empty, at the time `now`. `variables` are those that the texts declare.

        `receipts` issues receipts; without it, requests for them are refused.
        """
        self.messages: list[Message] = []
        """Sent messages, oldest first."""
        self._rules = Rules(policy or Policy(), frozenset(variables))
        self._now = now or datetime.now(timezone.utc)
        self._receipts = receipts
        self._planned: list[_Planned] = []
        self._lock = threading.RLock()

    def client(self, *, timeout: float = 5.0, retry: RetryPolicy | None = None) -> Client:
        """Create a client of this fake. A wait for a retry advances the fake's clock."""
        return Client._over(_Transport(self), timeout, retry)

    def async_client(
        self, *, timeout: float = 5.0, retry: RetryPolicy | None = None
    ) -> AsyncClient:
        """Create a client for asyncio, like `client`."""
        return AsyncClient._over(_AsyncTransport(self), timeout, retry)

    @property
    def now(self) -> datetime:
        """Return the time of the fake."""
        return self._now

    def advance(self, by: timedelta | None = None, **parts: float) -> None:
        """Advance the clock: `advance(timedelta(minutes=5))`, or `advance(minutes=5)`."""
        with self._lock:
            self._now += (by or timedelta()) + timedelta(**parts)

    def code(self, recipient: str, *, purpose: str = "", region: str = "") -> str:
        """Return the code that was last sent to a recipient, in any written form.

        Raises `LookupError` if there is none.
        """
        to = _reading.recipient(recipient, region)
        wanted = (to, purpose or "default")
        for message in reversed(self.messages):
            if (message.recipient, message.purpose) == wanted:
                return message.code
        raise LookupError(f"no code was sent to {to} for {wanted[1]!r}")

    def fail_next(
        self, reason: str, *, times: int = 1, retry_after: float | None = None, after: bool = False
    ) -> None:
        """Let the next attempts fail, retries included.

        `reason` is one of docs/errors.md, or UNAVAILABLE as if otpd was not reached. With
        `after` the request is executed, and its response is lost.
        """
        if reason not in _STATUS_OF and reason not in _STATUSES:
            raise ValueError(f"{reason!r} is none of {', '.join([*_STATUS_OF, *_STATUSES])}")
        self._planned += [_Planned(reason, retry_after, after) for _ in range(times)]

    def _attempt(self, request: Protobuf, timeout: float) -> Protobuf:
        """Execute an attempt."""
        with self._lock:
            planned = self._planned.pop(0) if self._planned else None
            if planned and not planned.after:
                raise self._failure(planned, timeout)
            reply = self._answer(request)
            if planned:
                raise self._failure(planned, timeout)
            return reply

    def _answer(self, request: Protobuf) -> Protobuf:
        now = milliseconds(self._now - datetime.fromtimestamp(0, tz=timezone.utc))
        if isinstance(request, otp_pb2.SendOtpRequest):
            reply, challenge = self._rules.send(request, now)
            if challenge is not None:
                message = Message(
                    recipient=reply.recipient,
                    purpose=request.purpose or "default",
                    code=challenge.code,
                    channel=challenge.sends[-1][1],
                    challenge_id=challenge.id,
                    resent=reply.resent,
                    locale=request.locale,
                    variables=MappingProxyType(dict(request.variables)),
                )
                self.messages.append(message)
            return reply
        if isinstance(request, otp_pb2.VerifyOtpRequest):
            return self._verify(request, now)
        if isinstance(request, otp_pb2.CancelOtpRequest):
            return self._rules.cancel(request, now)
        return self._rules.status(cast("otp_pb2.GetOtpStatusRequest", request), now)

    def _verify(self, request: otp_pb2.VerifyOtpRequest, now: int) -> otp_pb2.VerifyOtpResponse:
        if not request.HasField("receipt"):
            return self._rules.verify(request, now)
        if self._receipts is None:
            raise _reading.invalid("receipt.audience", "no audience of this caller")
        self._receipts._check(request.receipt)
        reply = otp_pb2.VerifyOtpResponse()
        reply.CopyFrom(self._rules.verify(request, now))
        if reply.verified:
            key = (reply.recipient, request.purpose or "default")
            sends = self._rules.records[key].challenge.sends
            channels = [channel for _, channel in sends]
            reply.receipt = self._receipts._issue(request, reply, channels, now)
        return reply

    def _failure(self, planned: _Planned, timeout: float) -> Failure:
        code = _STATUS_OF.get(planned.reason)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.advance(seconds=timeout)
        message = f"planned failure of the fake: {planned.reason}"
        if code is not None:
            return Failure(
                code,
                message,
                reason=planned.reason,
                retry_after=planned.retry_after,
                pushback=planned.retry_after,
            )
        return Failure(_STATUSES[planned.reason], message)


class _Carrier:
    """Base of both transports."""

    targets = 1

    def __init__(self, fake: FakeOtpd) -> None:
        self._fake = fake

    def now(self) -> float:
        return self._fake.now.timestamp()

    def turn(self) -> int:
        return 0


class _Transport(_Carrier):
    def sleep(self, seconds: float) -> None:
        self._fake.advance(seconds=seconds)

    def attempt(
        self,
        method: Method[Request, Reply],  # noqa: ARG002 - known from the request
        request: Request,
        timeout: float,
        turn: int,  # noqa: ARG002
    ) -> Reply:
        return cast("Reply", self._fake._attempt(request, timeout))

    def close(self) -> None:
        """Do nothing."""


class _AsyncTransport(_Carrier):
    async def sleep(self, seconds: float) -> None:
        self._fake.advance(seconds=seconds)

    async def attempt(
        self,
        method: Method[Request, Reply],  # noqa: ARG002
        request: Request,
        timeout: float,
        turn: int,  # noqa: ARG002
    ) -> Reply:
        return cast("Reply", self._fake._attempt(request, timeout))

    async def close(self) -> None:
        """Do nothing."""
