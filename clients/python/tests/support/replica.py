"""The real binary, serving on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from otpd._channels import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otpd.options import Tls
    from support.database import Database

PATIENCE = 60.0
"""Seconds after which a test fails if an event has not happened."""

GENERATED = "[OTP] Generated OTP: "


def binary() -> Path:
    """Return the path of the binary."""
    return Path(os.environ["OTPD"]).resolve()


class Log:
    """Lines of a process, as they are written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()

    def follow(self, process: subprocess.Popen[str]) -> None:
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def join(self) -> None:
        """Wait for the end of the process."""
        self._reader.join(PATIENCE)
        assert self._ended

    def wait_for(self, found: Callable[[list[str]], bool]) -> None:
        """Wait until a condition on the lines holds."""
        with self._news:
            done = self._news.wait_for(lambda: found(self.lines) or self._ended, PATIENCE)
            log = "\n".join(self.lines)
            assert done, f"the log does not go on:\n{log}"
            assert found(self.lines), f"the log has ended:\n{log}"

    def line(self, text: str) -> str:
        """Return the first line, past or future, with a text."""
        self.wait_for(lambda lines: any(text in line for line in lines))
        return next(line for line in self.lines if text in line)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
        process.stdout.close()


@dataclass
class Replica:
    """A running server, which its creator must stop."""

    process: subprocess.Popen[str]
    log: Log
    address: str

    @staticmethod
    def start(
        database: Database,
        environment: Mapping[str, str] | None = None,
        *,
        listen: str = "127.0.0.1:0",
        tls: Tls | None = None,
        serving: bool = True,
    ) -> Replica:
        """Start a server, and wait until it serves, or only until it listens."""
        if not database.keys.exists():
            keygen = [str(binary()), "keygen", "--output", str(database.keys)]
            subprocess.run(keygen, check=True, env={}, stdout=subprocess.DEVNULL)
        process = subprocess.Popen(
            [binary(), "serve"],
            cwd=database.directory,
            env={
                "DATABASE_URL": database.url,
                "OTPD_KEYS_FILE": str(database.keys),
                "OTPD_LISTEN": listen,
                "OTPD_SHUTDOWN_DELAY": "0s",
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        log = Log()
        log.follow(process)
        listening = re.search(r"127\.0\.0\.\d+:\d+", log.line("address"))
        assert listening is not None
        replica = Replica(process, log, listening[0])
        if serving:
            replica.wait_until_it_serves(tls)
        return replica

    def wait_until_it_serves(self, tls: Tls | None = None) -> None:
        connection = Connection.of(
            self.address, tls=tls, token=None, allow_plaintext_token=False, keepalive=30
        )
        credentials, options = connection.credentials(), connection.options("")
        channel = (
            grpc.insecure_channel(self.address, options)
            if credentials is None
            else grpc.secure_channel(self.address, credentials, options)
        )
        # A channel with health checks is ready when the server serves.
        grpc.channel_ready_future(channel).result(PATIENCE)
        channel.close()

    def stop(self) -> None:
        """Stop it as an orchestrator does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        self.log.join()

    def kill(self) -> None:
        """Kill it, as in a power failure."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.log.join()

    def codes(self, challenge_id: str, count: int = 1) -> list[str]:
        """Return the messages of the log provider for a challenge, once there are enough."""
        mark = f"challenge_id={challenge_id} "
        self.log.wait_for(lambda lines: len(_messages(lines, mark)) >= count)
        return [line.partition(GENERATED)[2].split()[0] for line in _messages(self.log.lines, mark)]

    def requests(self, text: str, at_least: int = 0) -> int:
        """Return the number of log lines with a text, once there are `at_least` of them."""
        self.log.wait_for(lambda lines: sum(text in line for line in lines) >= at_least)
        return sum(text in line for line in self.log.lines)


def _messages(lines: list[str], mark: str) -> list[str]:
    return [line for line in lines if mark in line and GENERATED in line]
