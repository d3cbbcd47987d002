"""What is to be reached, and what was: medians of what each round says by itself."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Callable

BEST = "otpd-postgres-256"
MEGABYTE = 1e6


@dataclass(frozen=True)
class Goal:
    """A figure of each round that should stay on one side of a bound, if it has one."""

    text: str
    # Systems that the figure is computed from.
    needs: tuple[str, ...]
    figure: Callable[[dict], float]
    unit: str
    bound: float | None = None
    at_least: bool = True
    # A bound beyond the goal.
    stretch: float | None = None

    def values(self, rounds: list[dict]) -> list[float]:
        """Of the rounds in which all that it needs ran."""
        found = []
        for results in rounds:
            try:
                found.append(self.figure(results))
            except (KeyError, TypeError, ZeroDivisionError):
                continue
        return found

    def reached(self, value: float) -> bool | None:
        if self.bound is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """A goal, and what became of it; without values where its systems did not run."""

    goal: Goal
    values: list[float]
    # Its value in the run that was kept last.
    last: float | None = None

    @property
    def value(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def reached(self) -> bool | None:
        return None if self.value is None else self.goal.reached(self.value)


def verdicts(results: dict) -> list[Verdict]:
    """Of a whole run."""
    rounds, churn = results["rounds"], results.get("churn") or {}
    last = results.get("last") or {}
    values = [(goal, goal.values(rounds)) for goal in GOALS]
    values.append((CHURN, CHURN.values([churn])))
    values += [(figure, figure.values(rounds)) for figure in FIGURES]
    return [Verdict(goal, found, last.get(goal.text)) for goal, found in values]


def figures(results: dict) -> dict[str, float]:
    """Returns the figures of a run by their text, for the column `last` of the next run."""
    return {verdict.goal.text: verdict.value for verdict in verdicts(results)
            if verdict.value is not None}


def rate(results: dict, name: str) -> float:
    return results[name]["pairs_per_second"]


def cpu(results: dict, name: str) -> float:
    """Of the service and of the database, for one pair."""
    used = results[name]["cpu_microseconds_per_pair"]
    return used["service"] + used["database"]


def database_cpu(results: dict, name: str) -> float:
    return results[name]["cpu_microseconds_per_pair"]["database"]


def latency(results: dict, name: str, call: str, quantile: str) -> float:
    return results[name][call]["latency_microseconds"][quantile]


def verify_against_update(results: dict) -> float:
    update = results["pgbench-update-1"]["pair_latency_microseconds"]["mean"]
    return latency(results, "otpd-postgres-1", "verify", "p50") / update


def hot_latency(results: dict) -> float:
    slowest = max(latency(results, "otpd-hot", call, "p99") for call in ("send", "verify"))
    return slowest / 1000


def p99_beside_pgbench(ours: str) -> Callable[[dict], float]:
    def figure(results: dict) -> float:
        pgbench = results["pgbench-paced"]["pair_latency_microseconds"]["p99"]
        return latency(results, ours, "send", "p99") / pgbench

    return figure


def service_cpu(results: dict, name: str) -> float:
    return results[name]["cpu_microseconds_per_pair"]["service"]


def ratio(above: str, below: str, figure: Callable[[dict, str], float]) -> Callable[[dict], float]:
    return lambda results: figure(results, above) / figure(results, below)


def at_least(
    bound: float, text: str, needs: tuple[str, ...], figure: Callable[[dict], float],
    stretch: float | None = None,
) -> Goal:
    return Goal(text, needs, figure, "×", bound, True, stretch)


def at_most(
    bound: float, unit: str, text: str, needs: tuple[str, ...], figure: Callable[[dict], float],
    stretch: float | None = None,
) -> Goal:
    return Goal(text, needs, figure, unit, bound, False, stretch)


def beside(bound: float, text: str, name: str, stretch: float | None = None) -> Goal:
    """A goal for the rate at 256 in flight divided by that of another system."""
    return at_least(bound, f"pairs/s at 256 in flight ÷ {text}", (BEST, name),
                    ratio(BEST, name, rate), stretch)


def without_goal(text: str, needs: tuple[str, ...], figure: Callable[[dict], float],
                 unit: str = "×") -> Goal:
    return Goal(text, needs, figure, unit)


def slow_ratio(milliseconds: int, other: str) -> tuple[tuple[str, ...], Callable[[dict], float]]:
    names = (f"slow-{milliseconds}-otpd-256", f"slow-{milliseconds}-{other}")
    return names, ratio(*names, rate)


GOALS = [
    beside(3.3, "pgbench, full work in its best form, 16 clients", "pgbench-full-16", stretch=4),
    beside(1.2, "pgbench, one bare row, 16 clients", "pgbench-bare-16"),
    beside(18, "Django with `CONN_MAX_AGE = 60`", "django-60"),
    beside(100, "Django with a connection per request", "django-0"),
    beside(12, "Django with its Redis cache", "django-redis"),
    at_least(65, "CPU per pair, service and database: Django with `CONN_MAX_AGE = 60` ÷ otpd",
             ("django-60", BEST), ratio("django-60", BEST, cpu)),
    at_most(0.6, "×", "CPU per pair, service and database, at 256 in flight ÷ the earlier revision",
            (BEST, "otpd-baseline-postgres-256"), ratio(BEST, "otpd-baseline-postgres-256", cpu)),
    at_most(3.2, "×", "CPU per pair of the service at 256 in flight ÷ a bare gRPC server",
            (BEST, "echo"), ratio(BEST, "echo", service_cpu), stretch=2.7),
    at_most(2.2, "×", "median `VerifyOtp` at 1 in flight ÷ mean durable `UPDATE` of pgbench at "
            "1 client", ("otpd-postgres-1", "pgbench-update-1"), verify_against_update),
    at_least(40, "with 10 ms per commit: pairs/s at 256 in flight ÷ Django with "
             "`CONN_MAX_AGE = 60` at its best number of clients", *slow_ratio(10, "django-60")),
    at_least(1.8, "SQLite: pairs/s at 256 in flight ÷ the earlier revision",
             ("otpd-sqlite-256", "otpd-baseline-sqlite-256"),
             ratio("otpd-sqlite-256", "otpd-baseline-sqlite-256", rate)),
    at_most(3, "×", "99th percentile of `SendOtp` ÷ that of pgbench's full-work pair, both at half "
            "of pgbench's rate", ("otpd-paced", "pgbench-paced"), p99_beside_pgbench("otpd-paced")),
    at_most(50, " MB", "memory at 256 in flight over 8 connections, 20 regions, at its peak",
            (BEST,),
            lambda results: results[BEST]["service_memory"]["peak_resident_bytes"] / MEGABYTE),
    at_most(100, " ms", "from the start to SERVING, the schema being there", ("otpd-start",),
            lambda results: median(results["otpd-start"]["start_seconds"]) * 1000),
    at_least(0.9, "pairs/s of three replicas ÷ one, on the same cores", ("otpd-replicas", BEST),
             ratio("otpd-replicas", BEST, rate)),
    at_most(0, "", "violations where all pairs are about 50 records, over three replicas",
            ("otpd-hot",), lambda results: float(results["otpd-hot"]["violations"])),
    at_most(20, " ms", "99th percentile of the slower call there", ("otpd-hot",), hot_latency),
    at_most(1.05, "×", "CPU per pair, service and database: with metrics ÷ without",
            ("otpd-metrics", BEST), ratio("otpd-metrics", BEST, cpu)),
    at_most(1.1, "×", "the same: with metrics and 1 % of traces ÷ without", ("otpd-traces", BEST),
            ratio("otpd-traces", BEST, cpu)),
    at_most(1.3, "×", "CPU of PostgreSQL per pair: 5,000,000 records ÷ 10,000",
            ("otpd-large", BEST), ratio("otpd-large", BEST, database_cpu)),
]

CHURN = at_most(1.1, "×", "CPU of PostgreSQL per pair after minutes of churn with purging ÷ before",
                (), ratio("after", "before", database_cpu))

# Figures without a bound: they explain those that have one.
FIGURES = [
    without_goal("99th percentile of `SendOtp` where pairs start at half of otpd's rate",
                 ("otpd-half-load",),
                 lambda results: latency(results, "otpd-half-load", "send", "p99") / 1000, " ms"),
    without_goal("the same ÷ that of pgbench's full-work pair, each at half of its own rate",
                 ("otpd-half-load", "pgbench-paced"), p99_beside_pgbench("otpd-half-load")),
    without_goal("with 5 ms per commit: pairs/s at 256 in flight ÷ Django with "
                 "`CONN_MAX_AGE = 60` at its best number of clients", *slow_ratio(5, "django-60")),
    without_goal("the same with 30 ms per commit", *slow_ratio(30, "django-60")),
    without_goal("with 10 ms per commit: pairs/s at 256 in flight ÷ Django with 32 workers",
                 *slow_ratio(10, "django-workers")),
    without_goal("with 10 ms per commit: pairs/s at 256 in flight ÷ pgbench, full work, at its "
                 "best number of clients", *slow_ratio(10, "pgbench")),
    without_goal("pairs/s at 256 in flight: two worker threads ÷ one",
                 ("otpd-two-threads", "otpd-one-thread"),
                 ratio("otpd-two-threads", "otpd-one-thread", rate)),
    without_goal("CPU per pair, service and database: two worker threads ÷ one",
                 ("otpd-two-threads", "otpd-one-thread"),
                 ratio("otpd-two-threads", "otpd-one-thread", cpu)),
]
