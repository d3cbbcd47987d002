"""otpd inside other frameworks."""
