"""How often something may happen: for each peer, and for all together. Each process counts."""

from __future__ import annotations

import ipaddress
from typing import Final

from fastapi import Request
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

_ALL: Final = "all"


class Limiter:
    """Counts in windows; `each` for one peer, `together` for everybody."""

    def __init__(self, each: RateLimitItem, together: RateLimitItem) -> None:
        self._each, self._together = each, together
        self._counts = FixedWindowRateLimiter(MemoryStorage())

    def wait(self, peer: str) -> int | None:
        """None for who may come in, which is counted; else the seconds to wait.

        Whoever is over a limit of its own does not use up the limit of all."""
        for item, name in ((self._each, peer), (self._together, _ALL)):
            if not self._counts.hit(item, name):
                return item.get_expiry()
        return None


def peer_of(request: Request) -> str:
    """Who is counted as one: an address, or an IPv6 network, of which one host has 2^64."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    # Proxies that listen for both kinds tell an IPv4 address so. All of these are in one network.
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
