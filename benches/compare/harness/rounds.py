"""Rounds: each system in turn, several times, so that what the machine does besides hits
all of them alike."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import dataclass

from . import scatter
from .measurement import Bench
from .systems import echo, http, otpd, pgbench, slow
from .tools import say

MODULES = (pgbench, http, echo, otpd, slow)

# What the quick form runs: each kind once, and what the goals need.
QUICK = (
    "pgbench-full-16", "pgbench-transactions-16", "pgbench-bare-16", "pgbench-update-1",
    "django-60", "django-redis", "better-auth", "echo", "otpd-postgres-1", "otpd-postgres-256",
    "otpd-sqlite-256", "otpd-half-load", "pgbench-paced", "otpd-paced", "otpd-one-thread",
    "otpd-two-threads", "otpd-replicas", "otpd-hot", "otpd-metrics", "otpd-traces", "otpd-start",
    "slow-10-otpd-256", "slow-10-django-60",
)


@dataclass(frozen=True)
class Choice:
    """Which systems run, and why some cannot."""

    systems: list
    failed: dict[str, str]


def all_systems() -> list:
    """Every system by its module, in the order of the report."""
    found = [system for module in MODULES for system in module.systems()]
    return [*found, *otpd.baselines(), otpd.large()]


def chosen(only: list[str], quick: bool, large: bool, baseline: bool = False) -> list:
    """The systems that were asked for.

    Raises ValueError for a name that none has."""
    systems = all_systems()
    if only:
        for pattern in only:
            if not fnmatch.filter([system.name for system in systems], pattern):
                names = ", ".join(system.name for system in systems)
                raise ValueError(f"no system is called {pattern}; there are {names}")
        return [system for system in systems
                if any(fnmatch.fnmatch(system.name, pattern) for pattern in only)]
    baselines = {system.name for system in otpd.baselines()}
    if quick:
        names = {*QUICK, *(baselines if baseline else ())}
        return [system for system in systems if system.name in names]
    left_out = set() if baseline else baselines
    if not large:
        left_out.add(otpd.large().name)
    return [system for system in systems if not system.variant and system.name not in left_out]


def prepare(bench: Bench, systems: list, records: int) -> Choice:
    """Makes what the systems need. Those for which that fails are left out."""
    failed: dict[str, str] = {}
    for module in MODULES:
        theirs = [system for system in systems if type(system).__module__ == module.__name__]
        if not theirs or not hasattr(module, "prepare"):
            continue
        try:
            module.prepare(bench, records)
        except Exception as error:  # whatever it is, the others can run
            failed |= {system.name: described(error) for system in theirs}
    return Choice([system for system in systems if system.name not in failed], failed)


def run_rounds(bench: Bench, systems: list, rounds: int, results: list[dict]) -> None:
    """Adds a dictionary to `results` for each round: what each system did, by name."""
    for number in range(rounds):
        # Back and forth, so that nobody always comes after the same neighbour.
        order = systems if number % 2 == 0 else systems[::-1]
        run_round(bench, order, f"{number + 1}/{rounds}", results)


def run_round(bench: Bench, systems: list, label: str, results: list[dict]) -> None:
    done: dict[str, dict] = {}
    results.append(done)
    for system in systems:
        started = time.monotonic()
        try:
            bench.postgres.flush()
            done[system.name] = system.run(bench)
            told = summary(done[system.name])
        except Exception as error:  # one that fails does not end the rest
            done[system.name] = {"failed": described(error)}
            told = f"FAILED: {described(error)}"
        took = time.monotonic() - started
        say(f"round {label}  {system.name:<24} {told}  ({took:.0f} s)")


def repeat_scattered(
    bench: Bench, systems: list, planned: int, most: int, results: list[dict]
) -> dict[str, dict]:
    """Adds at most `most` further rounds of the systems whose rounds scatter, and of those
    that they are compared with. Returns the scatter of those systems, before and after."""
    names = [system.name for system in systems]
    before = scatter.scattered(results, names, planned)
    unsteady = before
    for number in range(most):
        if not unsteady:
            break
        repeated = scatter.with_partners(set(unsteady))
        order = [system for system in systems if system.name in repeated]
        order = order if len(results) % 2 == 0 else order[::-1]
        run_round(bench, order, f"{planned + number + 1} (scatter)", results)
        unsteady = scatter.scattered(results, names, planned)
    return {
        name: {
            "before": span,
            "after": scatter.scatter(scatter.rates(results, name), planned),
            "rounds": len(scatter.rates(results, name)),
        }
        for name, span in before.items()
    }


def described(error: Exception) -> str:
    return f"{error}" or type(error).__name__


def summary(result: dict) -> str:
    if "pairs_per_second" in result:
        failures = result.get("failures") or {}
        told = f"{result['pairs_per_second']:>9,.0f} pairs/s"
        told += f", {result['clients']} clients" if "clients" in result else ""
        return f"{told}, failures {failures}" if failures else told
    if "start_seconds" in result:
        return f"{min(result['start_seconds']) * 1000:.0f} ms at best"
    return "done"
