"""Where commands are typed."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from blocks import Fault

# Seconds. The copy may have to be built; with --cold, with all that it needs.
PATIENCE = 3_600.0 if "--cold" in sys.argv else 300.0


def end_group(process: subprocess.Popen) -> None:
    """Ends a process and what it started, and waits until all of it is gone."""
    deadline = time.monotonic() + 30
    try:
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Terminal:
    """A command in the background, as in another terminal."""

    def __init__(self, text: str, directory: Path, environment: dict[str, str]) -> None:
        self.log = Path(tempfile.mkstemp(prefix="terminal-", dir=environment["TMPDIR"])[1])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", text],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def wait_for(self, what: str, is_there) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_there(self.lines()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = "\n".join(self.lines())
                raise Fault(f"{what} does not come; there is\n{log}")
            time.sleep(0.05)

    def end(self) -> None:
        end_group(self.process)


class Shell:
    """One shell for all commands of a page."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.scratch = Path(environment["TMPDIR"])
        status, told = os.pipe()
        self.status = os.fdopen(status)
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            pass_fds=[told],
            start_new_session=True,
            text=True,
        )
        os.close(told)
        self.told = told

    def run(self, text: str) -> tuple[int, list[str]]:
        typed, output = self.scratch / "typed", self.scratch / "output"
        typed.write_text(text + "\n")
        assert self.process.stdin is not None
        self.process.stdin.write(
            f"source {typed} >{output} 2>&1 </dev/null; echo $? >&{self.told}\n"
        )
        self.process.stdin.flush()
        watch = threading.Timer(PATIENCE, os.killpg, [self.process.pid, signal.SIGKILL])
        watch.start()
        line = self.status.readline()
        watch.cancel()
        lines = output.read_text(errors="replace").splitlines()
        if not line:
            shown = "\n".join(lines)
            raise Fault(f"the shell ended at\n{text}\n{shown}")
        return int(line), lines

    def end(self) -> None:
        end_group(self.process)
