"""Endpoints that send and verify codes, compatible with earlier `send_otp` and `verify_otp`."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, ClassVar

from rest_framework import status
from rest_framework.exceptions import Throttled
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

import otpd
from otpd import Outcome, mask
from otpd.contrib.django import conf
from otpd.contrib.django.addresses import client_ip
from otpd.contrib.django.signals import otp_verified

if TYPE_CHECKING:
    from rest_framework.request import Request

logger = logging.getLogger("otpd")


class OtpView(APIView):
    """Base of both endpoints: without authentication, and throttled only by otpd."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    # otpd counts exactly, across all workers and machines.
    throttle_classes = ()
    mark: ClassVar[str]
    """Prefix of its log lines."""

    @property
    def configuration(self) -> conf.Settings:
        """Return the settings OTPD; `settings` are those of REST framework."""
        return conf.get()

    @property
    def client(self) -> otpd.Client:
        """Return the client of the process."""
        return conf.client()

    def field(self, request: Request, name: str) -> str:
        """Return a field of the request; empty if it is missing or not a text."""
        data = request.data
        value = data.get(name) if hasattr(data, "get") else None
        # Some front ends send numbers without quotes.
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return value.strip() if isinstance(value, str) else ""

    def client_ip(self, request: Request) -> str:
        """Return the IP address of the end user."""
        return client_ip(request._request, self.configuration.trusted_proxies)

    def done(self, text: str) -> Response:
        """Return a successful response."""
        return Response({self.configuration.message_field: self.configuration.text(text)})

    def wrong(self, code: int, text: str) -> Response:
        """Return an error response."""
        return Response(
            {self.configuration.error_field: self.configuration.text(text)}, status=code
        )

    def refused(self, error: otpd.OtpError, recipient: str) -> Response:
        """Convert a failed call to a response."""
        reason = error.reason or error.status
        line = f"{self.mark} Request refused recipient=%s reason=%s cause=%s request_id=%s"
        fields = (mask(recipient), reason, error.message, error.request_id)
        if isinstance(error, otpd.RateLimited):
            logger.info(line, *fields)
            # Like a throttle of REST framework: its exception handler sends 429 with Retry-After.
            raise Throttled(wait=error.retry_after)
        if isinstance(error, otpd.RecipientInvalid):
            logger.info(line, *fields)
            return self.wrong(status.HTTP_400_BAD_REQUEST, "recipient_invalid")
        if isinstance(error, otpd.NoRoute) or error.reason == "DESTINATION_BLOCKED":
            logger.warning(line, *fields)
            return self.wrong(status.HTTP_400_BAD_REQUEST, "not_deliverable")
        logger.error(line, *fields)
        response = self.wrong(status.HTTP_503_SERVICE_UNAVAILABLE, "unavailable")
        response["Retry-After"] = str(math.ceil(error.retry_after or 1))
        return response


class SendOtpView(OtpView):
    """Sends a code: 200, 400, 429 with Retry-After, 503."""

    mark = "[OTP]"

    def post(self, request: Request) -> Response:
        """Send a code to the recipient of the request."""
        settings = self.configuration
        recipient = self.field(request, settings.recipient_field)
        logger.info("[OTP] Request received recipient=%s", mask(recipient))
        if not recipient:
            return self.wrong(status.HTTP_400_BAD_REQUEST, "recipient_missing")
        channel = None if settings.channel is None else otpd.Channel(settings.channel)
        try:
            sent = self.client.send(
                recipient,
                purpose=settings.purpose,
                channel=channel,
                locale=settings.locale,
                region=settings.region,
                client_ip=self.client_ip(request),
            )
        except otpd.OtpError as error:
            return self.refused(error, recipient)
        logger.info(
            "[OTP] OTP sent recipient=%s challenge_id=%s", mask(sent.recipient), sent.challenge_id
        )
        return self.sent(request, sent)

    def sent(self, request: Request, sent: otpd.Sent) -> Response:  # noqa: ARG002
        """Return the response after a code was sent. Can be overridden."""
        return self.done("sent")


class VerifyOtpView(OtpView):
    """Verifies a code: 200, 400 for a wrong one, 404 for none, 429 with Retry-After, 503."""

    mark = "[OTP VERIFY]"

    def post(self, request: Request) -> Response:
        """Verify the code of the request."""
        settings = self.configuration
        recipient = self.field(request, settings.recipient_field)
        code = self.field(request, settings.code_field)
        logger.info("[OTP VERIFY] Request received recipient=%s", mask(recipient))
        if not recipient or not code:
            return self.wrong(status.HTTP_400_BAD_REQUEST, "code_missing")
        try:
            result = self.client.verify(
                recipient,
                code,
                purpose=settings.purpose,
                region=settings.region,
                client_ip=self.client_ip(request),
            )
        except otpd.CodeMalformed:
            logger.info("[OTP VERIFY] no code recipient=%s", mask(recipient))
            return self.wrong(status.HTTP_400_BAD_REQUEST, "wrong_code")
        except otpd.OtpError as error:
            return self.refused(error, recipient)
        if not result.verified:
            return self.not_verified(result)
        logger.info("[OTP VERIFY] OTP verified successfully recipient=%s", mask(result.recipient))
        return self.verified(request, result)

    def verified(self, request: Request, result: otpd.Verification) -> Response:
        """Send the signal, and return the response after a verification. Can be overridden,
        for example to create a session.
        """
        otp_verified.send(
            sender=type(self), request=request, result=result, purpose=self.configuration.purpose
        )
        return self.done("verified")

    def not_verified(self, result: otpd.Verification) -> Response:
        """Return the response after a failed verification: 400 if attempts remain, else 404."""
        logger.info(
            "[OTP VERIFY] %s recipient=%s attempts_remaining=%d",
            result.outcome.value.replace("_", " "),
            mask(result.recipient),
            result.attempts_remaining,
        )
        if result.outcome is Outcome.WRONG_CODE:
            return self.wrong(status.HTTP_400_BAD_REQUEST, "wrong_code")
        return self.wrong(status.HTTP_404_NOT_FOUND, "not_found")


send_otp = SendOtpView.as_view()
verify_otp = VerifyOtpView.as_view()
