"""What otpd replies, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class Channel(Enum):
    """The way by which a code travels to its recipient."""

    SMS = "sms"
    EMAIL = "email"
    VOICE = "voice"
    WHATSAPP = "whatsapp"
    TELEGRAM = "telegram"


class Outcome(Enum):
    """The verdict on a typed code."""

    VERIFIED = "verified"
    """Right, and now spent."""
    WRONG_CODE = "wrong_code"
    """Wrong; `attempts_remaining` says how many answers are left."""
    EXPIRED = "expired"
    """The code's life is over."""
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    """As many answers as a code allows were wrong; send a new one."""
    NOT_FOUND = "not_found"
    """There is no code to check: none was sent, or it was used, cancelled or forgotten."""
    UNKNOWN = "unknown"
    """A verdict of a later version; not VERIFIED."""


class DeliveryState(Enum):
    """How far a message has come."""

    QUEUED = "queued"
    """Waiting for a provider."""
    SENDING = "sending"
    """Being handed to a provider."""
    SENT = "sent"
    """Taken by a provider."""
    FAILED = "failed"
    """Not taken; `error` says why."""
    DROPPED = "dropped"
    """Not sent, because its code died first."""
    UNKNOWN = "unknown"
    """A state of a later version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A code is on its way."""

    challenge_id: str
    """Names the code; opaque and unguessable. A resend keeps it."""
    recipient: str = field(repr=False)
    """In canonical form: E.164, or the address in lower case."""
    channel: Channel | None
    """None: one of a later version."""
    expires_at: datetime
    """When the code dies."""
    resend_at: datetime
    """When `send` is allowed again."""
    resent: bool
    """Whether this is the same code again, its life and attempts unchanged."""
    code_length: int
    """How many digits the code has."""
    code: str | None = field(repr=False)
    """The code itself, only where this caller delivers by itself."""
    request_id: str
    """The id that the call was made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The verdict on a typed code. True in a condition for a verified one alone."""

    verified: bool
    outcome: Outcome
    attempts_remaining: int
    """How many more answers the live code allows; 0 where there is none."""
    challenge_id: str
    """The challenge that was judged; empty where there was none."""
    recipient: str = field(repr=False)
    """In canonical form."""
    verified_at: datetime | None
    """None unless verified."""
    request_id: str
    """The id that the call was made with."""

    def __bool__(self) -> bool:
        """Tell whether it is verified: else `if client.verify(…):` would let everybody in."""
        return self.verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """What was ended."""

    cancelled: bool
    """Whether there was a live code, which is now ended."""
    failures_reset: bool
    """Whether wrong answers were forgotten."""
    request_id: str
    """The id that the call was made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to hand a message to a provider; or a message that waits."""

    provider: str
    """Its configured name; "caller" where the caller delivers; empty before there was one."""
    channel: Channel | None
    """None: one of a later version."""
    state: DeliveryState
    created_at: datetime
    """When the attempt started; when a message that waits was asked for."""
    updated_at: datetime
    """When the attempt ended; when the state of a message that waits changed last."""
    attempts: int
    """Which attempt of its message it was, from 1; how many a message that waits had."""
    error: str
    """transient, timeout, permanent, bad_destination, no_balance or unknown_outcome; empty:
    none. After timeout and unknown_outcome the message may have arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is known of a recipient's code."""

    live: bool
    """Whether there is a code that could still verify."""
    challenge_id: str
    """The live code's; empty where there is none."""
    recipient: str = field(repr=False)
    """In canonical form; empty where only a challenge was named and no code lives."""
    expires_at: datetime | None
    """When the live code dies."""
    resend_at: datetime | None
    """When `send` is allowed again; None: now."""
    attempts_remaining: int
    """How many more answers the live code allows."""
    blocked_until: datetime | None
    """Until when answers are refused after too many wrong ones; None: they are not."""
    deliveries: tuple[Delivery, ...]
    """What became of the messages of the newest code, oldest first."""
