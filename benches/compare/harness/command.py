"""The command: what is asked, what is done, and that everything ends."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from . import churn, machine, profile
from .chart import in_flight_chart, systems_chart
from .goals import figures
from .measurement import Bench, Plan
from .page import page, plain
from .postgres import MEMORY_FILE_SYSTEMS, Postgres, file_system, find_programs
from .processes import Fleet, undisturbed
from .rounds import (
    Choice, all_systems, chosen, described, prepare, repeat_scattered, run_rounds,
)
from .scatter import MAXIMUM
from .tools import Baseline, Tools, say

REPOSITORY = Path(__file__).resolve().parents[3]
LATEST = REPOSITORY / "benches/compare/results/latest.json"
DOCUMENTATION = REPOSITORY / "docs/performance"
# Where the server's time went when it was profiled last.
PROFILE = REPOSITORY / "benches/compare/results/profile.json"
# What a run writes down that is not for the documentation.
LAST = REPOSITORY / "target/compare/results.json"
PAGE = REPOSITORY / "docs/performance.md"
# Where that page takes in what a run found.
PART = re.compile(r"(<!-- comparison: .*? -->\n).*?(<!-- comparison: end -->)", re.DOTALL)
PROFILE_PART = re.compile(r"(<!-- profile: .*? -->\n).*?(<!-- profile: end -->)", re.DOTALL)

FULL = Plan(seconds=10, warm_up=3)
QUICK = Plan(seconds=2, warm_up=1)
EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130


def main() -> int:
    options = parse(sys.argv[1:])
    if options.list:
        print("\n".join(f"{system.name:<24} {system.title}" for system in all_systems()))
        return 0
    if options.page or options.check:
        if not LATEST.exists():
            print("No figures are kept yet: benches/compare/run --write makes them.")
            return 0
        kept = json.loads(LATEST.read_text())
        return write_page(kept) if options.page else check_page(kept)
    try:
        systems = chosen(options.only, options.quick, options.large, bool(options.baseline))
    except ValueError as error:
        print(f"compare: {error}", file=sys.stderr)
        return EXIT_USAGE
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if options.profile:
            with prepared(options) as bench:
                bench.tools = bench.tools.named()
                found = profile.run(bench, DOCUMENTATION)
            PROFILE.write_text(as_json(found))
            print(profile.table(found))
            return write_page(json.loads(LATEST.read_text())) if LATEST.exists() else 0
        results = run(options, systems)
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been ended")
        return EXIT_INTERRUPTED
    report(results, options.write)
    return EXIT_FAILED if has_failed(results) else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/compare/run",
        description="Compares otpd with what else could send and check one-time passwords, on a "
        "PostgreSQL of its own whose commits reach the disk. Prints the figures, with the goals, "
        "and keeps them in target/compare/results.json.",
        epilog="Exit codes: 0 every system ran (whatever the goals), 1 some failed, 64 wrong usage.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="about a minute: one short round of each kind")
    add("--rounds", type=int, metavar="N", help="rounds [5; 1 with --quick]")
    add("--extra-rounds", type=int, metavar="N",
        help="maximum number of further rounds of systems whose rounds scatter by more than 25 %% "
        f"[{MAXIMUM}; 0 with --quick]")
    add("--seconds", type=float, metavar="S", help="length of each run [10; 2 with --quick]")
    add("--warm-up", type=float, metavar="S", help="before each run [3; 1 with --quick]")
    add("--only", type=lambda text: text.split(","), default=[], metavar="NAME,…",
        help="these systems alone; * stands for anything")
    add("--list", action="store_true", help="names the systems, also those that only --only runs")
    add("--records", type=int, default=10_000, metavar="N",
        help="records in the databases before each run [10000]")
    add("--large", action="store_true",
        help="otpd also on 5,000,000 records (about 5 GB of disk, and minutes to fill)")
    add("--baseline", metavar="REVISION",
        help="also the server of an earlier revision, built into target/compare in about five "
        "minutes")
    add("--baseline-otpd", type=Path, metavar="FILE", help="that server, if it is built already")
    add("--churn", type=float, nargs="?", const=10.0, metavar="MINUTES",
        help="after the rounds, minutes of load with purging, measured before and after [10]")
    add("--profile", action="store_true",
        help="instead: samples where the server's time goes, and writes that into docs/performance "
        "(needs perf)")
    add("--write", action="store_true",
        help="keeps the figures in benches/compare/results and writes docs/performance")
    add("--page", action="store_true", help="only rewrites docs/performance from kept figures")
    add("--check", action="store_true", help="only checks that docs/performance is of them")
    add("--unoptimized", action="store_true",
        help="debug builds, for trying the comparison itself: the figures mean nothing")
    add("--otpd", type=Path, metavar="FILE", help="this server [the release build of this tree]")
    add("--data", type=Path, metavar="DIRECTORY",
        help="a directory on a disk for the databases [the one for temporary files]")
    options = parser.parse_args(arguments)
    if options.baseline_otpd and not options.baseline:
        parser.exit(EXIT_USAGE, "compare: --baseline-otpd needs --baseline, whose files it uses\n")
    if options.write and (options.quick or options.only or options.unoptimized):
        parser.exit(EXIT_USAGE, "compare: --write needs a whole run, without --quick, --only and "
                    "--unoptimized\n")
    return options


def run(options: argparse.Namespace, systems: list) -> dict:
    """Everything between the start of PostgreSQL and its end."""
    rounds = options.rounds or (1 if options.quick else 5)
    extra = options.extra_rounds
    extra = (0 if options.quick else MAXIMUM) if extra is None else extra
    with prepared(options) as bench:
        choice: Choice = prepare(bench, systems, options.records)
        results = {
            "date": machine.today(),
            "machine": machine.machine(bench),
            "settings": machine.settings(bench, rounds, options.records),
            "failed": choice.failed,
            "rounds": [],
            "versions": machine.versions(bench, [system.name for system in systems]),
            "last": figures(json.loads(LATEST.read_text())) if LATEST.exists() else {},
        }
        if options.baseline:
            results["settings"]["baseline"] = options.baseline
        run_rounds(bench, choice.systems, rounds, results["rounds"])
        results["scatter"] = repeat_scattered(bench, choice.systems, rounds, extra,
                                              results["rounds"])
        if options.churn:
            try:
                results["churn"] = churn.run(bench, options.churn)
            except Exception as error:  # the rounds' figures are good all the same
                results["churn"] = {"failed": described(error)}
        return results


@contextmanager
def prepared(options: argparse.Namespace) -> Iterator[Bench]:
    """PostgreSQL, directories and tools, until the end of the block."""
    plan = QUICK if options.quick else FULL
    plan = Plan(options.seconds or plan.seconds,
                plan.warm_up if options.warm_up is None else options.warm_up)
    baseline = options.baseline and Baseline(
        options.baseline, options.baseline_otpd and options.baseline_otpd.resolve())
    with everything_ended() as (fleet, keep):
        tools = Tools(fleet, REPOSITORY, options.otpd and options.otpd.resolve(),
                      options.unoptimized, baseline)
        parent = options.data or on_a_disk()
        postgres = Postgres(fleet, find_programs(REPOSITORY), parent.resolve())
        keep(postgres.stop)
        postgres.start()
        scratch = temporary(keep, parent)
        yield Bench(fleet, postgres, REPOSITORY, scratch, temporary(keep, in_memory()), plan, tools,
                    options.records)


@contextmanager
def everything_ended() -> Iterator[tuple]:
    """A fleet, and a way to have things undone when it ends, also by a signal."""
    fleet, undo = Fleet(), []
    try:
        yield fleet, undo.append
    finally:
        with undisturbed():
            for step in reversed(undo):
                step()
            fleet.stop_all()


def temporary(keep, parent: Path) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="otpd-compare.", dir=parent))
    keep(lambda: shutil.rmtree(directory, ignore_errors=True))
    return directory


def on_a_disk() -> Path:
    """The usual place for temporary files, unless that is memory."""
    usual = Path(tempfile.gettempdir())
    return Path("/var/tmp") if file_system(usual) in MEMORY_FILE_SYSTEMS else usual


def in_memory() -> Path:
    """Where the servers' logs cost no disk."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def report(results: dict, write: bool) -> None:
    LAST.parent.mkdir(parents=True, exist_ok=True)
    LAST.write_text(as_json(results))
    print(plain(results))
    if write:
        LATEST.parent.mkdir(parents=True, exist_ok=True)
        LATEST.write_text(as_json(results))
        write_page(results)


def as_json(results: dict) -> str:
    """In the order in which it was found: what is kept has to make the same page."""
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def has_failed(results: dict) -> bool:
    runs = [done for results_of_round in results["rounds"] for done in results_of_round.values()]
    return bool(results["failed"]) or any(
        "failed" in done for done in [*runs, results.get("churn") or {}]
    )


def documents(results: dict) -> dict[Path, str]:
    """What is written into the documentation, by file."""
    parts = profile.table(json.loads(PROFILE.read_text())) if PROFILE.exists() else ""
    found = {
        DOCUMENTATION / "systems.svg": systems_chart(results),
        DOCUMENTATION / "in_flight.svg": in_flight_chart(results),
    }
    if PAGE.exists():
        text = PAGE.read_text()
        for pattern, part in ((PART, page(results)), (PROFILE_PART, parts)):
            text = pattern.sub(lambda ends, part=part: f"{ends[1]}\n{part}\n{ends[2]}", text)
        found[PAGE] = text
    return found


def write_page(results: dict) -> int:
    DOCUMENTATION.mkdir(parents=True, exist_ok=True)
    for path, content in documents(results).items():
        path.write_text(content)
        say(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


def check_page(results: dict) -> int:
    stale = [path for path, content in documents(results).items()
             if not path.exists() or path.read_text() != content]
    for path in stale:
        print(f"{path.relative_to(REPOSITORY)} is not what the figures say; rewrite it by "
              "benches/compare/run --page", file=sys.stderr)
    return EXIT_FAILED if stale else 0
