"""What is to be reached, and what was: medians of what each round says by itself."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Callable

BEST = "otpd-postgres-256"
MEGABYTE = 1e6


@dataclass(frozen=True)
class Goal:
    """A figure of each round that should stay on one side of a bound."""

    text: str
    bound: float
    at_least: bool
    unit: str
    figure: Callable[[dict], float]

    def values(self, rounds: list[dict]) -> list[float]:
        """Of the rounds in which all that it needs ran."""
        found = []
        for results in rounds:
            try:
                found.append(self.figure(results))
            except (KeyError, TypeError, ZeroDivisionError):
                continue
        return found

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """A goal, and what became of it; without values where its systems did not run."""

    goal: Goal
    values: list[float]

    @property
    def value(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def reached(self) -> bool | None:
        return None if self.value is None else self.goal.reached(self.value)


def verdicts(results: dict) -> list[Verdict]:
    """Of a whole run."""
    found = [Verdict(goal, goal.values(results["rounds"])) for goal in GOALS]
    churn = results.get("churn") or {}
    return [*found, Verdict(CHURN, CHURN.values([churn]))]


def rate(results: dict, name: str) -> float:
    return results[name]["pairs_per_second"]


def against(name: str) -> Callable[[dict], float]:
    return lambda results: rate(results, BEST) / rate(results, name)


def cpu(results: dict, name: str) -> float:
    """Of the service and of PostgreSQL, for one pair."""
    used = results[name]["cpu_microseconds_per_pair"]
    return used["service"] + used["postgres"]


def latency(results: dict, name: str, call: str, quantile: str) -> float:
    return results[name][call]["latency_microseconds"][quantile]


def verify_against_update(results: dict) -> float:
    update = results["pgbench-update-1"]["pair_latency_microseconds"]["mean"]
    return latency(results, "otpd-postgres-1", "verify", "p50") / update


def hot_latency(results: dict) -> float:
    slowest = max(latency(results, "otpd-hot", call, "p99") for call in ("send", "verify"))
    return slowest / 1000


def cpu_beside_best(name: str) -> Callable[[dict], float]:
    return lambda results: cpu(results, name) / cpu(results, BEST)


def postgres_cpu(results: dict, name: str) -> float:
    return results[name]["cpu_microseconds_per_pair"]["postgres"]


def at_least(bound: float, text: str, figure: Callable[[dict], float]) -> Goal:
    return Goal(text, bound, True, "×", figure)


def at_most(bound: float, unit: str, text: str, figure: Callable[[dict], float]) -> Goal:
    return Goal(text, bound, False, unit, figure)


GOALS = [
    at_least(4, "pairs/s at 256 in flight ÷ pgbench, full work in its best form, 16 clients",
             against("pgbench-full-16")),
    at_least(2, "pairs/s at 256 in flight ÷ pgbench, one bare row, 16 clients",
             against("pgbench-bare-16")),
    at_least(40, "pairs/s at 256 in flight ÷ Django with `CONN_MAX_AGE = 60`",
             against("django-60")),
    at_least(150, "pairs/s at 256 in flight ÷ Django with a connection per request",
             against("django-0")),
    at_least(65, "CPU per pair, service and PostgreSQL: Django with `CONN_MAX_AGE = 60` ÷ otpd",
             lambda results: cpu(results, "django-60") / cpu(results, BEST)),
    at_most(2, "×", "median `VerifyOtp` at 1 in flight ÷ mean durable `UPDATE` of pgbench at "
            "1 client", verify_against_update),
    at_most(10, " ms", "99th percentile of `SendOtp` where pairs start at half of that rate",
            lambda results: latency(results, "otpd-half-load", "send", "p99") / 1000),
    at_most(40, " MB", "memory at 256 in flight over 8 connections, at its peak",
            lambda results: results[BEST]["service_memory"]["peak_resident_bytes"] / MEGABYTE),
    at_most(100, " ms", "from the start to SERVING, the schema being there",
            lambda results: median(results["otpd-start"]["start_seconds"]) * 1000),
    at_least(0.8, "pairs/s of three replicas ÷ one, on the same cores",
             lambda results: rate(results, "otpd-replicas") / rate(results, BEST)),
    at_most(0, "", "violations where all pairs are about 50 records, over three replicas",
            lambda results: float(results["otpd-hot"]["violations"])),
    at_most(25, " ms", "99th percentile of the slower call there", hot_latency),
    at_most(1.05, "×", "CPU per pair, service and PostgreSQL: with metrics ÷ without",
            cpu_beside_best("otpd-metrics")),
    at_most(1.1, "×", "the same: with metrics and 1 % of traces ÷ without",
            cpu_beside_best("otpd-traces")),
    at_most(1.7, "×", "CPU of PostgreSQL per pair: 5,000,000 records ÷ 10,000",
            lambda results: postgres_cpu(results, "otpd-large") / postgres_cpu(results, BEST)),
]

CHURN = at_most(1.2, "×", "CPU of PostgreSQL per pair after minutes of churn with sweeping ÷ before",
                lambda churn: postgres_cpu(churn, "after") / postgres_cpu(churn, "before"))
