"""The old endpoints, kept to show their faults.

A code lies in the memory of the worker that made it. The next request may go to another
worker, which knows nothing of it: with four of them three codes of four are not found.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

from django.core.cache import cache
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle

from users import gateway

if TYPE_CHECKING:
    from rest_framework.request import Request

logger = logging.getLogger("users")

LIFE = 300


def fields(request: Request) -> dict[str, Any]:
    """Return the JSON object of the request."""
    data = request.data
    return data if isinstance(data, dict) else {}


class OncePerMinute(SimpleRateThrottle):
    """One code a minute for a number; for each worker, since it counts in the same cache."""

    rate = "1/min"
    scope = "otp"

    def get_cache_key(self, request: Request, view: Any) -> str | None:  # noqa: ANN401, ARG002
        """Count by the number."""
        phone = fields(request).get("phone")
        return f"throttle:{phone}" if phone else None


@api_view(["POST"])
@throttle_classes([OncePerMinute])
def send_otp(request: Request) -> Response:
    """Make a code and send it."""
    phone = fields(request).get("phone")
    logger.info("[OTP] Request received")
    if not phone:
        return Response({"error": "phone is required"}, status=400)
    code = f"{secrets.randbelow(10**6):06}"
    cache.set(f"otp:{phone}", code, LIFE)
    try:
        gateway.send_sms(phone, code)
    except gateway.GatewayError:
        logger.exception("[OTP] SMS failed")
        return Response({"error": "Service temporarily unavailable, try again later"}, status=503)
    return Response({"message": "OTP sent successfully"})


@api_view(["POST"])
def verify_otp(request: Request) -> Response:
    """Check a code."""
    phone = fields(request).get("phone")
    code = fields(request).get("otp")
    logger.info("[OTP VERIFY] Request received")
    if not phone or not code:
        return Response({"error": "phone and otp are required"}, status=400)
    right = cache.get(f"otp:{phone}")
    if right is None:
        logger.warning("[OTP VERIFY] OTP not found")
        return Response({"error": "OTP not found or expired"}, status=404)
    if right != code:
        logger.warning("[OTP VERIFY] wrong code")
        return Response({"error": "Invalid OTP"}, status=400)
    cache.delete(f"otp:{phone}")
    logger.info("[OTP VERIFY] OTP verified successfully")
    return Response({"message": "OTP verified successfully"})
