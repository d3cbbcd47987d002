"""What deploy/observe/run calls."""

from __future__ import annotations

import argparse
import difflib
import importlib
import signal
import sys
from pathlib import Path

from .dashboard import dashboard

REPOSITORY = Path(__file__).resolve().parents[3]
GRAFANA = REPOSITORY / "deploy/observe/grafana/dashboards/otpd.json"


def main() -> int:
    """Do what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="deploy/observe/run")
    parser.add_argument("command", choices=("dashboard", "show", "faults", "follow"))
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    # As Ctrl-C, so that everything that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    if chosen.command == "dashboard":
        return compare_dashboard(write=chosen.write)
    folder = REPOSITORY / ("docs" if chosen.write else "target/observe")
    # Only now: the others need more than Python brings.
    module = importlib.import_module(f".{chosen.command}", __package__)
    result: int = module.run(folder)
    return result


def compare_dashboard(*, write: bool) -> int:
    """Whether Grafana's file is what the panels say; or make it so."""
    made = dashboard()
    if write:
        GRAFANA.write_text(made)
        print(f"Wrote {GRAFANA.relative_to(REPOSITORY)}")
        return 0
    there = GRAFANA.read_text()
    if there == made:
        return 0
    sys.stderr.writelines(
        difflib.unified_diff(
            there.splitlines(keepends=True),
            made.splitlines(keepends=True),
            str(GRAFANA.relative_to(REPOSITORY)),
            "observe/panels.py",
        )
    )
    print("The panels changed: deploy/observe/run dashboard --write", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
