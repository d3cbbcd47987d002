"""Load of people who log in: most submit the right code, some a wrong one, or none."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING, Self

from otpd import Client, OtpError

if TYPE_CHECKING:
    from .gateway import Gateway
    from .testbed import Testbed

# Weight of each country, format of its recipients with random digits, and share of people who
# submit no code.
COUNTRIES = (
    (10, "8 (916) {}", 0.08),
    (4, "+7 701 {}", 0.10),
    (3, "+49 1512 {}", 0.08),
    (2, "+44 7400 {:.6}", 0.12),
    (1, "+992 93 {}", 0.75),
    (2, "person{}@example.com", 0.15),
)
WRONG_CODE_SHARE = 0.15
DELIVERY_TIMEOUT_SECONDS = 15.0
PEOPLE = 14
PAUSE_SECONDS = 0.6


class Load:
    """People who log in for as long as the context lasts."""

    def __init__(self, testbed: Testbed) -> None:
        self._gateway = testbed.gateway
        self._ended = threading.Event()
        clients = [testbed.client("crm"), testbed.client("shop")]
        self._threads = [
            threading.Thread(target=self._run, args=(clients[number % 4 == 0],))
            for number in range(PEOPLE)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: Client) -> None:
        while not self._ended.wait(random.expovariate(1 / PAUSE_SECONDS)):
            with contextlib.suppress(OtpError):
                log_in(client, self._gateway)


def log_in(client: Client, gateway: Gateway) -> None:
    """Log in once, from the first form to the end."""
    [(_, form, abandoned)] = random.choices(COUNTRIES, [weight for weight, _, _ in COUNTRIES])
    recipient = form.format(f"{random.randrange(10**6, 10**7)}")
    purpose = random.choice(("login", "login", "sign-up"))
    client_ip = f"198.51.100.{random.randrange(1, 255)}"

    def verify(code: str) -> None:
        client.verify(recipient, code, purpose=purpose, region="RU", client_ip=client_ip)

    sent = client.send(recipient, purpose=purpose, region="RU", client_ip=client_ip)
    message = gateway.wait_for(sent.challenge_id, DELIVERY_TIMEOUT_SECONDS)
    # The time that a person takes to type the code.
    time.sleep(random.uniform(0.1, 0.6))
    if message is None or random.random() < abandoned:
        return
    if random.random() < WRONG_CODE_SHARE:
        verify(str((int(message.code) + 1) % 10 ** len(message.code)).zfill(len(message.code)))
    verify(message.code)
