"""Receipts of otpd, verified without a call to otpd. Needs `otpd[receipts]`.

    verifier = ReceiptVerifier(issuer="https://otp.example", audience="https://pay.example")
    receipt = verifier.verify(text, purpose="login", caller="login", nonce=nonce_of_the_session)

One verifier per process is enough; it may be used by several threads.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hmac import compare_digest
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Callable

TYPE = "otp-receipt+jwt"
"""Value of the header `typ`."""
KEYS_PATH = "/.well-known/jwks.json"
"""Path of the public keys below the issuer."""
MAX_AGE = 600.0
"""Seconds for which public keys are kept. otpd publishes a key at least twice as long before it
signs."""
REFETCH_AFTER = 10.0
"""Minimum seconds between two attempts to read the keys: receipts of strangers may name any key."""
FETCH_TIMEOUT = 5.0
"""Maximum seconds of one attempt."""
MAX_KEYS_BYTES = 64 * 1024
"""Maximum size of the public keys."""

_REQUIRED = ("iss", "aud", "sub", "azp", "iat", "exp", "jti", "nonce", "amr", "purpose")


class ReceiptError(Exception):
    """A receipt cannot be accepted. The text does not contain the receipt."""


class ReceiptInvalidError(ReceiptError):
    """The receipt is no valid receipt for this service, person and purpose."""


class ReceiptReusedError(ReceiptInvalidError):
    """The receipt was accepted before."""


class KeysUnavailableError(ReceiptError):
    """The public keys cannot be read, and none are known. Try again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Content of a verified receipt."""

    subject: str
    """Identifier of the recipient for this audience; the same at each verification."""
    caller: str
    purpose: str
    issued_at: datetime
    """Time of the verification."""
    expires_at: datetime
    receipt_id: str
    """The claim `jti`."""
    channels: frozenset[str]
    """Every channel that may have carried the code: sms, tel, email, whatsapp, telegram."""
    challenge_id: str
    recipient: str | None = field(repr=False)
    """Phone number or e-mail address, if the receipt states it."""


@dataclass(slots=True)
class _Keys:
    """Public keys, by their ids."""

    by_id: dict[str, Any]
    read_at: float


class ReceiptVerifier:
    """Verifies receipts of one issuer for one audience."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys_url: str | None = None,
        leeway: float = 30.0,
        accept_once: Callable[[str, datetime], bool] | None = None,
        fetch: Callable[[str], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a verifier; it reads the public keys at the first receipt.

        `leeway` is the tolerance for clocks that differ, in seconds. `accept_once` gets the id of
        each receipt and the time until which it must be remembered, and returns False if it has
        got that id before; it must decide atomically. `fetch` reads a URL in another way than by
        urllib; `clock` is for tests.
        """
        self._issuer = issuer
        self._audience = audience
        self._url = keys_url or issuer + KEYS_PATH
        if not self._url.startswith("https://") and fetch is None:
            raise ValueError(f"the public keys must be read over https, not from {self._url}")
        self._leeway = leeway
        self._accept_once = accept_once
        self._fetch = fetch or _fetch
        self._clock = clock
        self._keys: _Keys | None = None
        self._tried_at: float | None = None
        self._lock = threading.Lock()

    def verify(self, receipt: str, *, purpose: str, caller: str, nonce: str) -> Receipt:
        """Verify a receipt, and return its content.

        `nonce` is the one that this service drew for the session. Raises a `ReceiptError`.
        """
        if not nonce:
            raise ValueError("nonce is empty; take the one that was drawn for this session")
        key = self._key(_key_id(receipt))
        try:
            claims = jwt.decode(
                receipt,
                key,
                algorithms=["ES256"],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": list(_REQUIRED), "strict_aud": True},
            )
        except jwt.PyJWTError as error:
            # Its text may contain values of the receipt.
            raise ReceiptInvalidError(f"invalid receipt: {type(error).__name__}") from None
        for name, expected in (("azp", caller), ("purpose", purpose), ("nonce", nonce)):
            found = claims[name]
            same = isinstance(found, str) and compare_digest(found.encode(), expected.encode())
            if not same:
                raise ReceiptInvalidError(f"the receipt has another {name}")
        content = _content(claims)
        if self._accept_once and not self._accept_once(content.receipt_id, content.expires_at):
            raise ReceiptReusedError("the receipt was accepted before")
        return content

    def _key(self, key_id: str) -> Any:  # noqa: ANN401 - a key of PyJWT
        # One thread reads the keys, and the others wait for it.
        with self._lock:
            now = self._clock()
            keys = self._keys
            if keys is None or now - keys.read_at >= MAX_AGE or key_id not in keys.by_id:
                keys = self._refresh(now)
        if keys is None:
            raise KeysUnavailableError(f"no public keys can be read from {self._url}")
        if key_id not in keys.by_id:
            raise ReceiptInvalidError("the receipt is signed by an unknown key")
        return keys.by_id[key_id]

    def _refresh(self, now: float) -> _Keys | None:
        """Read the keys again; if that fails, the known ones stay in use."""
        if self._tried_at is None or now - self._tried_at >= REFETCH_AFTER:
            self._tried_at = now
            with contextlib.suppress(OSError, HTTPException, ValueError, jwt.PyJWTError):
                self._keys = _Keys(by_id=_parse(self._fetch(self._url)), read_at=now)
        return self._keys


def _key_id(receipt: str) -> str:
    try:
        header = jwt.get_unverified_header(receipt)
    except jwt.PyJWTError as error:
        raise ReceiptInvalidError(f"not a receipt: {type(error).__name__}") from None
    if header.get("typ") != TYPE or header.get("alg") != "ES256":
        raise ReceiptInvalidError("not a receipt of otpd")
    key_id = header.get("kid")
    if not isinstance(key_id, str):
        raise ReceiptInvalidError("the receipt names no key")
    return key_id


def _parse(text: bytes) -> dict[str, Any]:
    """Return the keys that can sign receipts; others do not matter."""
    found = json.loads(text)
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise ValueError("no list of keys")  # noqa: TRY004 - one kind of error
    usable = {}
    for key in keys:
        is_one = isinstance(key, dict) and key.get("kty") == "EC" and key.get("crv") == "P-256"
        if is_one and isinstance(key.get("kid"), str):
            usable[key["kid"]] = jwt.PyJWK(key, algorithm="ES256").key
    if not usable:
        raise ValueError("no key of receipts")
    return usable


def _content(claims: dict[str, Any]) -> Receipt:
    methods = claims["amr"]
    if not isinstance(methods, list) or "otp" not in methods:
        raise ReceiptInvalidError("the receipt has an invalid amr")
    recipient = claims.get("phone_number") or claims.get("email")
    return Receipt(
        subject=claims["sub"],
        caller=claims["azp"],
        purpose=claims["purpose"],
        issued_at=datetime.fromtimestamp(claims["iat"], tz=timezone.utc),
        expires_at=datetime.fromtimestamp(claims["exp"], tz=timezone.utc),
        receipt_id=claims["jti"],
        channels=frozenset(str(method) for method in methods) - {"otp"},
        challenge_id=str(claims.get("challenge_id", "")),
        recipient=None if recipient is None else str(recipient),
    )


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT) as response:  # noqa: S310
        if not response.url.startswith("https://"):
            raise ValueError("the public keys were redirected to plain HTTP")
        text: bytes = response.read(MAX_KEYS_BYTES + 1)
    if len(text) > MAX_KEYS_BYTES:
        raise ValueError("the public keys are too long")
    return text
