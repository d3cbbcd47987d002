"""Check of the settings, for `manage.py check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core import checks

from otpd.contrib.django import conf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.apps import AppConfig


def check_settings(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001 - signature of Django's checks
    **kwargs: Any,  # noqa: ANN401, ARG001
) -> list[checks.CheckMessage]:
    """Return an error for each invalid setting of OTPD."""
    return [
        checks.Error(f"{problem.where}: {problem.what}", hint=problem.remedy, id="otpd.E001")
        for problem in conf.problems()
    ]
