"""A CRM that lets people in by one-time passwords: before otpd, and with it."""
