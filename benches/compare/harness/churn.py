"""Whether otpd leaves its database as good as it found it: minutes of load, with the clock
moved on so that purging has everything to remove."""

from __future__ import annotations

import time

from .measurement import Bench, measure
from .processes import ProcessFailed
from .systems import otpd
from .tools import say

IN_FLIGHT = 256
CYCLE_SECONDS = 60.0
# Past the longest that a record is kept after its last send: a tenth of a day, which one
# send of ten takes to be refilled, and a margin.
CLOCK_STEP_MILLISECONDS = 3 * 3600 * 1000
# How long purging may take after the last cycle.
PATIENCE_SECONDS = 300.0
PURGE_BATCH = 1000


def run(bench: Bench, minutes: float) -> dict:
    """Measures before and after; each cycle's leftovers are purged during the next one."""
    postgres = bench.postgres
    postgres.create(otpd.DATABASE, otpd.TEMPLATE)
    settings = {**otpd.LIMITS, "OTPD_STORE__PURGE_INTERVAL": "5s"}
    cycles = max(1, round(minutes * 60 / CYCLE_SECONDS))
    try:
        with otpd.serving(bench, postgres.url(otpd.DATABASE), 1, settings) as replicas:
            def load(seconds: float):
                return otpd.otpd_load(bench, replicas, IN_FLIGHT, seconds, [])

            postgres.flush()
            before = measure(bench, load, service=replicas.pids)
            size_before = size(bench)
            pairs = 0
            for cycle in range(1, cycles + 1):
                pairs += load(CYCLE_SECONDS).pairs
                move_clock(bench, cycle * CLOCK_STEP_MILLISECONDS)
                for log in replicas.logs:
                    log.write_bytes(b"")
                say(f"churn  {cycle}/{cycles}  {pairs:,} pairs, {removable(bench):,} removable")
            await_purge(bench)
            postgres.flush()
            after = measure(bench, load, service=replicas.pids)
            return {"before": before, "after": after, "pairs": pairs, "cycles": cycles,
                    "bytes_before": size_before, "bytes_after": size(bench)}
    finally:
        postgres.drop(otpd.DATABASE)


def move_clock(bench: Bench, milliseconds: int) -> None:
    """Puts the store's clock so far ahead of the machine's, for all who read it."""
    bench.postgres.sql(
        "CREATE OR REPLACE VIEW otp_clock AS SELECT floor(extract(EPOCH FROM clock_timestamp())"
        f" * 1000)::bigint + {milliseconds}::bigint AS now",
        otpd.DATABASE,
    )


def removable(bench: Bench) -> int:
    """How many records and messages the purge has still to remove."""
    return int(bench.postgres.sql(
        "SELECT (SELECT count(*) FROM otp_record, otp_clock WHERE removable_at <= now)"
        " + (SELECT count(*) FROM otp_message, otp_clock"
        " WHERE removable_at <= now AND due_at IS NULL)",
        otpd.DATABASE,
    ))


def await_purge(bench: Bench) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while removable(bench) > PURGE_BATCH:
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{removable(bench):,} rows were not purged in time")
        time.sleep(1)


def size(bench: Bench) -> int:
    return int(bench.postgres.sql(
        "SELECT pg_total_relation_size('otp_record') + pg_total_relation_size('otp_message')"
        " + pg_total_relation_size('otp_limit')",
        otpd.DATABASE,
    ))
