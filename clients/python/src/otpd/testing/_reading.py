"""Validation of requests, and the canonical form of their fields."""

from __future__ import annotations

import ipaddress
import re
import unicodedata

import grpc

from otpd._failure import Failure
from otpd._messages import channel_of
from otpd._wire import otp_pb2
from otpd.errors import FieldViolation
from otpd.results import Channel

try:
    import idna
    import phonenumbers
except ImportError as error:
    raise ImportError("otpd.testing needs phonenumbers: pip install 'otpd[testing]'") from error

_HYPHENS = re.compile("[-\u058a\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
# Unicode's Default_Ignorable_Code_Point.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_PURPOSE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_LOCALE = re.compile(r"(?=[A-Za-z]{2})[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*")
_VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,31}")


def invalid(field: str, problem: str, reason: str = "REQUEST_INVALID") -> Failure:
    """Create the failure of an invalid request."""
    return Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{field}: {problem}",
        reason=reason,
        field_violations=(FieldViolation(field, problem),),
    )


def recipient(written: str, region: str) -> str:
    """Parse a phone number or an e-mail address."""
    if region and not (
        re.fullmatch("[A-Za-z]{2}", region) and phonenumbers.country_code_for_region(region.upper())
    ):
        raise invalid("region", "not an ISO 3166-1 alpha-2 region that has phone numbers")
    if len(written.encode()) > 320:
        raise _no_recipient("too long; at most 320 bytes are read")
    if any(unicodedata.category(character) == "Cc" for character in written):
        raise _no_recipient("holds a control character; remove it")
    visible_text = _IGNORABLE.sub("", written).strip()
    local_part, at, domain = visible_text.rpartition("@")
    if at:
        return _email(local_part, domain)
    return _phone(visible_text, region.upper())


def _phone(written: str, region: str) -> str:
    plain = "".join(" " if character.isspace() else character for character in written)
    try:
        number = phonenumbers.parse(plain, region or None)
    except phonenumbers.NumberParseException:
        raise _no_recipient("not a phone number that exists, nor an e-mail address") from None
    digits = number.national_number or 0
    is_prefixed = number.country_code == 52 and 10**10 <= digits < 2 * 10**10
    if is_prefixed and not number.extension and not phonenumbers.is_valid_number(number):
        number = phonenumbers.parse(f"+52{digits - 10**10:010}")
    if number.extension:
        raise _no_recipient("a number with an extension cannot receive messages")
    if not phonenumbers.is_valid_number(number):
        raise _no_recipient("not a phone number that exists, nor an e-mail address")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _email(local_part: str, domain: str) -> str:
    atoms = local_part.split(".")
    if len(local_part) > 64 or not all(_ATOM.fullmatch(atom) for atom in atoms):
        raise _no_recipient("the part of the e-mail address before the @ is not valid")
    try:
        domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise _no_recipient("the domain of the e-mail address is not valid") from None
    address = f"{local_part.lower()}@{domain}"
    top = domain.rpartition(".")[2]
    if "." not in domain or not top or top.isdecimal() or len(address) > 254:
        raise _no_recipient("the domain of the e-mail address is not valid")
    return address


def _no_recipient(problem: str) -> Failure:
    return invalid("recipient", problem, "RECIPIENT_INVALID")


def purpose(name: str) -> str:
    """Parse a purpose."""
    if name and not _PURPOSE.fullmatch(name):
        raise invalid("purpose", "not [a-z][a-z0-9_-]{0,31}", "PURPOSE_INVALID")
    return name or "default"


def code(typed: str) -> str:
    """Parse a submitted code."""
    if len(typed.encode()) > 128:
        raise malformed("far too long; a code has at most 10 digits")
    # Only Python treats the information separators as whitespace.
    digits = "".join(
        character
        for character in _HYPHENS.sub("", _IGNORABLE.sub("", typed))
        if not character.isspace() or "\x1c" <= character <= "\x1f"
    )
    if not digits:
        raise malformed("empty; give the digits of the code")
    values = [unicodedata.decimal(character, None) for character in digits]
    if None in values:
        raise malformed("a code has only digits; blanks and hyphens between them are ignored")
    return "".join(str(value) for value in values)


def malformed(problem: str) -> Failure:
    """Create the failure of a malformed code."""
    return invalid("code", problem, "CODE_MALFORMED")


def visible(field: str, text: str, most: int) -> str:
    """Parse an id."""
    if len(text) > most or not all("!" <= character <= "~" for character in text):
        raise invalid(field, f"must be at most {most} visible ASCII characters, without spaces")
    return text


def network(client_ip: str) -> str:
    """Return the network of an end user, of which one client may have all addresses."""
    if not client_ip:
        return ""
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        raise invalid("client_ip", "not an IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise invalid("client_ip", "not an IPv4 or IPv6 address")
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if address in _NAT64:
            return str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def site(network: str) -> str:
    """Return the wider network that a network of IPv6 belongs to."""
    if ":" not in network:
        return ""
    address = ipaddress.ip_network(network).network_address
    if address not in _GLOBAL_UNICAST:
        return ""
    return str(ipaddress.ip_network((int(address) >> 80 << 80, 48)))


def channel(request: otp_pb2.SendOtpRequest, to: str) -> Channel:
    """Parse a channel."""
    by_email = "@" in to
    if request.channel == otp_pb2.CHANNEL_UNSPECIFIED:
        return Channel.EMAIL if by_email else Channel.SMS
    asked = channel_of(request)
    if asked is None:
        raise invalid("channel", "not a channel of this version")
    if by_email != (asked is Channel.EMAIL):
        raise invalid("channel", f"{asked.value} does not reach this recipient; leave it unset")
    return asked


def locale(tag: str) -> str:
    """Parse a language."""
    if tag and (len(tag) > 35 or not _LOCALE.fullmatch(tag)):
        raise invalid("locale", "not a BCP 47 language tag")
    return tag


def variables(given: dict[str, str]) -> dict[str, str]:
    """Validate the variables of a text."""
    if len(given) > 32:
        raise invalid("variables", "too many; give at most 32")
    for name, value in given.items():
        if not _VARIABLE.fullmatch(name):
            raise invalid(
                "variables", "a name must be a lower-case letter and up to 31 of a-z, 0-9, _"
            )
        control = any(unicodedata.category(character) == "Cc" for character in value)
        if control or len(value.encode()) > 256:
            raise invalid("variables", f"{name}: at most 256 bytes without control characters")
    return given


def declared_only(given: dict[str, str], declared: frozenset[str]) -> None:
    """Reject variables that the text does not declare."""
    for name in given:
        if name not in declared:
            raise invalid("variables", f"{name} is not declared for this purpose")
