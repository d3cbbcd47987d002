"""When a call is tried again. No I/O, no clock: of both kinds of client."""

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
        """Start another one, and tell how many seconds it has."""
        self.made += 1
        self.turn += 1
        return max(self._deadline - now, 0.0)

    def pause_after(self, failure: Failure, now: float) -> float:
        """Tell how many seconds to wait before the next one.

        Where there is to be none, the failure is raised as callers see it.
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
        told = failure.retry_after if failure.pushback is None else failure.pushback
        if told is not None:
            return told if told >= 0 else None
        # Whom this attempt did not reach, the next one does not ask.
        if self.made < self._targets:
            return 0.0
        growth = self._policy.multiplier ** (self.made - self._targets)
        backoff = min(self._policy.initial_backoff * growth, self._policy.max_backoff)
        # Else all who failed together would come back together.
        return backoff * random.uniform(0.8, 1.2)  # noqa: S311 - nobody gains by guessing it
