"""Settings `OTPD = {...}`, with validation."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise

from otpd import Channel, Client, Tls

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    "sent": "OTP sent successfully",
    "verified": "OTP verified successfully",
    "recipient_missing": "{recipient_field} is required",
    "code_missing": "{recipient_field} and {code_field} are required",
    "recipient_invalid": "Invalid {recipient_field}",
    "not_deliverable": "No code can be sent there",
    "wrong_code": "Invalid OTP",
    "not_found": "OTP not found or expired",
    "unavailable": "Service temporarily unavailable, try again later",
}
"""Texts for end users; `{recipient_field}` and `{code_field}` are replaced."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Invalid setting."""

    where: str
    what: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Values of OTPD; the keys are these names in capitals."""

    address: str | list[str] | tuple[str, ...]
    """Address of otpd."""
    token: str | None = None
    token_file: str | Path | None = None
    """File with the token; read at each call, so that the token can be rotated."""
    allow_plaintext_token: bool = False
    tls: Mapping[str, str | Path] | None = None
    """CA, CERTIFICATE, KEY, SERVER_NAME; empty: TLS with the authorities of gRPC."""
    timeout: float = 5.0
    """Maximum seconds of a call, retries included."""
    purpose: str = ""
    channel: str | None = None
    region: str = ""
    """Region of phone numbers in national format, such as RU."""
    locale: str = ""
    """Language of messages."""
    trusted_proxies: int = 0
    """Number of trusted proxies in front of Django, each of which appends to
    X-Forwarded-For. 0: the header is ignored."""
    recipient_field: str = "phone"
    code_field: str = "otp"
    message_field: str = "message"
    """Key of the message in a successful response."""
    error_field: str = "error"
    """Key of the message in an error response."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Texts that replace those of `TEXTS`."""

    def text(self, name: str) -> str:
        """Return a text for end users."""
        text = str(self.texts.get(name, TEXTS[name]))
        names = {"recipient_field": self.recipient_field, "code_field": self.code_field}
        for key, value in names.items():
            text = text.replace(f"{{{key}}}", value)
        return text

    def client(self) -> Client:
        """Create a client."""
        tls = None
        if self.tls is not None:
            tls = Tls(**{key.lower(): value for key, value in self.tls.items()})  # type: ignore[arg-type]
        token = self.token if self.token_file is None else self._read_token
        return Client(
            self.address,
            tls=tls,
            token=token,
            allow_plaintext_token=self.allow_plaintext_token,
            timeout=self.timeout,
        )

    def _read_token(self) -> str:
        assert self.token_file is not None  # noqa: S101 - called only if it is set
        return Path(self.token_file).read_text().strip()


_KEYS = {one.name.upper(): one for one in fields(Settings)}
_TLS_KEYS = ("CA", "CERTIFICATE", "KEY", "SERVER_NAME")
_KINDS: Mapping[str, tuple[type, ...]] = {
    "ADDRESS": (str, list, tuple),
    "TOKEN": (str, type(None)),
    "TOKEN_FILE": (str, Path, type(None)),
    "ALLOW_PLAINTEXT_TOKEN": (bool,),
    "TLS": (dict, type(None)),
    "TIMEOUT": (int, float),
    "CHANNEL": (str, type(None)),
    "TRUSTED_PROXIES": (int,),
    "TEXTS": (dict,),
}


@lru_cache(maxsize=1)
def get() -> Settings:
    """Read the settings. Raises `ImproperlyConfigured`."""
    for problem in problems():
        raise ImproperlyConfigured(f"{problem.where}: {problem.what}; {problem.remedy}")
    return _settings(django_settings.OTPD)


stand_in: Client | None = None
"""Client for tests, instead of the client of the process."""


def client() -> Client:
    """Return the client of the process, which connects at its first call."""
    return stand_in or _client()


@lru_cache(maxsize=1)
def _client() -> Client:
    return get().client()


def forget(*, setting: str, **_: Any) -> None:  # noqa: ANN401 - signature of Django's signals
    """Discard the settings after a test has changed them."""
    if setting == "OTPD":
        get.cache_clear()
        _client.cache_clear()


def problems() -> list[Problem]:
    """Return all invalid settings."""
    given = getattr(django_settings, "OTPD", None)
    if not isinstance(given, dict):
        return [Problem("OTPD", "is no dictionary", 'set OTPD = {"ADDRESS": "dns:///otpd:50051"}')]
    found = [*_wrong_keys(given), *_wrong_values(given)]
    if not found:
        try:
            _settings(given).client()
        except (ValueError, TypeError) as error:
            found.append(Problem("OTPD", str(error), "see docs/moving-from-django-cache.md"))
    return found


def _settings(given: Mapping[str, Any]) -> Settings:
    return Settings(**{key.lower(): value for key, value in given.items()})


def _wrong_keys(given: Mapping[str, Any]) -> list[Problem]:
    known = f"known are {', '.join(_KEYS)}"
    found = [Problem(f"OTPD[{key!r}]", "is unknown", known) for key in given if key not in _KEYS]
    found += [
        Problem(f"OTPD[{key!r}]", "is missing", "give it a value")
        for key, one in _KEYS.items()
        if one.default is MISSING and one.default_factory is MISSING and key not in given
    ]
    return found


def _wrong_values(given: Mapping[str, Any]) -> list[Problem]:
    found = []
    for key, value in given.items():
        if key in _KEYS:
            kinds = _KINDS.get(key, (str,))
            # In Python, a bool is an int.
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                names = " or ".join(kind.__name__ for kind in kinds)
                found.append(Problem(f"OTPD[{key!r}]", f"is {value!r}", f"give a {names}"))
    if found:
        return found
    return [*_wrong_ranges(given), *_wrong_names(given), *_missing_files(given)]


def _wrong_ranges(given: Mapping[str, Any]) -> list[Problem]:
    found = []
    if given.get("TIMEOUT", 1) <= 0:
        found.append(Problem("OTPD['TIMEOUT']", "is no time", "give seconds above 0"))
    if given.get("TRUSTED_PROXIES", 0) < 0:
        what = "is no number of proxies"
        found.append(Problem("OTPD['TRUSTED_PROXIES']", what, "give 0 or more"))
    channels = [channel.value for channel in Channel]
    if given.get("CHANNEL") not in {None, *channels}:
        found.append(Problem("OTPD['CHANNEL']", "is unknown", f"known are {', '.join(channels)}"))
    if given.get("TOKEN") is not None and given.get("TOKEN_FILE") is not None:
        found.append(Problem("OTPD['TOKEN']", "stands beside TOKEN_FILE", "leave one of them out"))
    return found


def _wrong_names(given: Mapping[str, Any]) -> list[Problem]:
    found = []
    for table, known in (("TLS", _TLS_KEYS), ("TEXTS", tuple(TEXTS))):
        for key, value in (given.get(table) or {}).items():
            where = f"OTPD[{table!r}][{key!r}]"
            if key not in known:
                found.append(Problem(where, "is unknown", f"known are {', '.join(known)}"))
            elif not isinstance(value, (str, Path, Promise)):
                found.append(Problem(where, f"is {value!r}", "give a text"))
    return found


def _missing_files(given: Mapping[str, Any]) -> list[Problem]:
    files = {f"OTPD['TLS'][{key!r}]": value for key, value in (given.get("TLS") or {}).items()}
    files.pop("OTPD['TLS']['SERVER_NAME']", None)
    if given.get("TOKEN_FILE") is not None:
        files["OTPD['TOKEN_FILE']"] = given["TOKEN_FILE"]
    return [
        Problem(where, f"there is no file {file}", "give a file that this process can read")
        for where, file in files.items()
        if not Path(str(file)).is_file()
    ]
