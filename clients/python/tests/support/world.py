"""Interface of the shared tests to otpd: the real one, or the fake."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Protocol

from otpd import Client
from otpd.testing import FakeOtpd

if TYPE_CHECKING:
    from otpd import Sent
    from support.database import Database
    from support.replica import Replica


class Strangers:
    """Recipients of no other test, because all tests of a store share its server."""

    def __init__(self) -> None:
        self._count = 0

    def phone(self) -> str:
        self._count += 1
        return f"+7999{self._count:07}"

    def address(self) -> str:
        """Return an IPv4 address of a separate network."""
        self._count += 1
        return str(ipaddress.IPv4Address("10.0.0.0") + self._count)


class World(Protocol):
    """otpd with a clock that can be advanced, and messages that can be read."""

    client: Client
    strangers: Strangers

    def advance(self, seconds: float) -> None:
        """Advance the clock."""

    def codes(self, sent: Sent, count: int = 1) -> list[str]:
        """Return the codes of a challenge's first messages."""


class FakeWorld:
    def __init__(self) -> None:
        self.fake = FakeOtpd()
        self.client = self.fake.client()
        self.strangers = Strangers()

    def advance(self, seconds: float) -> None:
        self.fake.advance(seconds=seconds)

    def codes(self, sent: Sent, count: int = 1) -> list[str]:
        of_it = [one for one in self.fake.messages if one.challenge_id == sent.challenge_id]
        assert len(of_it) >= count
        return [message.code for message in of_it]


class RealWorld:
    def __init__(self, database: Database, replica: Replica) -> None:
        self.database = database
        self.replica = replica
        self.client = Client(replica.address, timeout=30)
        self.strangers = Strangers()

    def advance(self, seconds: float) -> None:
        self.database.advance(seconds)

    def codes(self, sent: Sent, count: int = 1) -> list[str]:
        return self.replica.codes(sent.challenge_id, count)
