"""Delivering a notice: what the receiver's answer means, and when to try again.

A notice is tried for three days, then it is a dead letter until somebody sends it again. The waits
grow, so that a fault of seconds costs a minute and one of days costs a few requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

TRIED_FOR: Final = timedelta(days=3)
# After the first failure, the second …; after the last of these always the last.
WAITS: Final = (
    timedelta(minutes=1),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(hours=4),
    timedelta(hours=8),
    timedelta(hours=12),
)
# A wait is up to a fifth shorter or longer, so that what failed together does not return together.
JITTER: Final = 0.2
LONGEST_WAIT: Final = WAITS[-1] * (1 + JITTER)
# The receiver may ask for so much patience at most: a slip of its pen must not cost the three days.
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)

# Answers of what stands before the receiver, or of a receiver that is overwhelmed: they say nothing
# about the notice.
_NOT_NOW: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Delivered:
    """Answered 2xx: it is theirs now."""

    status: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver answered with something else: it, or this notice, needs a look."""

    status: int

    @property
    def problem(self) -> str:
        if 300 <= self.status < 400:
            return f"answered {self.status}: redirects are never followed, set the address it means"
        return f"answered {self.status}"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No answer, or one that asks for patience: the others would fare no better now."""

    problem: str
    retry_after: timedelta | None = None


Delivery = Delivered | Refused | Unreachable


def meaning(status: int, retry_after: timedelta | None) -> Delivery:
    """What an HTTP answer means. `410 Gone` is no exception: a wrong deployment says that too, and
    a notice lost for it would be lost for good."""
    if 200 <= status < 300:
        return Delivered(status)
    if status in _NOT_NOW:
        return Unreachable(f"answered {status}", retry_after)
    return Refused(status)


def next_try_at(
    tries: int,
    now: datetime,
    give_up_at: datetime,
    chance: float,
    retry_after: timedelta | None = None,
) -> datetime | None:
    """When to try again after so many failures (1 or more); None to give up.

    `chance` in [0, 1) spreads the moments. The last try is made when the three days are over, so
    that a receiver that comes back late still gets the news.
    """
    if now >= give_up_at:
        return None
    wait = WAITS[min(tries, len(WAITS)) - 1] * (1 - JITTER + 2 * JITTER * chance)
    asked = min(retry_after or timedelta(0), LONGEST_RETRY_AFTER)
    return min(now + max(wait, asked), give_up_at)
