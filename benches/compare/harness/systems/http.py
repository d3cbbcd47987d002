"""Services that speak HTTP: Django's views, and better-auth."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from .. import redis
from ..measurement import Bench, Load, measure
from ..processes import ProcessFailed, wait_until
from ..tools import COMPARE

# Enough to keep four workers, or Node, busy without a pause.
IN_FLIGHT = 16
WORKERS = 4
DATABASE = "compare_django"


@dataclass(frozen=True)
class Shape:
    """How a service takes a pair."""

    send: str
    verify: str
    phone_field: str
    code_field: str


@dataclass(frozen=True)
class Django:
    """The views of django/views.py under gunicorn."""

    name: str
    title: str
    connection_age: int
    # Without what Django's defaults have beyond what the views need.
    lean: bool = False
    # Whether Redis holds the codes, in place of a table.
    redis: bool = False
    workers: int = WORKERS
    in_flight: int = IN_FLIGHT
    variant: bool = False

    SHAPE = Shape("/api/users/send_otp/", "/api/users/verify_otp/", "phone", "otp")

    def run(self, bench: Bench) -> dict:
        return self._on_redis(bench) if self.redis else self._on_postgres(bench)

    def _on_postgres(self, bench: Bench) -> dict:
        bench.postgres.create(DATABASE)
        try:
            environment = self._environment(bench)
            bench.fleet.run([bench.tools.python(), "-m", "django", "createcachetable"], timeout=60,
                            environment=environment, directory=COMPARE / "django")
            return self._serve(bench, environment)
        finally:
            bench.postgres.drop(DATABASE)

    def _on_redis(self, bench: Bench) -> dict:
        """Refuses figures of writes that Redis did not receive or did not flush."""
        with redis.running(bench, free_port()) as server:
            pairs = 0

            def count(done: Load) -> None:
                nonlocal pairs
                pairs += done.pairs

            environment = {**self._environment(bench), "COMPARE_REDIS_URL": server.url}
            result = self._serve(bench, environment, database=[server.pid], each=count)
            for command in ("set", "del"):
                if server.calls(command) < pairs:
                    raise ProcessFailed(f"{pairs} pairs, but Redis received "
                                        f"{server.calls(command)} {command} commands")
            server.check_durable()
            return result

    def _environment(self, bench: Bench) -> dict[str, str]:
        return {
            **os.environ,
            "COMPARE_POSTGRES_PORT": str(bench.postgres.port),
            "COMPARE_DATABASE": DATABASE,
            "COMPARE_CONN_MAX_AGE": str(self.connection_age),
            "COMPARE_LEAN": "yes" if self.lean else "no",
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _serve(self, bench: Bench, environment: dict[str, str], **measured) -> dict:
        port = free_port()
        command = [bench.tools.python(), "-m", "gunicorn", "--workers", str(self.workers),
                   "--bind", f"127.0.0.1:{port}", "--log-level", "warning", "wsgi:application"]
        return serve(bench, self, command, port, environment, COMPARE / "django", **measured)


@dataclass(frozen=True)
class BetterAuth:
    """The plugin of better_auth/service.mjs, in one Node process."""

    name: str
    title: str
    in_flight: int = IN_FLIGHT
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
        try:
            return serve(bench, self, ["node", "service.mjs"], port, environment, directory)
        finally:
            bench.postgres.drop(database)


def serve(
    bench: Bench,
    system: Django | BetterAuth,
    command: list[str | Path],
    port: int,
    environment: dict[str, str],
    directory: Path,
    *,
    database: list[int] | None = None,
    each: Callable[[Load], None] = lambda _: None,
) -> dict:
    """Runs a service for one measurement. `each` sees every load, the warm-up included."""
    log = bench.memory / f"{system.name}.log"
    process = bench.fleet.start(command, log=log, environment=environment, directory=directory)
    try:
        wait_until(lambda: listens(port), what=system.title, process=process, log=log)

        def load(seconds: float) -> Load:
            done = http_load(bench, port, system.SHAPE, system.in_flight, seconds)
            each(done)
            return done

        return measure(bench, load, service=[process.pid], database=database)
    finally:
        bench.fleet.stop(process)
        log.unlink(missing_ok=True)


def http_load(bench: Bench, port: int, shape: Shape, in_flight: int, seconds: float) -> Load:
    """Pairs over HTTP, the code read from the header `x-otp-code`."""
    command = [
        bench.tools.load(), "http", "--address", f"127.0.0.1:{port}",
        "--in-flight", str(in_flight), "--seconds", str(seconds),
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
        Django("django-redis", "Django with its Redis cache, appendfsync = always", 60, redis=True),
        BetterAuth("better-auth", "better-auth's phone-number plugin"),
    ]
