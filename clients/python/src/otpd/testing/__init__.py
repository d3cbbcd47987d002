"""A fake of otpd for tests of applications: the same rules, in memory.

    from otpd.testing import FakeOtpd

    def test_a_code_expires():
        fake = FakeOtpd()
        otp = fake.client()
        otp.send("+79991234567")
        fake.advance(minutes=6)
        assert not otp.verify("+79991234567", fake.code("+79991234567"))

Needs `pip install 'otpd[testing]'`. The package's tests compare the fake with the real server.
"""

from typing import TYPE_CHECKING, Any

from otpd.testing._fake import FakeOtpd, Message
from otpd.testing._policy import Policy

if TYPE_CHECKING:
    from otpd.testing._receipts import ReceiptSigner

__all__ = ["FakeOtpd", "Message", "Policy", "ReceiptSigner"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - one class
    """Import the signer of receipts at its first use, because it needs `otpd[receipts]`."""
    if name == "ReceiptSigner":
        from otpd.testing._receipts import ReceiptSigner  # noqa: PLC0415

        return ReceiptSigner
    raise AttributeError(name)
