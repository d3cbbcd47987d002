"""What a run found, in words and tables: for the terminal and for docs/performance."""

from __future__ import annotations

from statistics import median

from .goals import Verdict, verdicts
from .rounds import all_systems

HEADER = ("<!-- Written by benches/compare/run --page, from benches/compare/results/latest.json,\n"
          "which benches/compare/run --write makes. -->\n")


def page(results: dict) -> str:
    """What a run found: the part of docs/performance.md between its marks."""
    return "\n".join([
        HEADER,
        conditions(results),
        "![Pairs per second by system](performance/systems.svg)\n",
        goals_table(results),
        "![otpd by calls in flight](performance/in_flight.svg)\n",
        systems_table(results),
        *churn_line(results),
        *failures(results),
    ])


def plain(results: dict) -> str:
    """The same for a terminal."""
    return "\n".join([
        conditions(results), goals_table(results), systems_table(results), *churn_line(results),
        *failures(results),
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
        f"{settings['rounds']} rounds of {settings['seconds']:g} s each after "
        f"{settings['warm_up_seconds']:g} s of warm-up, {settings['records']:,} records there "
        "before; medians of the rounds, ratios of each round by itself.\n"
    )


def goals_table(results: dict) -> str:
    rows = ["| what | reached | rounds | goal | |", "|---|--:|--:|--:|---|"]
    for verdict in verdicts(results):
        rows.append(
            f"| {verdict.goal.text} | {reached(verdict)} | {span(verdict)} | {bound(verdict)} |"
            f" {word(verdict)} |"
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
    sign = "≥" if verdict.goal.at_least else "≤"
    return f"{sign} {with_unit(verdict, verdict.goal.bound)}"


def word(verdict: Verdict) -> str:
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
        " CPU µs per pair: service | PostgreSQL | load | peak MB |",
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
        *(number_or_dash(median(one[part] for one in cpu)) for part in ("service", "postgres", "load")),
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


def churn_line(results: dict) -> list[str]:
    churn = results.get("churn") or {}
    if "after" not in churn:
        return []
    before, after = churn["before"], churn["after"]
    return [
        f"Churn: {churn['pairs']:,} pairs in {churn['cycles']} minutes, all of them swept. Before "
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
