"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

from otpd.contrib.django import conf
from otpd.contrib.django.checks import check_settings


class OtpdConfig(AppConfig):
    """otpd's views."""

    name = "otpd.contrib.django"
    label = "otpd"
    verbose_name = "One-time passwords"

    def ready(self) -> None:
        """Have the settings checked, and read anew where a test changes them."""
        checks.register(check_settings)
        setting_changed.connect(conf.forget, dispatch_uid="otpd")
