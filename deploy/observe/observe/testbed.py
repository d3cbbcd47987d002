"""A running setup: two replicas, PostgreSQL, providers, callers and Prometheus."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from otpd import Client, RetryPolicy

from .gateway import Gateway
from .processes import Process, free_port
from .prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping

CALLERS = ("crm", "shop")
PROVIDERS = ("north", "south", "letters")


class Postgres:
    """The temporary server of scripts/with-postgres, with a database for otpd."""

    def __init__(self) -> None:
        self._server = os.environ["TEST_POSTGRES_URL"]
        self._programs = Path(os.environ["TEST_POSTGRES_BIN"])
        self._directory = Path(self._sql("SHOW data_directory"))
        self._sql("CREATE DATABASE observed")
        self.url = self._server.rpartition("/")[0] + "/observed"

    def stop(self) -> None:
        """End the server immediately."""
        self._control("stop", "--mode=fast")

    def start(self) -> None:
        """Start the server again on the same port."""
        port = urlsplit(self._server).port
        self._control("start", f"--options=-p {port}", f"--log={self._directory.parent}/again.log")

    def _control(self, action: str, *arguments: str) -> None:
        program = self._programs / "pg_ctl"
        data = f"--pgdata={self._directory}"
        # PostgreSQL refuses to run as root.
        owner = self._directory.stat()
        user: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        subprocess.run(
            [program, action, data, "--silent", "--wait", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._directory,
            **(user if os.geteuid() == 0 else {}),
        )

    def _sql(self, statement: str) -> str:
        options = ("--no-psqlrc", "--quiet", "--no-align", "--tuples-only")
        target = (f"--dbname={self._server}", f"--command={statement}")
        done = subprocess.run(
            [self._programs / "psql", *options, *target], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()


class Replica:
    """One otpd, with the addresses of its listeners."""

    def __init__(self, name: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self.operations = f"127.0.0.1:{free_port()}"
        addresses = {"OTPD_LISTEN": self.address, "OTPD_OPERATIONS_LISTEN": self.operations}
        self.process = Process(
            name, [os.environ["OTPD"]], directory / f"{name}.log", {**environment, **addresses}
        )

    def wait_until_serving(self) -> None:
        """Wait until its health is SERVING."""
        self.process.wait_until(lambda: self.command("health").returncode == 0, "serves")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of otpd's client commands as the caller crm."""
        return subprocess.run(
            [os.environ["OTPD"], *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={"OTPD_ADDRESS": self.address, "OTPD_TOKEN": token("crm")},
        )


class Testbed:
    """The whole setup, in a directory that is removed at the end."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="otpd-observe."))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.postgres = Postgres()
            self.gateway = stack.enter_context(Gateway())
            environment = self._environment()
            self.replicas = []
            for name in ("otpd-1", "otpd-2"):
                replica = Replica(name, self.directory, environment)
                stack.callback(replica.process.stop)
                self.replicas.append(replica)
            for replica in self.replicas:
                replica.wait_until_serving()
            targets = {replica.name: replica.operations for replica in self.replicas}
            self.prometheus = Prometheus(self.directory / "prometheus", targets)
            stack.callback(self.prometheus.stop)
            self.prometheus.wait_until_ready(len(targets))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self, caller: str, *, retries: bool = True) -> Client:
        """Return a client of all replicas."""
        client = Client(
            [replica.address for replica in self.replicas],
            token=token(caller),
            retry=None if retries else RetryPolicy(max_attempts=1),
        )
        self._stack.callback(client.close)
        return client

    def log_lines(self) -> list[str]:
        """Return the log lines of all replicas with their names, by time."""
        lines = [
            f"{replica.name} | {line}"
            for replica in self.replicas
            for line in replica.process.lines()
        ]
        return sorted(lines, key=lambda line: line.partition(" | ")[2][:27])

    def _environment(self) -> dict[str, str]:
        keys, file = self.directory / "otpd.keys", self.directory / "otpd.toml"
        keygen = [os.environ["OTPD"], "keygen", "--output", str(keys)]
        subprocess.run(keygen, check=True, capture_output=True)
        file.write_text(configuration(self.gateway))
        return {
            "OTPD_CONFIG": str(file),
            "OTPD_KEYS_FILE": str(keys),
            "OTPD_SHUTDOWN_DELAY": "0s",
            "DATABASE_URL": self.postgres.url,
        }


def token(caller: str) -> str:
    """Return the token of a caller, which protects nothing."""
    return f"token-of-{caller}"


def configuration(gateway: Gateway) -> str:
    """Return a configuration with two callers, two SMS providers, and one for e-mail."""
    callers = "".join(
        f"""
[callers.{name}]
token_sha256 = ["{hashlib.sha256(token(name).encode()).hexdigest()}"]
purposes = ["login", "sign-up"]
destinations = ["*"]
may_reset_failures = true
"""
        for name in CALLERS
    )
    providers = "".join(
        f"""
[providers.{name}]
kind = "http"
url = "{gateway.url(name)}"
json = {{ to = "{{to_e164}}", code = "{{code}}", challenge = "{{challenge_id}}" }}
conditions = [{{ pointer = "/ok", equals = true }}]
allow_private_addresses = true
timeout = "2s"
breaker_open_for = "500ms"
"""
        for name in PROVIDERS
    )
    return f"""
default_region = "RU"

[policy]
resend_after = "1s"
failure_delay = "1s"
failure_limit = 20
sends_per_hour = 20
sends_per_day = 40

[[routes]]
channels = ["sms"]
destinations = ["DE", "GB"]
providers = ["south", "north"]

[[routes]]
channels = ["sms"]
providers = ["north", "south"]

[[routes]]
channels = ["email"]
providers = ["letters"]
{callers}{providers}"""
