"""Rounds: each system in turn, several times, so that what the machine does besides hits
all of them alike."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import dataclass

from .measurement import Bench
from .systems import echo, http, otpd, pgbench
from .tools import say

MODULES = (pgbench, http, echo, otpd)

# What the quick form runs: each kind once, and what the goals need.
QUICK = (
    "pgbench-full-16", "pgbench-transactions-16", "pgbench-bare-16", "pgbench-update-1",
    "django-60", "better-auth", "echo", "otpd-postgres-1", "otpd-postgres-256",
    "otpd-sqlite-256", "otpd-half-load", "otpd-replicas", "otpd-hot", "otpd-metrics",
    "otpd-traces", "otpd-start",
)


@dataclass(frozen=True)
class Choice:
    """Which systems run, and why some cannot."""

    systems: list
    failed: dict[str, str]


def all_systems() -> list:
    """Every system by its module, in the order of the report."""
    found = [system for module in MODULES for system in module.systems()]
    return [*found, otpd.large()]


def chosen(only: list[str], quick: bool, large: bool) -> list:
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
    if quick:
        return [system for system in systems if system.name in QUICK]
    return [system for system in systems
            if not system.variant and (large or system.name != "otpd-large")]


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
        done: dict[str, dict] = {}
        results.append(done)
        # Back and forth, so that nobody always comes after the same neighbour.
        order = systems if number % 2 == 0 else systems[::-1]
        for system in order:
            started = time.monotonic()
            try:
                bench.postgres.flush()
                done[system.name] = system.run(bench)
                told = summary(done[system.name])
            except Exception as error:  # one that fails does not end the rest
                done[system.name] = {"failed": described(error)}
                told = f"FAILED: {described(error)}"
            took = time.monotonic() - started
            say(f"round {number + 1}/{rounds}  {system.name:<24} {told}  ({took:.0f} s)")


def described(error: Exception) -> str:
    return f"{error}" or type(error).__name__


def summary(result: dict) -> str:
    if "pairs_per_second" in result:
        failures = result.get("failures") or {}
        told = f"{result['pairs_per_second']:>9,.0f} pairs/s"
        return f"{told}, failures {failures}" if failures else told
    if "start_seconds" in result:
        return f"{min(result['start_seconds']) * 1000:.0f} ms at best"
    return "done"
