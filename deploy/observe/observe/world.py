"""otpd as it runs somewhere: two replicas, a store, providers, callers, and Prometheus."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from otpd import Client, RetryPolicy

from .gateway import Gateway
from .postgres import Postgres
from .processes import Process, free_port
from .prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parents[1]
RULES = HERE / "prometheus/rules"
REPLICAS = ("otpd-1", "otpd-2")
SMS_PROVIDERS = ("north", "south")
MAIL_PROVIDER = "letters"
# How long a code for this purpose lives, so that one can come too late.
HASTY_SECONDS = 10


class Replica:
    """One otpd, and where its calls and its metrics are."""

    def __init__(self, name: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self.operations = f"127.0.0.1:{free_port()}"
        self.process = Process(
            name,
            [os.environ["OTPD"]],
            directory / f"{name}.log",
            {
                **environment,
                "OTPD_LISTEN": self.address,
                "OTPD_OPERATIONS_LISTEN": self.operations,
            },
        )

    def wait_until_serving(self) -> None:
        """Wait until its health says so."""
        self.process.wait_until(lambda: self.command("health").returncode == 0, "serves")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of otpd's commands that speak to a server, as the caller crm."""
        return subprocess.run(
            [os.environ["OTPD"], *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={"OTPD_ADDRESS": self.address, "OTPD_TOKEN": token("crm")},
        )


class World:
    """All of it, in a directory that is gone afterwards."""

    def __init__(self, more: str = "", environment: Mapping[str, str] | None = None) -> None:
        self._more = more
        self._environment = environment or {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="otpd-observe."))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.postgres = Postgres()
            self.gateway = stack.enter_context(Gateway())
            self._write_files()
            self.replicas = []
            for name in REPLICAS:
                replica = Replica(name, self.directory, self._variables())
                stack.callback(replica.process.stop)
                self.replicas.append(replica)
            for replica in self.replicas:
                replica.wait_until_serving()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watched(self, shorter: int = 1) -> Prometheus:
        """A Prometheus that has reached all replicas."""
        targets = {replica.name: replica.operations for replica in self.replicas}
        prometheus = Prometheus(self.directory / "prometheus", RULES, targets, shorter)
        self._stack.callback(prometheus.stop)
        prometheus.wait_until_ready(len(self.replicas))
        return prometheus

    def client(self, caller: str, *, retries: bool = True) -> Client:
        """A client that goes round all replicas."""
        client = Client(
            [replica.address for replica in self.replicas],
            token=token(caller),
            retry=None if retries else RetryPolicy(max_attempts=1),
        )
        self._stack.callback(client.close)
        return client

    def log_lines(self) -> list[str]:
        """What the replicas have said, each line after its replica, in order of time."""
        lines = [
            f"{replica.name} | {line}"
            for replica in self.replicas
            for line in replica.process.lines()
        ]
        return sorted(lines, key=lambda line: line.partition(" | ")[2][:27])

    def _variables(self) -> dict[str, str]:
        return {
            "OTPD_CONFIG": str(self.directory / "otpd.toml"),
            "OTPD_KEYS_FILE": str(self.directory / "otpd.keys"),
            "OTPD_SHUTDOWN_DELAY": "0s",
            "DATABASE_URL": self.postgres.url,
            **self._environment,
        }

    def _write_files(self) -> None:
        keys = self.directory / "otpd.keys"
        subprocess.run(
            [os.environ["OTPD"], "keygen", "--output", keys], check=True, capture_output=True
        )
        text = configuration(self.gateway) + self._more
        (self.directory / "otpd.toml").write_text(text)


def token(caller: str) -> str:
    """The token of a caller, which guards nothing."""
    return f"token-of-{caller}"


def configuration(gateway: Gateway) -> str:
    """Two callers, two providers of SMS, and one of mails."""
    callers = "".join(
        f"""
[callers.{name}]
token_sha256 = ["{hashlib.sha256(token(name).encode()).hexdigest()}"]
purposes = ["login", "sign-up", "hasty"]
destinations = ["*"]
blocked_destinations = ["CU"]
may_reset_failures = true
"""
        for name in ("crm", "shop")
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
        for name in (*SMS_PROVIDERS, MAIL_PROVIDER)
    )
    return f"""
default_region = "RU"

[policy]
resend_after = "1s"
failure_delay = "1s"
failure_limit = 20
sends_per_hour = 20
sends_per_day = 40

[purposes.login]

[purposes.sign-up]

[purposes.hasty]
code_ttl = "{HASTY_SECONDS}s"

[[routes]]
channels = ["sms"]
destinations = ["DE", "GB", "US"]
providers = ["south", "north"]

[[routes]]
channels = ["sms"]
providers = ["north", "south"]

[[routes]]
channels = ["email"]
providers = ["letters"]
{callers}{providers}"""
