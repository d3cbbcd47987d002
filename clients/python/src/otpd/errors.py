"""What a call fails with. A wrong code is no failure, but a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpd._failure import Failure


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that is not as it must be."""

    field: str
    """Its name in the contract."""
    description: str
    """What is wrong with it, and what to do."""


class OtpError(Exception):
    """A call that got no reply; the base of all that otpd's clients raise."""

    status: str
    """The name of the gRPC status, such as "RESOURCE_EXHAUSTED"."""
    reason: str
    """The reason of docs/errors.md, such as "SEND_LIMIT"; empty where otpd gave none, as
    where it was not reached."""
    message: str
    """What otpd said. It may tell how limits are configured: for logs, not for end users."""
    retry_after: float | None
    """In how many seconds to try again, where otpd said so."""
    field_violations: tuple[FieldViolation, ...]
    """Which fields of the request are at fault."""
    metadata: Mapping[str, str]
    """What else the reason brings, such as the name of a limit."""
    request_id: str
    """The id that the call was made with: whoever makes it again gives the same."""
    attempts: int
    """How often it was tried."""

    def __init__(self, failure: Failure, request_id: str = "", attempts: int = 1) -> None:
        super().__init__(failure.message)
        self.status = failure.code.name
        self.reason = failure.reason
        self.message = failure.message
        self.retry_after = failure.retry_after
        self.field_violations = failure.field_violations
        self.metadata = failure.metadata
        self.request_id = request_id
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.reason or self.status}: {self.message}"


class InvalidRequest(OtpError):
    """The request is not as it must be; `field_violations` name the field and the remedy."""


class RecipientInvalid(InvalidRequest):
    """No phone number that exists, nor an e-mail address: ask the person again."""


class CodeMalformed(InvalidRequest):
    """No digits, or not as many as the code has; costs no attempt: ask the person again."""


class CallerUnknown(OtpError):
    """otpd does not know this caller: its token or its certificate is nobody's."""


class NotAllowed(OtpError):
    """This caller may not do this; `reason` tells what: the purpose, the destination, the
    reset of failures.
    """


class NoRoute(OtpError):
    """No provider is configured for this channel and destination."""


class RateLimited(OtpError):
    """Too often; `retry_after` says when again. The base of the five below."""


class ResendTooSoon(RateLimited):
    """A code was sent a moment ago; the metadata name its `challenge_id` and `expires_at`."""


class SendLimit(RateLimited):
    """A limit on sends is reached; the metadata's `limit` names it."""


class VerifyLimit(RateLimited):
    """Too many wrong answers from this client's address."""


class VerifyDelayed(RateLimited):
    """Too many wrong answers in a row: the next one has to wait."""


class VerifyLocked(RateLimited):
    """Far too many wrong answers in a row: shut until they are reset, or forgotten."""


class Unavailable(OtpError):
    """otpd, or its store, was not reached. What was asked may have been done all the same:
    ask again with the same `request_id`.
    """


class DeadlineExceeded(OtpError):
    """Time ran out. What was asked may have been done all the same, as for `Unavailable`."""


class InternalError(OtpError):
    """A fault of otpd, or of what lies between."""
