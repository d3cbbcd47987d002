"""Fixtures: the fake and the real server with one interface."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import django
import pytest

from support.database import Database
from support.replica import Replica
from support.world import FakeWorld, RealWorld, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crm.settings")
django.setup()

STORES = {"sqlite": Database.sqlite, "postgres": Database.postgres}


@pytest.fixture
def start() -> Iterator[Callable[..., Replica]]:
    """Start replicas that end with the test: `start(database, environment)`."""
    started: list[Replica] = []

    def one(*arguments: object, **options: object) -> Replica:
        replica = Replica.start(*arguments, **options)  # type: ignore[arg-type]
        started.append(replica)
        return replica

    yield one
    for replica in started:
        replica.kill()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """An empty SQLite file."""
    return Database.sqlite(tmp_path)


@pytest.fixture
def replica(database: Database, start: Callable[..., Replica]) -> Replica:
    """One replica on SQLite."""
    return start(database)


@pytest.fixture(scope="session", params=["fake", "sqlite", "postgres"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """An otpd with the default rules: the fake, and the real one on each store."""
    if request.param == "fake":
        yield FakeWorld()
        return
    database = STORES[request.param](tmp_path_factory.mktemp(request.param))
    replica = Replica.start(database)
    real = RealWorld(database, replica)
    yield real
    real.client.close()
    replica.kill()
