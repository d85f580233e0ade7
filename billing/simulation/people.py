"""The people of a run: subscribers of all kinds, their lives, and the merchant's own hands."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from billing.sandbox import NewCustomer

SEOUL: Final = ZoneInfo("Asia/Seoul")
# Anchors that meet the ends of months, of windows and of days.
_ANCHOR_DAYS: Final = (1, 2, 4, 5, 6, 10, 15, 20, 24, 26, 27, 28, 29, 30, 31)
_HEADER: Final = (
    "customer_uid",
    "amount",
    "order_name",
    "initial_paid_at",
    "initial_merchant_uid",
    "last_paid_on",
    "buyer_name",
    "buyer_tel",
)


@dataclass(frozen=True, slots=True)
class Person:
    """A subscriber: what the gateway knows, and what the merchant's file says."""

    customer_uid: str
    amount: int
    order_name: str
    initial_paid_at: datetime
    initial_merchant_uid: str
    last_paid_at: datetime | None
    tells_last_paid: bool
    buyer_name: str
    buyer_tel: str
    buyer_email: str = ""
    carrier_knows: bool = True

    @property
    def anchor(self) -> date:
        return self.initial_paid_at.astimezone(SEOUL).date()

    def at_gateway(self) -> NewCustomer:
        """The billing key with its past."""
        return NewCustomer(
            customer_uid=self.customer_uid,
            amount=self.amount,
            name=self.order_name,
            paid_at=self.initial_paid_at,
            last_paid_at=self.last_paid_at,
            merchant_uid=self.initial_merchant_uid,
            buyer_name=self.buyer_name,
            buyer_tel=self.buyer_tel,
            buyer_email=self.buyer_email,
            carrier_knows=self.carrier_knows,
        )

    def in_file(self) -> tuple[str, ...]:
        """The line of the merchant's file."""
        last = self.last_paid_at if self.tells_last_paid else None
        return (
            self.customer_uid,
            str(self.amount),
            self.order_name,
            self.initial_paid_at.isoformat(),
            self.initial_merchant_uid,
            last.astimezone(SEOUL).date().isoformat() if last else "",
            self.buyer_name,
            self.buyer_tel,
        )


def population(seed: str, count: int, start: datetime) -> list[Person]:
    """`count` subscribers whose chains are whole at `start`. Each has dice of its own, so that
    leaving one out changes no other."""
    days = random.Random(f"{seed}/anchors").sample(_ANCHOR_DAYS, 4)  # noqa: S311
    return [_person(seed, number, days, start) for number in range(1, count + 1)]


def _person(seed: str, number: int, days: Sequence[int], start: datetime) -> Person:
    dice = random.Random(f"{seed}/person/{number}")  # noqa: S311 - repeatable on purpose
    here = start.astimezone(SEOUL)
    months = dice.choice((1, 1, 2, 5, 13, 29))
    # Minutes around midnight tell Korean days from those of other zones.
    at = time(dice.choice((0, 0, 8, 9, 14, 23)), dice.randrange(60), tzinfo=SEOUL)
    first = datetime.combine(_clamped(here.date(), -months, dice.choice(days)), at).astimezone(UTC)
    anchor = first.astimezone(SEOUL).day
    this_month = datetime.combine(_clamped(here.date(), 0, anchor), at).astimezone(UTC)
    last_month = datetime.combine(_clamped(here.date(), -1, anchor), at).astimezone(UTC)
    last = this_month if this_month < start - timedelta(days=1) else last_month
    return Person(
        customer_uid=f"customer-{number}",
        amount=dice.choice((301, 9_900, 15_000, 49_500, 300_000)),
        order_name=f"정기구독 {number}",
        initial_paid_at=first,
        initial_merchant_uid=f"initial-{number}",
        last_paid_at=last if last > first else None,
        tells_last_paid=dice.random() < 0.8,
        buyer_name="홍길동",
        buyer_tel=f"010-0000-{number:04d}",
        carrier_knows=dice.random() >= 0.01,
    )


def _clamped(day: date, months: int, wanted: int) -> date:
    """Day `wanted` of the month `months` away, or that month's last."""
    year, month0 = divmod(day.year * 12 + day.month - 1 + months, 12)
    for one in range(wanted, 27, -1):
        try:
            return date(year, month0 + 1, one)
        except ValueError:
            continue
    return date(year, month0 + 1, min(wanted, 27))


def file_of(people: Sequence[Person]) -> io.BytesIO:
    """The merchant's CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_HEADER, *(one.in_file() for one in people)])
    return io.BytesIO(text.getvalue().encode())


@dataclass(frozen=True, slots=True)
class Trouble:
    """What befalls a subscriber's line at a moment: a condition, until it is lifted."""

    at: datetime
    customer_uid: str
    condition: str
    until: datetime | None
    limit: bool = False


def troubles(
    seed: str, people: Sequence[Person], start: datetime, end: datetime, share: float
) -> list[Trouble]:
    """The ordinary life of subscribers: limits reached, bills unpaid, numbers moved. `share` is the
    chance of any trouble for one subscriber in one month."""
    found = [
        trouble
        for person in people
        for trouble in _of_person(
            random.Random(f"{seed}/life/{person.customer_uid}"),  # noqa: S311
            person,
            start,
            end,
            share,
        )
    ]
    return sorted(found, key=lambda one: (one.at, one.customer_uid))


def _of_person(
    dice: random.Random, person: Person, start: datetime, end: datetime, share: float
) -> Iterator[Trouble]:
    month = 0
    while True:
        due = _clamped(start.astimezone(SEOUL).date(), month, person.anchor.day)
        month += 1
        begins = datetime.combine(due, time(0), SEOUL).astimezone(UTC) - timedelta(days=6)
        if begins >= end:
            return
        chance, kind = dice.random(), dice.random()
        lasts = timedelta(days=dice.uniform(6, 13))
        if chance >= share or begins < start:
            continue
        trouble = Trouble(begins, person.customer_uid, "", begins + lasts)
        if kind < 0.4:
            yield replace(trouble, limit=True)
        elif kind < 0.7:
            yield replace(trouble, condition="D")
        elif kind < 0.85:
            yield replace(trouble, condition=dice.choice(("0098", "0095", "0099")))
        elif kind < 0.93:
            yield replace(trouble, condition="B")
        else:
            yield replace(trouble, condition="E", until=None)
