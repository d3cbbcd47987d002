"""Replies of otpd as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class Channel(Enum):
    """Means of delivery of a code."""

    SMS = "sms"
    EMAIL = "email"
    VOICE = "voice"
    WHATSAPP = "whatsapp"
    TELEGRAM = "telegram"


class Outcome(Enum):
    """Result of a verification."""

    VERIFIED = "verified"
    """The code was right. It cannot be used again."""
    WRONG_CODE = "wrong_code"
    """The code was wrong; `attempts_remaining` is the number of attempts left."""
    EXPIRED = "expired"
    """The code has expired."""
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    """All attempts that a code allows have failed; send a new code."""
    NOT_FOUND = "not_found"
    """There is no code to verify: none was sent, or it was used, cancelled or purged."""
    UNKNOWN = "unknown"
    """An outcome of a later version; not VERIFIED."""


class DeliveryState(Enum):
    """Progress of a message."""

    QUEUED = "queued"
    """Waiting to be handed to a provider."""
    SENDING = "sending"
    """Being handed to a provider."""
    SENT = "sent"
    """Accepted by a provider."""
    FAILED = "failed"
    """Not accepted, as far as is known; `error` has the reason."""
    DROPPED = "dropped"
    """Not sent, because the code became invalid first."""
    UNKNOWN = "unknown"
    """A state of a later version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Result of `send`."""

    challenge_id: str
    """Identifier of the code; opaque and unguessable. A resend keeps it."""
    recipient: str = field(repr=False)
    """Canonical form: E.164, or the address in lower case."""
    channel: Channel | None
    """None: a channel of a later version."""
    expires_at: datetime
    """Time at which the code expires."""
    resend_at: datetime
    """Time from which `send` is allowed again."""
    resent: bool
    """True if the same code was sent again; its expiry and attempts are then unchanged."""
    code_length: int
    """Number of digits of the code."""
    code: str | None = field(repr=False)
    """The code itself, only if this caller delivers codes itself."""
    request_id: str
    """Idempotency key of the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Result of `verify`. True in a condition only if the code was verified."""

    verified: bool
    outcome: Outcome
    attempts_remaining: int
    """Number of attempts that the live code still allows; 0 if there is no live code."""
    challenge_id: str
    """Challenge that was verified against; empty if there was none."""
    recipient: str = field(repr=False)
    """Recipient in canonical form."""
    verified_at: datetime | None
    """None unless verified."""
    request_id: str
    """Idempotency key of the call."""
    receipt: str | None = field(repr=False, default=None)
    """Receipt that was asked for, if there is one: pass it to its audience."""

    def __bool__(self) -> bool:
        """Return `verified`: otherwise `if client.verify(…):` would accept every code."""
        return self.verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Result of `cancel`."""

    cancelled: bool
    """True if there was a live code; it is now cancelled."""
    failures_reset: bool
    """True if failed attempts were reset."""
    request_id: str
    """Idempotency key of the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to hand a message to a provider, or a message that is waiting."""

    provider: str
    """Configured name; "caller" if the caller delivers; empty before the first attempt."""
    channel: Channel | None
    """None: a channel of a later version."""
    state: DeliveryState
    created_at: datetime
    """Start of the attempt; for a message that is waiting, the time of the request."""
    updated_at: datetime
    """End of the attempt; for a message that is waiting, its last change of state."""
    attempts: int
    """Number of the attempt, from 1; for a message that is waiting, the attempts so far."""
    error: str
    """transient, timeout, permanent, bad_destination, no_balance or unknown_outcome; empty if
    the attempt has not failed. After timeout and unknown_outcome the message may have arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Result of `status`: the state of a recipient's code and its deliveries."""

    live: bool
    """True if there is a code that can still be verified."""
    challenge_id: str
    """Challenge of the live code; empty if there is none."""
    recipient: str = field(repr=False)
    """Canonical form; empty if only a challenge was given and no code is live."""
    expires_at: datetime | None
    """Time at which the live code expires."""
    resend_at: datetime | None
    """Time from which `send` is allowed again; None: now."""
    attempts_remaining: int
    """Number of attempts that the live code still allows."""
    blocked_until: datetime | None
    """End of the lockout or delay after failed attempts; None: neither applies."""
    deliveries: tuple[Delivery, ...]
    """Deliveries of the newest code, oldest first."""
