"""Two eventful minutes of otpd, and the dashboard drawn from them."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otpd import Client, OtpError, ResendTooSoon

from . import picture
from .__main__ import GRAFANA
from .answers import Answered, answered, panels
from .load import Load
from .world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUIET_SECONDS = 25.0
SHORTER = 20


@dataclass(frozen=True)
class Event:
    """What was done to otpd, and when, in seconds since 1970."""

    name: str
    start: float
    end: float


def run(folder: Path) -> int:
    """Live, ask, draw; the exit code."""
    with World() as world:
        prometheus = world.watched(SHORTER)
        # Whatever fired before the first scrape ends.
        time.sleep(3)
        start = time.time()
        print("Two replicas serve, Prometheus watches.")
        with Load(world) as load:
            events = live_through(world)
        # What is on its way ends, and is scraped.
        time.sleep(3)
        end = time.time()
        print("People:", ", ".join(f"{what} {count}" for what, count in load.seen.most_common()))
        shown: list[Answered | str] = []
        silent: list[str] = []
        for panel in panels(GRAFANA):
            if panel["type"] == "row":
                shown.append(panel["title"])
                continue
            found, without = answered(panel, prometheus, start, end)
            shown.append(found)
            silent += [f"{panel['title']}: {expression}" for expression in without]
    queries = sum(len(one.panel["targets"]) for one in shown if isinstance(one, Answered))
    print(f"{queries} queries asked, {len(silent)} without data")
    for query in silent:
        print(f"  no data: {query}")
    file = folder / "observability/dashboard.svg"
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.draw(shown, events, start, end, file=file)
    print(f"Drew {file}")
    return 1 if silent else 0


def live_through(world: World) -> list[Event]:
    """Two minutes in which something happens."""
    events: list[Event] = []

    def during(
        name: str, seconds: float, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        started = time.time()
        print(f"  {name}")
        begin()
        try:
            time.sleep(seconds)
        finally:
            end()
        events.append(Event(name, started, time.time()))

    time.sleep(QUIET_SECONDS + 5)
    during(
        "provider north is down",
        18,
        lambda: world.gateway.break_down("north"),
        lambda: world.gateway.mend("north"),
    )
    time.sleep(QUIET_SECONDS)
    attackers = Attackers(world)
    during("somebody guesses", 18, attackers.start, attackers.stop)
    attackers.undo()
    time.sleep(QUIET_SECONDS)
    during("the store is away", 6, world.postgres.stop, world.postgres.start)
    time.sleep(QUIET_SECONDS)
    return events


class Attackers:
    """Somebody who guesses the codes of a few numbers, and a stranger without a token."""

    def __init__(self, world: World, numbers: int = 12, pause: float = 0.3) -> None:
        self._world = world
        self._ended = threading.Event()
        self._client = world.client("crm", retries=False)
        self._pause = pause
        self.numbers = [f"+7 925 {random.randrange(10**6, 10**7)}" for _ in range(numbers)]
        self._threads = [
            threading.Thread(target=self._guess, args=(number,)) for number in self.numbers
        ]
        self._threads.append(threading.Thread(target=self._knock))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait for the end."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def undo(self) -> None:
        """What a help desk does: have the wrong answers forgotten."""
        for number in self.numbers:
            self._client.cancel(number, purpose="login", reset_failures=True)

    def _guess(self, number: str) -> None:
        while not self._ended.wait(self._pause):
            # Half of the guesses come from one address.
            guess(self._client, number, random.choice(("203.0.113.7", address())))

    def _knock(self) -> None:
        replica = self._world.replicas[0].address
        with Client(replica) as without, Client(replica, token="guessed") as wrong:
            for client in itertools.cycle((without, wrong)):
                if self._ended.wait(0.5):
                    return
                with contextlib.suppress(OtpError):
                    client.send(self.numbers[0])


def address() -> str:
    """Somebody's address, of many."""
    return f"203.0.113.{random.randrange(8, 250)}"


def guess(client: Client, number: str, client_ip: str) -> str:
    """Have a code sent, unless one was a moment ago, and type another; what came of it."""
    try:
        with contextlib.suppress(ResendTooSoon):
            client.send(number, purpose="login", client_ip=client_ip)
        # One in a million, as any other guess.
        return client.verify(number, "000000", purpose="login", client_ip=client_ip).outcome.value
    except OtpError as error:
        return error.reason or error.status
