"""Endpoints that send a code and check it, as `send_otp` and `verify_otp` did before."""

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
    """What both endpoints are: open to everybody, and throttled by otpd alone."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    # otpd counts exactly, over all workers and machines.
    throttle_classes = ()
    mark: ClassVar[str]
    """What marks its lines in the log."""

    @property
    def configuration(self) -> conf.Settings:
        """What OTPD says; `settings` are those of REST framework."""
        return conf.get()

    @property
    def client(self) -> otpd.Client:
        """The client of this process."""
        return conf.client()

    def field(self, request: Request, name: str) -> str:
        """Read a field of the request; empty where it is not there, or no text."""
        data = request.data
        value = data.get(name) if hasattr(data, "get") else None
        # Some front ends write numbers without quotes.
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return value.strip() if isinstance(value, str) else ""

    def client_ip(self, request: Request) -> str:
        """Where the end user is."""
        return client_ip(request._request, self.configuration.trusted_proxies)

    def done(self, text: str) -> Response:
        """Say what was done."""
        return Response({self.configuration.message_field: self.configuration.text(text)})

    def wrong(self, code: int, text: str) -> Response:
        """Say what was wrong."""
        return Response(
            {self.configuration.error_field: self.configuration.text(text)}, status=code
        )

    def refused(self, error: otpd.OtpError, recipient: str) -> Response:
        """Say that there is no reply of otpd."""
        reason = error.reason or error.status
        line = f"{self.mark} Request refused recipient=%s reason=%s cause=%s request_id=%s"
        told = (mask(recipient), reason, error.message, error.request_id)
        if isinstance(error, otpd.RateLimited):
            logger.info(line, *told)
            # As throttles of REST framework: 429 with Retry-After, by its exception handler.
            raise Throttled(wait=error.retry_after)
        if isinstance(error, otpd.RecipientInvalid):
            logger.info(line, *told)
            return self.wrong(status.HTTP_400_BAD_REQUEST, "recipient_invalid")
        if isinstance(error, otpd.NoRoute) or error.reason == "DESTINATION_BLOCKED":
            logger.warning(line, *told)
            return self.wrong(status.HTTP_400_BAD_REQUEST, "not_deliverable")
        logger.error(line, *told)
        response = self.wrong(status.HTTP_503_SERVICE_UNAVAILABLE, "unavailable")
        response["Retry-After"] = str(math.ceil(error.retry_after or 1))
        return response


class SendOtpView(OtpView):
    """Sends a code: 200, 400, 429 with Retry-After, 503."""

    mark = "[OTP]"

    def post(self, request: Request) -> Response:
        """Send a code to the recipient that the request names."""
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
        """Reply to whom a code was sent; for others to say more."""
        return self.done("sent")


class VerifyOtpView(OtpView):
    """Checks a code: 200, 400 for a wrong one, 404 for none, 429 with Retry-After, 503."""

    mark = "[OTP VERIFY]"

    def post(self, request: Request) -> Response:
        """Check the code that the request brings."""
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
        """Reply to whose code was right, after all who listen were told; for others to do
        more, such as to give out a session.
        """
        otp_verified.send(
            sender=type(self), request=request, result=result, purpose=self.configuration.purpose
        )
        return self.done("verified")

    def not_verified(self, result: otpd.Verification) -> Response:
        """Reply to whose code was not: 400 where another answer is worth a try, else 404."""
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
