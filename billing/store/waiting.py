"""Moments until which something waits, by a clock that may leap.

Nothing of ours waits longer than `LONGEST_WAIT`, or than a limit of its own. A moment that lies
further ahead was written by a clock that was ahead, and must keep nobody waiting until that time
comes again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, or_
from sqlalchemy.orm import InstrumentedAttribute

# Longer than any lease can be, with a request and what the gateway may hide (settings.py).
LONGEST_WAIT = timedelta(hours=2)


def waits(until: datetime | None, now: datetime, longest: timedelta = LONGEST_WAIT) -> bool:
    """Whether something waits now, of what waits no longer than `longest`."""
    return until is not None and now < until <= now + longest


def is_time(
    until: InstrumentedAttribute[Any], now: datetime, longest: timedelta = LONGEST_WAIT
) -> ColumnElement[bool]:
    """The rows that do not wait, by the moment of each; one without a moment is none of them."""
    return or_(until <= now, until > now + longest)


def no_later(until: datetime, now: datetime) -> datetime:
    """The moment, where it is one of ours; else the last that it can have been."""
    return min(until, now + LONGEST_WAIT)
