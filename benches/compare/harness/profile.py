"""Where the server's time goes: sampled stacks, summed up by part, and as a flame graph."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from .measurement import Bench
from .processes import ProcessFailed, cpu_seconds
from .systems.otpd import (
    DATABASE, LIMITS, TEMPLATE, otpd_load, prepare, serving,
)
from .tools import say

IN_FLIGHT = 256
SAMPLES_PER_SECOND = 997
FOLDED = "target/compare/stacks.folded"
# The version of inferno, which draws the flame graph.
INFERNO = "0.12.8"

# What a stack is counted for, by the innermost of its functions that one of these finds.
PARTS = [
    ("allocator", r"^(_int_|__libc_)?(malloc|c?free|realloc|calloc|memalign)|^unlink_chunk"),
    ("PostgreSQL client", r"sqlx|otpd::store::postgres"),
    ("crypto", r"otpd::keys|chacha20|poly1305|sha2::|hmac::|getrandom|rand_core|[Ss]ys_?[Rr]ng"),
    ("phone numbers", r"rlibphonenumber|regex_automata|otpd_rules::recipient"),
    ("rules", r"otpd_rules::|otpd::service"),
    ("log", r"tracing|otpd::grpc::journal|otpd_delivery::log|std::io::stdio"),
    ("batcher", r"otpd::engine"),
    ("outbox", r"otpd::outbox|otpd_delivery|minijinja"),
    ("gRPC", r"h2::|hyper|tonic|prost|otpd::grpc|otpd::connection|tower"),
]
COMPILED = [(name, re.compile(pattern)) for name, pattern in PARTS]
# Whole stacks without any of them: tasks scheduled, woken, waited for.
OTHER = "runtime"
# Stacks that do not reach the start of a thread and have none of them. The C library keeps no
# frame pointers, so a sample inside it can lose its callers.
BROKEN = "caller unknown"
WHOLE = re.compile(r"^(start_thread|clone3?|_start|__libc_start)")
# Name that perf gives to an address outside of all functions that it knows.
UNKNOWN = "[unknown]"
LIBRARY = re.compile(r"\.so(\.|$)")


def run(bench: Bench, documentation: Path) -> dict:
    """Samples a server under load; returns microseconds per pair by part, and writes the
    flame graph."""
    if not shutil.which("perf"):
        raise ProcessFailed("profiling needs perf, which comes with the kernel's tools")
    prepare(bench, 10_000)
    bench.postgres.create(DATABASE, TEMPLATE)
    stacks = bench.scratch / "stacks"
    try:
        with serving(bench, bench.postgres.url(DATABASE), 1, LIMITS) as replicas:
            otpd_load(bench, replicas, IN_FLIGHT, bench.plan.warm_up, [])
            used = cpu_seconds(replicas.pids), cpu_seconds([bench.postgres.pid])
            sampling = bench.fleet.start(
                ["perf", "record", "--quiet", f"--freq={SAMPLES_PER_SECOND}",
                 "--call-graph=fp", f"--pid={replicas.pids[0]}", "--output", stacks],
                log=bench.scratch / "perf.log",
            )
            time.sleep(0.5)
            done = otpd_load(bench, replicas, IN_FLIGHT, bench.plan.seconds, [])
            used = [now - then for now, then in zip(
                (cpu_seconds(replicas.pids), cpu_seconds([bench.postgres.pid])), used)]
            bench.fleet.stop(sampling, 2)
    finally:
        bench.postgres.drop(DATABASE)
    folded = fold(bench, stacks)
    draw(bench, folded, documentation / "flame.svg")
    per_pair = [1e6 * seconds / done.pairs for seconds in used]
    total = sum(folded.values())
    whole = sum(count for stack, count in folded.items() if WHOLE.search(stack))
    parts = sum_up(folded)
    return {
        "pairs": done.pairs,
        "service": per_pair[0],
        "postgres": per_pair[1],
        "load": 1e6 * done.cpu_seconds / done.pairs,
        "whole_stacks": whole / total,
        "parts": {name: per_pair[0] * count / total for name, count in parts.most_common()},
    }


def table(found: dict) -> str:
    """Microseconds of processor time for a pair, by part."""
    rows = ["| part | µs per pair |", "|---|--:|"]
    rows += [f"| otpd: {name} | {micros:.1f} |" for name, micros in found["parts"].items()]
    rows += [f"| **otpd, all of it** | **{found['service']:.0f}** |",
             f"| **PostgreSQL** | **{found['postgres']:.0f}** |",
             f"| the load generator | {found['load']:.0f} |"]
    if "whole_stacks" in found:
        rows += ["", f"The stacks of {found['whole_stacks']:.0%} of the samples are whole: they "
                 "reach the start of a thread."]
    return "\n".join(rows) + "\n"


def fold(bench: Bench, samples: Path) -> Counter[str]:
    """The stacks, each as names with semicolons between, the outermost first."""
    say("folding stacks")
    told = subprocess.run(
        ["perf", "script", "--no-inline", "--input", samples, "--fields", "ip,sym,dso"],
        check=True, capture_output=True, text=True, errors="replace",
    )
    folded: Counter[str] = Counter()
    for stack in told.stdout.split("\n\n"):
        names = [name for line in stack.splitlines() if (name := frame(line))]
        if names:
            folded[";".join(clean(name) for name in reversed(names))] += 1
    return folded


def frame(line: str) -> str:
    """The function of one line, `address function (file)`. A function of a stripped library is
    named by its file."""
    _, _, rest = line.strip().partition(" ")
    name, _, file = rest.rpartition(" (")
    file = Path(file.removesuffix(")")).name
    return f"[{file}]" if name == UNKNOWN and LIBRARY.search(file) else name


def clean(name: str) -> str:
    """Without what tells one build of a function from another."""
    return re.sub(r"::h[0-9a-f]{16}$", "", name).replace(";", ":")


def part(stack: str) -> str:
    for name in reversed(stack.split(";")):
        for found, pattern in COMPILED:
            if pattern.search(name):
                return found
    return OTHER if WHOLE.search(stack) else BROKEN


def sum_up(folded: Counter[str]) -> Counter[str]:
    parts: Counter[str] = Counter()
    for stack, count in folded.items():
        parts[part(stack)] += count
    return parts


def draw(bench: Bench, folded: Counter[str], path: Path) -> None:
    program = bench.tools.inferno(INFERNO)
    lines = "\n".join(f"{stack} {count}" for stack, count in sorted(folded.items()))
    # For questions that the graph and the table do not answer.
    (bench.repository / FOLDED).write_text(lines + "\n")
    drawn = subprocess.run(
        [program, "--title", "otpd serve, 256 calls in flight", "--minwidth", "0.3"],
        input=lines, check=True, capture_output=True, text=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawn.stdout)
