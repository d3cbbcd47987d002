"""Recipients as logs may show them."""

_HIDDEN = 3
"""At least so many digits of a number are hidden."""
_SHOWN_AT_AN_END = 4


def mask(recipient: str) -> str:
    """Show a recipient as otpd's own log does: `+7999***4567`, `a***@example.com`.

    What a person typed may be anything, so of what is neither a number nor an address
    nothing is shown.
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
    """Keep line ends and the like out of logs."""
    return "".join(character for character in text if character.isprintable())
