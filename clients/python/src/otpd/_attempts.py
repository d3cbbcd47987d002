"""Retry decisions, without I/O and clock, shared by both kinds of client."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from otpd._failure import Failure
    from otpd.options import RetryPolicy

logger = logging.getLogger("otpd")


class Attempts:
    """The attempts of one call."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        now: float,
        timeout: float,
        targets: int,
        turn: int,
        request_id: str,
    ) -> None:
        self.made = 0
        self.turn = turn - 1
        self._policy = policy
        self._deadline = now + timeout
        self._targets = targets
        self._request_id = request_id

    def begin(self, now: float) -> float:
        """Start an attempt, and return its timeout in seconds."""
        self.made += 1
        self.turn += 1
        return max(self._deadline - now, 0.0)

    def pause_after(self, failure: Failure, now: float) -> float:
        """Return the seconds to wait before the next attempt.

        Raises the exception of the failure if there is no next attempt.
        """
        pause = self._pause(failure)
        if pause is None or now + pause >= self._deadline:
            raise failure.error(self._request_id, self.made) from None
        logger.info(
            "[OTP] otpd is unavailable, attempt %d in %.1f s request_id=%s cause=%s",
            self.made + 1,
            pause,
            self._request_id,
            failure.reason or failure.message,
        )
        return pause

    def _pause(self, failure: Failure) -> float | None:
        if failure.code is not grpc.StatusCode.UNAVAILABLE:
            return None
        if self.made >= self._policy.max_attempts:
            return None
        delay = failure.retry_after if failure.pushback is None else failure.pushback
        if delay is not None:
            return delay if delay >= 0 else None
        # The next attempt goes to the next target.
        if self.made < self._targets:
            return 0.0
        growth = self._policy.multiplier ** (self.made - self._targets)
        backoff = min(self._policy.initial_backoff * growth, self._policy.max_backoff)
        # Jitter, so that clients that failed together do not retry together.
        return backoff * random.uniform(0.8, 1.2)  # noqa: S311 - needs no secrecy
