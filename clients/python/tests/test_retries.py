"""Retries after UNAVAILABLE, which never cause a second message."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

import otpd
from otpd import AsyncClient, Client, DeliveryState, RetryPolicy, _failure
from otpd._attempts import Attempts
from otpd._failure import Failure
from otpd.testing import FakeOtpd
from support.proxy import Proxy
from support.replica import GENERATED, PATIENCE, Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.database import Database

PHONE = "+79991234567"
STUBBORN = RetryPolicy(max_attempts=1_000, initial_backoff=0.05, max_backoff=0.05)


@pytest.fixture
def retried() -> Iterator[threading.Event]:
    """Set when a client is about to retry."""
    event = threading.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "otpd is unavailable" in record.getMessage():
                event.set()

    watch = Watch()
    logger = logging.getLogger("otpd")
    level = logger.level
    logger.addHandler(watch)
    logger.setLevel(logging.INFO)
    yield event
    logger.removeHandler(watch)
    logger.setLevel(level)


def test_a_reply_that_is_lost_is_asked_for_again(replica: Replica) -> None:
    with (
        Proxy(replica.address) as proxy,
        Client(proxy.address, timeout=PATIENCE, retry=STUBBORN) as client,
        ThreadPoolExecutor() as pool,
    ):
        client.status(PHONE)
        proxy.hold_replies()
        sending = pool.submit(client.send, PHONE)
        # The request is executed; only its response is held.
        replica.log.line("OTP queued")
        proxy.cut()
        sent = sending.result(PATIENCE)
        assert not sent.resent
        (code,) = replica.codes(sent.challenge_id)

        proxy.hold_replies()
        verifying = pool.submit(client.verify, PHONE, code)
        replica.log.line("OTP verified successfully")
        proxy.cut()
        assert verifying.result(PATIENCE)
    assert replica.requests("received rpc=SendOtp", 2) == 2
    assert replica.requests(GENERATED, 1) == 1
    assert replica.requests("received rpc=VerifyOtp", 2) == 2


async def test_a_reply_that_is_lost_is_asked_for_again_by_asyncio(replica: Replica) -> None:
    with Proxy(replica.address) as proxy:
        async with AsyncClient(proxy.address, timeout=PATIENCE, retry=STUBBORN) as client:
            await client.status(PHONE)
            proxy.hold_replies()
            sending = asyncio.create_task(client.send(PHONE))
            await asyncio.to_thread(replica.log.line, "OTP queued")
            proxy.cut()
            sent = await sending
    assert not sent.resent
    assert replica.requests("received rpc=SendOtp", 2) == 2
    assert len(replica.codes(sent.challenge_id)) == 1


def test_a_call_outlives_the_replica(
    database: Database,
    replica: Replica,
    start: Callable[..., Replica],
    retried: threading.Event,
) -> None:
    with (
        Proxy(replica.address) as proxy,
        Client(proxy.address, timeout=PATIENCE, retry=STUBBORN) as client,
        Client(replica.address) as watcher,
        ThreadPoolExecutor() as pool,
    ):
        client.status(PHONE)
        proxy.hold_replies()
        sending = pool.submit(client.send, PHONE)
        replica.log.line("OTP queued")
        # The state of the message is recorded, so that it is not sent again.
        while [one.state for one in watcher.status(PHONE).deliveries] != [DeliveryState.SENT]:
            pass
        replica.kill()
        proxy.cut()
        assert retried.wait(PATIENCE)
        next_one = start(database, listen=replica.address)
        sent = sending.result(PATIENCE)
        (code,) = replica.codes(sent.challenge_id)
        assert client.verify(PHONE, code)
    assert next_one.requests(GENERATED) == 0
    assert next_one.requests("received rpc=SendOtp") == 1


def test_what_was_answered_is_not_asked_again(replica: Replica) -> None:
    with Client(replica.address) as client:
        client.send(PHONE)
        with pytest.raises(otpd.ResendTooSoon) as soon:
            client.send(PHONE)
    assert soon.value.attempts == 1
    assert replica.requests("received rpc=SendOtp", 2) == 2


class TestAttempts:
    """Retry decisions, by the failure."""

    def attempts(self, *, targets: int = 1, timeout: float = 10.0, **policy: float) -> Attempts:
        attempts = Attempts(
            RetryPolicy(**policy),  # type: ignore[arg-type]
            now=0,
            timeout=timeout,
            targets=targets,
            turn=7,
            request_id="one",
        )
        attempts.begin(0)
        return attempts

    def unavailable(self, pushback: float | None = None) -> Failure:
        return Failure(grpc.StatusCode.UNAVAILABLE, "", pushback=pushback)

    def test_a_pushback_is_obeyed(self) -> None:
        assert self.attempts().pause_after(self.unavailable(1.5), 0) == 1.5
        assert self.attempts().pause_after(self.unavailable(0), 0) == 0

    def test_a_pushback_below_nought_forbids_another_try(self) -> None:
        with pytest.raises(otpd.Unavailable):
            self.attempts().pause_after(self.unavailable(-1), 0)

    @pytest.mark.parametrize(("value", "pushback"), [("1500", 1.5), ("-1", -0.001), ("x", -1)])
    def test_a_pushback_is_read_of_its_trailer(self, value: str, pushback: float) -> None:
        trailers = [("grpc-retry-pushback-ms", value)]
        failure = _failure.read(grpc.StatusCode.UNAVAILABLE, "", trailers)
        assert failure.pushback == pushback

    def test_without_one_the_pause_grows_to_its_bound(self) -> None:
        attempts = self.attempts(max_attempts=6, initial_backoff=1, max_backoff=3)
        for pause in (1, 2, 3, 3, 3):
            delay = attempts.pause_after(self.unavailable(), 0)
            assert delay == pytest.approx(pause, rel=0.2)
            attempts.begin(0)
        with pytest.raises(otpd.Unavailable) as given_up:
            attempts.pause_after(self.unavailable(), 0)
        assert given_up.value.attempts == 6
        assert given_up.value.request_id == "one"

    def test_other_addresses_are_asked_at_once(self) -> None:
        attempts = self.attempts(targets=3, initial_backoff=1)
        assert attempts.turn == 7
        for turn in (8, 9):
            assert attempts.pause_after(self.unavailable(), 0) == 0
            attempts.begin(0)
            assert attempts.turn == turn
        assert attempts.pause_after(self.unavailable(), 0) == pytest.approx(1, rel=0.2)

    def test_nobody_waits_in_vain(self) -> None:
        with pytest.raises(otpd.Unavailable):
            self.attempts(timeout=5).pause_after(self.unavailable(2), 3)
        assert self.attempts(timeout=5).pause_after(self.unavailable(1.9), 3) == 1.9
        assert self.attempts(timeout=5).begin(3) == 2

    @pytest.mark.parametrize("code", set(grpc.StatusCode) - {grpc.StatusCode.UNAVAILABLE})
    def test_nothing_but_unavailable_is_tried_again(self, code: grpc.StatusCode) -> None:
        with pytest.raises(otpd.OtpError):
            self.attempts().pause_after(Failure(code, "", pushback=0), 0)


class TestTheFake:
    """Planned failures of the fake."""

    def test_a_failure_is_got_over(self) -> None:
        fake = FakeOtpd()
        fake.fail_next("STORE_UNAVAILABLE", times=2, retry_after=1)
        before = fake.now
        fake.client().send(PHONE)
        assert (fake.now - before).total_seconds() == 2
        assert len(fake.messages) == 1

    def test_a_lost_reply_brings_no_second_message(self) -> None:
        fake = FakeOtpd()
        fake.fail_next("UNAVAILABLE", times=4, after=True)
        sent = fake.client().send(PHONE)
        assert not sent.resent
        assert len(fake.messages) == 1

    def test_time_runs_out(self) -> None:
        fake = FakeOtpd()
        fake.fail_next("DEADLINE_EXCEEDED", after=True)
        with pytest.raises(otpd.DeadlineExceeded) as late:
            fake.client(timeout=2).send(PHONE)
        again = fake.client().send(PHONE, request_id=late.value.request_id)
        assert not again.resent

    async def test_asyncio_does_the_same(self) -> None:
        fake = FakeOtpd()
        fake.fail_next("UNAVAILABLE", times=5)
        async with fake.async_client() as client:
            with pytest.raises(otpd.Unavailable) as failed:
                await client.send(PHONE)
            assert failed.value.attempts == 5
            await client.send(PHONE)
            assert await client.verify(PHONE, fake.code(PHONE))
            assert not (await client.status(PHONE)).live
            assert not (await client.cancel(PHONE)).cancelled

    def test_a_reason_that_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="STORE_UNAVAILABLE"):
            FakeOtpd().fail_next("OOPS")

    def test_a_code_that_was_never_sent_is_not_told(self) -> None:
        fake = FakeOtpd()
        fake.client().send(PHONE, purpose="login")
        with pytest.raises(LookupError):
            fake.code(PHONE)
        assert fake.code("8 999 123-45-67", region="RU", purpose="login")
