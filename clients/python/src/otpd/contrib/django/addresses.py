"""IP address of the end user, behind trusted proxies."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http import HttpRequest


def client_ip(request: HttpRequest, trusted_proxies: int) -> str:
    """Return the IP address of the end user; empty if it is unknown.

    Each proxy appends the address of its client to X-Forwarded-For. The entries before
    these were sent by the end user, and cannot be trusted. The result is therefore the
    entry of the outermost trusted proxy, counted from the right. Without proxies, or with
    fewer entries than trusted proxies, it is the address of the connection.
    """
    peer = str(request.META.get("REMOTE_ADDR", ""))
    if trusted_proxies == 0:
        return _address(peer)
    forwarded = str(request.META.get("HTTP_X_FORWARDED_FOR", ""))
    seen = [one.strip() for one in forwarded.split(",") if one.strip()]
    if len(seen) < trusted_proxies:
        return _address(peer)
    return _address(seen[-trusted_proxies])


def _address(written: str) -> str:
    """Parse an address of a proxy, with or without a port."""
    host = written
    if written.startswith("["):
        host = written[1:].partition("]")[0]
    elif written.count(":") == 1:
        host = written.partition(":")[0]
    host = host.partition("%")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""
