"""Commands of deploy/observe/run."""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
from pathlib import Path

from .dashboard import dashboard

REPOSITORY = Path(__file__).resolve().parents[3]
GRAFANA = REPOSITORY / "deploy/observe/grafana/dashboards/otpd.json"


def main() -> int:
    """Run the command of the arguments, and return the exit code."""
    parser = argparse.ArgumentParser(prog="deploy/observe/run")
    parser.add_argument("command", choices=("dashboard", "faults"))
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    # As Ctrl-C, so that every process that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    if chosen.command == "dashboard":
        return compare_dashboard(write=chosen.write)
    # Imported here, because the dashboard needs only Python's standard library.
    from . import faults  # noqa: PLC0415

    return faults.run(REPOSITORY / ("docs" if chosen.write else "target/observe"))


def compare_dashboard(*, write: bool) -> int:
    """Compare Grafana's file with the panels, or write it."""
    made = dashboard()
    if write:
        GRAFANA.write_text(made)
        print(f"Wrote {GRAFANA.relative_to(REPOSITORY)}")
        return 0
    current = GRAFANA.read_text()
    if current == made:
        return 0
    names = (str(GRAFANA.relative_to(REPOSITORY)), "observe/panels.py")
    texts = (current.splitlines(keepends=True), made.splitlines(keepends=True))
    sys.stderr.writelines(difflib.unified_diff(*texts, *names))
    print("The panels changed; run deploy/observe/run dashboard --write", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
