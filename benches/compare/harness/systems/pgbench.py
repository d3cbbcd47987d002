"""What PostgreSQL alone does, driven by pgbench with prepared statements."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..measurement import Bench, Load, measure
from ..processes import ProcessFailed

DIRECTORY = Path(__file__).resolve().parents[2]
SCRIPTS = DIRECTORY / "pgbench"
DATABASE = "compare_pgbench"
TEMPLATE = "compare_template"
BARE_TEMPLATE = "compare_bare_template"

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
    # The scripts that the default rounds leave out.
    variant: bool = False

    def run(self, bench: Bench) -> dict:
        bench.postgres.create(DATABASE, self.template)
        before = self._left(bench)
        pairs = 0

        def load(seconds: float) -> Load:
            nonlocal pairs
            done = run_pgbench(bench, self, seconds)
            pairs += done.pairs
            return done

        try:
            result = measure(bench, load, service=[])
            self._check(bench, before, pairs)
            return result
        finally:
            bench.postgres.drop(DATABASE)

    def _left(self, bench: Bench) -> tuple[int, ...]:
        """How many records are spent, and how many messages sent."""
        if not self.full:
            return ()
        counts = bench.postgres.sql(
            "SELECT (SELECT count(*) FROM otp_record WHERE state = 'spent'),"
            " (SELECT count(*) FROM otp_message WHERE state = 'sent')",
            DATABASE,
        )
        return tuple(int(count) for count in counts.split("|"))

    def _check(self, bench: Bench, before: tuple[int, ...], pairs: int) -> None:
        """Refuses figures of work that was not done."""
        after = self._left(bench)
        done = {now - then for now, then in zip(after, before)}
        if self.full and done != {pairs}:
            raise ProcessFailed(f"{pairs} pairs left {done} spent records and sent messages")


def run_pgbench(bench: Bench, system: Pgbench, seconds: float) -> Load:
    """One run; a `transaction` of pgbench is the whole script, hence one pair."""
    variables = [f"--define={name}=\\x{'5c' * width}" for name, width in WIDTHS.items()]
    command = [
        bench.postgres.program("pgbench"), "--no-vacuum", "--protocol=prepared",
        f"--client={system.clients}", f"--jobs={min(system.clients, 2)}",
        f"--time={max(1, round(seconds))}", "--file", SCRIPTS / system.script, *variables,
        bench.postgres.url(DATABASE),
    ]
    finished = bench.fleet.run(
        command, timeout=bench.plan.timeout(),
        environment={**os.environ, "PGOPTIONS": system.session},
    )
    return parse(finished.output, finished.cpu_seconds)


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
    statements = "full_statements.sql"
    full = [
        ("full", "a statement per step", statements, "", False),
        ("transactions", "plain transactions", "full_transactions.sql", "", False),
        ("functions", "PL/pgSQL functions", "full_functions.sql", "", True),
        ("pipelines", "pipelined transactions", "full_pipelines.sql", "", True),
        ("generic", "a statement per step, generic plans", statements,
         "-c plan_cache_mode=force_generic_plan", True),
        ("delay", "a statement per step, commit_delay = 100", statements,
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
    found.append(Pgbench("pgbench-update-1", "pgbench, one durable UPDATE", "update.sql", 1,
                         BARE_TEMPLATE, full=False))
    return found
