"""A real Prometheus on temporary data, with the rules of this directory."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .processes import Failed, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES = Path(__file__).resolve().parents[1] / "prometheus/rules"
# Factor by which every window and every `for` of the rules is shortened.
SHORTER = 20
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?P<before>\[|\bfor: |\boffset )(?P<count>\d+)(?P<unit>[smhd])\b")


class Prometheus:
    """Server that scrapes all replicas and evaluates the rules every second."""

    def __init__(self, directory: Path, targets: Mapping[str, str]) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise Failed("Prometheus was not found")
        directory.mkdir()
        for file in RULES.glob("*.yml"):
            (directory / file.name).write_text(shortened(file.read_text()))
        config = directory / "prometheus.json"
        config.write_text(json.dumps(configuration(targets)))
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self._process = Process("prometheus", command, directory / "prometheus.log")
        self.stop = self._process.stop

    def wait_until_ready(self, replicas: int) -> None:
        """Wait until it has reached all replicas."""

        def reached() -> bool:
            try:
                return self.value('sum(up{job="otpd"})') == replicas
            except (OSError, Failed):
                return False

        self._process.wait_until(reached, "reaches all replicas")

    def value(self, expression: str, at: float | None = None) -> float | None:
        """Return the first value of an expression, now or at another time."""
        arguments = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        found = self._query("query", arguments)
        return float(found[0]["value"][1]) if found else None

    def series(
        self, expression: str, start: float, end: float
    ) -> list[tuple[dict[str, str], list[float]]]:
        """Return the labels of the series of an expression, with the times of their samples."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": "1"}
        found = self._query("query_range", {"query": expression, **span})
        return [(one["metric"], [float(at) for at, _ in one["values"]]) for one in found]

    def _query(self, kind: str, arguments: dict[str, str]) -> list[dict[str, Any]]:
        url = f"{self._url}/api/v1/{kind}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return result
        except urllib.error.HTTPError as error:
            raise Failed(f"{arguments['query']}: {error.read().decode()}") from error


def configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration, which is JSON and therefore YAML; `targets` by replica."""
    second = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    replicas = [
        {"targets": [address], "labels": {"instance": name}} for name, address in targets.items()
    ]
    jobs = [{"job_name": "otpd", "static_configs": replicas}]
    return {"global": second, "rule_files": ["*.yml"], "scrape_configs": jobs}


def shortened(rules: str) -> str:
    """Divide each window and each `for` of the rules."""

    def divided(found: re.Match[str]) -> str:
        seconds = int(found["count"]) * UNITS[found["unit"]] / SHORTER
        return f"{found['before']}{round(seconds * 1000)}ms"

    return DURATION.sub(divided, rules)
