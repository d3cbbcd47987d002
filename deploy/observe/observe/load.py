"""People who log in: most type the right code, some a wrong one, some too late, some none."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from otpd import Client, OtpError

from .world import HASTY_SECONDS

if TYPE_CHECKING:
    from .gateway import Gateway
    from .world import World

# How often somebody is from there, how his number is written with seven random digits, and
# how often he gives up instead of typing a code.
COUNTRIES = (
    (10, "8 (916) {}", 0.08),
    (4, "+7 701 {}", 0.10),
    (3, "+49 1512 {}", 0.08),
    (2, "+44 7400 {:.6}", 0.12),
    (2, "+1 201 55{:.5}", 0.10),
    (1, "+992 93 {}", 0.75),
    (2, "person{}@example.com", 0.15),
)
# What people do, of those who do not give up.
HABITS = (
    (70, "right"),
    (14, "mistyped"),
    (6, "again"),
    (4, "late"),
    (3, "twice"),
    (2, "status"),
    (1, "cancel"),
)
PATIENCE_SECONDS = 15.0
PEOPLE = 24


@dataclass(frozen=True)
class Person:
    """Somebody before a form, and what he will do."""

    recipient: str
    purpose: str
    client_ip: str
    habit: str


class Load:
    """People, for as long as the context lasts."""

    def __init__(self, world: World, *, people: int = PEOPLE, pause: float = 0.6) -> None:
        self.seen: Counter[str] = Counter()
        self._gateway = world.gateway
        self._pause = pause
        self._ended = threading.Event()
        clients = [world.client("crm"), world.client("shop")]
        self._threads = [
            threading.Thread(target=self._live, args=(clients[number % 4 == 0],))
            for number in range(people)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _live(self, client: Client) -> None:
        while not self._ended.wait(random.expovariate(1 / self._pause)):
            try:
                self.seen[log_in(client, self._gateway, somebody())] += 1
            except OtpError as error:
                self.seen[error.reason or error.status] += 1


def somebody() -> Person:
    """The next person."""
    [(_, form, gives_up)] = random.choices(COUNTRIES, [country[0] for country in COUNTRIES])
    [(_, habit)] = random.choices(HABITS, [weight for weight, _ in HABITS])
    if random.random() < gives_up:
        habit = "nothing"
    purpose = "hasty" if habit == "late" else random.choice(("login", "login", "sign-up"))
    return Person(
        recipient=form.format(f"{random.randrange(10**6, 10**7)}"),
        purpose=purpose,
        client_ip=f"198.51.100.{random.randrange(1, 255)}",
        habit=habit,
    )


def log_in(client: Client, gateway: Gateway, person: Person) -> str:
    """One login from the first form to its end; returns how it went."""

    def verify(code: str) -> bool:
        return client.verify(
            person.recipient,
            code,
            purpose=person.purpose,
            region="RU",
            client_ip=person.client_ip,
        ).verified

    def send() -> str:
        return client.send(
            person.recipient,
            purpose=person.purpose,
            region="RU",
            client_ip=person.client_ip,
        ).challenge_id

    challenge_id = send()
    message = gateway.wait_for(challenge_id, PATIENCE_SECONDS)
    if message is None:
        return "no message"
    # It is a phone in somebody's hand.
    time.sleep(random.uniform(0.1, 0.6))
    match person.habit:
        case "nothing":
            return "given up"
        case "mistyped":
            verify(other_than(message.code))
        case "late":
            time.sleep(HASTY_SECONDS + 0.5)
        case "again":
            time.sleep(1)
            send()
        case "status":
            client.status(person.recipient, purpose=person.purpose, region="RU")
        case "cancel":
            client.cancel(person.recipient, purpose=person.purpose, region="RU")
    verified = verify(message.code)
    if person.habit == "twice":
        verify(message.code)
    return "verified" if verified else "not verified"


def other_than(code: str) -> str:
    """A code of as many digits that is wrong."""
    return str((int(code) + 1) % 10 ** len(code)).zfill(len(code))
