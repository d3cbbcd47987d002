"""What PostgreSQL alone does, driven by pgbench with prepared statements."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from ..measurement import Bench, Load, measure
from ..processes import ProcessFailed
from ..work import work_done

DIRECTORY = Path(__file__).resolve().parents[2]
SCRIPTS = DIRECTORY / "pgbench"
DATABASE = "compare_pgbench"
TEMPLATE = "compare_template"
# Script of the full work in its best form.
STATEMENTS = "full_statements.sql"
BARE_TEMPLATE = "compare_bare_template"
# The run whose rate is taken for what PostgreSQL alone can do.
CAPACITY_OF = "pgbench-full-16"
# Share of the rate that a paced run has to reach. Arrivals are random, and runs may be short.
KEPT_SHARE = 0.8

# Bytes as wide as otpd's, which are the same for every row: that costs PostgreSQL the
# least. The widths are those that otpd's own tables showed: see README.md.
WIDTHS = {
    "sealed_record": 60,
    "memory_sent": 81,
    "memory_verified": 72,
    "sealed_message": 70,
    "no_history": 2,
    "history_sent": 20,
}


@dataclass(frozen=True)
class Pgbench:
    """One script at one number of clients."""

    name: str
    title: str
    script: str
    clients: int
    template: str = TEMPLATE
    # PostgreSQL's settings for these sessions.
    session: str = ""
    # Whether every pair must leave a spent record and a sent message behind.
    full: bool = True
    # Whether pairs start at half the rate that the full work reaches, whether or not earlier
    # ones have ended.
    paced: bool = False
    # The scripts that the default rounds leave out.
    variant: bool = False

    def run(self, bench: Bench) -> dict:
        # First, because that may be a run of its own.
        rate = capacity(bench) / 2 if self.paced else None
        bench.postgres.create(DATABASE, self.template)
        before = self._left(bench)
        pairs = 0

        def load(seconds: float) -> Load:
            nonlocal pairs
            done = run_pgbench(bench, self, seconds, rate)
            pairs += done.pairs
            return done

        try:
            result = measure(bench, load, service=[])
            self._check(bench, before, pairs)
            if rate:
                check_rate(result, rate)
            if self.name == CAPACITY_OF:
                bench.pgbench_capacity = result["pairs_per_second"]
            return result
        finally:
            bench.postgres.drop(DATABASE)

    def _left(self, bench: Bench) -> tuple[int, ...]:
        return work_done(bench.postgres, DATABASE) if self.full else ()

    def _check(self, bench: Bench, before: tuple[int, ...], pairs: int) -> None:
        """Refuses figures of work that was not done."""
        after = self._left(bench)
        done = {now - then for now, then in zip(after, before)}
        if self.full and done != {pairs}:
            raise ProcessFailed(f"{pairs} pairs left {done} spent records and sent messages")


def capacity(bench: Bench) -> float:
    """Returns the pairs per second of the full work in its best form. Measures it if this
    round has not done so."""
    if bench.pgbench_capacity is None:
        if not bench.postgres.exists(TEMPLATE):
            prepare(bench, bench.records)
        next(system for system in systems() if system.name == CAPACITY_OF).run(bench)
    assert bench.pgbench_capacity, "the run above has set it"
    return bench.pgbench_capacity


def check_rate(result: dict, rate: float) -> None:
    """Refuses latencies of a backlog, which grows for as long as the run lasts."""
    result["rate"] = rate
    if result["pairs_per_second"] < KEPT_SHARE * rate:
        raise ProcessFailed(f"pgbench did {result['pairs_per_second']:.0f} of {rate:.0f} pairs/s")


def run_pgbench(bench: Bench, system: Pgbench, seconds: float, rate: float | None = None) -> Load:
    """One run; a `transaction` of pgbench is the whole script, hence one pair. At a fixed
    rate, latencies are those of the log, from the time at which a pair should have started."""
    log = bench.memory / "pgbench-log"
    paced = [f"--rate={rate:.0f}", "--log", f"--log-prefix={log}"] if rate else []
    variables = [f"--define={name}=\\x{'5c' * width}" for name, width in WIDTHS.items()]
    command = [
        bench.postgres.program("pgbench"), "--no-vacuum", "--protocol=prepared",
        f"--client={system.clients}", f"--jobs={min(system.clients, 2)}",
        f"--time={max(1, round(seconds))}", "--file", SCRIPTS / system.script, *variables,
        *paced, bench.postgres.url(DATABASE),
    ]
    try:
        finished = bench.fleet.run(
            command, timeout=bench.plan.timeout(),
            environment={**os.environ, "PGOPTIONS": system.session},
        )
        done = parse(finished.output, finished.cpu_seconds)
        if rate:
            done.details["pair_latency_microseconds"] |= quantiles(
                line for file in log.parent.glob(f"{log.name}.*")
                for line in file.read_text().splitlines())
        return done
    finally:
        for file in log.parent.glob(f"{log.name}.*"):
            file.unlink()


def quantiles(lines: Iterable[str]) -> dict[str, float]:
    """Returns median and 99th percentile of pgbench's log; the third field of a line is the
    latency in microseconds, which includes the wait of a pair that started late."""
    latencies = sorted(float(line.split()[2]) for line in lines)
    if not latencies:
        raise ProcessFailed("pgbench logged no transaction")
    return {name: latencies[min(int(share * len(latencies)), len(latencies) - 1)]
            for name, share in (("p50", 0.5), ("p99", 0.99))}


def parse(output: str, cpu: float) -> Load:
    """What pgbench 15 and later print."""

    def figure(pattern: str) -> float:
        found = re.search(pattern, output)
        if not found:
            raise ProcessFailed(f"pgbench printed no {pattern!r}: {output[-1000:]}")
        return float(found.group(1))

    pairs = int(figure(r"number of transactions actually processed: (\d+)"))
    rate = figure(r"tps = ([\d.]+)")
    failed = int(figure(r"number of failed transactions: (\d+)"))
    if failed:
        raise ProcessFailed(f"{failed} transactions failed")
    mean = figure(r"latency average = ([\d.]+) ms") * 1000
    return Load(pairs, pairs / rate, cpu, {"pair_latency_microseconds": {"mean": mean}})


def prepare(bench: Bench, records: int) -> None:
    """The templates that the runs' databases are made of."""
    postgres = bench.postgres
    postgres.create(TEMPLATE)
    for migration in sorted((bench.repository / "migrations/postgres").glob("*.sql")):
        postgres.file(migration, TEMPLATE)
    postgres.file(DIRECTORY / "sql/functions_schema.sql", TEMPLATE)
    postgres.file(DIRECTORY / "sql/fill.sql", TEMPLATE, records=records)
    postgres.create(BARE_TEMPLATE)
    postgres.file(DIRECTORY / "sql/bare_schema.sql", BARE_TEMPLATE)


def systems() -> list[Pgbench]:
    """All of them, the variants that were tried and not chosen included."""
    found = []
    full = [
        ("full", "a statement per step", STATEMENTS, "", False),
        ("transactions", "plain transactions", "full_transactions.sql", "", False),
        ("functions", "PL/pgSQL functions", "full_functions.sql", "", True),
        ("pipelines", "pipelined transactions", "full_pipelines.sql", "", True),
        ("generic", "a statement per step, generic plans", STATEMENTS,
         "-c plan_cache_mode=force_generic_plan", True),
        ("delay", "a statement per step, commit_delay = 100", STATEMENTS,
         "-c commit_delay=100", True),
    ]
    for clients in (16, 64):
        for short, title, script, session, variant in full:
            found.append(Pgbench(
                f"pgbench-{short}-{clients}", f"pgbench, full work, {title}, {clients} clients",
                script, clients, session=session, variant=variant,
            ))
        found.append(Pgbench(f"pgbench-bare-{clients}", f"pgbench, one bare row, {clients} clients",
                             "bare.sql",
                             clients, BARE_TEMPLATE, full=False))
    found.append(Pgbench("pgbench-paced", "pgbench, full work at half its rate, 16 clients",
                         STATEMENTS, 16, paced=True))
    found.append(Pgbench("pgbench-update-1", "pgbench, one durable UPDATE", "update.sql", 1,
                         BARE_TEMPLATE, full=False))
    return found
