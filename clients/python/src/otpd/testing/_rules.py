"""The rules of otpd, as described in README.md and docs/errors.md, in memory.

Time is in milliseconds. A refusal is a `Failure`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

import grpc

from otpd._failure import Failure
from otpd._messages import number_of
from otpd._wire import otp_pb2
from otpd.testing import _reading
from otpd.testing._policy import (
    DAY,
    EXPIRED_TOLD_FOR,
    HOUR,
    MAX_FAILURE_DELAY,
    Limit,
    Policy,
    longest_wait,
    milliseconds,
    take_all,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from otpd.results import Channel

Reply = TypeVar("Reply", bound="Message")

LIVE, SPENT, CANCELLED = "live", "spent", "cancelled"


@dataclass(slots=True)
class Challenge:
    """One code, from its first send to its end."""

    id: str
    code: str
    expires_at: int
    attempts: int = 0
    state: str = LIVE
    sends: list[tuple[int, Channel]] = field(default_factory=list)


@dataclass(slots=True)
class Answer:
    """Recorded outcome of a request, with the end of its retention."""

    fields: tuple[str, ...]
    reply: Message
    until: int


@dataclass(slots=True)
class Record:
    """State of a recipient and a purpose."""

    recipient: str
    challenge: Challenge
    limits: list[Limit]
    sent_at: int = 0
    failures: int = 0
    failed_at: int = 0
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)


@dataclass(slots=True)
class Block:
    """Lockout or delay after failed attempts."""

    until: int
    locked: bool


class Rules:
    """All records, and the operations on them."""

    def __init__(self, policy: Policy, variables: frozenset[str]) -> None:
        self.policy = policy
        self.variables = variables
        self.records: dict[tuple[str, str], Record] = {}
        self._client_limits: dict[tuple[str, str], Limit] = {}
        self._secret = secrets.token_bytes(16)

    def send(
        self, request: otp_pb2.SendOtpRequest, now: int
    ) -> tuple[otp_pb2.SendOtpResponse, Challenge | None]:
        """Send the live code again, or a new one. A replayed outcome has no challenge."""
        policy = self.policy
        to = _reading.recipient(request.recipient, request.region)
        purpose = _reading.purpose(request.purpose)
        channel = _reading.channel(request, to)
        locale = _reading.locale(request.locale)
        variables = _reading.variables(dict(request.variables))
        network = _reading.network(request.client_ip)
        request_id = _reading.visible("request_id", request.request_id, 128)
        _reading.declared_only(variables, self.variables)
        values = [part for pair in sorted(variables.items()) for part in pair]
        fields = (to, purpose, channel.value, locale, *values)

        record = self.records.get((to, purpose))
        if record is not None:
            known = recall(record, otp_pb2.SendOtpResponse, request_id, fields, now)
            if known is not None:
                return known, None
            self._permit_send(record, now)
        own = self._own_limits() if record is None else record.limits
        by_client = [
            *self._client_limit("ip_sends_per_hour", policy.ip_sends_per_hour, network),
            *self._client_limit(
                "ip_site_sends_per_hour", policy.ip_site_sends_per_hour, _reading.site(network)
            ),
        ]
        permit(own, by_client, now)
        take_all(own + by_client, now)

        challenge = self._worth_repeating(record, now)
        resent = challenge is not None
        if challenge is None:
            challenge = self._new_challenge(to, purpose, now)
        challenge.sends.append((now, channel))
        if record is None:
            record = self.records[to, purpose] = Record(to, challenge, own)
        record.challenge, record.sent_at = challenge, now
        reply = otp_pb2.SendOtpResponse(
            challenge_id=challenge.id,
            recipient=to,
            channel=number_of(channel),
            resent=resent,
            code_length=len(challenge.code),
        )
        reply.expires_at.FromMilliseconds(challenge.expires_at)
        reply.resend_at.FromMilliseconds(self._resend_at(record))
        self._remember(record, request_id, fields, reply, now)
        return reply, challenge

    def verify(self, request: otp_pb2.VerifyOtpRequest, now: int) -> otp_pb2.VerifyOtpResponse:
        """Verify a submitted code."""
        policy = self.policy
        to = _reading.recipient(request.recipient, request.region)
        purpose = _reading.purpose(request.purpose)
        typed = _reading.code(request.code)
        wanted = _reading.visible("challenge_id", request.challenge_id, 256)
        network = _reading.network(request.client_ip)
        request_id = _reading.visible("request_id", request.request_id, 128)
        if policy.require_challenge_id and not wanted:
            raise _reading.invalid("challenge_id", "required for this purpose")
        receipt = request.receipt.SerializeToString().hex() if request.HasField("receipt") else ""
        fields = (to, purpose, typed, wanted, receipt)

        record = self.records.get((to, purpose))
        not_found = otp_pb2.VerifyOtpResponse(
            recipient=to, outcome=otp_pb2.VERIFY_OUTCOME_NOT_FOUND
        )
        if record is None:
            return not_found
        known = recall(record, otp_pb2.VerifyOtpResponse, request_id, fields, now)
        if known is not None:
            return known
        if block := self._block(record, now):
            raise refused(block, now)
        if record.challenge.state != LIVE or wanted not in {"", record.challenge.id}:
            return not_found
        outcome = self._end_of(record.challenge, now)
        if outcome == otp_pb2.VERIFY_OUTCOME_NOT_FOUND:
            return not_found
        reply = otp_pb2.VerifyOtpResponse(
            recipient=to, challenge_id=record.challenge.id, outcome=outcome
        )
        if outcome is None:
            self._judge(record, typed, network, reply, now)
            self._remember(record, request_id, fields, reply, now)
        return reply

    def _end_of(self, challenge: Challenge, now: int) -> otp_pb2.VerifyOutcome | None:
        """Return the outcome if a code cannot be verified; None: it can."""
        if now >= challenge.expires_at + EXPIRED_TOLD_FOR:
            return otp_pb2.VERIFY_OUTCOME_NOT_FOUND
        if now >= challenge.expires_at:
            return otp_pb2.VERIFY_OUTCOME_EXPIRED
        if challenge.attempts >= self.policy.max_attempts:
            return otp_pb2.VERIFY_OUTCOME_ATTEMPTS_EXHAUSTED
        return None

    def _judge(
        self, record: Record, typed: str, network: str, reply: otp_pb2.VerifyOtpResponse, now: int
    ) -> None:
        policy, challenge = self.policy, record.challenge
        if len(typed) != len(challenge.code):
            raise _reading.malformed(f"this code has {len(challenge.code)} digits")
        limit = [
            *self._client_limit("ip_failures_per_hour", policy.ip_failures_per_hour, network),
            *self._client_limit(
                "ip_site_failures_per_hour",
                policy.ip_site_failures_per_hour,
                _reading.site(network),
            ),
        ]
        wait, name = longest_wait(limit, now)
        if wait:
            raise exhausted("VERIFY_LIMIT", f"the limit {name} is reached", wait, limit=name)
        challenge.attempts += 1
        if typed == challenge.code:
            challenge.state = SPENT
            record.failures = 0
            reply.verified = True
            reply.outcome = otp_pb2.VERIFY_OUTCOME_VERIFIED
            reply.verified_at.FromMilliseconds(now)
        else:
            record.failures = self._failures(record, now) + 1
            record.failed_at = now
            take_all(limit, now)
            reply.outcome = otp_pb2.VERIFY_OUTCOME_WRONG_CODE
            reply.attempts_remaining = policy.max_attempts - challenge.attempts

    def cancel(self, request: otp_pb2.CancelOtpRequest, now: int) -> otp_pb2.CancelOtpResponse:
        """Cancel a live code, and reset failed attempts if requested."""
        record, to = self._subject(request)
        purpose = _reading.purpose(request.purpose)
        request_id = _reading.visible("request_id", request.request_id, 128)
        reply = otp_pb2.CancelOtpResponse()
        if record is None:
            return reply
        fields = (to, purpose, request.challenge_id, str(request.reset_failures))
        known = recall(record, otp_pb2.CancelOtpResponse, request_id, fields, now)
        if known is not None:
            return known
        if request.challenge_id in {"", record.challenge.id}:
            if self._is_live(record.challenge, now):
                record.challenge.state = CANCELLED
                reply.cancelled = True
            if request.reset_failures and self._failures(record, now):
                record.failures = 0
                reply.failures_reset = True
        if reply.cancelled or reply.failures_reset:
            self._remember(record, request_id, fields, reply, now)
        return reply

    def status(
        self, request: otp_pb2.GetOtpStatusRequest, now: int
    ) -> otp_pb2.GetOtpStatusResponse:
        """Return the status of a code."""
        record, to = self._subject(request)
        _reading.purpose(request.purpose)
        reply = otp_pb2.GetOtpStatusResponse(recipient=to)
        if record is None or request.challenge_id not in {"", record.challenge.id}:
            return reply
        challenge = record.challenge
        if self._is_live(challenge, now):
            reply.live = True
            reply.challenge_id = challenge.id
            reply.recipient = record.recipient
            reply.expires_at.FromMilliseconds(challenge.expires_at)
            reply.attempts_remaining = self.policy.max_attempts - challenge.attempts
        if now < self._resend_at(record):
            reply.resend_at.FromMilliseconds(self._resend_at(record))
        if block := self._block(record, now):
            reply.blocked_until.FromMilliseconds(block.until)
        if now < challenge.expires_at + EXPIRED_TOLD_FOR:
            for at, channel in challenge.sends:
                delivery = reply.deliveries.add(
                    provider="log",
                    channel=number_of(channel),
                    state=otp_pb2.DELIVERY_STATE_SENT,
                    attempts=1,
                )
                delivery.created_at.FromMilliseconds(at)
                delivery.updated_at.FromMilliseconds(at)
        return reply

    def _subject(
        self, request: otp_pb2.CancelOtpRequest | otp_pb2.GetOtpStatusRequest
    ) -> tuple[Record | None, str]:
        """Return the record of a request, and the recipient if the request has one."""
        wanted = _reading.visible("challenge_id", request.challenge_id, 256)
        if wanted and not request.recipient:
            # The id of a challenge contains the key of its record.
            for (to, purpose), record in self.records.items():
                if wanted[:_KEY_LENGTH] == self._key(to, purpose):
                    return record, ""
            return None, ""
        to = _reading.recipient(request.recipient, request.region)
        purpose = _reading.purpose(request.purpose)
        return self.records.get((to, purpose)), to

    def _permit_send(self, record: Record, now: int) -> None:
        block = self._block(record, now)
        # A code that expires at the end of the delay is as useless as one that expires earlier.
        if block and now + milliseconds(self.policy.code_ttl) <= block.until:
            raise refused(block, now)
        wait = self._resend_at(record) - now
        if wait > 0:
            metadata = {}
            if self._is_live(record.challenge, now):
                expires_at = datetime.fromtimestamp(
                    record.challenge.expires_at / 1000, tz=timezone.utc
                ).isoformat(timespec="milliseconds")
                metadata = {
                    "challenge_id": record.challenge.id,
                    "expires_at": expires_at.replace("+00:00", "Z"),
                }
            raise exhausted("RESEND_TOO_SOON", "a code was sent a moment ago", wait, **metadata)

    def _worth_repeating(self, record: Record | None, now: int) -> Challenge | None:
        if record is None or not self._is_live(record.challenge, now):
            return None
        lasts = record.challenge.expires_at - now
        return record.challenge if lasts >= milliseconds(self.policy.resend_after) else None

    def _new_challenge(self, to: str, purpose: str, now: int) -> Challenge:
        length = self.policy.code_length
        return Challenge(
            id=self._key(to, purpose) + _base64(secrets.token_bytes(15)),
            code=f"{secrets.randbelow(10**length):0{length}}",
            expires_at=now + milliseconds(self.policy.code_ttl),
        )

    def _is_live(self, challenge: Challenge, now: int) -> bool:
        return (
            challenge.state == LIVE
            and now < challenge.expires_at
            and challenge.attempts < self.policy.max_attempts
        )

    def _resend_at(self, record: Record) -> int:
        """Return the time of the next allowed send; a success ends the cooldown."""
        spent = record.challenge.state == SPENT
        return record.sent_at + (0 if spent else milliseconds(self.policy.resend_after))

    def _failures(self, record: Record, now: int) -> int:
        forgotten = now >= record.failed_at + milliseconds(self.policy.failure_memory)
        return 0 if forgotten else record.failures

    def _block(self, record: Record, now: int) -> Block | None:
        policy = self.policy
        count = self._failures(record, now)
        locked = count >= policy.failure_limit
        if locked:
            until = record.failed_at + milliseconds(policy.failure_memory)
        elif count and count % policy.max_attempts == 0:
            factor = 2 ** (count // policy.max_attempts - 1)
            delay = min(milliseconds(policy.failure_delay) * factor, MAX_FAILURE_DELAY)
            until = record.failed_at + delay
        else:
            return None
        return Block(until, locked) if now < until else None

    def _remember(
        self, record: Record, request_id: str, fields: tuple[str, ...], reply: Message, now: int
    ) -> None:
        if request_id:
            until = now + milliseconds(self.policy.request_memory)
            record.answers[type(reply).__name__, request_id] = Answer(fields, reply, until)

    def _own_limits(self) -> list[Limit]:
        return [
            Limit("sends_per_hour", self.policy.sends_per_hour, HOUR),
            Limit("sends_per_day", self.policy.sends_per_day, DAY),
        ]

    def _client_limit(self, name: str, count: int, network: str) -> list[Limit]:
        if not network:
            return []
        return [self._client_limits.setdefault((name, network), Limit(name, count, HOUR))]

    def _key(self, to: str, purpose: str) -> str:
        fields = f"{purpose}:{to}".encode()
        return _base64(hashlib.blake2b(fields, key=self._secret, digest_size=33).digest())


_KEY_LENGTH = 44


def recall(
    record: Record, kind: type[Reply], request_id: str, fields: tuple[str, ...], now: int
) -> Reply | None:
    """Return the recorded outcome of a repeated request."""
    known = record.answers.get((kind.__name__, request_id))
    if known is None or now >= known.until:
        return None
    if known.fields != fields or not isinstance(known.reply, kind):
        raise _reading.invalid("request_id", "was used for a request with other fields")
    return known.reply


def permit(own: list[Limit], by_client: list[Limit], now: int) -> None:
    """Reject a send above a rate limit; a rejected request consumes no limit."""
    wait, name = longest_wait(own + by_client, now)
    if wait:
        raise exhausted("SEND_LIMIT", f"the limit {name} is reached", wait, limit=name)


def refused(block: Block, now: int) -> Failure:
    """Create the failure of a delayed or locked verification."""
    reason = "VERIFY_LOCKED" if block.locked else "VERIFY_DELAYED"
    return exhausted(reason, "too many wrong answers", block.until - now)


def exhausted(reason: str, message: str, wait: int, **metadata: str) -> Failure:
    """Create the failure of a request that came too soon."""
    return Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"{message}; again in {wait / 1000} s",
        reason=reason,
        retry_after=wait / 1000,
        pushback=wait / 1000,
        metadata=metadata,
    )


def _base64(some: bytes) -> str:
    return base64.urlsafe_b64encode(some).decode()
