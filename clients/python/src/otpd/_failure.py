"""A call that failed, before it is an exception: read from a gRPC status."""

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
"""Whose reasons these are. Others, such as a proxy's, are not looked at."""

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
# What a later version's reason is, and what comes from others than otpd.
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
    """What a failed attempt told."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    retry_after: float | None = None
    """In how many seconds to come back, by RetryInfo."""
    pushback: float | None = None
    """In how many seconds to try again, by the trailer; below 0: not at all."""
    field_violations: tuple[errors.FieldViolation, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def error(self, request_id: str, attempts: int) -> errors.OtpError:
        """Make the exception that callers see."""
        kind = _BY_REASON.get(self.reason) or _BY_CODE.get(self.code) or errors.InternalError
        return kind(self, request_id, attempts)


def read(
    code: grpc.StatusCode,
    message: str | None,
    trailers: Iterable[tuple[str, str | bytes]] | None,
) -> Failure:
    """Read a status with the trailers that came along."""
    failure = Failure(code, message or "")
    for key, value in trailers or ():
        if key == _PUSHBACK:
            failure.pushback = _pushback(value)
        elif key == _DETAILS and isinstance(value, bytes):
            _read_details(failure, value)
    return failure


def _pushback(value: str | bytes) -> float:
    """Read the trailer; what is no number forbids another try (gRFC A6)."""
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
    """Tell whether it could be read: a proxy may send anything."""
    try:
        message.ParseFromString(serialized)
    except DecodeError:
        return False
    return True
