"""Parameters of the rules, as described in docs/configuration.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

HOUR = 3_600_000
DAY = 24 * HOUR
EXPIRED_TOLD_FOR = HOUR
MAX_FAILURE_DELAY = HOUR


def milliseconds(time: timedelta) -> int:
    """Convert to whole milliseconds, the resolution of otpd."""
    return time // timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Policy of codes, with the defaults of otpd. A limit of 0 is disabled."""

    code_length: int = 6
    code_ttl: timedelta = timedelta(minutes=5)
    max_attempts: int = 5
    resend_after: timedelta = timedelta(seconds=60)
    require_challenge_id: bool = False
    failure_delay: timedelta = timedelta(seconds=30)
    failure_limit: int = 100
    failure_memory: timedelta = timedelta(days=30)
    sends_per_hour: int = 5
    sends_per_day: int = 10
    ip_sends_per_hour: int = 60
    ip_failures_per_hour: int = 60
    ip_site_sends_per_hour: int = 600
    ip_site_failures_per_hour: int = 600
    request_memory: timedelta = timedelta(minutes=10)


@dataclass(slots=True)
class Limit:
    """Rate limit that allows a burst and refills evenly; its state is the time when it is full."""

    name: str
    count: int
    period: int
    full_at: int = 0

    def take(self, now: int) -> tuple[int, int]:
        """Return the wait for a permit, and the time when the limit is full after taking it."""
        if self.count == 0:
            return 0, self.full_at
        interval = math.ceil(self.period / self.count)
        latest = now + interval * self.count
        taken = max(self.full_at, now) + interval
        return max(taken - latest, 0), taken


def longest_wait(limits: list[Limit], now: int) -> tuple[int, str]:
    """Return the longest wait among the limits, and the limit with that wait."""
    waits = [(limit.take(now)[0], limit.name) for limit in limits]
    return max(waits, key=lambda wait: wait[0], default=(0, ""))


def take_all(limits: list[Limit], now: int) -> None:
    """Take a permit of each limit."""
    for limit in limits:
        _, limit.full_at = limit.take(now)
