"""When to attempt inside the band: slots for first attempts, and what follows a decline.

A slot is a moment at which an attempt may be planned, given by a cron line. croniter reads those
lines here and nowhere else (ADR 0004); how a wall-clock time becomes a moment is ours, so that a
clock change neither repeats nor loses a slot.

Everything planned lies in the cycle's band and starts no later than `last_start`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum, auto
from functools import lru_cache
from itertools import pairwise
from typing import Final, Self
from zoneinfo import ZoneInfo

# croniter is annotated but ships no py.typed; `_fields` and `_firing_days` give its answers types.
from croniter import CroniterError, croniter  # type: ignore[import-untyped]

from billing.domain.calendar import CalendarPolicy, CycleDates, day_of, end_of, start_of
from billing.domain.declines import Decline, DeclineClass
from billing.domain.errors import InvalidInput

_ONE_DAY: Final = timedelta(days=1)
_INSTANT: Final = timedelta(microseconds=1)
_RANGE: Final = "is out of range"
# The limits of what a plan can work with. A band may be one day, and a day 23 hours. A merchant may
# set no more than half a day (settings.py), yet an open month keeps whatever it was opened with.
LONGEST_MARGIN: Final = timedelta(hours=22)
LONGEST_RETRY_SOON: Final = timedelta(days=1)
MOST_ATTEMPTS_PER_DAY: Final = 100
MOST_ATTEMPTS: Final = 50
# A scan finds what is due after its slot, never at it, and then a worker must have its turn. A slot
# nearer to the last start than this would be planned, told of, and never used. With the usual
# margin two scans lie less than this apart (settings.py).
_ON_ITS_WAY: Final = timedelta(minutes=15)

# A step after a single number changed its meaning between croniter 6 and 7; a range that runs
# backwards or in place means different things to different readers (croniter reads `0-0` as `*`).
# All are refused: what they were meant to say can be said plainly.
_ITEM: Final = re.compile(r"(?:\*|(?P<low>\d+)(?:-(?P<high>\d+))?)(?:/(?P<step>\d+))?", re.ASCII)
_RANDOM: Final = re.compile(r"(?<![a-z])[hr](?![a-z])", re.IGNORECASE)
_EXAMPLE: Final = "Write five fields such as '0 10 * * *' (minute hour day month weekday)"
# A date to try a line on: the days of a leap year come soon after it.
_SOME_DAY: Final = date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line: five fields, or six with the seconds last. Made by `Cron.parse` only.

    Slots are times on the wall clock of a zone, and each happens once: a time that a clock change
    repeats happens the first time (a line for every hour keeps on through the repeated hour), a
    time that a clock change skips happens as much later as the clocks were moved.
    """

    expression: str
    # Seconds of a day, ascending, at which it fires on the days on which it fires.
    times: tuple[int, ...] = field(repr=False, compare=False)
    every_hour: bool = field(repr=False, compare=False)
    every_day: bool = field(repr=False, compare=False)

    @classmethod
    def parse(cls, expression: str, *, field: str, for_each_day: bool = False) -> Cron:
        """Read a line. With `for_each_day` it must fire on every day, since a slot that skips days
        could miss a whole band.

        Raises `InvalidInput` with the name of the setting (`field`), the value and the remedy.
        """
        parts = expression.split()
        line = " ".join(parts)
        if len(parts) not in (5, 6):
            raise InvalidInput(
                field, expression, f"a cron line has 5 or 6 fields, not {len(parts)}", _EXAMPLE
            )
        if trouble := _unclear(parts):
            raise InvalidInput(field, expression, *trouble)
        if len(parts) == 6 and parts[5] == "*" and parts[0] != "*":
            raise InvalidInput(
                field,
                expression,
                "its sixth field, the seconds, says every second of those minutes",
                "The seconds stand last: write 0 there, or for every ten seconds '* * * * * */10'",
            )
        every_day = parts[2:5] == ["*", "*", "*"]
        if for_each_day and not every_day:
            raise InvalidInput(
                field,
                expression,
                "these slots must exist on every day, or a month could pass without one",
                "Write * for day, month and weekday",
            )
        try:
            minutes, hours, seconds = _fields(line)
            cron = cls(
                line,
                times=tuple(h * 3600 + m * 60 + s for h in hours for m in minutes for s in seconds),
                every_hour=len(hours) == 24,
                every_day=every_day,
            )
            next(cron._days(_SOME_DAY))
        except (CroniterError, StopIteration) as error:
            raise InvalidInput(field, expression, f"not a cron line ({error})", _EXAMPLE) from error
        return cron

    def at_or_after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The first slot that does not lie before `moment`, in UTC."""
        for day in self._days(day_of(moment, zone)):
            start = start_of(day, zone)
            offsets = self._offsets(day, zone)
            passed = bisect_left(offsets, (moment - start) / timedelta(seconds=1))
            if passed < len(offsets):
                return start + timedelta(seconds=offsets[passed])
        raise InvalidInput("moment", moment.isoformat(), "no slot follows it", "Use an earlier one")

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The first slot later than `moment`, in UTC."""
        return self.at_or_after(moment + _INSTANT, zone)

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The last slot earlier than `moment`, in UTC."""
        for day in self._days(day_of(moment, zone), backwards=True):
            start = start_of(day, zone)
            offsets = self._offsets(day, zone)
            passed = bisect_left(offsets, (moment - start) / timedelta(seconds=1))
            if passed:
                return start + timedelta(seconds=offsets[passed - 1])
        raise InvalidInput("moment", moment.isoformat(), "no slot precedes it", "Use a later one")

    def at_or_before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """The last slot that does not lie after `moment`, in UTC."""
        return self.before(moment + _INSTANT, zone)

    @property
    def longest_pause(self) -> timedelta:
        """The longest time between two slots of a line that fires on every day, where no clock
        changes."""
        tomorrow = self.times[0] + _ONE_DAY // timedelta(seconds=1)
        gaps = (later - one for one, later in pairwise((*self.times, tomorrow)))
        return timedelta(seconds=max(gaps))

    def _offsets(self, day: date, zone: ZoneInfo) -> Sequence[int]:
        """Seconds from the start of the day to each of its slots, ascending."""
        length = end_of(day, zone) - start_of(day, zone)
        if length == _ONE_DAY:
            return self.times
        return _offsets_of_odd_day(self, day, zone, length)

    def _days(self, day: date, backwards: bool = False) -> Iterator[date]:
        """The days on which it fires, from `day` (included) on, or back."""
        if not self.every_day:
            yield from _firing_days(self.expression, day, backwards)
            return
        step, last = (-_ONE_DAY, date.min) if backwards else (_ONE_DAY, date.max)
        while True:
            yield day
            if day == last:
                return
            day += step


def is_every_day(cron: Cron) -> bool:
    """Whether the line has a slot on every day, whatever the month or weekday."""
    return cron.every_day


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """When attempts may be made, as the settings say. Raises `InvalidInput` for what cannot work.

    `retry_soon` is the shortest time from a decline of the class "again soon" to its retry;
    `attempts_per_day` counts declined attempts of one day, `max_attempts` those of a cycle;
    no request starts later than `close_margin` before the band's last day ends.
    """

    charge_cron: Cron
    retry_cron: Cron
    retry_soon: timedelta
    attempts_per_day: int
    max_attempts: int
    close_margin: timedelta
    zone: ZoneInfo
    calendar: CalendarPolicy

    @property
    def fingerprint(self) -> str:
        """Tells apart what plans months differently: the moments of a month depend on no more."""
        calendar, margin = self.calendar, self.close_margin.total_seconds()
        days = f"{calendar.window_days} {calendar.band_retry_days}"
        return f"{self.charge_cron.expression} | {margin:g} | {days} | {self.zone.key}"

    def __post_init__(self) -> None:
        for name, cron in (("CHARGE_CRON", self.charge_cron), ("RETRY_CRON", self.retry_cron)):
            if not is_every_day(cron):
                _refuse(name, cron.expression, "has no slot on some days", "Use * for the days")
        minutes, most = timedelta(minutes=1), LONGEST_RETRY_SOON
        if not timedelta(0) <= self.retry_soon <= most:
            _refuse("RETRY_SOON_MINUTES", self.retry_soon, _RANGE, f"Use 0 to {most / minutes:g}")
        if not 1 <= self.attempts_per_day <= MOST_ATTEMPTS_PER_DAY:
            remedy = f"Use 1 to {MOST_ATTEMPTS_PER_DAY}"
            _refuse("ATTEMPTS_PER_DAY", self.attempts_per_day, _RANGE, remedy)
        if not 1 <= self.max_attempts <= MOST_ATTEMPTS:
            _refuse("MAX_ATTEMPTS", self.max_attempts, _RANGE, f"Use 1 to {MOST_ATTEMPTS}")
        most = LONGEST_MARGIN
        if not timedelta(0) <= self.close_margin <= most:
            remedy = f"Use 0 to {most / minutes:g}"
            _refuse("CLOSE_MARGIN_MINUTES", self.close_margin, _RANGE, remedy)


def last_start(dates: CycleDates, policy: PlanPolicy) -> datetime:
    """The last moment at which a request of this cycle may start, in UTC."""
    return end_of(dates.band.closes_on, policy.zone) - policy.close_margin


def closes_at(dates: CycleDates, policy: PlanPolicy) -> datetime:
    """The moment the window is over, in UTC."""
    return end_of(dates.window.closes_on, policy.zone)


# Everybody who is due on one day shares it, and croniter takes its time.
@lru_cache(maxsize=1024)
def first_attempt_at(dates: CycleDates, policy: PlanPolicy) -> datetime:
    """The moment of the first attempt, in UTC: the first charging slot from the first attempt day
    on. When we are late it lies in the past, which means "now".

    Where every such slot comes too late (one at 23:20 or 23:50, planned for the band's last day),
    it is the last charging slot before, if the band has one; else the middle of what is left of the
    band, which is far from both ends.
    """
    earliest = start_of(dates.first_attempt_on, policy.zone)
    latest = last_start(dates, policy)
    slot = policy.charge_cron.at_or_after(earliest, policy.zone)
    if slot <= latest - _ON_ITS_WAY:
        return slot
    slot = policy.charge_cron.at_or_before(latest - _ON_ITS_WAY, policy.zone)
    if slot >= start_of(dates.band.opens_on, policy.zone):
        return slot
    return _middle(earliest, latest)


@dataclass(frozen=True, slots=True)
class Declines:
    """How often a cycle was declined, the newest decline included: in all, and how many of those
    attempts were sent on the day of that decline."""

    total: int
    today: int

    @classmethod
    def counted(cls, sent: Sequence[datetime], declined_at: datetime, zone: ZoneInfo) -> Self:
        """From when each declined attempt was sent, and when the newest was declined."""
        today = day_of(declined_at, zone)
        return cls(len(sent), sum(day_of(moment, zone) == today for moment in sent))


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again, with a new order number, at this moment (UTC). Past means "now"."""

    at: datetime


class NoRetryReason(StrEnum):
    """Why no attempt follows."""

    PERMANENT = auto()
    """This billing key will never be charged again; the customer must register anew."""
    HELD = auto()
    """The fault may be ours: an operator must look first."""
    ATTEMPTS_USED_UP = auto()
    """The cycle had as many declines as are allowed."""
    BAND_OVER = auto()
    """No moment is left at which a request might start."""
    ASK = auto()
    """The gateway says it is paid already: inquire instead."""


@dataclass(frozen=True, slots=True)
class NoRetry:
    """No attempt follows."""

    why: NoRetryReason


_NEVER_AGAIN: Final = {
    DeclineClass.REGISTER_ANEW: NoRetryReason.PERMANENT,
    DeclineClass.CHAIN_BROKEN: NoRetryReason.PERMANENT,
    DeclineClass.MISMATCH: NoRetryReason.HELD,
    DeclineClass.ALREADY_PAID: NoRetryReason.ASK,
}


def next_attempt(
    decline: Decline,
    declined_at: datetime,
    declines: Declines,
    dates: CycleDates,
    policy: PlanPolicy,
) -> RetryAt | NoRetry:
    """What follows a decline, by its class (design notes on the gateway, section 9).

    A month without a payment ends the subscription for good, so the plan gives up late: a wait that
    would lead past the band ends on its last day, and where no slot is left but the band is not
    over, the middle of what is left serves as one. Raises `ValueError` for a naive moment.
    """
    if reason := _NEVER_AGAIN.get(decline.decline_class):
        return NoRetry(reason)
    if declines.total >= policy.max_attempts:
        return NoRetry(NoRetryReason.ATTEMPTS_USED_UP)
    today = day_of(declined_at, policy.zone)
    last_day = dates.band.closes_on
    match decline.decline_class:
        case DeclineClass.AGAIN_SOON if declines.today < policy.attempts_per_day:
            return _retry(declined_at + policy.retry_soon, dates, policy)
        case DeclineClass.NOT_TODAY if today < last_day < today + decline.wait_days * _ONE_DAY:
            return _retry(start_of(last_day, policy.zone), dates, policy, late=True)
        case DeclineClass.NOT_TODAY:
            day = today + decline.wait_days * _ONE_DAY
            return _retry(start_of(day, policy.zone), dates, policy)
        case DeclineClass.NOT_THIS_MONTH | DeclineClass.CUSTOMER_MUST_ACT:
            tomorrow = today + _ONE_DAY
            # The later on the last day, the more time the customer has to pay a bill or lift a
            # limit; and when one try is left, no day is better for it than the last.
            late = tomorrow == last_day or declines.total + 1 == policy.max_attempts
            day = max(tomorrow, last_day) if late else tomorrow
            return _retry(start_of(day, policy.zone), dates, policy, late=late)
        case _:
            return _retry(start_of(today + _ONE_DAY, policy.zone), dates, policy)


def resume_at(now: datetime, dates: CycleDates, policy: PlanPolicy) -> datetime | None:
    """When a subscription that is resumed now should be tried in this cycle, in UTC; None when it
    is too late. The first retry slot from the first attempt day on, or now where none is left."""
    latest = last_start(dates, policy)
    if now > latest:
        return None
    earliest = max(now, start_of(dates.first_attempt_on, policy.zone))
    slot = policy.retry_cron.at_or_after(earliest, policy.zone)
    return slot if slot <= latest - _ON_ITS_WAY else min(earliest, latest).astimezone(UTC)


def _retry(
    earliest: datetime, dates: CycleDates, policy: PlanPolicy, *, late: bool = False
) -> RetryAt | NoRetry:
    """The first retry slot (or the last, if `late`) from `earliest` to the end of the band."""
    earliest = max(earliest, start_of(dates.band.opens_on, policy.zone)).astimezone(UTC)
    latest = last_start(dates, policy)
    if earliest > latest:
        return NoRetry(NoRetryReason.BAND_OVER)
    last_slot = latest - _ON_ITS_WAY
    if late:
        slot = policy.retry_cron.at_or_before(last_slot, policy.zone)
    else:
        slot = policy.retry_cron.at_or_after(earliest, policy.zone)
    return RetryAt(slot if earliest <= slot <= last_slot else _middle(earliest, latest))


def _middle(earliest: datetime, latest: datetime) -> datetime:
    return earliest + max(latest - earliest, timedelta(0)) / 2


def _refuse(name: str, value: object, problem: str, remedy: str) -> None:
    shown = str(value) if isinstance(value, timedelta) else value
    raise InvalidInput(name, shown, problem, remedy)


def _unclear(parts: list[str]) -> tuple[str, str] | None:
    """What in a line could be read in more than one way: the problem and the remedy."""
    sizes = (60, 24, 31, 12, 7, 60)
    for part, size in zip(parts, sizes, strict=False):
        if _RANDOM.search(part):
            return f"{part!r} fires at random times", "Write the times themselves"
        items = part.split(",")
        if len(items) > 1 and not {"*", "?"}.isdisjoint(items):
            # croniter takes such a line, and stumbles over it when it is asked for a moment.
            return f"{part!r} names all values, and some once more", "Write * alone"
        for item in items:
            if trouble := _unclear_item(item, size):
                return trouble
    return None


def _unclear_item(item: str, size: int) -> tuple[str, str] | None:
    step = item.partition("/")[2]
    if step and not ("*" in item or "-" in item):
        return f"{item!r} has a step but no range", "Write a range such as 0-59/15"
    if step.isdecimal() and int(step) > size:
        return f"{item!r} steps beyond its field", "Write the times themselves"
    plain = _ITEM.fullmatch(item)
    if plain and plain["high"] and int(plain["low"]) >= int(plain["high"]):
        return f"{item!r} does not run forwards", "Write two ranges, as 22-23,0-2, or one number"
    return None


@lru_cache(maxsize=8)
def _offsets_of_odd_day(cron: Cron, day: date, zone: ZoneInfo, length: timedelta) -> Sequence[int]:
    """The same for a day whose clocks change. Kept, since a line may have a slot every second."""
    start, midnight = start_of(day, zone), datetime.combine(day, time.min)
    offsets = set()
    for seconds in cron.times:
        wall = (midnight + timedelta(seconds=seconds)).replace(tzinfo=zone)
        for fold in (0, 1) if cron.every_hour else (0,):
            offset = wall.replace(fold=fold).astimezone(UTC) - start
            # Where the skipped hour is the day's last (Nuuk), the slot has no day to happen on.
            if timedelta(0) <= offset < length:
                offsets.add(int(offset.total_seconds()))
    return sorted(offsets)


def _fields(line: str) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """The minutes, hours and seconds at which a line fires, ascending."""
    expanded, _ = croniter.expand(line)

    def values(index: int, size: int) -> Sequence[int]:
        return range(size) if expanded[index] == ["*"] else sorted(expanded[index])

    return values(0, 60), values(1, 24), values(5, 60) if len(expanded) == 6 else (0,)


def _firing_days(line: str, day: date, backwards: bool) -> Iterator[date]:
    """Days of a line that does not fire daily. Asked at midnight UTC, where no clock changes."""
    days = " ".join(["0", "0", *line.split()[2:5]])
    nudge = timedelta(seconds=1 if backwards else -1)
    slots = croniter(days, datetime.combine(day, time.min, UTC) + nudge)
    while True:
        slot = slots.get_prev(datetime) if backwards else slots.get_next(datetime)
        if not isinstance(slot, datetime):
            raise TypeError("croniter gave no moment")
        yield slot.date()
