"""Does what the runbook says to look at, on a running set-up."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import Failed
from .prometheus import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .prometheus import Prometheus

RUNBOOK = Path(__file__).resolve().parents[3] / "docs/runbook.md"
CODE = re.compile(r"`([^`]+)`")
LOGS = re.compile(r"docker compose logs --since \w+ otpd")
METRICS = ("otpd_", "rpc_server_", "process_", "route:")
MOST_SERIES = 6


@dataclass(frozen=True)
class Looked:
    """Something to look at, and what was seen."""

    command: str
    seen: list[str]


def entry(alert: str) -> str:
    """What the runbook says about an alert."""
    _, _, rest = RUNBOOK.read_text().partition(f"### {alert}\n")
    if not rest:
        raise Failed(f"the runbook has no entry {alert}")
    return re.split(r"\n##+ ", rest)[0].strip()


def look(
    alert: str, prometheus: Prometheus, log: Sequence[str], shorter: int, at: float
) -> list[Looked]:
    """Run the queries and the searches of an entry, as of a moment."""
    seen = []
    about, _, _ = entry(alert).partition("\nDo")
    for command in CODE.findall(" ".join(about.split())):
        if command.startswith("docker compose logs"):
            seen.append(Looked(command, search(command, log)))
        elif any(name in command for name in METRICS):
            seen.append(Looked(command, ask(command, prometheus, shorter, at)))
    return seen


def search(command: str, log: Sequence[str]) -> list[str]:
    """What a search of the log finds: its first lines, and how many there are."""
    done = subprocess.run(
        ["bash", "-c", LOGS.sub("cat", command)],
        check=False,
        input="\n".join(log),
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    more = [f"… {len(lines) - 3} more lines"] if len(lines) > 4 else []
    return (lines[:3] if more else lines) + more or ["nothing"]


def ask(expression: str, prometheus: Prometheus, shorter: int, at: float) -> list[str]:
    """What Prometheus answers, with windows that are as short as those of the rules."""
    lines = []
    for series in prometheus.instant(shortened(expression, shorter), at):
        labels = ", ".join(
            f"{label}={value}"
            for label, value in series["metric"].items()
            if label not in ("__name__", "job")
        )
        lines.append(f"{labels or 'all'}: {float(series['value'][1]):.4g}")
    more = [f"… {len(lines) - MOST_SERIES} more series"] if len(lines) > MOST_SERIES else []
    return lines[:MOST_SERIES] + more or ["nothing"]
