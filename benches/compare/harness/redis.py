"""A Redis server of the comparison, whose writes reach the disk before they are acknowledged."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from .measurement import Bench
from .processes import ProcessFailed, wait_until

# Settings without which an acknowledged write can be lost. Snapshots are off because the
# append-only file already holds every write.
SETTINGS = {"appendonly": "yes", "appendfsync": "always", "save": ""}


@dataclass(frozen=True)
class Redis:
    """A server that runs."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def calls(self, command: str) -> int:
        """Returns how often clients have sent the command since the start of the server."""
        return command_calls(self._ask("INFO", "commandstats"), command)

    def check_durable(self) -> None:
        """Raises ProcessFailed if an acknowledged write may not be on the disk."""
        for name in ("appendonly", "appendfsync"):
            value = self._ask("CONFIG", "GET", name).split()[-1]
            if value != SETTINGS[name]:
                raise ProcessFailed(f"Redis runs with {name} = {value}")
        if "aof_last_write_status:ok" not in self._ask("INFO", "persistence").split():
            raise ProcessFailed("Redis could not write its append-only file")

    def answers(self) -> bool:
        try:
            return self._ask("PING") == "PONG"
        except (OSError, ProcessFailed):
            return False

    def _ask(self, *words: str) -> str:
        """Sends one command and returns the reply: strings, one a line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            with connection.makefile("rwb") as stream:
                stream.write(encode(words))
                stream.flush()
                return decode(stream)


def encode(words: tuple[str, ...]) -> bytes:
    """Returns a command in the protocol of Redis: an array of strings."""
    parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
    return "".join(parts).encode()


def decode(stream) -> str:
    """Returns a reply: a string, or the strings of an array."""
    line = stream.readline().decode().rstrip("\r\n")
    kind, rest = line[:1], line[1:]
    if kind == "*":
        return "\n".join(decode(stream) for _ in range(int(rest)))
    if kind == "$":
        return stream.read(int(rest) + 2)[:-2].decode() if int(rest) >= 0 else ""
    if kind in ("+", ":"):
        return rest
    raise ProcessFailed(f"Redis replied {line or 'nothing'}")


def command_calls(statistics: str, command: str) -> int:
    """Returns the number of calls of one command in the reply to INFO commandstats."""
    for line in statistics.splitlines():
        if line.startswith(f"cmdstat_{command}:calls="):
            return int(line.split("=", 1)[1].split(",", 1)[0])
    return 0


@contextmanager
def running(bench: Bench, port: int) -> Iterator[Redis]:
    """An empty server, until the end of the block. Its files are on the disk of PostgreSQL's."""
    directory = bench.scratch / "redis"
    directory.mkdir()
    log = bench.memory / "redis.log"
    command = [bench.tools.redis_server(), "--port", str(port), "--bind", "127.0.0.1",
               "--dir", directory]
    for name, value in SETTINGS.items():
        command += [f"--{name}", value]
    process = bench.fleet.start(command, log=log, directory=directory)
    try:
        redis = Redis(port, process.pid)
        wait_until(redis.answers, what="Redis", process=process, log=log)
        redis.check_durable()
        yield redis
    finally:
        bench.fleet.stop(process)
        shutil.rmtree(directory, ignore_errors=True)
        log.unlink(missing_ok=True)


def installed_version(program: Path) -> str:
    """Returns the version in the line `Redis server v=7.0.15 sha=…`."""
    line = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    return next(word[2:] for word in line.split() if word.startswith("v="))
