"""The fake has the replies of the model of the rules.

tests/corpus/rules.json has sequences of calls with the replies of the model with which the
server is compared as well; tests/safety_net/golden_vectors writes it. The clock is moved by hand,
so that calls happen at the very millisecond at which a reply changes.
"""

from __future__ import annotations

import itertools
import json
import secrets
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import otpd
from otpd.testing import FakeOtpd, Policy

SEQUENCES = json.loads(
    (Path(__file__).parents[3] / "tests" / "corpus" / "rules.json").read_text("utf-8")
)
START = datetime(2030, 1, 1, tzinfo=timezone.utc)
DURATIONS = {"code_ttl", "resend_after", "failure_delay", "failure_memory", "request_memory"}


class Replay:
    """A fake that gets the calls of one sequence."""

    def __init__(self, policy: dict[str, Any]) -> None:
        values: dict[str, Any] = {
            key: timedelta(milliseconds=value) if key in DURATIONS else value
            for key, value in policy.items()
        }
        self.fake = FakeOtpd(policy=Policy(**values), now=START)
        self.client = self.fake.client(retry=otpd.RetryPolicy(max_attempts=1))
        self.challenges: list[str] = []

    def call(self, step: dict[str, Any]) -> dict[str, Any]:
        """Make a call, and return the reply in the form of the file."""
        self.fake.advance(START + timedelta(milliseconds=step["at"]) - self.fake.now)
        request = dict(step["request"])
        name = request.pop("call")
        request["challenge_id"] = self.challenge_id(request.get("challenge_id", ""))
        if name == "send":
            del request["challenge_id"]
        if "code_of" in request:
            request["code"] = self.code(request.pop("code_of"), request.pop("code_variant"))
        try:
            result = getattr(self.client, name)(**request)
        except otpd.OtpError as error:
            return present(
                reason=error.reason,
                limit=error.metadata.get("limit"),
                retry_after=None if error.retry_after is None else round(error.retry_after * 1000),
                challenge_id=self.name(error.metadata.get("challenge_id")),
            )
        if isinstance(result, otpd.Sent):
            if result.challenge_id not in self.challenges:
                self.challenges.append(result.challenge_id)
            return present(
                challenge_id=self.name(result.challenge_id),
                expires_at=elapsed(result.expires_at),
                resend_at=elapsed(result.resend_at),
                resent=result.resent,
            )
        if isinstance(result, otpd.Verification):
            return present(
                outcome=result.outcome.value,
                attempts_remaining=result.attempts_remaining,
                challenge_id=self.name(result.challenge_id),
                verified_at=elapsed(result.verified_at),
            )
        if isinstance(result, otpd.Cancellation):
            return present(cancelled=result.cancelled, failures_reset=result.failures_reset)
        assert isinstance(result, otpd.Status)
        return present(
            challenge_id=self.name(result.challenge_id),
            expires_at=elapsed(result.expires_at),
            attempts_remaining=result.attempts_remaining,
            resend_at=elapsed(result.resend_at),
            blocked_until=elapsed(result.blocked_until),
        )

    def name(self, challenge_id: str | None) -> str | None:
        """Return the name of a challenge in the file."""
        if not challenge_id:
            return challenge_id
        return f"challenge-{1 + self.challenges.index(challenge_id)}"

    def challenge_id(self, name: str) -> str:
        if not name.startswith("challenge-"):
            return name
        return self.challenges[int(name.removeprefix("challenge-")) - 1]

    def code(self, challenge: str, variant: str) -> str:
        wanted = self.challenge_id(challenge)
        code = next(one.code for one in self.fake.messages if one.challenge_id == wanted)
        other = "0" if code[0] == "9" else "9"
        return {"correct": code, "short": code[1:], "wrong": other + code[1:]}[variant]


def present(**values: Any) -> dict[str, Any]:
    """Return the values without those that are absent."""
    return {key: value for key, value in values.items() if value is not None}


def elapsed(time: datetime | None) -> int | None:
    """Return the milliseconds since the start of the sequence."""
    return None if time is None else (time - START) // timedelta(milliseconds=1)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=range(len(SEQUENCES)))
def test_replies_of_the_fake_are_those_of_the_model(
    sequence: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each code differs from the others, so that none is accepted for another challenge.
    numbers = itertools.count(1)
    monkeypatch.setattr(secrets, "randbelow", lambda _bound: next(numbers))
    replay = Replay(sequence["policy"])
    for number, step in enumerate(sequence["steps"]):
        assert replay.call(step) == step["reply"], f"step {number}: {step}"
