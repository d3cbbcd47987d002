"""Receipts in Django: views that demand a verification by otpd.

    verifier = ReceiptVerifier(issuer="https://otp.example", audience="https://pay.example")

    def start(request):
        return JsonResponse({"nonce": new_nonce(request)})

    @receipt_required(verifier, purpose="payment", caller="login")
    def raise_limit(request):
        request.otp_receipt.subject

Needs `otpd[django,receipts]` and Django's sessions.
"""

from __future__ import annotations

import functools
import secrets
from typing import TYPE_CHECKING, Any

from django.http import JsonResponse

from otpd.receipts import KeysUnavailableError, ReceiptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase

    from otpd.receipts import ReceiptVerifier

SESSION_KEY = "otpd_receipt_nonce"
HEADER = "otp-receipt"
"""Header of the request that has the receipt."""


def new_nonce(request: HttpRequest) -> str:
    """Draw the nonce for the next receipt of this session."""
    nonce = secrets.token_urlsafe(24)
    request.session[SESSION_KEY] = nonce
    return nonce


def receipt_required(
    verifier: ReceiptVerifier, *, purpose: str, caller: str
) -> Callable[[Callable[..., HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Let a view run only with a valid receipt in the header `otp-receipt`.

    The receipt must have the session's nonce, which is used up by it. The view finds the content
    in `request.otp_receipt`. Otherwise the response has status 403, or 503 while the public keys
    cannot be read.
    """

    def decorate(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponseBase:  # noqa: ANN401
            nonce = request.session.get(SESSION_KEY)
            text = request.headers.get(HEADER)
            if not nonce or not text:
                return JsonResponse(
                    {"error": "a receipt of a verification is required"}, status=403
                )
            try:
                receipt = verifier.verify(text, purpose=purpose, caller=caller, nonce=nonce)
            except KeysUnavailableError:
                return JsonResponse({"error": "try again later"}, status=503)
            except ReceiptError:
                return JsonResponse({"error": "the receipt is not valid here"}, status=403)
            # Removed before the view runs, so that a repetition finds none.
            del request.session[SESSION_KEY]
            request.otp_receipt = receipt  # type: ignore[attr-defined]
            return view(request, *arguments, **named)

        return guarded

    return decorate
