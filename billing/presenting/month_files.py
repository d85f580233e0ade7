"""The month's report as files for spreadsheets: one of its days, one of every charge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from billing.presenting import cells
from billing.services.report import Day

_DAYS = (
    "on",
    "collected_count",
    "collected_won",
    "refunded_count",
    "refunded_won",
    "net_won",
    "refunded_besides_count",
    "refunded_besides_won",
)
_CHARGES = (
    "customer_uid",
    "merchant_uid",
    "imp_uid",
    "amount",
    "paid_at",
    "attempts",
    "cycle",
    "status",
    "reason",
)


def name(first_day: date, what: str) -> str:
    """Under which name a part of a month's report is kept, such as `days.csv`."""
    return f"maewol-report-{first_day:%Y-%m}{what}"


def days(found: Sequence[Day]) -> Iterator[str]:
    """A line for each day, also for one that brought nothing."""
    return cells.lines(_DAYS, [map(_day, found)])


def charges(pages: Iterable[Sequence[Any]], zone: ZoneInfo) -> Iterator[str]:
    """A line for each payment that came in, in the order of the payments. `attempts` are requests
    of ours: 0 for a payment that Maewol did not make."""
    return cells.lines(_CHARGES, ((_charge(row, zone) for row in page) for page in pages))


def _charge(row: Any, zone: ZoneInfo) -> Sequence[object]:
    return [
        row.customer_uid,
        row.paid_merchant_uid,
        row.paid_imp_uid,
        row.amount,
        row.paid_at.astimezone(zone),
        row.attempts,
        row.number,
        row.status,
        row.reason,
    ]


def _day(day: Day) -> Sequence[object]:
    return [
        day.on,
        day.collected.count,
        day.collected.won,
        day.refunded.count,
        day.refunded.won,
        day.net_won,
        day.besides.count,
        day.besides.won,
    ]
