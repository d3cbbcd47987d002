"""Conversion of arguments to messages of the contract, and of replies to results."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timezone
from typing import TYPE_CHECKING, Generic, TypeVar

from otpd._wire import otp_pb2
from otpd.results import (
    Cancellation,
    Channel,
    Delivery,
    DeliveryState,
    Outcome,
    Sent,
    Status,
    Verification,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from otpd.options import ReceiptRequest

Request = TypeVar("Request", bound="Message")
Reply = TypeVar("Reply", bound="Message")


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Reply]):
    """One of the service's methods."""

    name: str
    request: type[Request]
    reply: type[Reply]

    @property
    def path(self) -> str:
        """Path of the method."""
        return f"/{SERVICE}/{self.name}"


SERVICE = "otp.v1.OtpService"
SEND = Method("SendOtp", otp_pb2.SendOtpRequest, otp_pb2.SendOtpResponse)
VERIFY = Method("VerifyOtp", otp_pb2.VerifyOtpRequest, otp_pb2.VerifyOtpResponse)
CANCEL = Method("CancelOtp", otp_pb2.CancelOtpRequest, otp_pb2.CancelOtpResponse)
STATUS = Method("GetOtpStatus", otp_pb2.GetOtpStatusRequest, otp_pb2.GetOtpStatusResponse)

_CHANNELS = {
    Channel.SMS: otp_pb2.CHANNEL_SMS,
    Channel.EMAIL: otp_pb2.CHANNEL_EMAIL,
    Channel.VOICE: otp_pb2.CHANNEL_VOICE,
    Channel.WHATSAPP: otp_pb2.CHANNEL_WHATSAPP,
    Channel.TELEGRAM: otp_pb2.CHANNEL_TELEGRAM,
}
_CHANNELS_BACK = {number: channel for channel, number in _CHANNELS.items()}
_OUTCOMES = {
    otp_pb2.VERIFY_OUTCOME_VERIFIED: Outcome.VERIFIED,
    otp_pb2.VERIFY_OUTCOME_WRONG_CODE: Outcome.WRONG_CODE,
    otp_pb2.VERIFY_OUTCOME_EXPIRED: Outcome.EXPIRED,
    otp_pb2.VERIFY_OUTCOME_ATTEMPTS_EXHAUSTED: Outcome.ATTEMPTS_EXHAUSTED,
    otp_pb2.VERIFY_OUTCOME_NOT_FOUND: Outcome.NOT_FOUND,
}
_STATES = {
    otp_pb2.DELIVERY_STATE_QUEUED: DeliveryState.QUEUED,
    otp_pb2.DELIVERY_STATE_SENDING: DeliveryState.SENDING,
    otp_pb2.DELIVERY_STATE_SENT: DeliveryState.SENT,
    otp_pb2.DELIVERY_STATE_FAILED: DeliveryState.FAILED,
    otp_pb2.DELIVERY_STATE_DROPPED: DeliveryState.DROPPED,
}


def new_request_id() -> str:
    """Generate an unguessable idempotency key."""
    return secrets.token_urlsafe(18)


def send_request(
    recipient: str,
    *,
    purpose: str,
    channel: Channel | None,
    locale: str,
    region: str,
    client_ip: str,
    variables: Mapping[str, str] | None,
    request_id: str | None,
) -> otp_pb2.SendOtpRequest:
    """Build the request to send a code."""
    return otp_pb2.SendOtpRequest(
        recipient=recipient,
        purpose=purpose,
        channel=otp_pb2.CHANNEL_UNSPECIFIED if channel is None else _CHANNELS[channel],
        locale=locale,
        region=region,
        client_ip=client_ip,
        variables=variables,
        request_id=request_id or new_request_id(),
    )


def verify_request(
    recipient: str,
    code: str,
    *,
    purpose: str,
    challenge_id: str,
    region: str,
    client_ip: str,
    receipt: ReceiptRequest | None,
    request_id: str | None,
) -> otp_pb2.VerifyOtpRequest:
    """Build the request to verify a code."""
    asked = None
    if receipt is not None:
        asked = otp_pb2.ReceiptRequest(
            audience=receipt.audience,
            nonce=receipt.nonce,
            include_recipient=receipt.include_recipient,
        )
    return otp_pb2.VerifyOtpRequest(
        recipient=recipient,
        purpose=purpose,
        code=code,
        challenge_id=challenge_id,
        region=region,
        client_ip=client_ip,
        request_id=request_id or new_request_id(),
        receipt=asked,
    )


def cancel_request(
    recipient: str,
    *,
    purpose: str,
    region: str,
    challenge_id: str,
    reset_failures: bool,
    request_id: str | None,
) -> otp_pb2.CancelOtpRequest:
    """Build the request to cancel a code."""
    return otp_pb2.CancelOtpRequest(
        recipient=recipient,
        purpose=purpose,
        region=region,
        challenge_id=challenge_id,
        reset_failures=reset_failures,
        request_id=request_id or new_request_id(),
    )


def status_request(
    recipient: str, *, purpose: str, region: str, challenge_id: str
) -> otp_pb2.GetOtpStatusRequest:
    """Build the request for the status of a code."""
    return otp_pb2.GetOtpStatusRequest(
        recipient=recipient, purpose=purpose, region=region, challenge_id=challenge_id
    )


def sent(reply: otp_pb2.SendOtpResponse, request_id: str) -> Sent:
    """Read a reply."""
    return Sent(
        challenge_id=reply.challenge_id,
        recipient=reply.recipient,
        channel=_CHANNELS_BACK.get(reply.channel),
        expires_at=_instant(reply.expires_at),
        resend_at=_instant(reply.resend_at),
        resent=reply.resent,
        code_length=reply.code_length,
        code=reply.code or None,
        request_id=request_id,
    )


def verification(reply: otp_pb2.VerifyOtpResponse, request_id: str) -> Verification:
    """Read a reply."""
    return Verification(
        verified=reply.verified,
        outcome=_OUTCOMES.get(reply.outcome, Outcome.UNKNOWN),
        attempts_remaining=reply.attempts_remaining,
        challenge_id=reply.challenge_id,
        recipient=reply.recipient,
        verified_at=_instant(reply.verified_at) if reply.HasField("verified_at") else None,
        request_id=request_id,
        receipt=reply.receipt or None,
    )


def cancellation(reply: otp_pb2.CancelOtpResponse, request_id: str) -> Cancellation:
    """Read a reply."""
    return Cancellation(
        cancelled=reply.cancelled, failures_reset=reply.failures_reset, request_id=request_id
    )


def status(reply: otp_pb2.GetOtpStatusResponse) -> Status:
    """Read a reply."""
    return Status(
        live=reply.live,
        challenge_id=reply.challenge_id,
        recipient=reply.recipient,
        expires_at=_instant(reply.expires_at) if reply.HasField("expires_at") else None,
        resend_at=_instant(reply.resend_at) if reply.HasField("resend_at") else None,
        attempts_remaining=reply.attempts_remaining,
        blocked_until=_instant(reply.blocked_until) if reply.HasField("blocked_until") else None,
        deliveries=tuple(
            Delivery(
                provider=delivery.provider,
                channel=_CHANNELS_BACK.get(delivery.channel),
                state=_STATES.get(delivery.state, DeliveryState.UNKNOWN),
                created_at=_instant(delivery.created_at),
                updated_at=_instant(delivery.updated_at),
                attempts=delivery.attempts,
                error=delivery.error,
            )
            for delivery in reply.deliveries
        ),
    )


def channel_of(request: otp_pb2.SendOtpRequest) -> Channel | None:
    """Return the channel that was requested."""
    return _CHANNELS_BACK.get(request.channel)


def number_of(channel: Channel) -> otp_pb2.Channel:
    """Return the number of a channel in the contract."""
    return _CHANNELS[channel]


def _instant(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=timezone.utc)
