"""Who takes part in the demo: subscribers of every kind, and how each must end.

The story plays in the last days of February 2027. A month of 28 days is the hardest one of phone
billing: anchors 29 to 31 have no day of their own in it, and the days for retries are few.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum, auto

from billing.domain.calendar import SEOUL

# A moment before the charging slot (10:00 in Seoul) of the first day.
STARTS_AT = datetime(2027, 2, 25, 9, 59, 50, tzinfo=SEOUL).astimezone(UTC)
# The windows of all cycles of the month are over.
ENDS_AT = datetime(2027, 3, 1, 0, 0, 5, tzinfo=SEOUL).astimezone(UTC)

# Whoever can put it right has done so by the second morning after.
HELPED_AT = STARTS_AT + timedelta(days=1.5)


class Ending(StrEnum):
    """How a subscriber's month must end."""

    PAID = auto()
    MISSED = auto()
    """Unpaid to the end of the window, and rightly so; the subscription is suspended."""
    NOT_DUE = auto()
    """Nothing may be charged in this story."""


class Trouble(StrEnum):
    """What a kind of subscriber meets at the sandbox, in its own words (docs/sandbox.md)."""

    NONE = ""
    SYSTEM_ERROR = "declined:0098"
    NO_ANSWER = "timeout_after_charge"
    RESET = "reset_after_charge"
    # The line's own condition, until the customer puts it right.
    LIMIT = "0031"
    OVERDUE = "0016"
    NUMBER_MOVED = "0023"
    PAID_BY_HAND = "by hand"

    @property
    def strikes_once(self) -> bool:
        """Whether the sandbox's script has it happen to the first request only."""
        return self in (Trouble.SYSTEM_ERROR, Trouble.NO_ANSWER, Trouble.RESET)

    @property
    def lasts(self) -> bool:
        """Whether it is the line's condition."""
        return self in (Trouble.LIMIT, Trouble.OVERDUE, Trouble.NUMBER_MOVED)


@dataclass(frozen=True, slots=True)
class Kind:
    """Some subscribers who are alike. `helped` says whether the customer puts it right in time."""

    name: str
    what: str
    count: int
    anchor_days: Sequence[int]
    ending: Ending
    trouble: Trouble = Trouble.NONE
    helped: bool = True

    @property
    def prefix(self) -> str:
        """How the `customer_uid` of each begins."""
        return f"demo-{self.name}-"


KINDS: Sequence[Kind] = (
    Kind("today", "due today", 90, (25,), Ending.PAID),
    Kind("late", "anchors 26 to 31: due on the last days", 70, (26, 28, 29, 30, 31), Ending.PAID),
    Kind("error", "the carrier has a fault, once", 12, (25, 30), Ending.PAID, Trouble.SYSTEM_ERROR),
    Kind("limit", "limit used up, raised next day", 12, (25, 29), Ending.PAID, Trouble.LIMIT),
    Kind("overdue", "bill overdue, paid next day", 6, (25, 31), Ending.PAID, Trouble.OVERDUE),
    Kind("silent", "charged, but no answer comes", 4, (25, 31), Ending.PAID, Trouble.NO_ANSWER),
    Kind("reset", "charged, then the line breaks", 8, (25, 28), Ending.PAID, Trouble.RESET),
    Kind("hand", "paid at the counter meanwhile", 4, (25,), Ending.PAID, Trouble.PAID_BY_HAND),
    Kind("stuck", "limit used up, never raised", 4, (25, 30), Ending.MISSED, Trouble.LIMIT, False),
    Kind("moved", "number moved", 6, (25, 29), Ending.MISSED, Trouble.NUMBER_MOVED, False),
    Kind("waiting", "not due this month any more", 48, (3, 10, 18, 20), Ending.NOT_DUE),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One subscriber, first paid in December; paid in January, too, as the chain demands."""

    customer_uid: str
    kind: Kind
    anchor_on: date
    amount: int

    @property
    def initial_paid_at(self) -> datetime:
        return _at(self.anchor_on)

    @property
    def last_paid_on(self) -> date:
        """The newest payment before the story: this month's for those who are not due any more."""
        month = (2027, 2) if self.kind.ending is Ending.NOT_DUE else (2027, 1)
        return date(*month, self.anchor_on.day)

    def as_customer(self) -> Mapping[str, object]:
        """This subscriber as the sandbox registers one, with every month paid up to the story."""
        lasting = self.kind.trouble.lasts
        return {
            "customer_uid": self.customer_uid,
            "amount": self.amount,
            "name": ORDER_NAME,
            "buyer_tel": BUYER_TEL,
            "paid_at": self.initial_paid_at.isoformat(),
            "last_paid_at": _at(self.last_paid_on).isoformat(),
            "condition": self.kind.trouble.value if lasting else "",
            "condition_until": HELPED_AT.isoformat() if lasting and self.kind.helped else None,
        }


def faults() -> Mapping[str, object]:
    """What goes wrong at the sandbox, as its faults file."""
    return {
        # Long enough that a worker can be seen, and killed, at work.
        "latency": {"charge": 250},
        "scripts": [
            {"customers": f"{kind.prefix}*", "does": [kind.trouble.value]}
            for kind in KINDS
            if kind.trouble.strikes_once
        ],
    }


def members() -> Sequence[Member]:
    """Everybody, the same at every start."""
    return list(_members())


def _members() -> Iterator[Member]:
    for kind in KINDS:
        for number in range(kind.count):
            yield Member(
                customer_uid=f"{kind.prefix}{number + 1:03}",
                kind=kind,
                anchor_on=date(2026, 12, kind.anchor_days[number % len(kind.anchor_days)]),
                amount=4_900 + 1_000 * (number % 6),
            )


def as_csv(cast: Sequence[Member]) -> str:
    """The cast as a merchant would hand it over: `maewol subscription import`."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        ("customer_uid", "amount", "order_name", "initial_paid_at", "last_paid_on", "buyer_tel")
    )
    for one in cast:
        paid_at = one.initial_paid_at.astimezone(SEOUL).isoformat()
        rows.writerow(
            (one.customer_uid, one.amount, ORDER_NAME, paid_at, one.last_paid_on, BUYER_TEL)
        )
    return out.getvalue()


ORDER_NAME = "매월 구독 Monthly plan"
# Everybody's number: the gateway compares it with last month's, nothing more is needed of it.
BUYER_TEL = "010-0000-0000"


def _at(day: date) -> datetime:
    return datetime.combine(day, time(11, 0), SEOUL).astimezone(UTC) + timedelta(seconds=day.day)
