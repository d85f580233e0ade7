"""Judging one payment from both sides, and the advice that goes with each difference."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.cycle import CycleStatus
from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.domain.reconciliation import (
    SURPLUS,
    BookSide,
    Case,
    Difference,
    DifferenceKind,
    judge,
)
from billing.domain.refund import month_after, month_of, refundable_until
from billing.domain.remedies import remedy
from billing.domain.subscription import SubscriptionStatus

PAID_AT = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
PAYMENT = Payment(
    imp_uid="imp_1",
    merchant_uid="mw-1",
    status="paid",
    amount=Won(9900),
    customer_uid="ada",
    paid_at=PAID_AT,
    currency="KRW",
    pay_method="phone",
    customer_uid_usage="payment",
)
BOOK = BookSide(
    subscription_id=1,
    customer_uid="ada",
    subscription_status="active",
    amount=Won(9900),
    cycle_id=1,
    cycle_number=1,
    cycle_status="paid",
    counted=True,
    counted_as="mw-1",
)
UNCOUNTED = replace(BOOK, counted=False, counted_as=None, cycle_status="open")


def kind(payment: Payment = PAYMENT, book: BookSide | None = BOOK, **more: object) -> str | None:
    found = judge(Case(payment, book, **more), sandbox=False, zone=SEOUL)  # type: ignore[arg-type]
    return None if found is None else str(found.kind)


def found(payment: Payment, book: BookSide | None, **more: object) -> Difference:
    difference = judge(Case(payment, book, **more), sandbox=False, zone=SEOUL)  # type: ignore[arg-type]
    assert difference is not None
    return difference


def test_everything_that_is_told_of_a_second_payment() -> None:
    """All of it, from the book's side where the book knows; and until when it can be given back."""
    book = replace(
        UNCOUNTED, subscription_id=7, cycle_id=8, cycle_number=9, cycle_status="paid",
        amount=Won(9800), month_stands=True,
    )  # fmt: skip
    second = replace(PAYMENT, customer_uid="another spelling")
    assert found(second, book, double_of="imp_0") == Difference(
        kind=DifferenceKind.DOUBLE,
        at=PAID_AT,
        imp_uid="imp_1",
        merchant_uid="mw-1",
        customer_uid="ada",
        subscription_id=7,
        cycle_id=8,
        cycle_number=9,
        cycle_status="paid",
        month=date(2026, 11, 1),
        paid_at=PAID_AT,
        ledger_amount=Won(9900),
        book_amount=Won(9800),
        keep="imp_0",
        refund_by=refundable_until(PAID_AT, SEOUL),
        month_stands=True,
    )


def test_what_is_told_of_a_strangers_payment() -> None:
    stranger = found(PAYMENT, None)
    assert stranger == Difference(
        kind=stranger.kind,
        at=PAID_AT,
        imp_uid="imp_1",
        merchant_uid="mw-1",
        customer_uid="ada",
        month=date(2026, 11, 1),
        paid_at=PAID_AT,
        ledger_amount=Won(9900),
    )
    assert stranger.key == f"{stranger.kind}:imp_1"
    assert replace(stranger, imp_uid=None).key == f"{stranger.kind}:mw-1"


def test_only_what_is_too_much_can_be_given_back() -> None:
    """Whether there is anything to keep, and until when, is told for these alone."""
    for changes, kept in (({"amount": Won(9901)}, True), ({"customer_uid": "bob"}, False)):
        difference = found(replace(PAYMENT, **changes), BOOK, double_of="imp_0")  # type: ignore[arg-type]
        assert (difference.refund_by is not None) is kept
        assert difference.keep is None
    assert {DifferenceKind.DOUBLE, DifferenceKind.PAID_NOT_DUE} == SURPLUS


def test_the_book_gave_it_back_and_the_gateway_did_not() -> None:
    assert kind(book=replace(BOOK, cycle_status="refunded")) == "refund_not_at_gateway"


def test_a_test_payment_that_nobody_counts() -> None:
    assert kind(replace(PAYMENT, sandbox=True), UNCOUNTED) == "sandbox_mixed"


def test_the_payment_that_registered_the_key_is_no_new_registration() -> None:
    issue = replace(PAYMENT, customer_uid_usage="issue")
    assert kind(issue, replace(UNCOUNTED, initial=True)) is None
    assert kind(issue, UNCOUNTED) == "not_enrolled"


def test_a_payment_without_its_moment() -> None:
    begun = replace(PAYMENT, amount=Won(9901), paid_at=None, started_at=PAID_AT)
    difference = found(begun, BOOK)
    assert (difference.at, difference.month, difference.refund_by) == (PAID_AT, None, None)
    with pytest.raises(AssertionError, match="without any moment"):
        found(replace(begun, started_at=None), BOOK)
    case = Case(replace(begun, started_at=None), BOOK)
    seen = judge(case, sandbox=True, zone=SEOUL, seen_at=PAID_AT)
    assert seen is not None
    assert (seen.at, seen.month) == (PAID_AT, None)


@pytest.mark.parametrize(("status", "hours"), [("cancelled", 3), ("failed", 1), ("ready", 0)])
def test_a_difference_stands_at_the_moment_of_what_happened(status: str, hours: int) -> None:
    moments = {
        "started_at": PAID_AT,
        "failed_at": PAID_AT + timedelta(hours=1) if status == "failed" else None,
        "paid_at": PAID_AT + timedelta(hours=2) if status == "cancelled" else None,
        "cancelled_at": PAID_AT + timedelta(hours=3) if status == "cancelled" else None,
    }
    difference = found(replace(PAYMENT, status=status, **moments), BOOK)  # type: ignore[arg-type]
    assert difference.at == PAID_AT + timedelta(hours=hours)
    assert (difference.month is None) is (status != "cancelled")
    assert found(replace(PAYMENT, cancelled_at=PAID_AT + timedelta(1)), None).at == PAID_AT


def test_a_long_order_number_of_a_stranger_is_the_same_in_both() -> None:
    """The book keeps 40 characters of it."""
    long = replace(PAYMENT, merchant_uid="m" * 45)
    assert kind(long, replace(BOOK, counted_as="m" * 40)) is None
    assert kind(long, replace(BOOK, counted_as="m" * 39)) == "customer_differs"


def test_both_sides_agree() -> None:
    assert kind() is None
    assert kind(replace(PAYMENT, customer_uid=None, currency=None)) is None
    assert (
        kind(replace(PAYMENT, status="cancelled"), replace(BOOK, cycle_status="refunded")) is None
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "cancelled"}, "cancelled_at_gateway"),
        ({"status": "cancelled", "cancelled_amount": PAYMENT.amount}, "cancelled_at_gateway"),
        # Not what a refund is: the month stays paid, and a person looks.
        ({"status": "cancelled", "cancelled_amount": Won(1)}, "partly_cancelled"),
        ({"status": "failed"}, "failed_at_gateway"),
        ({"status": "ready"}, "not_final_at_gateway"),
        ({"status": "a new word"}, "not_final_at_gateway"),
        ({"cancelled_amount": Won(1)}, "partly_cancelled"),
        ({"amount": Won(9901)}, "amount_differs"),
        ({"currency": "USD"}, "amount_differs"),
        ({"customer_uid": "bob"}, "customer_differs"),
        ({"merchant_uid": "mw-2"}, "customer_differs"),
        ({"sandbox": True}, "sandbox_mixed"),
    ],
)
def test_what_the_book_counts(changes: dict[str, object], expected: str) -> None:
    assert kind(replace(PAYMENT, **changes)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "more", "expected"),
    [
        ({}, {}, "paid_elsewhere"),
        ({}, {"named": True}, "not_in_book"),
        ({}, {"double_of": "imp_0"}, "double"),
        ({"attempt_status": "declined"}, {"named": True}, "late_paid"),
        ({"attempt_status": "withdrawn"}, {"named": True}, "late_paid"),
        ({"in_flight": True}, {}, None),
        ({"in_flight": True}, {"double_of": "imp_0"}, "double"),
        ({"initial": True}, {}, None),
        ({"cycle_status": "skipped"}, {}, "paid_not_due"),
        ({"cycle_status": None, "cycle_id": None}, {}, "paid_elsewhere"),
        (
            {"cycle_status": None, "cycle_id": None, "subscription_status": "cancelled"},
            {},
            "paid_not_due",
        ),
        (
            {"cycle_status": None, "cycle_id": None, "subscription_status": "suspended"},
            {},
            "paid_not_due",
        ),
        (
            {"cycle_status": None, "cycle_id": None, "subscription_status": "paused"},
            {},
            "paid_not_due",
        ),
        (
            {
                "cycle_status": None,
                "cycle_id": None,
                "subscription_status": "paused",
                "coming": True,
            },
            {},
            "paid_elsewhere",
        ),
        ({"cycle_status": "missed", "subscription_status": "suspended"}, {}, "paid_elsewhere"),
        ({"amount": Won(1)}, {}, "amount_differs"),
        ({"customer_uid": "bob"}, {}, "customer_differs"),
    ],
)
def test_paid_and_not_counted(
    changes: dict[str, object], more: dict[str, object], expected: str | None
) -> None:
    assert kind(book=replace(UNCOUNTED, **changes), **more) == expected  # type: ignore[arg-type]


def test_registered_anew_under_a_known_name() -> None:
    issued = replace(PAYMENT, customer_uid_usage="issue")
    assert kind(issued, UNCOUNTED) == "not_enrolled"
    assert kind(issued, UNCOUNTED, double_of="imp_0") == "not_enrolled"
    first = replace(UNCOUNTED, first_month=True)
    assert kind(issued, first, double_of="imp_0") == "double"
    assert kind(issued, replace(first, initial=True)) is None


@pytest.mark.parametrize("status", ["failed", "cancelled", "ready", "a new word"])
def test_what_nobody_counts_and_is_not_paid(status: str) -> None:
    assert kind(replace(PAYMENT, status=status), UNCOUNTED) is None
    assert kind(replace(PAYMENT, status=status), None, named=True) is None


@pytest.mark.parametrize(
    ("changes", "named", "expected"),
    [
        ({}, False, "stranger"),
        ({"customer_uid_usage": "issue"}, False, "not_enrolled"),
        ({"customer_uid_usage": None}, False, None),
        ({"customer_uid_usage": None}, True, "not_in_book"),
        ({"pay_method": "card"}, False, None),
        ({"pay_method": None}, False, "stranger"),
    ],
)
def test_nobodys_payment(changes: dict[str, object], named: bool, expected: str | None) -> None:
    assert kind(replace(PAYMENT, **changes), None, named=named) == expected  # type: ignore[arg-type]


def test_every_difference_has_advice_in_both_languages() -> None:
    """For every kind, cycle and moment: English is English, Korean is Korean, and a refund that is
    advised names its deadline."""
    before, after = PAID_AT, datetime(2026, 12, 1, tzinfo=UTC)
    statuses = [None, *CycleStatus]
    for one, status, now, owner in product(DifferenceKind, statuses, (before, after), (None, 1)):
        found = Difference(
            kind=one,
            at=PAID_AT,
            imp_uid="imp_1",
            merchant_uid="mw-1",
            subscription_id=owner,
            cycle_status=status,
            refund_by=refundable_until(PAID_AT, SEOUL),
        )
        advice = remedy(found, now, SEOUL)
        assert re.search("[a-z]{3}", advice.en)
        assert not re.search("[가-힣]", advice.en)
        assert re.search("[가-힣]{2}", advice.ko)
        if "maewol refund mw-1" in advice.en:
            assert now < refundable_until(PAID_AT, SEOUL)
            assert "2026-12-01 00:00" in advice.en
            assert "2026-12-01 00:00" in advice.ko


def test_only_confirmed_payments_of_a_live_month_count() -> None:
    for one, status in product(DifferenceKind, [None, *CycleStatus]):
        found = Difference(one, PAID_AT, "imp_1", "mw-1", cycle_status=status)
        paid = one in ("paid_elsewhere", "late_paid", "not_in_book")
        assert found.countable == (paid and status in ("open", "missed"))
        assert found.takes_back == (one == "cancelled_at_gateway" and status == "paid")
        unsure = replace(found, confirmed=False)
        assert not unsure.countable
        assert not unsure.takes_back


def test_a_payment_of_the_month_that_opens_next_counts_too() -> None:
    """Its month is not in the book yet: `settle` opens it."""
    coming = replace(UNCOUNTED, cycle_id=None, cycle_status=None, coming=True)
    assert found(PAYMENT, coming).countable
    assert not found(PAYMENT, replace(coming, coming=False)).countable


@pytest.mark.parametrize("status", SubscriptionStatus)
def test_a_cancelled_first_payment(status: SubscriptionStatus) -> None:
    book = replace(UNCOUNTED, initial=True, cycle_status=None, subscription_status=status)
    found = kind(replace(PAYMENT, status="cancelled"), book)
    goes_on = status in ("active", "paused")
    assert found == ("cancelled_at_gateway" if goes_on else None)


@pytest.mark.parametrize(
    ("moment", "month", "until"),
    [
        ("2026-11-30T14:59:59Z", "2026-11-01", "2026-11-30T15:00:00Z"),
        ("2026-11-30T15:00:00Z", "2026-12-01", "2026-12-31T15:00:00Z"),
        ("2028-02-29T14:59:59Z", "2028-02-01", "2028-02-29T15:00:00Z"),
    ],
)
def test_the_month_is_seouls(moment: str, month: str, until: str) -> None:
    paid_at = datetime.fromisoformat(moment)
    assert month_of(paid_at, SEOUL).isoformat() == month
    assert refundable_until(paid_at, SEOUL) == datetime.fromisoformat(until)


def test_months_follow_each_other() -> None:
    month = datetime(1999, 1, 1, tzinfo=UTC).date()
    for count in range(1, 400):
        month = month_after(month)
        assert (month.year, month.month, month.day) == (1999 + count // 12, count % 12 + 1, 1)
