"""What a run ran on, for those who compare figures of two."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

from .measurement import Bench
from .postgres import SETTINGS
from .redis import SETTINGS as REDIS_SETTINGS, installed_version
from .systems.http import WORKERS, node_version
from .tools import COMPARE


def machine(bench: Bench) -> dict:
    """The machine, and how fast its disk takes a commit."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "file_system": bench.postgres.file_system,
        "fdatasync": bench.postgres.disk_speed(),
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def versions(bench: Bench, names: list[str]) -> dict[str, str]:
    """Of what took part in the run of the systems of these names."""
    found = {"PostgreSQL": bench.postgres.version().split()[0]}
    askers = [
        ("django-", lambda: python_versions(bench)),
        ("django-redis", lambda: redis_versions(bench)),
        ("better-auth", node_versions),
        ("otpd-", lambda: otpd_versions(bench)),
    ]
    for beginning, ask in askers:
        if any(name.startswith(beginning) for name in names):
            try:
                found |= ask()
            except Exception as error:  # a system that could not be had was told of already
                found[beginning.rstrip("-")] = f"unknown ({error})"
    return found


def python_versions(bench: Bench) -> dict[str, str]:
    packages = ["Django", "djangorestframework", "psycopg", "redis", "gunicorn"]
    script = ("import importlib.metadata, json, platform, sys; "
              "print(json.dumps({'Python': platform.python_version()}"
              " | {name: importlib.metadata.version(name) for name in sys.argv[1:]}))")
    output = bench.fleet.run([bench.tools.python(), "-c", script, *packages], timeout=30).output
    return json.loads(output)


def redis_versions(bench: Bench) -> dict[str, str]:
    return {"Redis": installed_version(bench.tools.redis_server())}


def node_versions() -> dict[str, str]:
    package = json.loads((COMPARE / "better_auth/package.json").read_text())
    return {"Node": node_version(), **package["dependencies"]}


def otpd_versions(bench: Bench) -> dict[str, str]:
    otpd = bench.fleet.run([bench.tools.otpd(), "--version"], timeout=30).output.split()[-1]
    rustc = bench.fleet.run(["rustc", "--version"], timeout=30,
                            directory=bench.repository).output.split()[1]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=bench.repository,
                            check=False, capture_output=True, text=True).stdout.strip()
    return {"otpd": f"{otpd} at {commit}" if commit else otpd, "rustc": rustc}


def settings(bench: Bench, rounds: int, records: int) -> dict:
    """What can be chosen, and was."""
    return {
        "rounds": rounds,
        "seconds": bench.plan.seconds,
        "warm_up_seconds": bench.plan.warm_up,
        "records": records,
        "django_workers": WORKERS,
        "postgres": SETTINGS,
        "redis": REDIS_SETTINGS,
    }


def today() -> str:
    return date.today().isoformat()
