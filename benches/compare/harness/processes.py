"""The processes that the comparison starts. Each is ended by its id, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# How long a process may take to end when it is asked to.
GRACE_SECONDS = 10.0


class ProcessFailed(Exception):
    """A process ended, or did not come up, with what it said last."""


@dataclass(frozen=True)
class Owner:
    """Whom a process runs as, where that is not who runs the comparison."""

    user: int
    group: int

    def arguments(self) -> dict:
        return {"user": self.user, "group": self.group, "extra_groups": [self.group]}


@dataclass(frozen=True)
class Finished:
    """A command that ended well."""

    output: str
    cpu_seconds: float


class Fleet:
    """Everything that runs; `stop_all` ends it in the opposite order."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen] = []

    def start(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
        owner: Owner | None = None,
    ) -> subprocess.Popen:
        """Starts a server; what it says is appended to `log`."""
        # Appended, so that the file can be emptied while the server writes to it.
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
                # A Ctrl-C at the terminal is for the comparison, which ends the rest.
                start_new_session=True,
                **(owner.arguments() if owner else {}),
            )
        self._running.append(process)
        return process

    def run(
        self,
        command: Sequence[str | Path],
        *,
        timeout: float,
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
        owner: Owner | None = None,
        good: Sequence[int] = (0,),
    ) -> Finished:
        """Runs a command to its end, which is told by one of the `good` exit codes, and
        measures its CPU time."""
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            cwd=directory,
            start_new_session=True,
            **(owner.arguments() if owner else {}),
        )
        self._running.append(process)
        before = os.times()
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{command[0]} did not end within {timeout:.0f} s") from None
        finally:
            self.stop(process)
        after = os.times()
        if process.returncode not in good:
            said = (errors or output).strip()[-2000:]
            raise ProcessFailed(f"{Path(command[0]).name} ended with {process.returncode}: {said}")
        # Nobody else is waited for meanwhile, so the children's time is its time.
        spent = after.children_user + after.children_system
        spent -= before.children_user + before.children_system
        return Finished(output, spent)

    def stop(self, process: subprocess.Popen, how: int = signal.SIGTERM) -> None:
        """Ends a process; what it had started, too, if it does not see to that itself."""
        if process.poll() is None:
            descendants = tree(process.pid)[1:]
            process.send_signal(how)
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            end_stragglers(descendants)
        if process in self._running:
            self._running.remove(process)

    def stop_all(self) -> None:
        while self._running:
            self.stop(self._running[-1])


def end_stragglers(processes: list[tuple[int, int]]) -> None:
    """Kills those of the processes that still are who they were, and waits for their end."""
    for pid, born in processes:
        if runs(pid, born):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    deadline = time.monotonic() + GRACE_SECONDS
    while any(runs(pid, born) for pid, born in processes) and time.monotonic() < deadline:
        time.sleep(0.01)


def runs(pid: int, born: int) -> bool:
    """Whether that very process is there and has not ended."""
    stat = read_stat(pid)
    return stat is not None and stat.born == born and stat.state != "Z"


@contextmanager
def undisturbed() -> Iterator[None]:
    """Lets no signal cut short what is being cleaned up."""
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = [signal.signal(kind, signal.SIG_IGN) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, former):
            signal.signal(kind, handler)


@dataclass(frozen=True)
class Stat:
    """What /proc tells of a process: times in clock ticks."""

    state: str
    parent: int
    born: int
    ticks: int


def read_stat(pid: int) -> Stat | None:
    """Of a process that is there; `None` of one that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(text)


def parse_stat(text: str) -> Stat:
    """`/proc/PID/stat` as proc(5) has it. The name, in parentheses, may hold anything."""
    fields = text[text.rindex(")") + 2 :].split()
    # Fields 14 to 17: of itself, and of the children that it has waited for.
    ticks = sum(int(field) for field in fields[11:15])
    return Stat(state=fields[0], parent=int(fields[1]), born=int(fields[19]), ticks=ticks)


def tree(root: int) -> list[tuple[int, int]]:
    """The process and all that descend from it, each with when it was born."""
    stats = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := read_stat(int(entry))):
            stats[int(entry)] = stat
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found, waiting = [], [root] if root in stats else []
    while waiting:
        pid = waiting.pop()
        found.append((pid, stats[pid].born))
        waiting.extend(children.get(pid, []))
    return found


def cpu_seconds(roots: Sequence[int]) -> float:
    """What the processes and all that descend from them have used so far, those included
    that have ended."""
    ticks = 0
    for root in roots:
        for pid, _ in tree(root):
            stat = read_stat(pid)
            ticks += stat.ticks if stat else 0
    return ticks / TICKS_PER_SECOND


def memory_bytes(roots: Sequence[int]) -> dict[str, int]:
    """Resident memory of the trees: now, and the sum of each process's peak."""
    resident = peak = 0
    for root in roots:
        for pid, _ in tree(root):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            sizes = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            resident += kibibytes(sizes.get("VmRSS"))
            peak += kibibytes(sizes.get("VmHWM"))
    return {"resident_bytes": resident, "peak_resident_bytes": peak}


def kibibytes(value: str | None) -> int:
    return int(value.split()[0]) * 1024 if value else 0


def wait_until(condition, *, what: str, process: subprocess.Popen, log: Path, timeout: float = 30.0) -> None:
    """Waits for a server to be ready; tells what it said where it is not."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:].strip()
            raise ProcessFailed(f"{what} did not come up: {said}")
        time.sleep(0.02)
