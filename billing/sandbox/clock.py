"""The sandbox's own clock: the real one plus an offset, or one that only moves by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

SEOUL = ZoneInfo("Asia/Seoul")
# Nine hours, without summer time since 1988. Asked for many times in every charge: counted, not
# looked up.
_AHEAD_SECONDS, _DAY_SECONDS, _FIRST_DAY = 9 * 3600, 86_400, date(1970, 1, 1)


class SandboxClock:
    """Tells the moment to everything in the sandbox; nothing else in it reads a clock.

    `offset` is what control requests move. With `real()` time goes on by itself, with `manual()`
    it stands still between moves, which makes a simulation repeatable.
    """

    def __init__(self, source: Callable[[], datetime], offset: timedelta = timedelta(0)) -> None:
        self._source = source
        self.offset = offset

    @classmethod
    def real(cls) -> SandboxClock:
        """The host's clock, until it is moved."""
        return cls(lambda: datetime.now(UTC))

    @classmethod
    def manual(cls, start: datetime) -> SandboxClock:
        """A clock that stands at `start` (aware) until it is moved. Raises `ValueError`."""
        fixed = aware(start)
        return cls(lambda: fixed)

    def now(self) -> datetime:
        """The moment, aware UTC."""
        return self._source() + self.offset

    def unix(self) -> float:
        """The moment in unix seconds."""
        return self.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Move by `seconds`; below zero moves back. Raises `OverflowError` beyond year 9999."""
        self.now() + timedelta(seconds=seconds)
        self.offset += timedelta(seconds=seconds)

    def set(self, moment: datetime) -> None:
        """Move to `moment` (aware). Raises `ValueError` for a naive one."""
        self.offset = aware(moment) - self._source()


def aware(moment: datetime) -> datetime:
    """The same moment in UTC. Raises `ValueError` for one without an offset."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs its offset from UTC")
    return moment.astimezone(UTC)


def moment_of(text: str) -> datetime:
    """A moment as people write it. Raises `ValueError` that names the text and the remedy."""
    try:
        return aware(datetime.fromisoformat(text))
    except ValueError:
        like = "2027-02-25T09:59:50+09:00"
        raise ValueError(f"{text!r} is no moment with its offset; write it like {like}") from None


def seoul_day(unix: float) -> date:
    """The calendar day in Korea: all days of phone billing are Korean (docs/gateway.md §1)."""
    return _day((int(unix) + _AHEAD_SECONDS) // _DAY_SECONDS)


@lru_cache(maxsize=4096)
def _day(since_1970: int) -> date:
    return _FIRST_DAY + timedelta(days=since_1970)
