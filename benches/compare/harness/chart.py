"""Charts as SVG, written by hand: readable on light and on dark ground."""

from __future__ import annotations

from html import escape
from math import floor, log10
from statistics import median

from .rounds import all_systems
from .systems.otpd import Otpd
from .systems.slow import Slow

WIDTH = 820
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.quiet { fill: #57606a; } .small { font-size: 11px; } .grid { stroke: #d0d7de; }
.ours { fill: #0969da; } .others { fill: #8c959f; } .second { fill: #bc4c00; }
.line-ours { stroke: #0969da; } .line-second { stroke: #bc4c00; }
polyline { fill: none; stroke-width: 2; } .p99 { stroke-dasharray: 5 4; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
.ours { fill: #4493f8; } .others { fill: #767e89; } .second { fill: #f0883e; }
.line-ours { stroke: #4493f8; } .line-second { stroke: #f0883e; }
}
</style>"""
# Systems whose rate is not that of sending and verifying as fast as possible.
UNLIKE = ("echo", "pgbench-update-1", "pgbench-paced")
STORES = (("postgres", "PostgreSQL", "ours"), ("sqlite", "SQLite", "second"))


def svg(height: float, title: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'role="img" aria-label="{escape(title)}">\n{STYLE}\n{body}\n</svg>\n')


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'class="{kind}"/>')


def typical(results: dict, name: str, figure) -> float | None:
    """The median over the rounds, of those in which it is known."""
    values = []
    for done in results["rounds"]:
        try:
            values.append(figure(done[name]))
        except (KeyError, TypeError):
            continue
    return median(values) if values else None


def rate(run: dict) -> float:
    return run["pairs_per_second"]


def systems_chart(results: dict) -> str:
    """Bars of pairs per second, of whoever sends and verifies as fast as he can. A bare gRPC
    server does not: its bar would be the scale of all others."""
    left, step, thick = 365, 26, 16
    rows = []
    for system in all_systems():
        value = typical(results, system.name, rate)
        other = system.variant or system.name in UNLIKE or isinstance(system, Slow) or (
            isinstance(system, Otpd) and (system.baseline or system.half_load or system.paced
                                          or system.observed or system.threads))
        if value is not None and not other:
            rows.append((system.title, value, "ours" if isinstance(system, Otpd) else "others"))
    longest = max((value for _, value, _ in rows), default=1.0)
    scale = (WIDTH - left - 80) / longest
    parts = [text(0, 16, "Pairs of send and verify per second", kind="quiet")]
    for number, (title, value, kind) in enumerate(rows):
        y = 30 + number * step
        parts.append(text(left - 10, y + 13, title, "end"))
        parts.append(bar(left, y, max(value * scale, 1), thick, kind))
        parts.append(text(left + value * scale + 6, y + 13, f"{value:,.0f}", kind="quiet"))
    return svg(40 + step * len(rows), "Pairs per second by system", parts)


def in_flight_chart(results: dict) -> str:
    """Throughput and latency of otpd by the number of calls in flight."""
    flights = sorted({system.in_flight for system in all_systems()
                      if isinstance(system, Otpd) and system.name.startswith("otpd-postgres-")})
    parts = [*throughput_panel(results, flights, 30, 360), *latency_panel(results, flights, 460, 350)]
    for number, (_, title, kind) in enumerate(STORES):
        parts.append(bar(30 + number * 110, 310, 12, 12, kind))
        parts.append(text(48 + number * 110, 321, title))
    parts.append(text(460, 321, "solid: median, dashed: 99th percentile", kind="quiet"))
    return svg(332, "otpd by calls in flight", parts)


def throughput_panel(results: dict, flights: list[int], left: float, width: float) -> list[str]:
    bottom, height = 255.0, 215.0
    values = {(store, flight): typical(results, f"otpd-{store}-{flight}", rate)
              for store, _, _ in STORES for flight in flights}
    longest = max((value for value in values.values() if value), default=1.0)
    parts = [text(left, 16, "Pairs per second", kind="quiet"), axis(left, bottom, width),
             text(left + width, bottom + 38, "calls in flight", "end", "quiet")]
    group = width / len(flights)
    for number, flight in enumerate(flights):
        middle = left + group * (number + 0.5)
        parts.append(text(middle, bottom + 18, f"{flight:,}", "middle"))
        for offset, (store, _, kind) in zip((-24, 1), STORES):
            value = values[store, flight]
            if value is None:
                continue
            tall = value / longest * height
            parts.append(bar(middle + offset, bottom - tall, 23, tall, kind))
            parts.append(text(middle + offset + 11.5, bottom - tall - 4, short(value), "middle", "quiet small"))
    return parts


def latency_panel(results: dict, flights: list[int], left: float, width: float) -> list[str]:
    """VerifyOtp, on a logarithmic scale."""
    bottom, height = 255.0, 215.0
    lines = {}
    for store, _, kind in STORES:
        for quantile in ("p50", "p99"):
            points = [(number, typical(results, f"otpd-{store}-{flight}", lambda run, quantile=quantile:
                       run["verify"]["latency_microseconds"][quantile] / 1000))
                      for number, flight in enumerate(flights)]
            lines[kind, quantile] = [(number, value) for number, value in points if value]
    values = [value for line in lines.values() for _, value in line] or [1.0]
    low, high = floor(log10(min(values))), floor(log10(max(values))) + 1

    def y(value: float) -> float:
        return bottom - (log10(value) - low) / (high - low) * height

    def x(number: int) -> float:
        return left + width / len(flights) * (number + 0.5)

    parts = [text(left, 16, "VerifyOtp, milliseconds", kind="quiet")]
    for power in range(low, high + 1):
        parts.append(axis(left, y(10.0**power), width))
        parts.append(text(left - 6, y(10.0**power) + 4, f"{10.0**power:g}", "end", "quiet"))
    for number, flight in enumerate(flights):
        parts.append(text(x(number), bottom + 18, f"{flight:,}", "middle"))
    for (kind, quantile), line in lines.items():
        points = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in line)
        parts.append(f'<polyline points="{points}" class="line-{kind} {quantile}"/>')
    parts.append(text(left + width, bottom + 38, "calls in flight", "end", "quiet"))
    return parts


def axis(left: float, y: float, width: float) -> str:
    return f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'


def short(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"
