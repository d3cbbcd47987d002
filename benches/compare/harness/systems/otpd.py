"""otpd itself, driven by `otpd bench`."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ..measurement import Bench, Load, measure
from ..processes import ProcessFailed, wait_until
from ..tools import COMPARE
from ..work import work_done
from . import pgbench
from .http import free_port, listens

CONNECTIONS = 8
CLIENT_IPS = 10_000
REGIONS = 20
DATABASE = "compare_otpd"
TEMPLATE = "compare_otpd_template"
LARGE = "compare_otpd_large"
LARGE_RECORDS = 5_000_000
BASELINE_TEMPLATE = "compare_baseline_template"
SCRAPE_SECONDS = 5
# What the load's own shape needs; the limit stays on, so that its row is written.
LIMITS = {"OTPD_POLICY__IP_SENDS_PER_HOUR": "1000000"}
# A few records that get codes all the time need room in their own limits as well.
HOT_LIMITS = {
    **LIMITS,
    "OTPD_POLICY__SENDS_PER_HOUR": "1000000",
    "OTPD_POLICY__SENDS_PER_DAY": "1000000",
    # Every second one is answered wrong at first; nobody would be judged for long.
    "OTPD_POLICY__FAILURE_DELAY": "0s",
}


@dataclass(frozen=True)
class Replicas:
    """The servers that run."""

    addresses: list[str]
    logs: list[Path]
    pids: list[int]


@dataclass(frozen=True)
class Otpd:
    """One way to load it."""

    name: str
    title: str
    in_flight: int
    store: str = "postgres"
    replicas: int = 1
    # How many records all pairs are about; 0: each about a new one.
    hot: int = 0
    # Whether pairs start at half the rate that it could do, whether or not earlier ones
    # have ended.
    half_load: bool = False
    # Whether the database holds LARGE_RECORDS.
    large: bool = False
    # What looks on: nothing; "metrics", which are scraped; or "traces" as well, of one
    # request in a hundred.
    observed: str = ""
    # Threads that run the service's tasks; 0: one for each processor.
    threads: int = 0
    # Whether pairs start at half the rate that pgbench's full work reached.
    paced: bool = False
    # Whether the server is the one of an earlier revision.
    baseline: bool = False
    variant: bool = False

    def run(self, bench: Bench) -> dict:
        if self.paced:
            # Before the server starts, because that may be a run of its own.
            pgbench.capacity(bench)
        if self.baseline:
            server, source = bench.tools.baseline()
        else:
            server, source = bench.tools.otpd(), COMPARE
        settings = {**(HOT_LIMITS if self.hot else LIMITS)}
        if self.threads:
            settings["TOKIO_WORKER_THREADS"] = str(self.threads)
        with self._database(bench) as url, observing(bench, self.observed) as observed:
            before = left(bench, url, source)
            with serving(bench, url, self.replicas, {**settings, **observed}, server) as replicas:
                result, pairs = self._measure(bench, replicas)
            self._check(before, left(bench, url, source), pairs)
        if self.name == CAPACITY_OF:
            bench.capacity = result["pairs_per_second"]
        return result

    def _measure(self, bench: Bench, replicas: Replicas) -> tuple[dict, int]:
        """The figures, and how many pairs there were in all."""
        pairs = 0
        rate = None
        extra = []

        def load(seconds: float) -> Load:
            nonlocal pairs
            paced = extra + (["--rate", f"{rate:.0f}"] if rate else [])
            done = otpd_load(bench, replicas, self.in_flight, seconds, paced)
            pairs += done.pairs
            return done

        if self.hot:
            extra = ["--hot", str(self.hot)]
        if self.half_load:
            if bench.capacity is None:
                warm = load(bench.plan.seconds)
                bench.capacity = warm.pairs / warm.seconds
            rate = bench.capacity / 2
        if self.paced:
            rate = pgbench.capacity(bench) / 2
        result = measure(bench, load, service=replicas.pids,
                         database=None if self.store == "postgres" else [])
        if rate:
            result["rate"] = rate
        return result, pairs

    def _check(self, before: tuple[int, ...], after: tuple[int, ...], pairs: int) -> None:
        """Refuses figures of work that was not done. Pairs that the end of a run cut off are
        in the database as well."""
        if not self.hot and any(now - then < pairs for now, then in zip(after, before)):
            raise ProcessFailed(f"{pairs} pairs, but the database had {before}, then {after}")

    @contextmanager
    def _database(self, bench: Bench) -> Iterator[str]:
        if self.store == "sqlite":
            file = bench.scratch / "otpd.db"
            try:
                yield f"sqlite://{file}"
            finally:
                for path in bench.scratch.glob("otpd.db*"):
                    path.unlink()
        elif self.large:
            # Too large to copy for each run; what a run adds is little beside it.
            prepare_large(bench)
            yield bench.postgres.url(LARGE)
        else:
            template = prepare_baseline(bench) if self.baseline else TEMPLATE
            bench.postgres.create(DATABASE, template)
            try:
                yield bench.postgres.url(DATABASE)
            finally:
                bench.postgres.drop(DATABASE)


@dataclass(frozen=True)
class Start:
    """How soon it serves, on a database that has its schema."""

    name: str
    title: str
    variant: bool = False

    TIMES = 5

    def run(self, bench: Bench) -> dict:
        bench.postgres.create(DATABASE, TEMPLATE)
        try:
            return {"start_seconds": [self._start(bench) for _ in range(self.TIMES)]}
        finally:
            bench.postgres.drop(DATABASE)

    def _start(self, bench: Bench) -> float:
        address = f"127.0.0.1:{free_port()}"
        command = [bench.tools.load(), "serving", "--address", address, "--",
                   bench.tools.otpd(), "serve"]
        finished = bench.fleet.run(
            command, timeout=60, directory=bench.scratch,
            environment=environment(bench, bench.postgres.url(DATABASE), address, LIMITS),
        )
        return json.loads(finished.output)["seconds"]


@contextmanager
def observing(bench: Bench, what: str) -> Iterator[dict[str, str]]:
    """The settings of a server that is looked at, and whoever looks."""
    if not what:
        yield {}
        return
    settings = {"OTPD_OPERATIONS_LISTEN": f"127.0.0.1:{free_port()}"}
    ended = threading.Event()
    scraper = threading.Thread(target=scrape, args=(settings["OTPD_OPERATIONS_LISTEN"], ended))
    scraper.start()
    sink, log = None, bench.memory / "sink.log"
    try:
        if what == "traces":
            port = free_port()
            address = f"127.0.0.1:{port}"
            sink = bench.fleet.start([bench.tools.load(), "sink", "--address", address], log=log)
            wait_until(lambda: listens(port), what="the sink of spans", process=sink, log=log)
            settings["OTPD_TRACES__ENDPOINT"] = f"http://{address}"
            settings["OTPD_TRACES__SAMPLE_RATIO"] = "0.01"
        yield settings
    finally:
        ended.set()
        scraper.join()
        if sink:
            bench.fleet.stop(sink)
        log.unlink(missing_ok=True)


def scrape(address: str, ended: threading.Event) -> None:
    """Asks for the metrics as often as Prometheus does where it is told to hurry."""
    while not ended.wait(SCRAPE_SECONDS):
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
                reply.read()
        except OSError:
            # The server has not started yet, or has ended.
            continue


@contextmanager
def serving(
    bench: Bench, url: str, replicas: int, settings: dict[str, str], server: Path | None = None
) -> Iterator[Replicas]:
    """So many servers on one database, until the end of the block."""
    server = server or bench.tools.otpd()
    processes, addresses, logs = [], [], []
    try:
        for number in range(replicas):
            address = f"127.0.0.1:{free_port()}"
            log = bench.memory / f"otpd-{number}.log"
            log.unlink(missing_ok=True)
            process = bench.fleet.start(
                [server, "serve"], log=log, directory=bench.scratch,
                environment=environment(bench, url, address, settings),
            )
            processes.append(process)
            addresses.append(address)
            logs.append(log)
            wait_until(lambda: healthy(bench, address), what="otpd", process=process, log=log)
        yield Replicas(addresses, logs, [process.pid for process in processes])
    finally:
        for process in processes:
            bench.fleet.stop(process)
        for log in logs:
            log.unlink(missing_ok=True)


def environment(bench: Bench, url: str, address: str, settings: dict[str, str]) -> dict[str, str]:
    """The development environment, which sends codes to the log; nothing of ours from
    outside."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith("OTPD_") and key != "TOKIO_WORKER_THREADS"}
    return {
        **kept,
        "DATABASE_URL": url,
        "OTPD_LISTEN": address,
        "OTPD_KEYS_FILE": str(keys(bench)),
        "OTPD_LOG_LEVEL": "info",
        # Nobody has to notice that it ends.
        "OTPD_SHUTDOWN_DELAY": "0s",
        **settings,
    }


def keys(bench: Bench) -> Path:
    """One key ring for all replicas and runs."""
    path = bench.scratch / "keys"
    if not path.exists():
        bench.fleet.run([bench.tools.otpd(), "keygen", "--output", path], timeout=30)
    return path


def healthy(bench: Bench, address: str) -> bool:
    asked = [bench.tools.otpd(), "health", "--address", address]
    return subprocess.run(asked, check=False, capture_output=True,
                          cwd=bench.scratch).returncode == 0


def otpd_load(
    bench: Bench, replicas: Replicas, in_flight: int, seconds: float, extra: list[str]
) -> Load:
    """One run of the generator. The warm-up is a run of its own: see measure()."""
    report = bench.memory / "otpd-bench.json"
    report.unlink(missing_ok=True)
    command = [
        bench.tools.otpd(), "bench", "--address", ",".join(replicas.addresses),
        "--codes", ",".join(str(log) for log in replicas.logs),
        "--connections", str(CONNECTIONS), "--in-flight", str(in_flight),
        "--duration", f"{round(seconds * 1000)}ms", "--warm-up", "0s",
        "--client-ips", str(CLIENT_IPS), "--regions", str(REGIONS), "--quiet",
        "--json", report, *extra,
    ]
    # 1: some pairs failed; the report counts them.
    finished = bench.fleet.run(command, timeout=seconds + bench.plan.timeout(), good=(0, 1))
    told = json.loads(report.read_text())
    wanted = ("send", "verify", "outcomes", "failures", "violations", "not_started",
              "pairs_failed")
    details = {key: told[key] for key in wanted if key in told}
    return Load(told["pairs"], told["seconds"], finished.cpu_seconds, details)


def left(bench: Bench, url: str, source: Path) -> tuple[int, ...]:
    """Returns the work that the database holds; known of PostgreSQL."""
    if not url.startswith("postgres"):
        return ()
    return work_done(bench.postgres, url.rsplit("/", 1)[1], source)


def prepare(bench: Bench, records: int) -> None:
    """The template of the runs' databases: as `otpd migrate` makes it, and filled."""
    make(bench, TEMPLATE, records)


def prepare_baseline(bench: Bench) -> str:
    """Returns the template of the earlier revision, made once, in its own schema."""
    if not bench.postgres.exists(BASELINE_TEMPLATE):
        server, source = bench.tools.baseline()
        make(bench, BASELINE_TEMPLATE, bench.records, server, source)
        bench.postgres.flush()
    return BASELINE_TEMPLATE


def prepare_large(bench: Bench) -> None:
    """The large database, once."""
    if not bench.postgres.exists(LARGE):
        make(bench, LARGE, LARGE_RECORDS)


def make(bench: Bench, database: str, records: int, server: Path | None = None,
         source: Path = COMPARE) -> None:
    postgres = bench.postgres
    postgres.create(database)
    bench.fleet.run(
        [server or bench.tools.otpd(), "migrate"], timeout=60, directory=bench.scratch,
        environment=environment(bench, postgres.url(database), "127.0.0.1:0", {}),
    )
    postgres.file(source / "sql/fill.sql", database, timeout=7200, records=records)
    # Vacuum leaves its marks now, and not in the middle of a run.
    postgres.flush()


# The run whose rate is taken for what otpd can do.
CAPACITY_OF = "otpd-postgres-256"


def systems() -> list[Otpd | Start]:
    found: list[Otpd | Start] = []
    for store, title in (("postgres", "PostgreSQL"), ("sqlite", "SQLite")):
        for in_flight in (1, 16, 64, 256, 1024):
            found.append(Otpd(f"otpd-{store}-{in_flight}", f"otpd on {title}, {in_flight} in flight",
                              in_flight, store))
    found += [
        Otpd("otpd-half-load", "otpd, pairs started at half its rate", 1024, half_load=True),
        Otpd("otpd-paced", "otpd, pairs started at half the rate of pgbench's full work", 1024,
             paced=True),
        Otpd("otpd-one-thread", "otpd, one worker thread, 256 in flight", 256, threads=1),
        Otpd("otpd-two-threads", "otpd, two worker threads, 256 in flight", 256, threads=2),
        Otpd("otpd-replicas", "otpd, three replicas, 256 in flight", 256, replicas=3),
        Otpd("otpd-hot", "otpd, three replicas, 50 records", 256, replicas=3, hot=50),
        Otpd("otpd-metrics", "otpd, metrics scraped, 256 in flight", 256, observed="metrics"),
        Otpd("otpd-traces", "otpd, metrics and 1 % of traces, 256 in flight", 256,
             observed="traces"),
        Start("otpd-start", "otpd, from its start to SERVING"),
    ]
    return found


def baselines() -> list[Otpd]:
    """Returns the server of an earlier revision on both stores."""
    return [
        Otpd(f"otpd-baseline-{store}-256", f"otpd of the earlier revision on {title}, 256 in flight",
             256, store, baseline=True)
        for store, title in (("postgres", "PostgreSQL"), ("sqlite", "SQLite"))
    ]


def large() -> Otpd:
    return Otpd("otpd-large", f"otpd, {LARGE_RECORDS:,} records, 256 in flight", 256, large=True)
