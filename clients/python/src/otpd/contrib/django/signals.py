"""What others can listen to."""

from django.dispatch import Signal

otp_verified = Signal()
"""A code was verified: `request`, `result` (an `otpd.Verification`), `purpose`. Whatever a
receiver raises ends the request."""
