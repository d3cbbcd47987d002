"""Every failure of otpd as an exception of the client, from the real server."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import otpd
from otpd import Client, RetryPolicy, _failure, _messages
from otpd._wire import otp_pb2
from otpd.client import _read as read
from otpd.testing import FakeOtpd
from otpd.testing._fake import _STATUS_OF
from support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.database import Database
    from support.replica import Replica

TOKEN = "let-me-in"
PHONE = "+79991234567"
CALLER = {
    "OTPD_CALLERS__CRM__TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest(),
    "OTPD_CALLERS__CRM__PURPOSES": "login",
    "OTPD_CALLERS__CRM__DESTINATIONS": "RU",
}
ERRORS = Path(__file__).parents[3] / "docs/errors.md"


@pytest.fixture
def caller(database: Database, start: Callable[..., Replica]) -> Replica:
    """A server with one caller."""
    return start(database, CALLER)


def test_a_purpose_of_others_is_not_allowed(caller: Replica) -> None:
    with Client(caller.address, token=TOKEN) as client:
        with pytest.raises(otpd.NotAllowed) as refused:
            client.verify(PHONE, "123456", purpose="payment")
        assert refused.value.reason == "PURPOSE_NOT_ALLOWED"
        assert refused.value.status == "PERMISSION_DENIED"


def test_a_destination_that_is_barred_is_not_allowed(caller: Replica) -> None:
    with Client(caller.address, token=lambda: TOKEN) as client:
        client.send(PHONE, purpose="login")
        with pytest.raises(otpd.NotAllowed) as refused:
            client.send("+12125550123", purpose="login")
        assert refused.value.reason == "DESTINATION_BLOCKED"


def test_a_reset_is_a_permission_of_its_own(caller: Replica) -> None:
    with Client(caller.address, token=TOKEN) as client:
        with pytest.raises(otpd.NotAllowed) as refused:
            client.cancel(PHONE, purpose="login", reset_failures=True)
        assert refused.value.reason == "RESET_NOT_ALLOWED"


@pytest.mark.parametrize("token", [None, "another"])
def test_a_stranger_is_told_so(caller: Replica, token: str | None) -> None:
    with Client(caller.address, token=token) as client:
        with pytest.raises(otpd.CallerUnknown) as refused:
            client.status(PHONE)
        assert refused.value.reason == "CALLER_UNKNOWN"
        assert refused.value.attempts == 1


def test_a_channel_without_a_provider_is_told(
    database: Database, start: Callable[..., Replica]
) -> None:
    configuration = database.directory / "otpd.toml"
    configuration.write_text(
        '[providers.console]\nkind = "log"\n'
        '[[routes]]\nchannels = ["sms"]\nproviders = ["console"]\n'
    )
    replica = start(database, {"OTPD_CONFIG": str(configuration)})
    with Client(replica.address) as client:
        client.send(PHONE)
        with pytest.raises(otpd.NoRoute) as refused:
            client.send(PHONE, channel=otpd.Channel.VOICE)
        assert refused.value.reason == "NO_ROUTE"
        assert refused.value.status == "FAILED_PRECONDITION"


def test_a_caller_that_delivers_is_given_the_code(
    database: Database, start: Callable[..., Replica]
) -> None:
    replica = start(database, {**CALLER, "OTPD_CALLERS__CRM__SELF_DELIVERY": "true"})
    with Client(replica.address, token=TOKEN) as client:
        sent = client.send(PHONE, purpose="login")
        assert sent.code is not None
        assert sent.code not in repr(sent)
        assert client.verify(PHONE, sent.code, purpose="login")


def test_a_store_that_does_not_answer_says_when_to_come_back(
    database: Database, start: Callable[..., Replica]
) -> None:
    absent = replace(database, url="postgres://127.0.0.1:1/absent")
    replica = start(absent, serving=False)
    # Without health checks, because with them a client would not call this replica.
    with grpc.insecure_channel(replica.address) as channel:
        send = channel.unary_unary(
            _messages.SEND.path,
            request_serializer=otp_pb2.SendOtpRequest.SerializeToString,
            response_deserializer=otp_pb2.SendOtpResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as raised:
            send(otp_pb2.SendOtpRequest(recipient=PHONE))
    failure = read(raised.value)
    assert failure.reason == "STORE_UNAVAILABLE"
    assert failure.pushback == failure.retry_after == 1.0
    error = failure.error("one", 3)
    assert isinstance(error, otpd.Unavailable)
    assert (error.request_id, error.attempts) == ("one", 3)
    # With health checks it is not called.
    with Client(replica.address, retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(otpd.Unavailable):
            client.send(PHONE)
    assert replica.requests("received rpc=SendOtp", 1) == 1


def test_nobody_there_is_unavailable() -> None:
    with Client("127.0.0.1:1", retry=RetryPolicy(max_attempts=2, initial_backoff=0)) as client:
        with pytest.raises(otpd.Unavailable) as refused:
            client.send(PHONE)
    assert refused.value.reason == ""
    assert refused.value.status == "UNAVAILABLE"
    assert refused.value.attempts == 2
    assert refused.value.retry_after is None


def test_time_runs_out(replica: Replica) -> None:
    with Proxy(replica.address) as proxy, Client(proxy.address) as client:
        client.status(PHONE)
        proxy.hold_replies()
        with pytest.raises(otpd.DeadlineExceeded) as late:
            client.send(PHONE, timeout=0.2)
        assert late.value.status == "DEADLINE_EXCEEDED"
        # The request was executed: a repetition with its id returns the recorded outcome.
        proxy.cut()
        sent = client.send(PHONE, request_id=late.value.request_id, timeout=30)
        assert not sent.resent
        assert len(replica.codes(sent.challenge_id)) == 1


def test_what_is_no_otpd_is_an_internal_error(replica: Replica) -> None:
    class NoSuch(_messages.Method[otp_pb2.SendOtpRequest, otp_pb2.SendOtpResponse]):
        path = "/otp.v1.OtpService/NoSuch"

    with Client(replica.address) as client, pytest.raises(otpd.InternalError) as odd:
        client._call(
            NoSuch("NoSuch", otp_pb2.SendOtpRequest, otp_pb2.SendOtpResponse),
            otp_pb2.SendOtpRequest(),
            "",
            None,
        )
    assert odd.value.status == "UNIMPLEMENTED"


def test_every_reason_of_the_documentation_has_its_exception() -> None:
    table = re.findall(r"^\| ([A-Z_]+) \| `([A-Z_]+)` \|", ERRORS.read_text(), re.MULTILINE)
    assert len(table) == len(_STATUS_OF)
    for status, reason in table:
        assert _STATUS_OF[reason].name == status
        fake = FakeOtpd()
        fake.fail_next(reason, times=5)
        with pytest.raises(otpd.OtpError) as failed:
            fake.client().send(PHONE)
        assert failed.value.reason == reason
        assert failed.value.status == status
        assert type(failed.value) is not otpd.OtpError
        assert reason in str(failed.value)


def test_reasons_of_others_are_left_out() -> None:
    info = error_details_pb2.ErrorInfo(domain="proxy.example", reason="SEND_LIMIT")
    details = status_pb2.Status()
    details.details.add().Pack(info)
    trailers = [("grpc-status-details-bin", details.SerializeToString())]
    failure = _failure.read(grpc.StatusCode.UNAVAILABLE, "", trailers)
    assert failure.reason == ""
    assert type(failure.error("", 1)) is otpd.Unavailable


@pytest.mark.parametrize(
    "trailers",
    [
        [("grpc-status-details-bin", b"\xff\xff")],
        [("grpc-status-details-bin", b"")],
        [("grpc-status-details-bin", "no bytes")],
        None,
    ],
)
def test_details_that_cannot_be_read_are_left_out(
    trailers: list[tuple[str, str | bytes]] | None,
) -> None:
    failure = _failure.read(grpc.StatusCode.UNAVAILABLE, None, trailers)
    assert (failure.reason, failure.message, failure.retry_after) == ("", "", None)
