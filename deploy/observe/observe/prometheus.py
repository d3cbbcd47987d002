"""A real Prometheus on throwaway data, with the rules of this directory."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from .processes import Failed, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Labels = dict[str, str]
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?P<before>\[|\bfor: |\boffset )(?P<count>\d+)(?P<unit>[smhd])\b")


class Prometheus:
    """The server. Every second it scrapes all replicas and evaluates the rules."""

    def __init__(
        self, directory: Path, rules: Path, targets: Mapping[str, str], shorter: int = 1
    ) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise Failed("Prometheus was not found")
        directory.mkdir()
        for file in rules.glob("*.yml"):
            (directory / file.name).write_text(shortened(file.read_text(), shorter))
        config = directory / "prometheus.json"
        config.write_text(json.dumps(configuration(targets)))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = Process(
            "prometheus",
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            directory / "prometheus.log",
        )

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def wait_until_ready(self, replicas: int) -> None:
        """Wait until it answers and has reached all replicas."""
        self._process.wait_until(
            lambda: self._number('sum(up{job="otpd"})') == replicas, "reaches all replicas"
        )

    def _number(self, expression: str) -> float | None:
        try:
            found = self.instant(expression)
        except (OSError, Failed):
            return None
        return float(found[0]["value"][1]) if found else None

    def instant(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The value of an expression, by its labels."""
        arguments = {"query": expression}
        if at is not None:
            arguments["time"] = f"{at:.3f}"
        return self._ask("query", arguments)

    def over(
        self, expression: str, start: float, end: float, step: float = 1
    ) -> list[tuple[Labels, list[tuple[float, float]]]]:
        """The values of an expression from `start` to `end`, in seconds since 1970."""
        found = self._ask(
            "query_range",
            {
                "query": expression,
                "start": f"{start:.3f}",
                "end": f"{end:.3f}",
                "step": f"{step:g}",
            },
        )
        return [
            (series["metric"], [(float(at), float(value)) for at, value in series["values"]])
            for series in found
        ]

    def _ask(self, what: str, arguments: dict[str, str]) -> list[dict[str, Any]]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return result
        except urllib.error.HTTPError as error:
            raise Failed(f"{arguments['query']}: {error.read().decode()}") from error


def configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    """What Prometheus reads: JSON is YAML, too. `targets` are addresses by replica."""
    return {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        },
        "rule_files": ["*.yml"],
        "scrape_configs": [
            {
                "job_name": "otpd",
                "static_configs": [
                    {"targets": [address], "labels": {"instance": name}}
                    for name, address in targets.items()
                ],
            }
        ],
    }


def shortened(rules: str, shorter: int) -> str:
    """The rules with each window and each `for` so many times as short."""

    def divided(found: re.Match[str]) -> str:
        seconds = int(found["count"]) * UNITS[found["unit"]] / shorter
        return f"{found['before']}{round(seconds * 1000)}ms"

    return rules if shorter == 1 else DURATION.sub(divided, rules)
