"""Where an end user is, behind proxies that can be trusted."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http import HttpRequest


def client_ip(request: HttpRequest, trusted_proxies: int) -> str:
    """Tell the end user's address; empty where it cannot be known.

    Each proxy appends to X-Forwarded-For whom it was called by, and what stands before that
    is what the caller wrote there: anything. So the address is the one that the outermost
    of one's own proxies has seen, counted from the right; with no proxy, or where there
    were fewer than there should be, the one that this very connection comes from.
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
    """Read an address as proxies write it, with or without a port."""
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
