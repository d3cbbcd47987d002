"""The CRM's SMS gateway, before otpd had it."""

import logging

logger = logging.getLogger("users")


class GatewayError(Exception):
    """The gateway did not take a message."""


def send_sms(phone: str, code: str) -> None:
    """Send a code; here, into the log."""
    logger.info("[OTP] Generated OTP: %s recipient=%s", code, phone)
