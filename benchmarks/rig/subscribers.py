"""Subscribers who are all due at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

_ZONE = ZoneInfo("Asia/Seoul")
# So long before a month ends nobody is charged any more: as little as may be set.
MARGIN_MINUTES = 6
# Within which the slowest run is over.
_A_RUN = timedelta(minutes=6)


def until_next_month(now: datetime) -> timedelta:
    """How long to wait for a month that does not end within a run; nothing, nearly always."""
    today = now.astimezone(_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    left = today + relativedelta(months=1, day=1) - now
    return left if left < timedelta(minutes=MARGIN_MINUTES) + _A_RUN else timedelta()


def first_paid_at(now: datetime) -> datetime:
    """An initial payment a month ago, whose day was two days before `now`: due, and the band is
    open. On the first two days of a month it is the first, since no window reaches back further."""
    today = now.astimezone(_ZONE).replace(hour=9, minute=0, second=0, microsecond=0)
    day = today - timedelta(days=min(2, today.day - 1))
    return day - relativedelta(months=1)


def due_now(path: Path, count: int, now: datetime) -> Path:
    """A file of so many for `maewol subscription import`."""
    paid_at = first_paid_at(now).isoformat()
    with path.open("w", encoding="utf-8") as file:
        file.write("customer_uid,amount,order_name,initial_paid_at,buyer_name,buyer_tel\n")
        for number in range(count):
            file.write(f"customer-{number},9900,Monthly plan,{paid_at},Hong,010-0000-0000\n")
    return path
