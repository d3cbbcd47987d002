"""Systems on a PostgreSQL whose commits take as long as on a managed one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable

from ..measurement import Bench, Plan
from . import otpd, pgbench
from .http import Django
from .otpd import Otpd
from .pgbench import Pgbench

# Milliseconds that storage across a network adds to a flush of the write-ahead log.
DELAYS = (5, 10, 30)
# Part of a run's length for which each number of clients is tried.
TRIAL_SHARE = 0.25
# Connections of pgbench and processes of Django stay below PostgreSQL's max_connections.
PGBENCH_CLIENTS = (16, 64, 128)
DJANGO_CLIENTS = (4, 16, 64)
MANY_WORKERS = 32


@dataclass(frozen=True)
class Slow:
    """A system at its best number of clients, with slow commits. The number is chosen once,
    by a short trial of each."""

    name: str
    title: str
    milliseconds: int
    at: Callable[[int], Otpd | Django | Pgbench]
    clients: tuple[int, ...]
    variant: bool = False

    def run(self, bench: Bench) -> dict:
        with bench.postgres.slow_commits(self.milliseconds) as commit:
            if self.name not in bench.best_clients:
                bench.best_clients[self.name] = self._best(bench)
            clients = bench.best_clients[self.name]
            return {**self.at(clients).run(bench), "clients": clients,
                    "commit_milliseconds": commit}

    def _best(self, bench: Bench) -> int:
        """Returns the number of clients with the most pairs per second."""
        if len(self.clients) == 1:
            return self.clients[0]
        seconds = max(1.0, bench.plan.seconds * TRIAL_SHARE)
        trial = replace(bench, plan=Plan(seconds, bench.plan.warm_up * TRIAL_SHARE))
        return max(self.clients,
                   key=lambda clients: self.at(clients).run(trial)["pairs_per_second"])


def prepare(bench: Bench, records: int) -> None:
    """The templates, unless the systems with fast commits have made them."""
    for module, template in ((pgbench, pgbench.TEMPLATE), (otpd, otpd.TEMPLATE)):
        if not bench.postgres.exists(template):
            module.prepare(bench, records)


def systems() -> list[Slow]:
    return [system for milliseconds in DELAYS for system in at_delay(milliseconds)]


def at_delay(milliseconds: int) -> list[Slow]:
    """The systems at one delay. More workers for Django only at 10 ms, where the goal is."""

    def ours(clients: int) -> Otpd:
        return Otpd("slow-otpd", "otpd", clients)

    def django(clients: int) -> Django:
        return Django("slow-django", "Django", 60, in_flight=clients)

    def django_workers(clients: int) -> Django:
        return Django("slow-django", "Django", 60, workers=MANY_WORKERS, in_flight=clients)

    def full(clients: int) -> Pgbench:
        return Pgbench("slow-pgbench", "pgbench", pgbench.STATEMENTS, clients)

    start = f"slow-{milliseconds}"
    commits = f"{milliseconds} ms per commit"
    found = [
        Slow(f"{start}-otpd-256", f"{commits}: otpd, 256 in flight", milliseconds, ours, (256,)),
        Slow(f"{start}-pgbench", f"{commits}: pgbench, full work, best number of clients",
             milliseconds, full, PGBENCH_CLIENTS),
        Slow(f"{start}-django-60", f"{commits}: Django, CONN_MAX_AGE = 60, best number of clients",
             milliseconds, django, DJANGO_CLIENTS),
    ]
    if milliseconds == 10:
        found.append(Slow(
            f"{start}-django-workers", f"{commits}: Django with {MANY_WORKERS} workers, {2 * MANY_WORKERS} in flight",
            milliseconds, django_workers, (2 * MANY_WORKERS,)))
    return found
