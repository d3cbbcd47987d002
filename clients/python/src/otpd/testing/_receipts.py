"""Receipts of the fake, signed with a key of their own."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from otpd.receipts import TYPE
from otpd.results import Channel
from otpd.testing import _reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otpd._wire import otp_pb2

LIFETIME = 300
"""Life of a receipt in seconds."""

_METHODS = {channel: channel.value for channel in Channel} | {Channel.VOICE: "tel"}


class ReceiptSigner:
    """Issuer of receipts for tests: `FakeOtpd(receipts=ReceiptSigner(…))`.

    A verifier reads its keys by `ReceiptVerifier(…, fetch=signer.fetch)`.
    """

    def __init__(
        self,
        *,
        issuer: str = "https://otp.example",
        caller: str = "development",
        audiences: Iterable[str],
        may_include_recipient: bool = False,
    ) -> None:
        """Create an issuer with a new key, for one caller."""
        self.issuer = issuer
        self.caller = caller
        self.audiences = frozenset(audiences)
        self.may_include_recipient = may_include_recipient
        self._key = ec.generate_private_key(ec.SECP256R1())
        jwk: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
        self._jwk = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
        text = json.dumps(self._jwk, separators=(",", ":"), sort_keys=True)
        self.key_id = _encoded(hashlib.sha256(text.encode()).digest())
        self._claims: dict[str, dict[str, Any]] = {}

    def fetch(self, url: str) -> bytes:  # noqa: ARG002 - there is one set of keys
        """Return the public keys as a JSON Web Key Set."""
        key = {**self._jwk, "use": "sig", "alg": "ES256", "kid": self.key_id}
        return json.dumps({"keys": [key]}).encode()

    def sign(self, claims: dict[str, Any], *, key_id: str | None = None) -> str:
        """Sign any claims, for tests of invalid receipts."""
        headers = {"typ": TYPE, "kid": key_id or self.key_id}
        return jwt.encode(claims, self._key, algorithm="ES256", headers=headers)

    def _check(self, asked: otp_pb2.ReceiptRequest) -> None:
        """Refuse what otpd refuses."""
        audience = _reading.visible("receipt.audience", asked.audience, 256)
        nonce = _reading.visible("receipt.nonce", asked.nonce, 128)
        if len(nonce) < 16:
            raise _reading.invalid("receipt.nonce", "must be 16 to 128 visible ASCII characters")
        if audience not in self.audiences:
            raise _reading.invalid("receipt.audience", "no audience of this caller")
        if asked.include_recipient and not self.may_include_recipient:
            raise _reading.invalid("receipt.include_recipient", "not allowed for this caller")

    def _issue(
        self,
        request: otp_pb2.VerifyOtpRequest,
        reply: otp_pb2.VerifyOtpResponse,
        channels: Iterable[Channel],
        now: int,
    ) -> str:
        """Return the receipt of a verified code at `now` in milliseconds; empty after its end."""
        asked, at = request.receipt, reply.verified_at.seconds
        if now >= (at + LIFETIME) * 1000:
            return ""
        # A challenge is verified once, so a later call is a repetition.
        if reply.challenge_id not in self._claims:
            names = {_METHODS[channel] for channel in channels}
            claims = {
                "iss": self.issuer,
                "sub": _hashed("subject", asked.audience, reply.recipient),
                "aud": asked.audience,
                "azp": self.caller,
                "iat": at,
                "exp": at + LIFETIME,
                "jti": _hashed("id", reply.challenge_id)[:22],
                "nonce": asked.nonce,
                "amr": ["otp", *(name for name in _METHODS.values() if name in names)],
                "purpose": request.purpose or "default",
                "challenge_id": reply.challenge_id,
            }
            if asked.include_recipient:
                kind = "email" if "@" in reply.recipient else "phone_number"
                claims |= {kind: reply.recipient, f"{kind}_verified": True}
            self._claims[reply.challenge_id] = claims
        return self.sign(self._claims[reply.challenge_id])


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _hashed(*parts: str) -> str:
    return _encoded(hashlib.sha256("\0".join(parts).encode()).digest())
