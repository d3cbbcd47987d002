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

from otpd.testing._fake import FakeOtpd, Message
from otpd.testing._policy import Policy

__all__ = ["FakeOtpd", "Message", "Policy"]
