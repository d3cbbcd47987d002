"""What otpd replaced: two Django REST framework views, with the codes in Django's cache, so
that every worker knows them. The cache is a table or Redis: see settings.py.

They keep no limits, count no attempts and queue no message. For the comparison the code
comes back in a header, since there is nobody to read a message.
"""

import logging
import re
import secrets

from django.core.cache import cache
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response

CODE_LIFE_SECONDS = 300
logger = logging.getLogger("otp")


def normalise(phone):
    """Digits with a plus; a Russian number that starts with 8 is one that starts with +7."""
    digits = re.sub(r"\D", "", phone)
    if len(digits) == 11 and digits.startswith("8"):
        digits = "7" + digits[1:]
    return "+" + digits


@api_view(["POST"])
def send_otp(request):
    phone = normalise(request.data["phone"])
    code = f"{secrets.randbelow(1_000_000):06d}"
    cache.set(f"otp_{phone}", code, CODE_LIFE_SECONDS)
    logger.info("[OTP] Generated OTP for %s***%s", phone[:5], phone[-4:])
    return Response({"status": "sent"}, headers={"X-Otp-Code": code})


@api_view(["POST"])
def verify_otp(request):
    phone = normalise(request.data["phone"])
    key = f"otp_{phone}"
    kept = cache.get(key)
    if kept is None:
        return Response({"error": "not found"}, status=404)
    if not secrets.compare_digest(kept, str(request.data["otp"])):
        return Response({"error": "wrong code"}, status=400)
    cache.delete(key)
    logger.info("[OTP VERIFY] OTP verified for %s***%s", phone[:5], phone[-4:])
    return Response({"status": "verified"})


urlpatterns = [
    path("api/users/send_otp/", send_otp),
    path("api/users/verify_otp/", verify_otp),
]
