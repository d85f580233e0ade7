"""The only module that reads a clock.

Billing time is the database's: leases, windows and settle times of all hosts are measured by one
clock, so that a host whose own clock is wrong cannot expire a lease or open a window early
(docs/reliability.md, The clock). The offset in the `installation` row is zero in production. The
demo, the simulation and the tests move it together with the sandbox's clock; against a real gateway
the skew guard stops everything as soon as the two disagree by more than a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

# Reads the moment inside a transaction.
MomentSource = Callable[[Session], datetime]

_DATABASE_TIME = text(
    "SELECT clock_timestamp() + coalesce((SELECT clock_offset FROM installation), interval '0')"
)


def database_time(session: Session) -> datetime:
    """The moment by the database's clock, aware UTC."""
    moment: datetime = session.execute(_DATABASE_TIME).scalar_one()
    return moment.astimezone(UTC)


def host_time() -> datetime:
    """The moment by this host's clock, aware UTC: for log lines and token ages, never billing."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that only goes forward: for durations."""
    return time.monotonic()
