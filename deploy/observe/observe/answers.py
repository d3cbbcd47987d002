"""Asks Prometheus what Grafana would ask it for the dashboard."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .prometheus import Labels, Prometheus

RATE_SECONDS = 10
WINDOW_SECONDS = 40
PLACEHOLDER = re.compile(r"{{\s*(\w+)\s*}}")


@dataclass(frozen=True)
class Line:
    """One series of a panel: its name in the legend, and its values."""

    name: str
    values: list[tuple[float, float]]


@dataclass(frozen=True)
class Answered:
    """A panel of Grafana's file, with what its queries found."""

    panel: dict[str, Any]
    lines: list[Line]

    @property
    def title(self) -> str:
        """What stands above it."""
        return str(self.panel["title"])


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """All panels, the rows that part them included."""
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return found


def answered(
    panel: dict[str, Any], prometheus: Prometheus, start: float, end: float
) -> tuple[Answered, list[str]]:
    """A panel with its data, and the queries that returned none."""
    lines: list[Line] = []
    silent: list[str] = []
    for target in panel["targets"]:
        expression = filled_in(target["expr"], end - start)
        begin = end if target["instant"] else start
        found = prometheus.over(expression, begin, end)
        series = [
            Line(name(target["legendFormat"], labels), known)
            for labels, values in found
            if (known := [(at, value) for at, value in values if not math.isnan(value)])
        ]
        if not series:
            silent.append(expression)
        lines += series
    return Answered(panel, lines), silent


def filled_in(expression: str, seconds: float) -> str:
    """The expression with Grafana's variables as Grafana would fill them in."""
    values = {
        "__rate_interval": f"{RATE_SECONDS}s",
        "__range": f"{seconds:.0f}s",
        "window": f"{WINDOW_SECONDS}s",
        "replica": ".*",
        "provider": ".*",
        "channel": ".*",
    }
    for variable, value in values.items():
        expression = expression.replace(f"${variable}", value)
    return expression


def name(legend: str, labels: Labels) -> str:
    """The name of a series."""
    return PLACEHOLDER.sub(lambda found: labels.get(found[1], ""), legend).strip()
