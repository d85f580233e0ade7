"""Refund: one payment given back through the gateway, whole and within its calendar month.

The gateway takes phone payments back in full only, and only in the calendar month (Asia/Seoul) in
which they were made (docs/gateway.md §8). A refund has the life of a charge: written down before
anything is sent, asked about when the answer is lost, never repeated on a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from billing.domain.calendar import beyond, day_of, start_of
from billing.domain.money import Won
from billing.domain.outcome import NotSent, Unknown
from billing.domain.status import Transitions


class RefundStatus(StrEnum):
    REQUESTED = "requested"
    SENDING = "sending"
    # The request may have left. Only asked about until the gateway's own row says what happened.
    UNKNOWN = "unknown"
    DONE = "done"
    REFUSED = "refused"


# A payment has at most one refund in these; REFUSED leaves room for another try.
STANDING = frozenset(
    {RefundStatus.REQUESTED, RefundStatus.SENDING, RefundStatus.UNKNOWN, RefundStatus.DONE}
)
OPEN = STANDING - {RefundStatus.DONE}

REFUND_TRANSITIONS = Transitions(
    "refund",
    {
        RefundStatus.REQUESTED: frozenset(
            # Found cancelled already, or its month is over, before anything was sent.
            {RefundStatus.SENDING, RefundStatus.DONE, RefundStatus.REFUSED}
        ),
        RefundStatus.SENDING: frozenset(
            {RefundStatus.DONE, RefundStatus.UNKNOWN, RefundStatus.REQUESTED}
        ),
        RefundStatus.UNKNOWN: frozenset(
            {RefundStatus.DONE, RefundStatus.REFUSED, RefundStatus.REQUESTED}
        ),
        RefundStatus.DONE: frozenset(),
        RefundStatus.REFUSED: frozenset(),
    },
)


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """One request to take a payment back. `amount` is what the gateway must still hold of it."""

    imp_uid: str
    merchant_uid: str
    amount: Won
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The gateway took the whole payment back."""

    imp_uid: str
    cancelled_at: datetime


CancelOutcome = Cancelled | NotSent | Unknown

# What a month without a payment means, in English and Korean: in the same words wherever it is
# said. (That it is so the documents only suggest, which is why the charge is tried all the same.)
REFUSED_NEXT_MONTH = (
    "Next month's payment will be refused (the chain is broken): only a new registration by the"
    " customer helps.",
    "다음 달 결제는 거절되고(결제 이력 단절), 고객이 새로 등록해야만 다시 결제할 수 있습니다.",
)


def month_of(moment: datetime, zone: ZoneInfo) -> date:
    """The first day of the calendar month, in `zone`, that holds a moment."""
    return day_of(moment, zone).replace(day=1)


def month_after(month: date) -> date:
    """The first day of the next month. Raises `InvalidInput` at the end of the calendar."""
    if (month.year, month.month) == (date.max.year, date.max.month):
        raise beyond(month)
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def month_before(month: date) -> date:
    """The first day of the month before."""
    return (month - timedelta(days=1)).replace(day=1)


def refundable_until(paid_at: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which a payment made then can no longer be taken back."""
    return start_of(month_after(month_of(paid_at, zone)), zone)
