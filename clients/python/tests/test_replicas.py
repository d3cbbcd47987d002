"""Distribution of calls over all replicas that serve."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from otpd import AsyncClient, Client
from support.names import Names
from support.replica import PATIENCE, Replica

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.database import Database

CALLS = 40
MANY = 1_000
MARK = "received rpc=GetOtpStatus"


@pytest.fixture
def pair(database: Database, start: Callable[..., Replica]) -> tuple[Replica, Replica]:
    """Two replicas on one store, at the same port of two addresses."""
    first = start(database)
    second = start(database, listen=first.address.replace("127.0.0.1", "127.0.0.2"))
    return first, second


def until_both_serve(client: Client, pair: tuple[Replica, Replica]) -> None:
    """Wait for both connections, because the first calls go to the first one."""
    for _ in range(MANY):
        if all(replica.requests("received rpc=CancelOtp") for replica in pair):
            return
        client.cancel("+79991234567")
    pytest.fail("one of them is never called")


def test_several_addresses_take_turns(pair: tuple[Replica, Replica]) -> None:
    with Client([replica.address for replica in pair], timeout=PATIENCE) as client:
        until_both_serve(client, pair)
        for _ in range(CALLS):
            client.status("+79991234567")
    assert [replica.requests(MARK, CALLS // 2) for replica in pair] == [CALLS // 2] * 2


def test_all_addresses_of_a_name_take_turns(pair: tuple[Replica, Replica]) -> None:
    port = pair[0].address.rpartition(":")[2]
    with (
        Names("127.0.0.1", "127.0.0.2") as names,
        Client(f"dns://{names.address}/otpd.example:{port}", timeout=PATIENCE) as client,
    ):
        until_both_serve(client, pair)
        for _ in range(CALLS):
            client.status("+79991234567")
    assert [replica.requests(MARK, CALLS // 2) for replica in pair] == [CALLS // 2] * 2


def test_several_names_take_turns(pair: tuple[Replica, Replica]) -> None:
    port = pair[0].address.rpartition(":")[2]
    with Names("127.0.0.1") as one, Names("127.0.0.2") as two:
        addresses = [f"dns://{names.address}/otpd.example:{port}" for names in (one, two)]
        with Client(addresses, timeout=PATIENCE) as client:
            for _ in range(CALLS):
                client.status("+79991234567")
            assert [replica.requests(MARK, CALLS // 2) for replica in pair] == [CALLS // 2] * 2
            # If the first target is not reached, the call goes to the second.
            pair[0].kill()
            for _ in range(CALLS):
                client.status("+79991234567")
    assert pair[1].requests(MARK, CALLS // 2 + CALLS) == CALLS // 2 + CALLS


async def test_replicas_take_turns_for_asyncio(pair: tuple[Replica, Replica]) -> None:
    addresses = [replica.address for replica in pair]
    async with AsyncClient(addresses, timeout=PATIENCE) as client:
        for _ in range(MANY):
            if all(replica.requests("received rpc=CancelOtp") for replica in pair):
                break
            await client.cancel("+79991234567")
        for _ in range(CALLS):
            await client.status("+79991234567")
    assert [replica.requests(MARK, CALLS // 2) for replica in pair] == [CALLS // 2] * 2


def test_a_replica_that_stops_is_left_out_before_it_is_gone(
    database: Database, start: Callable[..., Replica]
) -> None:
    staying = start(database)
    stopping = start(database, {"OTPD_SHUTDOWN_DELAY": "1h"})
    with Client([staying.address, stopping.address], timeout=PATIENCE) as client:
        until_both_serve(client, (staying, stopping))
        stopping.process.send_signal(signal.SIGTERM)
        stopping.log.line("Shutting down")
        # It still accepts calls, but no client calls it, because of its health.
        for _ in range(MANY):
            before = stopping.requests(MARK)
            for _ in range(4):
                client.status("+79991234567")
            if stopping.requests(MARK) == before:
                break
        else:
            pytest.fail("a replica that stops is called for ever")


def test_no_call_fails_while_replicas_are_restarted(
    database: Database, start: Callable[..., Replica], pair: tuple[Replica, Replica]
) -> None:
    addresses = [replica.address for replica in pair]
    with Client(addresses, timeout=PATIENCE) as client, ThreadPoolExecutor(4) as pool:
        until_both_serve(client, pair)
        stopped = False

        def call() -> int:
            calls = 0
            while not stopped:
                client.status("+79991234567")
                calls += 1
            return calls

        callers = [pool.submit(call) for _ in range(4)]
        for replica in pair:
            replica.stop()
            next_one = start(database, listen=replica.address)
            next_one.log.line(MARK)
        stopped = True
        assert all(caller.result(PATIENCE) > 0 for caller in callers)


def test_an_async_client_may_be_used_by_one_loop_after_another(replica: Replica) -> None:
    client = AsyncClient(replica.address, timeout=PATIENCE)
    for _ in range(2):
        asyncio.run(client.status("+79991234567"))
    assert replica.requests(MARK, 2) == 2


# Python warns about forks with threads; gunicorn forks, but has no threads.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("called_before", [False, True])
def test_a_client_that_was_made_before_a_fork_works_after_it(
    replica: Replica, *, called_before: bool
) -> None:
    client = Client(replica.address, timeout=PATIENCE)
    if called_before:
        client.status("+79991234567")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=client.status, args=("+79991234567",)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE)
        assert child.exitcode == 0
    client.status("+79991234567")
    assert replica.requests(MARK, 3 + called_before) == 3 + called_before
    client.close()
