"""One measurement: a load, and what it cost the processes behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from .postgres import Postgres
from .processes import Fleet, cpu_seconds, memory_bytes
from .tools import Tools


@dataclass(frozen=True)
class Plan:
    """How long the parts of a measurement last, in seconds."""

    seconds: float
    warm_up: float

    def timeout(self) -> float:
        """When a load that should be over is given up."""
        return 3 * max(self.seconds, self.warm_up) + 60


@dataclass
class Bench:
    """What measurements are made with."""

    fleet: Fleet
    postgres: Postgres
    repository: Path
    # Where servers may leave files; on a disk, and removed at the end.
    scratch: Path
    # For what must cost no disk: the servers' logs.
    memory: Path
    plan: Plan
    tools: Tools
    # Number of records in the databases before each run.
    records: int = 10_000
    # Pairs per second that otpd did on PostgreSQL in this round, once that is known.
    capacity: float | None = None
    # Pairs per second of pgbench's full work in this round, once that is known.
    pgbench_capacity: float | None = None
    # Best number of clients of a system with slow commits, by name, once that is known.
    best_clients: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """What a load generator says it did, in one window."""

    pairs: int
    seconds: float
    cpu_seconds: float
    details: dict


def measure(
    bench: Bench,
    load: Callable[[float], Load],
    *,
    service: list[int],
    database: list[int] | None = None,
) -> dict:
    """Runs `load` for a warm-up and then for a window, between whose ends the CPU time of
    all processes is read: of the service, of the database, each with everything that it
    started, and of the load generator. The database is PostgreSQL unless its processes are
    given. Every system is measured by this."""
    load(bench.plan.warm_up)
    if database is None:
        database = [bench.postgres.pid]
    before = cpu_seconds(service), cpu_seconds(database)
    done = load(bench.plan.seconds)
    after = cpu_seconds(service), cpu_seconds(database)
    if done.pairs == 0:
        raise RuntimeError(f"not one pair was done: {done.details}")
    microseconds = 1e6 / done.pairs
    result = {
        "pairs": done.pairs,
        "seconds": done.seconds,
        "pairs_per_second": done.pairs / done.seconds,
        "cpu_microseconds_per_pair": {
            "service": (after[0] - before[0]) * microseconds,
            "database": (after[1] - before[1]) * microseconds,
            "load": done.cpu_seconds * microseconds,
        },
        **done.details,
    }
    if service:
        result["service_memory"] = memory_bytes(service)
    return result
