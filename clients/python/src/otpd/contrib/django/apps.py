"""Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

from otpd.contrib.django import conf
from otpd.contrib.django.checks import check_settings


class OtpdConfig(AppConfig):
    """Application with the views of otpd."""

    name = "otpd.contrib.django"
    label = "otpd"
    verbose_name = "One-time passwords"

    def ready(self) -> None:
        """Register the check of the settings, and reload them if a test changes them."""
        checks.register(check_settings)
        setting_changed.connect(conf.forget, dispatch_uid="otpd")
