"""Signals of the views."""

from django.dispatch import Signal

otp_verified = Signal()
"""A code was verified: `request`, `result` (an `otpd.Verification`), `purpose`. An
exception of a receiver ends the request."""
