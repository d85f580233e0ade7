"""One month as a calendar: when its bands lie, how they stand, and what each day carries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from billing.domain.calendar import CycleDates, cycle_dates, cycle_number_of, end_of, start_of
from billing.domain.cycle import CycleStatus
from billing.domain.money import Sum
from billing.domain.policy import BillingPolicy
from billing.domain.refund import month_after
from billing.store import figures
from billing.store.figures import Collected, CollectedInHour
from billing.store.session import Book


@dataclass(frozen=True, slots=True)
class Band:
    """The cycles of a month that are due on one day, and so share window and band. `expected` are
    those whose cycle is still to open."""

    dates: CycleDates
    expected: Sum
    by_status: dict[CycleStatus, Sum]

    @property
    def total(self) -> Sum:
        return sum(self.by_status.values(), self.expected)

    @property
    def unpaid(self) -> Sum:
        """What may still be charged."""
        return self.expected + self.of("open")

    def of(self, status: str) -> Sum:
        return self.by_status.get(CycleStatus(status), Sum())


@dataclass(frozen=True, slots=True)
class DayOfMonth:
    """One day: the first attempts that fall on it, the unpaid charges whose band it belongs to,
    and the money that was paid on it."""

    on: date
    first: Sum
    in_band: Sum
    paid: Collected


@dataclass(frozen=True, slots=True)
class Month:
    """`first_day` names the month; `today` may lie elsewhere."""

    first_day: date
    now: datetime
    bands: list[Band]
    days: list[DayOfMonth]


def month(book: Book, policy: BillingPolicy, first_day: date) -> Month:
    """The month that begins on `first_day`: what was, and what is still expected."""
    zone, last_day = policy.plan.zone, month_after(first_day) - timedelta(days=1)
    begins, ends = start_of(first_day, zone), end_of(last_day, zone)
    with book.transaction() as tx:
        now = tx.now
        cohorts = figures.month(tx.session, first_day)
        groups = figures.to_come(tx.session, ends, zone) if ends > now else []
        hours = figures.by_hour(tx.session, begins, ends, zone)
    by_day: dict[date, dict[CycleStatus, Sum]] = defaultdict(dict)
    for cohort in cohorts:
        by_day[cohort.due_on][CycleStatus(cohort.status)] = Sum(cohort.count, cohort.won)
    expected: dict[date, Sum] = defaultdict(Sum)
    for group in groups:
        due_on = _dates(policy, first_day, group.anchor_day).due_on
        expected[due_on] += Sum(group.count, group.won)
    bands = [
        # Whoever is due on the last day of a short month has the same band, whatever the anchor.
        Band(_dates(policy, first_day, due_on.day), expected[due_on], by_day[due_on])
        for due_on in sorted({*by_day, *expected})
    ]
    return Month(first_day, now, bands, list(_days(bands, paid_by_day(hours), first_day, last_day)))


def paid_by_day(hours: Sequence[CollectedInHour]) -> dict[date, Collected]:
    """The money of each day that brought any."""
    days: dict[date, Collected] = {}
    for one in hours:
        found = one.collected
        days[found.on] = days[found.on] + found if found.on in days else found
    return days


def _dates(policy: BillingPolicy, first_day: date, anchor_day: int) -> CycleDates:
    anchor_on = date(first_day.year - 1, 1, anchor_day)
    number = cycle_number_of(anchor_on, first_day)
    return cycle_dates(anchor_on, number, policy.plan.calendar)


def _days(
    bands: list[Band], paid: dict[date, Collected], first_day: date, last_day: date
) -> Iterator[DayOfMonth]:
    for ahead in range((last_day - first_day).days + 1):
        on = first_day + timedelta(days=ahead)
        first = [band.total for band in bands if band.dates.first_attempt_on == on]
        in_band = [band.unpaid for band in bands if on in band.dates.band]
        yield DayOfMonth(
            on=on,
            first=sum(first, Sum()),
            in_band=sum(in_band, Sum()),
            paid=paid.get(on, Collected(on, 0, 0, 0, 0)),
        )
