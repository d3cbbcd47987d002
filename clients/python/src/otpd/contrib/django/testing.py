"""Support for tests of projects that use the views."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from otpd.contrib.django import conf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otpd import Client


@contextmanager
def using(client: Client) -> Iterator[None]:
    """Replace the client of the views, for example by `FakeOtpd().client()`."""
    before, conf.stand_in = conf.stand_in, client
    try:
        yield
    finally:
        conf.stand_in = before
