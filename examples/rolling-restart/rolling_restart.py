"""Restarts replicas in turn under load; started by `show`, which lists the requirements."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from otpd import AsyncClient, OtpError

REPLICAS = 3
PATIENCE = 60.0
"""Seconds after which something that must happen has not."""


class Sink:
    """A gateway that takes every message and keeps the codes, by recipient."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        """How many messages came for each challenge."""
        self._codes: dict[str, asyncio.Future[str]] = {}

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Take no more."""
        self._server.close()

    async def code(self, recipient: str) -> str:
        """Wait for the code of a recipient."""
        return await asyncio.wait_for(self._code(recipient), PATIENCE)

    def _code(self, recipient: str) -> asyncio.Future[str]:
        return self._codes.setdefault(recipient, asyncio.get_running_loop().create_future())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                message = json.loads(await reader.readexactly(length))
                self.messages[message["challenge"]] += 1
                code = self._code(message["to"])
                if not code.done():
                    code.set_result(message["code"])
                writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"ok":true}')
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Replica:
    """One otpd, always at the same address."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._environment = {**environment, "OTPD_LISTEN": self.address}
        self._directory = directory

    async def start(self) -> None:
        """Start it and wait until it serves, as a readiness probe does."""
        self._process = await asyncio.create_subprocess_exec(
            os.environ["OTPD"],
            cwd=self._directory,
            env=self._environment,
            stdout=asyncio.subprocess.DEVNULL,
        )
        until = time.monotonic() + PATIENCE
        while not await self._serves():
            if self._process.returncode is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.address} does not start")

    async def stop(self) -> None:
        """End it as an orchestrator does."""
        self._process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(self._process.wait(), PATIENCE)
        if status != 0:
            raise RuntimeError(f"{self.address} ended with {status}")

    async def _serves(self) -> bool:
        probe = await asyncio.create_subprocess_exec(
            os.environ["OTPD"],
            "health",
            env={"OTPD_ADDRESS": self.address},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await probe.wait() == 0


@dataclass
class Counts:
    """Results of all calls."""

    requests: int = 0
    verified: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


class Retries(logging.Handler):
    """Counts the retries that the client logs, by their cause."""

    def __init__(self) -> None:
        super().__init__()
        self.causes: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        message = record.getMessage()
        if "otpd is unavailable" in message:
            self.causes[message.partition("cause=")[2].split(":")[0][:60]] += 1


async def login(client: AsyncClient, sink: Sink, recipient: str, counts: Counts) -> None:
    """Send a code and verify it: two requests."""
    began = time.monotonic()
    try:
        counts.requests += 1
        await client.send(recipient)
        code = await sink.code(recipient)
        counts.requests += 1
        if await client.verify(recipient, code):
            counts.verified += 1
        else:
            counts.failures["not verified"] += 1
    except (OtpError, asyncio.TimeoutError) as error:
        counts.failures[f"{type(error).__name__}: {error}"[:100]] += 1
    counts.slowest = max(counts.slowest, time.monotonic() - began)


async def load(
    client: AsyncClient, sink: Sink, rate: float, over: asyncio.Event, counts: Counts
) -> None:
    """Have people log in at a steady rate, whether or not those before them are done."""
    started = time.monotonic()
    running = set()
    number = 0
    while not over.is_set():
        task = asyncio.create_task(login(client, sink, f"+7999{number:07}", counts))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        # Two requests each; a late thread catches up.
        await asyncio.sleep(max(0.0, started + 2 * number / rate - time.monotonic()))
    await asyncio.gather(*running)


async def restart_all(replicas: list[Replica], rounds: int, pause: float) -> int:
    """Restart each in turn, with a pause in which callers find the new one."""
    restarts = 0
    for _ in range(rounds):
        for replica in replicas:
            await asyncio.sleep(pause)
            await replica.stop()
            await replica.start()
            restarts += 1
    await asyncio.sleep(pause)
    return restarts


async def new_database() -> str:
    """Make a database in the PostgreSQL that is there."""
    server = os.environ["TEST_POSTGRES_URL"]
    psql = Path(os.environ["TEST_POSTGRES_BIN"]) / "psql"
    name = f"restart_{secrets.token_hex(8)}"
    process = await asyncio.create_subprocess_exec(
        psql, "--no-psqlrc", "--quiet", "--dbname", server, "--command", f"CREATE DATABASE {name}"
    )
    if await process.wait() != 0:
        raise RuntimeError("no database")
    return f"{server.rpartition('/')[0]}/{name}"


def configure(directory: Path, port: int) -> str:
    """Write the configuration of all replicas."""
    file = directory / "otpd.toml"
    file.write_text(
        f"""
[policy]
sends_per_hour = 0
sends_per_day = 0
[providers.sink]
kind = "http"
url = "http://127.0.0.1:{port}/"
json = {{ challenge = "{{challenge_id}}", to = "{{to_e164}}", code = "{{code}}" }}
allow_private_addresses = true
max_concurrency = 64
[[routes]]
providers = ["sink"]
"""
    )
    return str(file)


async def show(directory: Path, arguments: argparse.Namespace) -> bool:
    """Restart replicas under load, and print the results of calls."""
    sink, counts, retries = Sink(), Counts(), Retries()
    logger = logging.getLogger("otpd")
    logger.setLevel(logging.INFO)
    logger.addHandler(retries)
    await sink.start()
    environment = {
        "DATABASE_URL": await new_database(),
        "OTPD_CONFIG": configure(directory, sink.port),
        "OTPD_KEYS_FILE": str(directory / "otpd.keys"),
        "OTPD_LOG_LEVEL": "warn",
    }
    keygen = ["keygen", "--output", environment["OTPD_KEYS_FILE"]]
    process = await asyncio.create_subprocess_exec(
        os.environ["OTPD"], *keygen, env={}, stdout=asyncio.subprocess.DEVNULL
    )
    await process.wait()
    replicas = [Replica(environment, directory) for _ in range(REPLICAS)]
    await asyncio.gather(*(replica.start() for replica in replicas))

    over = asyncio.Event()
    began = time.monotonic()
    async with AsyncClient([replica.address for replica in replicas]) as client:
        loading = asyncio.create_task(load(client, sink, arguments.rate, over, counts))
        try:
            restarts = await restart_all(replicas, arguments.rounds, arguments.pause)
        finally:
            over.set()
            await loading
    took = time.monotonic() - began
    await asyncio.gather(*(replica.stop() for replica in replicas))
    sink.stop()

    by_count = Counter(sink.messages.values())
    twice = sum(count for messages, count in by_count.items() if messages > 1)
    print(f"{REPLICAS} replicas, {restarts} restarts in {took:.0f} s")
    print(f"requests                {counts.requests} ({counts.requests / took:.0f} a second)")
    print(f"failures                {counts.failures.total()} {dict(counts.failures) or ''}")
    print(f"retries                 {retries.causes.total()} {dict(retries.causes) or ''}")
    print(f"codes verified          {counts.verified}")
    print(f"codes delivered once    {by_count[1]}")
    print(f"codes delivered twice   {twice}")
    print(f"slowest pair            {counts.slowest:.2f} s")
    return not counts.failures and not twice and counts.verified == by_count[1]


def main() -> int:
    """Run it, and return 0 if no call failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--rounds", type=int, default=2, help="restarts of each replica")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two restarts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        return 0 if asyncio.run(show(Path(directory), arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
