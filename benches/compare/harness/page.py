"""What a run found, in words and tables: for the terminal and for docs/performance."""

from __future__ import annotations

from statistics import median
from typing import Callable

from .goals import Verdict, verdicts
from .rounds import all_systems
from .scatter import BOUND
from .systems.slow import DELAYS, MANY_WORKERS

HEADER = ("<!-- Written by benches/compare/run --page, from benches/compare/results/latest.json,\n"
          "which benches/compare/run --write makes. -->\n")


# Systems with slow commits, by the end of their names, and the heads of their columns.
SLOW = (
    ("otpd-256", "otpd, 256 in flight"),
    ("pgbench", "pgbench, full work"),
    ("django-60", "Django, 4 workers"),
    ("django-workers", f"Django, {MANY_WORKERS} workers"),
)
PARTS = ("service", "database", "load")


def page(results: dict) -> str:
    """What a run found: the part of docs/performance.md between its marks."""
    return "\n".join([
        HEADER,
        conditions(results),
        "![Pairs per second by system](performance/systems.svg)\n",
        goals_table(results),
        "![otpd by calls in flight](performance/in_flight.svg)\n",
        systems_table(results),
        *in_flight_table(results),
        *slow_table(results),
        *churn_line(results),
        *scatter_lines(results),
        *failures(results),
    ])


def plain(results: dict) -> str:
    """The same for a terminal."""
    return "\n".join([
        conditions(results), goals_table(results), systems_table(results),
        *in_flight_table(results), *slow_table(results), *churn_line(results),
        *scatter_lines(results), *failures(results),
    ])


def conditions(results: dict) -> str:
    """What it ran on, as a paragraph."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    postgres = ", ".join(f"`{key} = {value}`" for key, value in settings["postgres"].items())
    fdatasync = machine["fdatasync"]
    return (
        f"{results['date']}: {machine['processor']}, {machine['cores']} cores for everything "
        f"(server, PostgreSQL and load), {machine['memory_bytes'] / 2**30:.0f} GiB, Linux "
        f"{machine['kernel']}, {machine['file_system']}; an `fdatasync` of 8 kB takes "
        f"{fdatasync['microseconds']:.0f} µs. {versions}. PostgreSQL with {postgres}. "
        f"{redis_settings(results)}{baseline(settings)}"
        f"{settings['rounds']} rounds of {settings['seconds']:g} s each after "
        f"{settings['warm_up_seconds']:g} s of warm-up, {settings['records']:,} records there "
        "before; medians of the rounds, ratios of each round by itself.\n"
    )


def redis_settings(results: dict) -> str:
    if "Redis" not in results["versions"]:
        return ""
    named = ", ".join(f"`{key} = {value or 'none'}`"
                      for key, value in results["settings"]["redis"].items())
    return f"Redis with {named}. "


def baseline(settings: dict) -> str:
    return f"The earlier revision is {settings['baseline']}. " if "baseline" in settings else ""


def goals_table(results: dict) -> str:
    rows = ["| figure | reached | rounds | goal | last | |", "|---|--:|--:|--:|--:|---|"]
    for verdict in verdicts(results):
        rows.append(
            f"| {verdict.goal.text} | {reached(verdict)} | {span(verdict)} | {bound(verdict)} |"
            f" {last(verdict)} | {word(verdict)} |"
        )
    return "\n".join(rows) + "\n"


def reached(verdict: Verdict) -> str:
    return "–" if verdict.value is None else with_unit(verdict, verdict.value)


def span(verdict: Verdict) -> str:
    """From the least of the rounds to the most."""
    if len(verdict.values) < 2:
        return "–"
    return f"{number(min(verdict.values))} … {number(max(verdict.values))}"


def bound(verdict: Verdict) -> str:
    goal = verdict.goal
    if goal.bound is None:
        return "–"
    sign = "≥" if goal.at_least else "≤"
    beyond = f" (stretch {number(goal.stretch)})" if goal.stretch is not None else ""
    return f"{sign} {with_unit(verdict, goal.bound)}{beyond}"


def last(verdict: Verdict) -> str:
    """The figure of the run that was kept before this one."""
    return "–" if verdict.last is None else with_unit(verdict, verdict.last)


def word(verdict: Verdict) -> str:
    if verdict.goal.bound is None and verdict.value is not None:
        return ""
    return {None: "not run", True: "reached", False: "**not reached**"}[verdict.reached]


def with_unit(verdict: Verdict, value: float) -> str:
    unit = verdict.goal.unit
    return f"{number(value)}{' ' if unit == '×' else ''}{unit}"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def systems_table(results: dict) -> str:
    rows = [
        "| system | pairs/s | rounds | send p50 / p99 ms | verify p50 / p99 ms |"
        " CPU µs per pair: service | database | load | peak MB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for system in all_systems():
        runs = [done[system.name] for done in results["rounds"] if system.name in done]
        good = [run for run in runs if "pairs_per_second" in run]
        if good:
            rows.append(f"| {system.title} | " + " | ".join(cells(good)) + " |")
    return "\n".join(rows) + "\n"


def cells(runs: list[dict]) -> list[str]:
    rates = [run["pairs_per_second"] for run in runs]
    cpu = [run["cpu_microseconds_per_pair"] for run in runs]
    return [
        f"{median(rates):,.0f}",
        f"{min(rates):,.0f} … {max(rates):,.0f}" if len(runs) > 1 else "–",
        latencies(runs, "send"),
        latencies(runs, "verify"),
        *(number_or_dash(median(one[part] for one in cpu)) for part in PARTS),
        memory(runs),
    ]


def latencies(runs: list[dict], call: str) -> str:
    """Medians of the rounds' quantiles. pgbench tells none of single calls."""
    if any(call not in run for run in runs):
        return "–"
    told = [run[call]["latency_microseconds"] for run in runs]
    return " / ".join(f"{median(one[name] for one in told) / 1000:.2f}" for name in ("p50", "p99"))


def memory(runs: list[dict]) -> str:
    peaks = [run["service_memory"]["peak_resident_bytes"] for run in runs
             if "service_memory" in run]
    return f"{median(peaks) / 1e6:.0f}" if peaks else "–"


def number_or_dash(value: float) -> str:
    return f"{value:,.0f}" if value else "–"


def medians(results: dict, name: str, figure: Callable[[dict], float]) -> float | None:
    """The median over the rounds in which the system ran."""
    values = [figure(done[name]) for done in results["rounds"]
              if "pairs_per_second" in done.get(name, {})]
    return median(values) if values else None


def in_flight_table(results: dict) -> list[str]:
    """CPU time per pair of otpd on PostgreSQL, by calls in flight."""
    echo = medians(results, "echo", lambda run: run["cpu_microseconds_per_pair"]["service"])
    rows = []
    for system in all_systems():
        start, _, in_flight = system.name.rpartition("-")
        cpu = [medians(results, system.name,
                       lambda run, part=part: run["cpu_microseconds_per_pair"][part])
               for part in PARTS]
        if start != "otpd-postgres" or None in cpu:
            continue
        beside = f"{cpu[0] / echo:.1f} ×" if echo else "–"
        figures = " | ".join(f"{value:,.0f}" for value in (*cpu, sum(cpu)))
        rows.append(f"| {int(in_flight):,} | {figures} | {beside} |")
    if not rows:
        return []
    return ["\n".join([
        "CPU time of otpd on PostgreSQL in µs per pair; the last column is the service divided by "
        "a bare gRPC server:\n",
        "| in flight | service | database | load | all | ÷ gRPC |", "|--:|--:|--:|--:|--:|--:|",
        *rows, "",
    ])]


def slow_table(results: dict) -> list[str]:
    """Pairs per second with slow commits, by system."""
    rows = []
    for milliseconds in DELAYS:
        names = [f"slow-{milliseconds}-{name}" for name, _ in SLOW]
        cells = [slow_cell(results, name) for name in names]
        commit = [medians(results, name, lambda run: run["commit_milliseconds"]) for name in names]
        taken = [value for value in commit if value is not None]
        if taken:
            rows.append(f"| {milliseconds} ms | {median(taken):.1f} ms | {' | '.join(cells)} |")
    if not rows:
        return []
    return ["\n".join([
        "Pairs per second with slow commits; in parentheses the number of clients if it was "
        "chosen by a trial:\n",
        f"| added to each flush | a lone commit | {' | '.join(title for _, title in SLOW)} |",
        "|--:|--:|--:|--:|--:|--:|", *rows, "",
    ])]


def slow_cell(results: dict, name: str) -> str:
    rate = medians(results, name, lambda run: run["pairs_per_second"])
    clients = medians(results, name, lambda run: run["clients"])
    if rate is None or clients is None:
        return "–"
    chosen = "" if name.endswith("otpd-256") else f" ({clients:.0f})"
    return f"{rate:,.0f}{chosen}"


def scatter_lines(results: dict) -> list[str]:
    """Systems that ran in further rounds, and the scatter that is left."""
    scattered = results.get("scatter") or {}
    if not scattered:
        return []
    told = [f"- {name}: {span['before']:.0%}, after {span['rounds']} rounds {span['after']:.0%}"
            for name, span in scattered.items()]
    return [f"Rounds that scattered by more than {BOUND:.0%} of their median (span of the planned "
            "number of rounds nearest to it), and further rounds of them:\n\n"
            + "\n".join(told) + "\n"]


def churn_line(results: dict) -> list[str]:
    churn = results.get("churn") or {}
    if "after" not in churn:
        return []
    before, after = churn["before"], churn["after"]
    return [
        f"Churn: {churn['pairs']:,} pairs in {churn['cycles']} minutes, all of them purged. Before "
        f"{before['pairs_per_second']:,.0f} pairs/s, after {after['pairs_per_second']:,.0f}; the "
        f"tables with their indexes had {churn['bytes_before'] / 1e6:,.0f} MB, then "
        f"{churn['bytes_after'] / 1e6:,.0f} MB.\n"
    ]


def failures(results: dict) -> list[str]:
    """What did not run, and what went wrong in what did."""
    told = []
    for number_of_round, done in enumerate(results["rounds"], 1):
        for name, run in done.items():
            if "failed" in run:
                told.append(f"- {name}, round {number_of_round}: failed: {run['failed']}")
            elif run.get("failures"):
                told.append(f"- {name}, round {number_of_round}: {run['failures']}")
    told += [f"- {name}: failed: {why}" for name, why in results.get("failed", {}).items()]
    if "failed" in (results.get("churn") or {}):
        told.append(f"- churn: failed: {results['churn']['failed']}")
    return ["What went wrong:\n\n" + "\n".join(told) + "\n"] if told else []
