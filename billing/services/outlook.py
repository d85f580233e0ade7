"""The days ahead: how many charges each brings, and how much. Of a book of any size.

First attempts are exact as long as nobody joins or leaves; retries that are not planned yet are
nobody's to know. What the single charges are: `forecast`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from billing.domain.calendar import cycle_number_of, day_of, end_of
from billing.domain.money import Sum
from billing.domain.policy import BillingPolicy
from billing.services.coming import EARLIER
from billing.services.forecast import Standing, months
from billing.store import figures
from billing.store.figures import Group
from billing.store.session import Book


@dataclass(frozen=True, slots=True)
class DayAhead:
    """One day, Asia/Seoul: charges that would go out on it. Today holds what is overdue, too."""

    on: date
    charges: Sum


def outlook(book: Book, policy: BillingPolicy, days: int) -> list[DayAhead]:
    """Today and the days after it, `days` in all."""
    zone = policy.plan.zone
    with book.transaction() as tx:
        now = tx.now
        today = day_of(now, zone)
        until = end_of(today + timedelta(days=days - 1), zone)
        planned = figures.planned(tx.session, now, until, zone)
        groups = figures.to_come(tx.session, until + EARLIER, zone)
    sums = {today + timedelta(days=ahead): Sum() for ahead in range(days)}
    for on, count, won in planned:
        sums[max(on, today)] += Sum(count, won)
    for group in groups:
        for at in first_attempts(group, policy, now, until):
            sums[day_of(max(at, now), zone)] += Sum(group.count, group.won)
    return [DayAhead(on, charges) for on, charges in sums.items()]


def first_attempts(
    group: Group, policy: BillingPolicy, now: datetime, until: datetime
) -> Iterator[datetime]:
    """The first attempts of each month of a group before `until`; none where the first of them can
    be charged no more."""
    # Any initial payment on that day of a month that has 31 days stands for all of them.
    anchor_on = date(group.month.year - 1, 1, group.anchor_day)
    standing = Standing(anchor_on, cycle_number_of(anchor_on, group.month), group.closes_at)
    for at, _ in months(standing, now, now, until, policy):
        yield at
