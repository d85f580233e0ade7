"""The life of a refund, and the month in which a payment can be taken back."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.errors import InvalidInput, TransitionRefused
from billing.domain.refund import (
    OPEN,
    REFUND_TRANSITIONS,
    STANDING,
    RefundStatus,
    month_after,
    month_before,
    month_of,
    refundable_until,
)

REQUESTED, SENDING, UNKNOWN, DONE, REFUSED = RefundStatus
LAWFUL = {
    (REQUESTED, SENDING),
    (REQUESTED, DONE),
    (REQUESTED, REFUSED),
    (SENDING, DONE),
    (SENDING, UNKNOWN),
    (SENDING, REQUESTED),
    (UNKNOWN, DONE),
    (UNKNOWN, REFUSED),
    (UNKNOWN, REQUESTED),
}


@pytest.mark.parametrize("before", RefundStatus)
@pytest.mark.parametrize("after", RefundStatus)
def test_every_change_of_status(before: RefundStatus, after: RefundStatus) -> None:
    if (before, after) in LAWFUL:
        REFUND_TRANSITIONS.check(before, after)
        return
    with pytest.raises(TransitionRefused, match=r"^refund"):
        REFUND_TRANSITIONS.check(before, after)


def test_only_a_refused_one_leaves_room_for_another() -> None:
    assert set(RefundStatus) - STANDING == {REFUSED}
    assert set(RefundStatus) - OPEN == {REFUSED, DONE}


@pytest.mark.parametrize(
    ("month", "before", "after"),
    [
        (date(2026, 1, 1), date(2025, 12, 1), date(2026, 2, 1)),
        (date(2026, 11, 1), date(2026, 10, 1), date(2026, 12, 1)),
        (date(2026, 12, 1), date(2026, 11, 1), date(2027, 1, 1)),
    ],
)
def test_months_beside(month: date, before: date, after: date) -> None:
    assert (month_before(month), month_after(month)) == (before, after)


def test_no_month_follows_the_last_of_the_calendar() -> None:
    with pytest.raises(InvalidInput, match="9999-12"):
        month_after(date.max)
    assert month_after(date(9998, 12, 31)) == date(9999, 1, 1)


def test_a_payment_can_be_taken_back_in_its_month_in_seoul() -> None:
    last = datetime(2026, 11, 30, 14, 59, 59, tzinfo=UTC)
    first = datetime(2026, 11, 30, 15, tzinfo=UTC)
    assert (month_of(last, SEOUL), month_of(first, SEOUL)) == (date(2026, 11, 1), date(2026, 12, 1))
    assert refundable_until(last, SEOUL) == first
    assert refundable_until(first, SEOUL) == datetime(2026, 12, 31, 15, tzinfo=UTC)
