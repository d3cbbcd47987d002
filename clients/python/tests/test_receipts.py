"""Receipts: issued by the real otpd and by the fake, verified by the package and by others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import threading
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

from otpd import Client, InvalidRequest, ReceiptRequest
from otpd.contrib.django.receipts import new_nonce, receipt_required
from otpd.receipts import (
    KEYS_PATH,
    KeysUnavailableError,
    ReceiptInvalidError,
    ReceiptReusedError,
    ReceiptVerifier,
)
from otpd.testing import FakeOtpd, ReceiptSigner
from support.replica import Replica, binary

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.database import Database

ISSUER = "https://otp.example"
SHOP = "https://shop.example"
BANK = "https://bank.example"
NONCE = "0123456789abcdef"
PHONE = "+79991234567"


@dataclass
class Issuer:
    """otpd that issues receipts, and the way to its public keys."""

    client: Client
    fetch: Callable[[str], bytes]
    code: Callable[[str], str]
    """Sends a code, and returns it."""

    def receipt(self, audience: str = SHOP, *, include_recipient: bool = False) -> str:
        asked = ReceiptRequest(audience=audience, nonce=NONCE, include_recipient=include_recipient)
        result = self.client.verify(PHONE, self.code(PHONE), purpose="login", receipt=asked)
        assert result.verified
        assert result.receipt is not None
        return result.receipt


def real(database: Database, start: Callable[..., Replica]) -> Issuer:
    ring = [[str(binary()), "keygen"], [str(binary()), "keygen", "--receipt", "1"]]
    made = [subprocess.run(one, check=True, capture_output=True, env={}) for one in ring]
    database.keys.write_bytes(b"".join(one.stdout for one in made))
    digest = hashlib.sha256(b"token").hexdigest()
    config = database.directory / "otpd.toml"
    config.write_text(f"""
receipts.issuer = "{ISSUER}"
receipts.listen = "127.0.0.1:0"
[policy]
resend_after = "0s"
[callers.crm]
token_sha256 = ["{digest}"]
receipt_audiences = ["{SHOP}", "{BANK}"]
may_include_recipient = true
""")
    replica = start(database, {"OTPD_CONFIG": str(config)})
    client = Client(replica.address, token="token", allow_plaintext_token=True, timeout=30)
    address = replica.log.line("receipts=").partition("receipts=")[2].split()[0]

    def fetch(url: str) -> bytes:
        assert url == ISSUER + KEYS_PATH
        with urllib.request.urlopen(f"http://{address}{KEYS_PATH}") as response:
            text: bytes = response.read()
            return text

    def code(recipient: str) -> str:
        sent = client.send(recipient, purpose="login")
        return replica.codes(sent.challenge_id)[-1]

    return Issuer(client, fetch, code)


def faked() -> Issuer:
    signer = ReceiptSigner(
        caller="crm", audiences=[SHOP, BANK], may_include_recipient=True, issuer=ISSUER
    )
    fake = FakeOtpd(receipts=signer)
    client = fake.client()

    def code(recipient: str) -> str:
        client.send(recipient, purpose="login")
        return fake.code(recipient, purpose="login")

    return Issuer(client, signer.fetch, code)


@pytest.fixture(params=["fake", "real"])
def issuer(
    request: pytest.FixtureRequest, database: Database, start: Callable[..., Replica]
) -> Issuer:
    return faked() if request.param == "fake" else real(database, start)


def verifier(fetch: Callable[[str], bytes], **options: Any) -> ReceiptVerifier:
    return ReceiptVerifier(issuer=ISSUER, audience=SHOP, fetch=fetch, **options)


def accepted(checks: ReceiptVerifier, receipt: str, **changed: str) -> Any:
    expected = {"purpose": "login", "caller": "crm", "nonce": NONCE} | changed
    return checks.verify(receipt, **expected)


def test_the_package_and_another_library_verify_a_receipt(issuer: Issuer) -> None:
    receipt = issuer.receipt(include_recipient=True)
    content = accepted(verifier(issuer.fetch), receipt)
    assert (content.caller, content.purpose, content.recipient) == ("crm", "login", PHONE)
    assert content.channels == {"sms"}
    assert (content.expires_at - content.issued_at).total_seconds() == 300
    assert PHONE not in repr(content)

    keys = KeySet.import_key_set(json.loads(issuer.fetch(ISSUER + KEYS_PATH)))
    token = joserfc_jwt.decode(receipt, keys, algorithms=["ES256"])
    assert token.header["typ"] == "otp-receipt+jwt"
    assert token.claims["aud"] == SHOP
    assert token.claims["phone_number_verified"] is True
    assert token.claims["sub"] == content.subject


def test_what_another_service_or_session_was_given_is_refused(issuer: Issuer) -> None:
    receipt = issuer.receipt()
    checks = verifier(issuer.fetch)
    for changed in [
        {"purpose": "payment"},
        {"caller": "app"},
        {"nonce": "fedcba9876543210"},
        {"nonce": NONCE + "0"},
    ]:
        with pytest.raises(ReceiptInvalidError, match="another"):
            accepted(checks, receipt, **changed)
    keys = issuer.fetch(ISSUER + KEYS_PATH)
    for other in [
        ReceiptVerifier(issuer=ISSUER, audience=BANK, fetch=lambda _: keys),
        ReceiptVerifier(issuer="https://other.example", audience=SHOP, fetch=lambda _: keys),
    ]:
        with pytest.raises(ReceiptInvalidError):
            accepted(other, receipt)
    assert accepted(checks, receipt).recipient is None
    with pytest.raises(ValueError, match="nonce is empty"):
        accepted(checks, receipt, nonce="")


def test_a_receipt_that_may_not_be_had_is_refused(issuer: Issuer) -> None:
    code = issuer.code(PHONE)
    for asked in [
        ReceiptRequest(audience="https://evil.example", nonce=NONCE),
        ReceiptRequest(audience=SHOP, nonce="short"),
    ]:
        with pytest.raises(InvalidRequest, match="receipt"):
            issuer.client.verify(PHONE, code, purpose="login", receipt=asked)


def test_a_repeated_call_has_equal_claims(issuer: Issuer) -> None:
    asked = ReceiptRequest(audience=SHOP, nonce=NONCE)
    code = issuer.code(PHONE)
    claims = []
    for _ in range(2):
        result = issuer.client.verify(
            PHONE, code, purpose="login", receipt=asked, request_id="again"
        )
        assert result.receipt is not None
        assert result.receipt not in repr(result)
        claims.append(jwt.decode(result.receipt, options={"verify_signature": False}))
    assert claims[0] == claims[1]


def signed(signer: ReceiptSigner, **changed: Any) -> str:
    """Sign claims that are valid, except for those that are changed; None removes one."""
    issuer = faked()
    claims = jwt.decode(issuer.receipt(), options={"verify_signature": False}) | changed
    return signer.sign({name: value for name, value in claims.items() if value is not None})


def test_forged_and_outdated_receipts_are_refused() -> None:
    signer = ReceiptSigner(caller="crm", audiences=[SHOP], issuer=ISSUER)
    checks = verifier(signer.fetch)
    good = signed(signer)
    accepted(checks, good)
    claims = jwt.decode(good, options={"verify_signature": False})
    header = {"typ": "otp-receipt+jwt", "kid": signer.key_id}
    stranger = ReceiptSigner(caller="crm", audiences=[SHOP], issuer=ISSUER)
    now = int(claims["iat"])
    for bad in [
        "",
        "a.b.c",
        good[:-4] + "AAAA",
        signed(signer, exp=now - 60, iat=now - 360),
        signed(signer, iat=now + 90, exp=now + 390),
        signed(signer, aud=[SHOP, BANK]),
        signed(signer, aud=None),
        signed(signer, exp=None),
        signed(signer, jti=None),
        signed(signer, nonce=7),
        signed(signer, amr="otp"),
        signed(signer, iss="https://other.example"),
        jwt.encode(claims, signer._key, algorithm="ES256", headers={"kid": signer.key_id}),
        jwt.encode(claims, signer._key, algorithm="ES256", headers={"typ": header["typ"]}),
        jwt.encode(claims, "", algorithm="none", headers=header),
        with_the_public_key_as_a_secret(signer, claims),
        signed(stranger),
        stranger.sign(claims, key_id=signer.key_id),
    ]:
        with pytest.raises(ReceiptInvalidError):
            accepted(checks, bad)
    # Half a minute of tolerance for clocks.
    accepted(checks, signed(signer, exp=now - 5))
    with pytest.raises(ReceiptInvalidError):
        accepted(verifier(signer.fetch, leeway=0), signed(signer, exp=now - 5))


def with_the_public_key_as_a_secret(signer: ReceiptSigner, claims: dict[str, Any]) -> str:
    """Sign by HS256 with the public key, for verifiers that trust the header."""
    header = {"alg": "HS256", "typ": "otp-receipt+jwt", "kid": signer.key_id}
    parts = [json.dumps(part).encode() for part in (header, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = hmac.digest(signer.fetch(""), text, "sha256")
    return (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


class Keys:
    """Public keys whose server can change and fail."""

    def __init__(self, signer: ReceiptSigner) -> None:
        self.signer = signer
        self.fails = False
        self.answer: bytes | None = None
        self.reads = 0
        self.now = 0.0

    def fetch(self, url: str) -> bytes:
        self.reads += 1
        if self.fails:
            raise OSError("no way there")
        return self.signer.fetch(url) if self.answer is None else self.answer

    def clock(self) -> float:
        return self.now


def test_keys_are_kept_and_read_once_for_an_unknown_one() -> None:
    old, new = (ReceiptSigner(caller="crm", audiences=[SHOP], issuer=ISSUER) for _ in "12")
    keys = Keys(old)
    checks = verifier(keys.fetch, clock=keys.clock)
    for _ in range(3):
        accepted(checks, signed(old))
    assert keys.reads == 1
    # A key that nothing publishes is looked for once in ten seconds.
    keys.now = 20
    for _ in range(5):
        with pytest.raises(ReceiptInvalidError, match="unknown key"):
            accepted(checks, signed(new))
    assert keys.reads == 2
    keys.signer, keys.now = new, 30
    accepted(checks, signed(new))
    assert keys.reads == 3
    # Old keys are dropped after ten minutes, unless the server is down.
    keys.now, keys.fails = 30 + 700, True
    accepted(checks, signed(new))
    assert keys.reads == 4
    keys.fails = False
    for wrong in [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": []}', b"<html>"]:
        keys.answer = wrong
        with pytest.raises(KeysUnavailableError):
            accepted(verifier(keys.fetch), signed(new))
    keys.answer, keys.fails = None, True
    empty = verifier(keys.fetch, clock=keys.clock)
    with pytest.raises(KeysUnavailableError):
        accepted(empty, signed(new))
    with pytest.raises(ValueError, match="https"):
        ReceiptVerifier(issuer="http://otp.example", audience=SHOP)


def test_threads_read_the_keys_together() -> None:
    keys = Keys(ReceiptSigner(caller="crm", audiences=[SHOP], issuer=ISSUER))
    checks, receipt = verifier(keys.fetch), signed(keys.signer)
    threads = [threading.Thread(target=accepted, args=(checks, receipt)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys.reads == 1


def test_a_receipt_is_accepted_once_if_its_ids_are_remembered() -> None:
    signer = ReceiptSigner(caller="crm", audiences=[SHOP], issuer=ISSUER)
    seen: set[str] = set()

    def once(receipt_id: str, until: object) -> bool:
        assert until is not None
        is_new = receipt_id not in seen
        seen.add(receipt_id)
        return is_new

    checks, receipt = verifier(signer.fetch, accept_once=once), signed(signer)
    with pytest.raises(ReceiptInvalidError):
        accepted(checks, receipt, nonce="fedcba9876543210")
    accepted(checks, receipt)
    with pytest.raises(ReceiptReusedError):
        accepted(checks, receipt)


def test_a_django_view_demands_a_receipt_of_its_session() -> None:
    signer = ReceiptSigner(caller="crm", audiences=[SHOP], issuer=ISSUER)
    keys = Keys(signer)

    @receipt_required(verifier(keys.fetch), purpose="login", caller="crm")
    def guarded(request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.otp_receipt.subject)  # type: ignore[attr-defined]

    def ask(session: dict[str, str], receipt: str | None) -> HttpResponse:
        headers = {} if receipt is None else {"otp-receipt": receipt}
        request = RequestFactory().post("/", headers=headers)
        request.session = session  # type: ignore[assignment]
        response = guarded(request)
        assert isinstance(response, HttpResponse)
        return response

    request = RequestFactory().post("/")
    session: dict[str, str] = {}
    request.session = session  # type: ignore[assignment]
    receipt = signed(signer, nonce=new_nonce(request))
    assert ask({}, receipt).status_code == 403
    assert ask(session, None).status_code == 403
    assert ask(session, signed(signer)).status_code == 403
    assert ask(session, receipt).status_code == 200
    # The nonce is used up.
    assert ask(session, receipt).status_code == 403
    keys.fails = True
    unknown = ReceiptSigner(caller="crm", audiences=[SHOP], issuer=ISSUER)

    @receipt_required(verifier(keys.fetch), purpose="login", caller="crm")
    def unavailable(_: HttpRequest) -> HttpResponse:
        raise AssertionError

    request = RequestFactory().post("/", headers={"otp-receipt": signed(unknown)})
    request.session = {"otpd_receipt_nonce": NONCE}  # type: ignore[assignment]
    assert unavailable(request).status_code == 503


def test_the_fake_issues_no_receipt_without_a_signer() -> None:
    fake = FakeOtpd()
    client = fake.client()
    client.send(PHONE)
    asked = ReceiptRequest(audience=SHOP, nonce=NONCE)
    with pytest.raises(InvalidRequest, match="audience"):
        client.verify(PHONE, fake.code(PHONE), receipt=asked)
