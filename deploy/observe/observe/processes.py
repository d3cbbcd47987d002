"""Processes that are started here, and ended by their ids in every case."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Failed(Exception):
    """A process or a condition that did not reach the expected state."""


class Process:
    """A server whose output is written into a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=log.parent,
                # Ctrl-C ends this program, which then ends the process in order.
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        """Return the lines of its output."""
        return self._log.read_text(errors="replace").splitlines()

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for a condition that depends on this process."""

        def holds_or_ended() -> bool:
            if self._process.poll() is not None:
                raise Failed(f"{self.name} ended:\n" + "\n".join(self.lines()[-20:]))
            return holds()

        wait_until(holds_or_ended, f"{self.name}: {what}")

    def stop(self) -> None:
        """End the process, and wait for its end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of this machine that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
