"""Who is charged: subscribers due now, whatever day it is, and how each must end.

Anchors are days of last month; only those are taken whose band is open today for long enough.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

from billing.domain.calendar import SEOUL, cycle_dates, end_of

# A run, and the closing margin behind it, must fit in what is left of the band.
ROOM = timedelta(minutes=25)
_BUYER = ("buyer_name", "buyer_email", "buyer_tel")


class NotToday(Exception):
    """No subscriber can be charged now: the month ends too soon."""


class Ending(StrEnum):
    """How a subscriber must end."""

    PAID = auto()
    """Paid, once."""
    UNPAID = auto()
    """Asked, declined every time, and left for another day."""
    UNTOUCHED = auto()
    """Paid this month already: never asked."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Some subscribers who are alike: their share, and what the carrier says to each."""

    name: str
    share: float
    ending: Ending
    says: Sequence[str] = ()


KINDS: Sequence[Kind] = (
    Kind("plain", 0.74, Ending.PAID),
    Kind("once", 0.10, Ending.PAID, ("declined:0098",)),
    Kind("twice", 0.05, Ending.PAID, ("declined:0095", "declined:0099")),
    Kind("stubborn", 0.03, Ending.UNPAID, ("declined:0098",) * 30),
    Kind("limit", 0.03, Ending.UNPAID, ("declined:0031",) * 30),
    Kind("settled", 0.05, Ending.UNTOUCHED),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One subscriber, first paid last month."""

    customer_uid: str
    ending: Ending
    anchor_on: date
    amount: int
    order_name: str
    buyer_name: str
    buyer_email: str
    buyer_tel: str
    says: Sequence[str]
    last_paid_on: date | None

    @property
    def initial_paid_at(self) -> datetime:
        return datetime.combine(self.anchor_on, time(11, 30), SEOUL)

    def as_customer(self) -> dict[str, Any]:
        """As the sandbox wants it."""
        last = self.last_paid_on and datetime.combine(self.last_paid_on, time(0), SEOUL)
        return {
            "customer_uid": self.customer_uid,
            "amount": self.amount,
            "name": self.order_name,
            "paid_at": self.initial_paid_at.isoformat(),
            "last_paid_at": last and last.isoformat(),
            "buyer_name": self.buyer_name,
            "buyer_email": self.buyer_email,
            "buyer_tel": self.buyer_tel,
            "script": list(self.says),
        }


def members(count: int, seed: int, now: datetime) -> list[Member]:
    """So many subscribers, the same for a seed and a day. Raises `NotToday`."""
    dice = random.Random(seed)
    today = now.astimezone(SEOUL).date()
    usual, patient = _anchors(now, today), _anchors(now + timedelta(days=1), today)
    if not usual:
        raise NotToday(f"the last band of the month ends within {ROOM}: start again tomorrow")
    return list(_members(count, dice, today, usual, patient))


def _members(
    count: int, dice: random.Random, today: date, usual: list[date], patient: list[date]
) -> Iterator[Member]:
    for number in range(count):
        kind = _kind_of(number / count)
        # Who is left for another day needs one inside the band.
        anchors = patient if kind.ending is Ending.UNPAID else usual
        if not anchors:
            kind, anchors = KINDS[0], usual
        yield Member(
            customer_uid=f"chaos-{kind.name}-{number:04}",
            ending=kind.ending,
            anchor_on=dice.choice(anchors),
            amount=1_000 + 10 * number,
            order_name=f"매월 구독 {number}",
            buyer_name=f"홍길동{number}",
            buyer_email=f"member{number}@example.com",
            buyer_tel=f"010-0000-{number:04}",
            says=kind.says,
            last_paid_on=today if kind.ending is Ending.UNTOUCHED else None,
        )


def _kind_of(point: float) -> Kind:
    for kind in KINDS:
        point -= kind.share
        if point < 0:
            return kind
    return KINDS[0]


def _anchors(now: datetime, today: date) -> list[date]:
    """The days of last month whose first attempt is today or was, with room left at `now`."""
    last_of_previous = today.replace(day=1) - timedelta(days=1)
    days = (last_of_previous.replace(day=day + 1) for day in range(last_of_previous.day))
    return [
        day
        for day in days
        if (dates := cycle_dates(day, 1)).first_attempt_on <= today
        and now.astimezone(UTC) + ROOM < end_of(dates.band.closes_on)
    ]


def write_csv(cast: Sequence[Member], path: Path) -> None:
    """The cast as a merchant hands it over: `maewol subscription import`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            [
                "customer_uid",
                "amount",
                "order_name",
                "initial_paid_at",
                "last_paid_on",
                "buyer_name",
                "buyer_email",
                "buyer_tel",
            ]
        )
        for one in cast:
            facts = (one.customer_uid, one.amount, one.order_name, one.initial_paid_at.isoformat())
            buyer = (one.buyer_name, one.buyer_email, one.buyer_tel)
            rows.writerow((*facts, one.last_paid_on or "", *buyer))
