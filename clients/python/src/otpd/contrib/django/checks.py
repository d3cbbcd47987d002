"""Tells of settings that are not as they must be, by `manage.py check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core import checks

from otpd.contrib.django import conf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.apps import AppConfig


def check_settings(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001 - what Django gives to checks
    **kwargs: Any,  # noqa: ANN401, ARG001
) -> list[checks.CheckMessage]:
    """Name each setting of OTPD that is wrong."""
    return [
        checks.Error(f"{problem.where}: {problem.what}", hint=problem.remedy, id="otpd.E001")
        for problem in conf.problems()
    ]
