"""The month's report as files for spreadsheets: its days, declines, losses and charges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from billing.domain.month_figures import Unpaid
from billing.presenting import cells
from billing.services.report import CodeCount, Day

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
_DECLINES = ("decline_class", "code", "count")
_LOST = ("reason", "last_decline", "count", "won")
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


def declines(codes: Sequence[CodeCount], beyond: int) -> Iterator[str]:
    """A line for each class and code of the carrier. What was counted `beyond` the texts that were
    read stands in a last line without either, so that the column adds up."""
    rest = [("", "", beyond)] if beyond else []
    told = [(one.decline_class, one.code, one.declines) for one in codes]
    return cells.lines(_DECLINES, [[*told, *rest]])


def lost(parts: Sequence[Unpaid]) -> Iterator[str]:
    """A line for each way in which months closed unpaid; `last_decline` is the class of the last
    refusal, where there was one."""
    told = [(one.reason, one.last_decline, one.sum.count, one.sum.won) for one in parts]
    return cells.lines(_LOST, [told])


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
