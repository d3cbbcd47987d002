"""What deploy/observe/run does: the dashboard, and otpd under Prometheus for a few minutes."""
