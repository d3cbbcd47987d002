"""Failed attempts, read from a gRPC status, and their conversion to exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from otpd import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOMAIN = "otp.v1"
"""Domain of otpd's reasons. Those of others, such as a proxy, are ignored."""

_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"

_BY_REASON: dict[str, type[errors.OtpError]] = {
    "RECIPIENT_INVALID": errors.RecipientInvalid,
    "CODE_MALFORMED": errors.CodeMalformed,
    "RESEND_TOO_SOON": errors.ResendTooSoon,
    "SEND_LIMIT": errors.SendLimit,
    "VERIFY_LIMIT": errors.VerifyLimit,
    "VERIFY_DELAYED": errors.VerifyDelayed,
    "VERIFY_LOCKED": errors.VerifyLocked,
}
# For reasons of later versions, and for errors without a reason of otpd.
_BY_CODE: dict[grpc.StatusCode, type[errors.OtpError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: errors.CallerUnknown,
    grpc.StatusCode.PERMISSION_DENIED: errors.NotAllowed,
    grpc.StatusCode.FAILED_PRECONDITION: errors.NoRoute,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.RateLimited,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}


@dataclass(slots=True)
class Failure(Exception):
    """Failed attempt."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    retry_after: float | None = None
    """Seconds until the next call is allowed, from RetryInfo."""
    pushback: float | None = None
    """Seconds until the next attempt, from the trailer; negative: no further attempt."""
    field_violations: tuple[errors.FieldViolation, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def error(self, request_id: str, attempts: int) -> errors.OtpError:
        """Convert it to the exception for the application."""
        kind = _BY_REASON.get(self.reason) or _BY_CODE.get(self.code) or errors.InternalError
        return kind(self, request_id, attempts)


def read(
    code: grpc.StatusCode,
    message: str | None,
    trailers: Iterable[tuple[str, str | bytes]] | None,
) -> Failure:
    """Read a status with its trailers."""
    failure = Failure(code, message or "")
    for key, value in trailers or ():
        if key == _PUSHBACK:
            failure.pushback = _pushback(value)
        elif key == _DETAILS and isinstance(value, bytes):
            _read_details(failure, value)
    return failure


def _pushback(value: str | bytes) -> float:
    """Read the trailer. A value that is not a number forbids another attempt (gRFC A6)."""
    try:
        return int(value) / 1000
    except ValueError:
        return -1.0


def _read_details(failure: Failure, details: bytes) -> None:
    status = status_pb2.Status()
    if not _parse(status, details):
        return
    retry_after: float | None = None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        request = error_details_pb2.BadRequest()
        if _unpack(detail, info) and info.domain == DOMAIN:
            failure.reason = info.reason
            failure.metadata = MappingProxyType(dict(info.metadata))
        elif _unpack(detail, retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        elif _unpack(detail, request):
            failure.field_violations = tuple(
                errors.FieldViolation(violation.field, violation.description)
                for violation in request.field_violations
            )
    failure.retry_after = retry_after


def _unpack(detail: Any, message: Message) -> bool:  # noqa: ANN401 - an Any of protobuf
    return bool(detail.Is(message.DESCRIPTOR)) and _parse(message, detail.value)


def _parse(message: Message, serialized: bytes) -> bool:
    """Parse a message; False if it is invalid, because a proxy may send anything."""
    try:
        message.ParseFromString(serialized)
    except DecodeError:
        return False
    return True
