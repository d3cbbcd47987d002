"""Services that speak HTTP: Django's views, and better-auth."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..measurement import Bench, Load, measure
from ..processes import wait_until
from ..tools import COMPARE

# Enough to keep four workers, or Node, busy without a pause.
IN_FLIGHT = 16


@dataclass(frozen=True)
class Shape:
    """How a service takes a pair."""

    send: str
    verify: str
    phone_field: str
    code_field: str


@dataclass(frozen=True)
class Django:
    """The views of django/views.py under gunicorn, with four workers."""

    name: str
    title: str
    connection_age: int
    # Without what Django's defaults have beyond what the views need.
    lean: bool = False
    variant: bool = False

    SHAPE = Shape("/api/users/send_otp/", "/api/users/verify_otp/", "phone", "otp")
    WORKERS = 4

    def run(self, bench: Bench) -> dict:
        database = "compare_django"
        python = bench.tools.python()
        bench.postgres.create(database)
        port = free_port()
        environment = {
            **os.environ,
            "COMPARE_POSTGRES_PORT": str(bench.postgres.port),
            "COMPARE_DATABASE": database,
            "COMPARE_CONN_MAX_AGE": str(self.connection_age),
            "COMPARE_LEAN": "yes" if self.lean else "no",
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        bench.fleet.run([python, "-m", "django", "createcachetable"], timeout=60,
                        environment=environment, directory=COMPARE / "django")
        command = [python, "-m", "gunicorn", "--workers", str(self.WORKERS), "--bind",
                   f"127.0.0.1:{port}", "--log-level", "warning", "wsgi:application"]
        return serve(bench, self, command, port, environment, COMPARE / "django", database)


@dataclass(frozen=True)
class BetterAuth:
    """The plugin of better_auth/service.mjs, in one Node process."""

    name: str
    title: str
    variant: bool = False

    SHAPE = Shape("/api/auth/phone-number/send-otp", "/verify", "phoneNumber", "code")

    def run(self, bench: Bench) -> dict:
        database = "compare_better_auth"
        directory = bench.tools.better_auth()
        bench.postgres.create(database)
        port = free_port()
        environment = {
            **os.environ,
            "COMPARE_PORT": str(port),
            "COMPARE_DATABASE_URL": bench.postgres.url(database),
            "NODE_ENV": "production",
        }
        return serve(bench, self, ["node", "service.mjs"], port, environment, directory, database)


def serve(
    bench: Bench,
    system: Django | BetterAuth,
    command: list[str | Path],
    port: int,
    environment: dict[str, str],
    directory: Path,
    database: str,
) -> dict:
    """Runs a service for one measurement."""
    log = bench.memory / f"{system.name}.log"
    process = bench.fleet.start(command, log=log, environment=environment, directory=directory)
    try:
        wait_until(lambda: listens(port), what=system.title, process=process, log=log)

        def load(seconds: float) -> Load:
            return http_load(bench, port, system.SHAPE, seconds)

        return measure(bench, load, service=[process.pid])
    finally:
        bench.fleet.stop(process)
        log.unlink(missing_ok=True)
        bench.postgres.drop(database)


def http_load(bench: Bench, port: int, shape: Shape, seconds: float) -> Load:
    """Pairs over HTTP, the code read from the header `x-otp-code`."""
    command = [
        bench.tools.load(), "http", "--address", f"127.0.0.1:{port}",
        "--in-flight", str(IN_FLIGHT), "--seconds", str(seconds),
        "--send-path", shape.send, "--verify-path", shape.verify,
        "--phone-field", shape.phone_field, "--code-field", shape.code_field,
    ]
    finished = bench.fleet.run(command, timeout=bench.plan.timeout())
    told = json.loads(finished.output)
    details = {key: told[key] for key in ("send", "verify", "failures")}
    return Load(told["pairs"], told["seconds"], finished.cpu_seconds, details)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def node_version() -> str:
    return subprocess.run(["node", "--version"], check=True, capture_output=True,
                          text=True).stdout.strip().lstrip("v")


def systems() -> list[Django | BetterAuth]:
    return [
        Django("django-0", "Django, a connection per request", 0),
        Django("django-60", "Django, CONN_MAX_AGE = 60", 60),
        Django("django-lean-60", "Django without its defaults, CONN_MAX_AGE = 60", 60, lean=True),
        BetterAuth("better-auth", "better-auth's phone-number plugin"),
    ]
