"""The fake answers every sequence of calls as the real server does.

Both get the same calls at the same time, and the results are compared. Time moves by whole
seconds, and by the little that the calls themselves take: so nothing is decided on the very
instant where one rule ends and another begins.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import otpd
from otpd import Channel, Client, Outcome
from otpd.testing import FakeOtpd, Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.database import Database
    from support.replica import Replica

SEED = 20261124
STEPS = 1_500
POLICY = Policy(
    max_attempts=3,
    failure_delay=timedelta(seconds=2),
    failure_limit=9,
    failure_memory=timedelta(hours=1),
    sends_per_hour=5,
    sends_per_day=60,
    ip_sends_per_hour=12,
    ip_failures_per_hour=6,
)
ENVIRONMENT = {
    "OTPD_POLICY__MAX_ATTEMPTS": "3",
    "OTPD_POLICY__FAILURE_DELAY": "2s",
    "OTPD_POLICY__FAILURE_LIMIT": "9",
    "OTPD_POLICY__FAILURE_MEMORY": "1h",
    "OTPD_POLICY__SENDS_PER_HOUR": "5",
    "OTPD_POLICY__SENDS_PER_DAY": "60",
    "OTPD_POLICY__IP_SENDS_PER_HOUR": "12",
    "OTPD_POLICY__IP_FAILURES_PER_HOUR": "6",
    # A purged record has the same results as an expired one, so no test waits for the purge.
    "OTPD_STORE__PURGE_INTERVAL": "1h",
}
RECIPIENTS = ["+79991234567"] * 4 + ["8 999 123-45-67"] * 4 + ["Ann@EXAMPLE.com", "nobody"]
PURPOSES = ["", "default", "", "default", "login"]
ADDRESSES = ["", "203.0.113.7", "2001:db8::1", "2001:db8::2"]
PAUSES = [1, 2, 4, 8, 29, 30, 31, 59, 60, 61] * 3 + [180, 240, 299, 300, 301, 720, 3_600, 18_000]
TOLERANCE = 1.0
"""Seconds, more than the duration of a call."""


@dataclass
class Side:
    """The fake or the server, with the messages that it sent."""

    client: Client
    code: Callable[[otpd.Sent], str]
    codes: dict[tuple[str, str], str]
    challenges: list[str]

    def send(self, arguments: dict[str, Any]) -> otpd.Sent:
        sent = self.client.send(**arguments)
        self.codes[sent.recipient, arguments["purpose"] or "default"] = self.code(sent)
        if sent.challenge_id not in self.challenges:
            self.challenges.append(sent.challenge_id)
        return sent

    def challenge(self, number: int) -> str:
        if number < 0 or not self.challenges:
            return ["", "no-such-challenge"][number % 2]
        return self.challenges[-1 - number % len(self.challenges)]

    def typed(self, subject: tuple[str, str], how: str) -> str:
        right = self.codes.get(subject, "123456")
        wrong = f"{(int(right) + 1) % 1_000_000:06}"
        return {"right": right, "wrong": wrong, "short": right[:5]}[how]


class Pair:
    """Both sides, which get the same calls."""

    def __init__(self, fake: Side, real: Side, generator: random.Random) -> None:
        self.sides = (fake, real)
        self.random = generator
        self.seen: set[str] = set()

    def step(self) -> None:
        """Call both, and compare the results."""
        arguments: dict[str, Any] = {
            "recipient": self.random.choice(RECIPIENTS),
            "purpose": self.random.choice(PURPOSES),
            "region": self.random.choice(["RU"] * 9 + [""]),
        }
        number = self.random.choice([-2] * 9 + [-1, 0, 1, 2])
        # Some calls are repeated, and some ids are reused for other calls.
        request_id = f"request-{self.random.randrange(2 * STEPS)}"
        name = self.random.choice(["send"] * 4 + ["verify"] * 8 + ["cancel", "status", "status"])
        if name == "send":
            arguments["client_ip"] = self.random.choice(ADDRESSES)
            arguments["channel"] = self.random.choice([None, None, Channel.SMS, Channel.VOICE])
            self._compare(lambda side: side.send({**arguments, "request_id": request_id}))
        elif name == "verify":
            how = self.random.choice(["right"] + ["wrong"] * 8 + ["short"])
            arguments["client_ip"] = self.random.choice(ADDRESSES)
            subject = ("+79991234567", arguments["purpose"] or "default")
            if "@" in arguments["recipient"]:
                subject = ("ann@example.com", subject[1])
            self._compare(
                lambda side: side.client.verify(
                    code=side.typed(subject, how),
                    challenge_id=side.challenge(number),
                    request_id=request_id,
                    **arguments,
                )
            )
        else:
            if self.random.random() < 0.3:
                arguments["recipient"] = ""
            if name == "cancel":
                arguments["request_id"] = request_id
            self._compare(
                lambda side: getattr(side.client, name)(
                    challenge_id=side.challenge(number), **arguments
                )
            )

    def _compare(self, call: Callable[[Side], Any]) -> None:
        fake, real = (self._told(side, call) for side in self.sides)
        assert same(fake, real), f"\nthe fake: {fake}\nthe real: {real}"
        self.seen.add(str(fake.get("reason") or fake.get("outcome") or ""))

    def _told(self, side: Side, call: Callable[[Side], Any]) -> dict[str, Any]:
        try:
            return told(side, call(side))
        except otpd.OtpError as error:
            return {
                "kind": type(error).__name__,
                "status": error.status,
                "reason": error.reason,
                "retry_after": error.retry_after,
                "fields": [violation.field for violation in error.field_violations],
                "metadata": {
                    key: nameless(side, value)
                    for key, value in error.metadata.items()
                    if key != "expires_at"
                },
            }


def told(side: Side, value: Any) -> dict[str, Any]:
    """Return the result without values that each side chooses randomly."""
    assert is_dataclass(value)
    return {field.name: nameless(side, getattr(value, field.name)) for field in fields(value)}


def nameless(side: Side, value: Any) -> Any:
    """Replace challenges by numbers, and remove states of deliveries that are known later."""
    if isinstance(value, str) and value in side.challenges:
        return f"challenge {side.challenges.index(value)}"
    if isinstance(value, tuple):
        return [one.channel for one in value]
    return value


def code_of(fake: FakeOtpd, sent: otpd.Sent) -> str:
    return next(one.code for one in fake.messages if one.challenge_id == sent.challenge_id)


def same(fake: Any, real: Any) -> bool:
    """Compare two results, with a tolerance for the duration of calls."""
    if isinstance(fake, dict):
        return fake.keys() == real.keys() and all(same(fake[key], real[key]) for key in fake)
    if isinstance(fake, datetime) and isinstance(real, datetime):
        return abs((fake - real).total_seconds()) < TOLERANCE
    if isinstance(fake, float) and isinstance(real, float):
        return abs(fake - real) < TOLERANCE
    return bool(fake == real)


def test_any_sequence_of_calls_is_answered_the_same(
    database: Database, start: Callable[..., Replica]
) -> None:
    replica = start(database, ENVIRONMENT)
    fake = FakeOtpd(policy=POLICY)
    generator = random.Random(SEED)
    with Client(replica.address, timeout=30) as client:
        pair = Pair(
            Side(fake.client(), lambda sent: code_of(fake, sent), {}, []),
            Side(client, lambda sent: replica.codes(sent.challenge_id)[-1], {}, []),
            generator,
        )
        for _ in range(STEPS):
            if generator.random() < 0.25:
                database.advance(generator.choice(PAUSES))
            fake.advance(database.now() - fake.now)
            pair.step()
    # All parts of the rules were reached.
    assert {str(outcome) for outcome in Outcome} - pair.seen <= {str(Outcome.UNKNOWN)}
    limits = {"SEND_LIMIT", "RESEND_TOO_SOON", "VERIFY_DELAYED", "VERIFY_LOCKED"}
    assert limits <= pair.seen
    assert {"CODE_MALFORMED", "RECIPIENT_INVALID", "REQUEST_INVALID"} <= pair.seen
