"""What the judge reads: what was agreed with each customer, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Expected:
    """What one customer agreed to, and how the run must end for them: paid, unpaid, untouched."""

    customer_uid: str
    anchor_on: date
    ending: str
    amount: int
    name: str
    buyer_name: str
    buyer_email: str
    buyer_tel: str


@dataclass(frozen=True, slots=True)
class History:
    """The gateway's payments and charge requests; the book's cycles, counts and broken facts."""

    expected: Sequence[Expected]
    payments: Sequence[Row]
    requests: Sequence[Row]
    cycles: Sequence[Row]
    status: Row
    broken: Sequence[Row]
    at: datetime
    declines_per_day: int
    margin: timedelta


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    customer_uid: str
    what: str
