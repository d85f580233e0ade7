"""Each difference has its own advice, and what may be done depends on what stands in the book."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.cycle import CycleStatus
from billing.domain.reconciliation import SURPLUS, Difference, DifferenceKind
from billing.domain.remedies import Remedy, remedy

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
MONTHS_END = datetime(2026, 11, 30, 15, 0, tzinfo=UTC)


def advice(kind: DifferenceKind, now: datetime = NOW, **facts: Any) -> Remedy:
    return remedy(replace(Difference(kind, NOW, "imp_1", "mw-1"), **facts), now, SEOUL)


# A few words of each, in both languages: what the person is to do.
OWN = {
    DifferenceKind.NOT_ENROLLED: ("nobody enrolled the key", "구독이 만들어지지 않았습니다"),
    DifferenceKind.STRANGER: ("A key that this book does not know", "이 장부에 없는 빌링키"),
    DifferenceKind.FAILED: ("the gateway says failed", "결제사는 실패"),
    DifferenceKind.MISSING: ("does not know this payment", "이 결제가 없습니다"),
    DifferenceKind.NOT_FINAL: ("Look again tomorrow", "내일 다시"),
    DifferenceKind.AMOUNT: ("The amounts differ", "금액이 달라"),
    DifferenceKind.CUSTOMER: ("another customer's key", "고객 또는 주문번호가"),
    DifferenceKind.PARTLY_CANCELLED: ("Part of the payment was given back", "일부만 취소"),
    DifferenceKind.NOT_REFUNDED: ("the gateway still holds the money", "장부는 환불"),
    DifferenceKind.SANDBOX: ("A test payment among live ones", "테스트"),
    DifferenceKind.SCHEDULED: ("a second charger", "예약을 취소"),
}


@pytest.mark.parametrize("kind", OWN)
def test_each_kind_has_its_own_advice_whatever_the_book_says(kind: DifferenceKind) -> None:
    told = {
        advice(kind, cycle_status=status, subscription_id=owner)
        for status in (None, *CycleStatus)
        for owner in (None, 7)
    }
    assert len(told) == 1
    (one,) = told
    assert OWN[kind][0] in one.en
    assert OWN[kind][1] in one.ko


def test_a_cancellation_that_the_book_can_follow_and_one_that_it_cannot() -> None:
    followed = advice(DifferenceKind.CANCELLED, cycle_status=CycleStatus.PAID)
    assert "marks the month refunded" in followed.en
    for facts in ({}, {"cycle_status": CycleStatus.OPEN}):
        first = advice(DifferenceKind.CANCELLED, **facts)
        assert "that registered this billing key was given back" in first.en
        assert "최초 결제가 취소" in first.ko
    unsure = advice(DifferenceKind.CANCELLED, cycle_status=CycleStatus.PAID, confirmed=False)
    assert unsure == first


@pytest.mark.parametrize("status", [CycleStatus.OPEN, CycleStatus.MISSED])
def test_a_payment_that_counts(status: CycleStatus) -> None:
    told = advice(DifferenceKind.PAID_ELSEWHERE, cycle_status=status, subscription_id=7)
    assert "It counts as this month's payment" in told.en
    assert told == advice(DifferenceKind.PAID_ELSEWHERE, coming=True, subscription_id=7)


def test_a_payment_of_a_month_that_is_not_open_yet_counts_later() -> None:
    told = advice(DifferenceKind.PAID_ELSEWHERE, subscription_id=7)
    assert "counts as that month's payment" in told.en


def test_what_a_person_must_compare() -> None:
    """Nobody's payment, and one of a month that is settled."""
    for facts in ({}, {"cycle_status": CycleStatus.PAID, "subscription_id": 7}):
        assert "nothing is changed by itself" in advice(DifferenceKind.PAID_ELSEWHERE, **facts).en


@pytest.mark.parametrize("owner", [None, 7])
def test_a_payment_that_stands_in_a_refunded_month(owner: int | None) -> None:
    told = advice(
        DifferenceKind.PAID_ELSEWHERE, cycle_status=CycleStatus.REFUNDED, subscription_id=owner
    )
    assert "keep it" in told.en


@pytest.mark.parametrize("kind", sorted(SURPLUS))
def test_what_was_paid_too_much_is_given_back_until_the_months_end(kind: DifferenceKind) -> None:
    def told(now: datetime, **facts: Any) -> Remedy:
        return advice(kind, now, **facts)

    last = MONTHS_END - timedelta(microseconds=1)
    assert told(last, refund_by=MONTHS_END) == Remedy(
        "The customer paid too much: `maewol refund mw-1 --imp-uid imp_1` before"
        " 2026-12-01 00:00 (Seoul).",
        "고객이 더 낸 결제입니다. 2026-12-01 00:00(서울) 전에 `maewol refund mw-1 --imp-uid"
        " imp_1`로 환불하십시오.",
    )
    late = told(MONTHS_END, refund_by=MONTHS_END)
    assert late.en.endswith("pay it back by transfer.")
    assert late.ko.endswith("계좌로 환불하십시오.")
    assert late == told(NOW)


@pytest.mark.parametrize("refund_by", [MONTHS_END, None])
def test_which_of_two_payments_is_kept(refund_by: datetime | None) -> None:
    told = advice(DifferenceKind.DOUBLE, refund_by=refund_by, keep="imp_0")
    assert told.en.endswith(" Keep imp_0.")
    assert told.ko.endswith(" 남겨 둘 결제: imp_0.")
