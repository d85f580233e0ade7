"""The product's own client of the gateway."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore


def a_client(url: str, width: int) -> PortOneClient:
    """One for an event loop, with so many connections at most."""
    return PortOneClient(
        url,
        "key",
        "secret",
        tokens=MemoryTokenStore(),
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        charge_timeout=60.0,
        include_sandbox=False,
        max_connections=width,
    )
