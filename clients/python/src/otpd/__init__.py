"""Client of otpd, which sends and verifies one-time passwords.

from otpd import Client

with Client("dns:///otpd:50051", token="…", tls=Tls(ca="ca.crt")) as otp:
    otp.send("8 (999) 123-45-67", region="RU", purpose="login")
    if otp.verify("+79991234567", "123456", purpose="login"):
        ...
"""

from importlib.metadata import version as _version

from otpd.aio import AsyncClient
from otpd.client import Client
from otpd.errors import (
    CallerUnknown,
    CodeMalformed,
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NoRoute,
    NotAllowed,
    OtpError,
    RateLimited,
    RecipientInvalid,
    ResendTooSoon,
    SendLimit,
    Unavailable,
    VerifyDelayed,
    VerifyLimit,
    VerifyLocked,
)
from otpd.masking import mask
from otpd.options import ReceiptRequest, RetryPolicy, Tls
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

__version__ = _version("otpd")

__all__ = [
    "AsyncClient",
    "CallerUnknown",
    "Cancellation",
    "Channel",
    "Client",
    "CodeMalformed",
    "DeadlineExceeded",
    "Delivery",
    "DeliveryState",
    "FieldViolation",
    "InternalError",
    "InvalidRequest",
    "NoRoute",
    "NotAllowed",
    "OtpError",
    "Outcome",
    "RateLimited",
    "ReceiptRequest",
    "RecipientInvalid",
    "ResendTooSoon",
    "RetryPolicy",
    "SendLimit",
    "Sent",
    "Status",
    "Tls",
    "Unavailable",
    "Verification",
    "VerifyDelayed",
    "VerifyLimit",
    "VerifyLocked",
    "__version__",
    "mask",
]
