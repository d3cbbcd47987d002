"""Masking of recipients for logs."""

_HIDDEN = 3
"""Minimum number of hidden digits of a phone number."""
_SHOWN_AT_AN_END = 4


def mask(recipient: str) -> str:
    """Mask a recipient as in otpd's own log: `+7999***4567`, `a***@example.com`.

    Input that is neither a number nor an address is hidden completely, because it may be
    anything.
    """
    local_part, at, domain = recipient.strip().rpartition("@")
    if at:
        return f"{_printable(local_part[:1])}***@{_printable(domain)}"
    plus = "+" if recipient.strip().startswith("+") else ""
    digits = "".join(character for character in recipient if character in "0123456789")
    shown = max(len(digits) - _HIDDEN, 0)
    tail = min(_SHOWN_AT_AN_END, shown // 2)
    head = min(_SHOWN_AT_AN_END, shown - tail)
    return f"{plus}{digits[:head]}***{digits[len(digits) - tail :]}"


def _printable(text: str) -> str:
    """Remove line breaks and other control characters."""
    return "".join(character for character in text if character.isprintable())
