"""The pace: what share of the rate ceiling is used while the gateway asks us to slow down.

Halved when it does (HTTP 429), a tenth after the gateway was away; then a tenth more every quarter
of a minute. So speed returns by itself, and never at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

FULL = 1.0
SLOWEST = 1 / 64
AFTER_AN_OUTAGE = 0.1
STEP = 0.1
STEP_EVERY = timedelta(seconds=15)
# So long it takes at most until all of the ceiling is used again.
_WHOLE_WAY = STEP_EVERY * (FULL / STEP)
# One burst of refusals is one request to slow down, however many charges were in it.
ONE_BURST = timedelta(seconds=5)
# Where no ceiling is set, a share needs something to be a share of. In charges per second.
UNLIMITED = 200.0


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The limits that a merchant sets: charges a second (0: none), and how many at once while
    nothing was approved lately (0: no such limit)."""

    rate: float
    canaries: int


def pace_at(pace: float, slowed_at: datetime | None, now: datetime) -> float:
    """The share that may be used now, slowed at `slowed_at` to `pace`."""
    if slowed_at is None or slowed_at - now > _WHOLE_WAY:
        # Written by a clock that was ahead: it would be slow until that moment comes.
        return FULL
    steps = max((now - slowed_at) // STEP_EVERY, 0)
    return min(pace + STEP * steps, FULL)


def slower(pace: float, slowed_at: datetime | None, now: datetime) -> tuple[float, datetime]:
    """The pace after the gateway asked to slow down, and since when it holds."""
    if slowed_at is not None and timedelta(0) <= now - slowed_at < ONE_BURST:
        return pace, slowed_at
    return max(pace_at(pace, slowed_at, now) / 2, SLOWEST), now


def rate_at(ceiling: float, pace: float) -> float:
    """Charges per second; 0 is no limit, as in the setting."""
    if pace >= FULL:
        return ceiling
    return (ceiling or UNLIMITED) * pace
