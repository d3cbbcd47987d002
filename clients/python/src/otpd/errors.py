"""Exceptions of calls. A wrong code is a result, not an exception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otpd._failure import Failure


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """Invalid field of a request."""

    field: str
    """Name in the contract."""
    description: str
    """Problem and remedy."""


class OtpError(Exception):
    """Failed call; the base of all exceptions that otpd's clients raise."""

    status: str
    """Name of the gRPC status, such as "RESOURCE_EXHAUSTED"."""
    reason: str
    """Reason of docs/errors.md, such as "SEND_LIMIT"; empty if otpd gave none, for example
    because it was not reached."""
    message: str
    """Message of otpd. It may reveal how limits are configured: for logs, not for end users."""
    retry_after: float | None
    """Seconds until the call may be repeated, if otpd gave them."""
    field_violations: tuple[FieldViolation, ...]
    """Invalid fields of the request."""
    metadata: Mapping[str, str]
    """Metadata of the reason, such as the name of a limit."""
    request_id: str
    """Idempotency key of the call; give it again to repeat the call."""
    attempts: int
    """Number of attempts that were made."""

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
    """The request is invalid; `field_violations` name the field and the remedy."""


class RecipientInvalid(InvalidRequest):
    """Neither a possible phone number nor an e-mail address: ask the user again."""


class CodeMalformed(InvalidRequest):
    """Not digits, or another number of digits than the code has. Does not count as an attempt:
    ask the user again.
    """


class CallerUnknown(OtpError):
    """otpd does not know this caller: no caller has this token or certificate."""


class NotAllowed(OtpError):
    """This caller has no permission; `reason` names the missing one: the purpose, the
    destination or the reset of failures.
    """


class NoRoute(OtpError):
    """No provider is configured for this channel and destination."""


class RateLimited(OtpError):
    """Rate limit or lockout; wait for `retry_after`. The base of the five below."""


class ResendTooSoon(RateLimited):
    """A code was sent a moment ago; the metadata have its `challenge_id` and `expires_at`."""


class SendLimit(RateLimited):
    """A rate limit on sends is exceeded; the metadata's `limit` names it."""


class VerifyLimit(RateLimited):
    """Too many failed attempts from this client's address."""


class VerifyDelayed(RateLimited):
    """Too many failed attempts in a row: the next attempt must wait."""


class VerifyLocked(RateLimited):
    """Locked out after failed attempts in a row, until they are reset or expire."""


class Unavailable(OtpError):
    """otpd or its store was not reached. The outcome is unknown: the request may have been
    executed. Repeat it with the same `request_id`.
    """


class DeadlineExceeded(OtpError):
    """The deadline passed. The outcome is unknown, as for `Unavailable`."""


class InternalError(OtpError):
    """A fault of otpd, or of a proxy on the way."""
