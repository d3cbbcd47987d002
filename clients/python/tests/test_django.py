"""The views replace the old endpoints, and reject forged client addresses."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings
from django.urls import path
from rest_framework.response import Response
from rest_framework.test import APIClient

import otpd
from otpd.contrib.django import conf
from otpd.contrib.django.addresses import client_ip
from otpd.contrib.django.signals import otp_verified
from otpd.contrib.django.testing import using
from otpd.contrib.django.views import VerifyOtpView
from otpd.testing import FakeOtpd
from support.http import OLD_ENDPOINTS, Exchange, shape
from users import gateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rest_framework.request import Request

PHONE = "+79991234567"
SEND, VERIFY = "/api/users/send_otp/", "/api/users/verify_otp/"


@pytest.fixture
def fake() -> Iterator[FakeOtpd]:
    """Client of the views."""
    fake = FakeOtpd()
    with using(fake.client()):
        yield fake


@pytest.fixture
def http() -> APIClient:
    return APIClient()


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


class New:
    """The endpoints with otpd."""

    urls = "crm.urls_otpd"

    def __init__(self, fake: FakeOtpd) -> None:
        self.fake = fake

    def send(self) -> str:
        self.fake.client().send(PHONE)
        return self.fake.code(PHONE)

    def verify(self, code: str) -> None:
        assert self.fake.client().verify(PHONE, code)

    def expire(self) -> None:
        self.fake.advance(seconds=300)

    def break_delivery(self) -> None:
        self.fake.fail_next("STORE_UNAVAILABLE", times=10)


class Old:
    """The old endpoints, in one process."""

    urls = "crm.urls_locmem"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.codes: list[str] = []
        monkeypatch.setattr(gateway, "send_sms", lambda _, code: self.codes.append(code))

    def send(self) -> str:
        APIClient().post(SEND, {"phone": PHONE}, format="json")
        return self.codes[-1]

    def verify(self, code: str) -> None:
        reply = APIClient().post(VERIFY, {"phone": PHONE, "otp": code}, format="json")
        assert reply.status_code == 200

    def expire(self) -> None:
        cache.delete(f"otp:{PHONE}")

    def break_delivery(self) -> None:
        def fail(*_: object) -> None:
            raise gateway.GatewayError

        self.monkeypatch.setattr(gateway, "send_sms", fail)


@pytest.fixture(params=["old", "new"])
def endpoints(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fake: FakeOtpd
) -> Iterator[Old | New]:
    endpoints = Old(monkeypatch) if request.param == "old" else New(fake)
    with override_settings(ROOT_URLCONF=endpoints.urls):
        yield endpoints
    cache.clear()


@pytest.mark.parametrize("exchange", Exchange.all(), ids=lambda exchange: exchange.name)
def test_the_front_end_notices_nothing(
    endpoints: Old | New, exchange: Exchange, http: APIClient
) -> None:
    code = "123456"
    if exchange.given.startswith("a code"):
        code = endpoints.send()
    if exchange.given == "a code was verified":
        endpoints.verify(code)
    elif exchange.given.endswith("its life is over"):
        endpoints.expire()
    elif exchange.given == "no message goes out":
        endpoints.break_delivery()
    body = exchange.body.replace("CODE", code).replace("WRONG", wrong(code))
    reply = http.generic(exchange.method, exchange.path, body, content_type=exchange.content_type)
    assert reply.status_code == exchange.status
    assert shape(reply.json()) == shape(exchange.reply)
    assert reply.json() == exchange.reply
    for name, value in exchange.headers.items():
        assert reply[name] == value


def test_all_of_the_old_replies_are_kept() -> None:
    statuses = {exchange.status for exchange in Exchange.all()}
    assert statuses >= {200, 400, 404, 429, 503}


def post(http: APIClient, path: str, **fields: Any) -> Any:
    return http.post(path, fields, format="json")


def test_a_number_is_one_recipient_however_it_is_typed(fake: FakeOtpd, http: APIClient) -> None:
    assert post(http, SEND, phone="8 (999) 123-45-67").status_code == 200
    code = fake.code(PHONE)
    reply = post(http, VERIFY, phone="9991234567", otp=f" {code[:3]} {code[3:]} ")
    assert reply.status_code == 200


def test_numbers_without_quotes_are_read(fake: FakeOtpd, http: APIClient) -> None:
    for number in itertools.count(89991234567):
        assert post(http, SEND, phone=number).status_code == 200
        code = fake.code(str(number), region="RU")
        # A leading zero is lost in a number.
        if not code.startswith("0"):
            break
    assert post(http, VERIFY, phone=number, otp=int(code)).status_code == 200


@pytest.mark.parametrize("body", ["[]", "null", '"text"', '{"phone": {}}', '{"phone": true}'])
def test_what_is_no_text_is_missing(fake: FakeOtpd, http: APIClient, body: str) -> None:
    for url in (SEND, VERIFY):
        reply = http.generic("POST", url, body, content_type="application/json")
        assert reply.status_code == 400
    assert fake.messages == []


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("RECIPIENT_INVALID", 400),
        ("DESTINATION_BLOCKED", 400),
        ("NO_ROUTE", 400),
        ("RESEND_TOO_SOON", 429),
        ("SEND_LIMIT", 429),
        ("VERIFY_LIMIT", 429),
        ("VERIFY_DELAYED", 429),
        ("VERIFY_LOCKED", 429),
        # An end user cannot correct errors of the CRM itself.
        ("REQUEST_INVALID", 503),
        ("PURPOSE_INVALID", 503),
        ("PURPOSE_NOT_ALLOWED", 503),
        ("CALLER_UNKNOWN", 503),
        ("STORE_UNAVAILABLE", 503),
        ("OVERLOADED", 503),
        ("INTERNAL", 503),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 503),
    ],
)
def test_each_failure_has_its_status(
    fake: FakeOtpd, http: APIClient, reason: str, status: int
) -> None:
    retry_after = 41.2 if status == 429 else None
    for url in (SEND, VERIFY):
        fake.fail_next(reason, times=5, retry_after=retry_after)
        reply = post(http, url, phone=PHONE, otp="123456")
        fake._planned.clear()
        assert reply.status_code == status
        assert list(reply.json()) == (["detail"] if status == 429 else ["error"])
        if status == 429:
            assert reply["Retry-After"] == "42"
        if status == 503:
            assert int(reply["Retry-After"]) >= 1
        # The message of otpd is for the log.
        assert "fake" not in reply.content.decode()


def test_wrong_codes_end_in_404(fake: FakeOtpd, http: APIClient) -> None:
    post(http, SEND, phone=PHONE)
    code = fake.code(PHONE)
    for _ in range(5):
        assert post(http, VERIFY, phone=PHONE, otp=wrong(code)).status_code == 400
    delayed = post(http, VERIFY, phone=PHONE, otp=code)
    assert delayed.status_code == 429
    assert delayed["Retry-After"] == "30"
    fake.advance(seconds=31)
    # No attempts remain; a new code is needed.
    assert post(http, VERIFY, phone=PHONE, otp=code).status_code == 404


def test_fields_and_texts_are_as_configured(fake: FakeOtpd, http: APIClient) -> None:
    configured = {
        "ADDRESS": "127.0.0.1:1",
        "RECIPIENT_FIELD": "mobile",
        "CODE_FIELD": "pin",
        "MESSAGE_FIELD": "detail",
        "ERROR_FIELD": "non_field_errors",
        "PURPOSE": "login",
        "CHANNEL": "voice",
        "LOCALE": "ru",
        "TEXTS": {"sent": "Код отправлен", "code_missing": "{code_field}: ?"},
    }
    with override_settings(OTPD=configured):
        assert post(http, SEND, mobile=PHONE).json() == {"detail": "Код отправлен"}
        (message,) = fake.messages
        assert message.purpose == "login"
        assert message.channel is otpd.Channel.VOICE
        assert message.locale == "ru"
        assert post(http, VERIFY, mobile=PHONE).json() == {"non_field_errors": "pin: ?"}
        reply = post(http, VERIFY, mobile=PHONE, pin=message.code)
        assert reply.json() == {"detail": "OTP verified successfully"}


def test_the_log_is_as_before_and_shows_nobody(
    fake: FakeOtpd, http: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "otpd")
    logging.getLogger("otpd").propagate = True
    post(http, SEND, phone=PHONE)
    code = fake.code(PHONE)
    post(http, SEND, phone="8 999 123-45-67")
    post(http, VERIFY, phone=PHONE, otp=wrong(code))
    post(http, VERIFY, phone=PHONE, otp="12")
    post(http, VERIFY, phone=PHONE, otp=code)
    post(http, VERIFY, phone=PHONE, otp=code)
    lines = [record.getMessage() for record in caplog.records if record.name == "otpd"]
    assert [line.partition(" recipient=")[0] for line in lines] == [
        "[OTP] Request received",
        "[OTP] OTP sent",
        "[OTP] Request received",
        "[OTP] Request refused",
        "[OTP VERIFY] Request received",
        "[OTP VERIFY] wrong code",
        "[OTP VERIFY] Request received",
        "[OTP VERIFY] no code",
        "[OTP VERIFY] Request received",
        "[OTP VERIFY] OTP verified successfully",
        "[OTP VERIFY] Request received",
        "[OTP VERIFY] not found",
    ]
    assert "recipient=+7999***4567" in lines[0]
    assert "recipient=8999***4567" in lines[2]
    assert "reason=RESEND_TOO_SOON" in lines[3]
    everything = "\n".join(lines)
    assert code not in everything
    assert "1234567" not in everything
    assert "123-45" not in everything


def test_who_listens_is_told_of_a_verified_code(fake: FakeOtpd, http: APIClient) -> None:
    verified: list[str] = []

    def listen(result: otpd.Verification, **_: Any) -> None:
        verified.append(result.recipient)

    otp_verified.connect(listen)
    post(http, SEND, phone="8 999 123-45-67")
    post(http, VERIFY, phone=PHONE, otp=wrong(fake.code(PHONE)))
    assert verified == []
    post(http, VERIFY, phone=PHONE, otp=fake.code(PHONE))
    assert verified == [PHONE]
    otp_verified.disconnect(listen)


class WithSession(VerifyOtpView):
    def verified(self, request: Request, result: otpd.Verification) -> Response:
        super().verified(request, result)
        return Response({"token": f"for {result.recipient}"})


urlpatterns = [path("login/", WithSession.as_view())]


def test_a_view_may_reply_more(fake: FakeOtpd, http: APIClient) -> None:
    fake.client().send(PHONE)
    with override_settings(ROOT_URLCONF=__name__):
        reply = post(http, "/login/", phone=PHONE, otp=fake.code(PHONE))
    assert reply.json() == {"token": f"for {PHONE}"}


@pytest.mark.usefixtures("fake")
def test_otpd_is_told_the_address_and_throttles_by_it(http: APIClient) -> None:
    settings = {"ADDRESS": "127.0.0.1:1", "TRUSTED_PROXIES": 1}
    with override_settings(OTPD=settings):
        for number in range(60):
            http.credentials(HTTP_X_FORWARDED_FOR=f"10.9.9.{number}, 203.0.113.7")
            assert post(http, SEND, phone=f"+79991{number:06}").status_code == 200
        http.credentials(HTTP_X_FORWARDED_FOR="10.9.9.99, 203.0.113.7")
        assert post(http, SEND, phone=PHONE).status_code == 429
        http.credentials(HTTP_X_FORWARDED_FOR="203.0.113.8")
        assert post(http, SEND, phone=PHONE).status_code == 200


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        (0, "203.0.113.7", None, "203.0.113.7"),
        (0, "203.0.113.7", "1.1.1.1", "203.0.113.7"),
        (1, "10.0.0.1", "203.0.113.7", "203.0.113.7"),
        # Values from the client are further left.
        (1, "10.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7"),
        (1, "10.0.0.1", "1.1.1.1,2.2.2.2 ,203.0.113.7", "203.0.113.7"),
        (2, "10.0.0.1", "1.1.1.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        # Not through the proxies: the header is from the client.
        (2, "203.0.113.7", "1.1.1.1", "203.0.113.7"),
        (1, "203.0.113.7", None, "203.0.113.7"),
        (1, "203.0.113.7", "", "203.0.113.7"),
        # A Unix socket has no address.
        (1, "", "203.0.113.7", "203.0.113.7"),
        (0, "", "203.0.113.7", ""),
        (1, "10.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        (1, "10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        (1, "10.0.0.1", "2001:db8::1", "2001:db8::1"),
        (0, "fe80::1%eth0", None, "fe80::1"),
        (1, "10.0.0.1", "unknown", ""),
        (1, "10.0.0.1", "203.0.113.7 or so", ""),
    ],
)
def test_the_address_is_what_the_outermost_own_proxy_saw(
    proxies: int, peer: str, forwarded: str | None, address: str
) -> None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = RequestFactory().post("/", headers=headers, REMOTE_ADDR=peer)
    assert client_ip(request, proxies) == address


GOOD = {"ADDRESS": "dns:///otpd:50051"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (None, "OTPD"),
        ({}, "'ADDRESS'"),
        ({"ADDRESS": 50051}, "'ADDRESS'"),
        ({"ADDRESS": "otpd"}, "address"),
        ({**GOOD, "ADRESS": "x"}, "'ADRESS'"),
        ({**GOOD, "TOKEN": "t"}, "unencrypted"),
        ({**GOOD, "TOKEN": "t", "TOKEN_FILE": __file__}, "TOKEN_FILE"),
        ({**GOOD, "TOKEN_FILE": "/no/such/file"}, "'TOKEN_FILE'"),
        ({**GOOD, "TLS": {"CA": "/no/such/file"}}, "'TLS']['CA'"),
        ({**GOOD, "TLS": {"CAFILE": __file__}}, "'CAFILE'"),
        ({**GOOD, "TLS": {"CERTIFICATE": __file__}}, "key"),
        ({**GOOD, "TIMEOUT": 0}, "'TIMEOUT'"),
        ({**GOOD, "TIMEOUT": "5"}, "'TIMEOUT'"),
        ({**GOOD, "TRUSTED_PROXIES": True}, "'TRUSTED_PROXIES'"),
        ({**GOOD, "TRUSTED_PROXIES": -1}, "'TRUSTED_PROXIES'"),
        ({**GOOD, "CHANNEL": "pigeon"}, "'CHANNEL'"),
        ({**GOOD, "TEXTS": {"oops": "x"}}, "'TEXTS']['oops'"),
        ({**GOOD, "TEXTS": {"sent": 1}}, "'TEXTS']['sent'"),
        ({**GOOD, "RECIPIENT_FIELD": None}, "'RECIPIENT_FIELD'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any] | None, named: str) -> None:
    with override_settings(OTPD=settings):
        messages = [message for message in run_checks() if message.id == "otpd.E001"]
        assert messages
        assert named in messages[0].msg
        assert messages[0].hint
        with pytest.raises(ImproperlyConfigured, match="OTPD"):
            conf.get()


def test_good_settings_make_a_client(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    with override_settings(OTPD={**GOOD, "TOKEN_FILE": token, "TLS": {}, "CHANNEL": "sms"}):
        assert run_checks() == []
        client = conf.client()
        assert conf.client() is client
        assert conf.get()._read_token() == "secret"
    with override_settings(OTPD={**GOOD, "TOKEN": "t", "ALLOW_PLAINTEXT_TOKEN": True}):
        assert run_checks() == []
        assert conf.client() is not client


def test_the_settings_are_told_in_the_documentation() -> None:
    page = (OLD_ENDPOINTS.parents[4] / "docs/moving-from-django-cache.md").read_text()
    for key in [*conf._KEYS, *conf.TEXTS]:
        assert f"`{key}`" in page
