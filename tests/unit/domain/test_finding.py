"""What look-ups prove: money first, and only what is ours, this key's, or this month's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.finding import (
    Contradiction,
    FailedThis,
    Nothing,
    PaidByEarlier,
    PaidByThis,
    PaidElsewhere,
    Pending,
    Question,
    find,
)
from billing.domain.money import Won
from billing.domain.payment import Payment

QUESTION = Question(
    customer_uid="c-1",
    amount=Won(9900),
    month=date(2026, 11, 1),
    merchant_uid="mw-x-202611-02",
    earlier=("mw-x-202611-01",),
    zone=SEOUL,
    sandbox=False,
)
PAID = Payment(
    imp_uid="imp_1",
    merchant_uid="mw-x-202611-02",
    status="paid",
    amount=Won(9900),
    customer_uid="c-1",
    paid_at=datetime(2026, 11, 20, 1, 0, tzinfo=UTC),
    currency="KRW",
)
FAILED = replace(
    PAID,
    imp_uid="imp_2",
    status="failed",
    paid_at=None,
    started_at=datetime(2026, 11, 20, 1, 0, tzinfo=UTC),
    fail_reason="[0031] 한도초과",
)


def test_no_row_is_nothing() -> None:
    assert find(QUESTION, []) == Nothing()


def test_our_own_paid_row() -> None:
    assert find(QUESTION, [FAILED, PAID]) == PaidByThis(PAID)


def test_an_earlier_attempt_that_turned_paid() -> None:
    late = replace(PAID, merchant_uid="mw-x-202611-01")
    assert find(QUESTION, [late]) == PaidByEarlier(late)


def test_what_bears_our_name_is_ours_whenever_and_with_whatever_key() -> None:
    """An earlier attempt counts by its order number alone, also where the key is not shown."""
    for moment in (PAID.paid_at, datetime(2026, 12, 5, tzinfo=UTC)):
        late = replace(PAID, merchant_uid="mw-x-202611-01", customer_uid=None, paid_at=moment)
        assert find(QUESTION, [late]) == PaidByEarlier(late)


def test_a_row_without_a_payment_belongs_to_the_month_in_which_it_began() -> None:
    cancelled = replace(
        PAID, status="cancelled", merchant_uid="by-hand", paid_at=None, started_at=PAID.paid_at
    )
    assert isinstance(find(QUESTION, [cancelled]), Contradiction)
    assert find(QUESTION, [replace(cancelled, started_at=None)]) == Nothing()


def test_what_is_paid_nobody_knows_when_is_for_a_person() -> None:
    """Charged all the same, it might be the month's second payment."""
    row = replace(PAID, merchant_uid="by-hand", paid_at=None, started_at=None)
    for key in (PAID.customer_uid, None):
        found = find(QUESTION, [replace(row, customer_uid=key)])
        assert found == Contradiction("paid without a moment of payment", PAID.imp_uid)
    assert find(QUESTION, [replace(row, customer_uid="c-2")]) == Nothing()


def test_this_attempt_outranks_the_others() -> None:
    other = replace(PAID, imp_uid="imp_9", merchant_uid="by-hand")
    assert find(QUESTION, [other, PAID]) == PaidByThis(PAID, also=(other,))


def test_a_second_payment_is_told_of_even_where_it_does_not_fit() -> None:
    earlier = replace(PAID, imp_uid="imp_8", merchant_uid="mw-x-202611-01")
    other = replace(PAID, imp_uid="imp_9", merchant_uid="by-hand", amount=Won(100))
    assert find(QUESTION, [other, earlier]) == PaidByEarlier(earlier, also=(other,))
    again = replace(other, imp_uid="imp_7", amount=Won(9900), merchant_uid="by-hand-2")
    assert find(QUESTION, [again, again]) == PaidElsewhere(again)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_payments_by_hand_the_one_that_fits_pays_the_month(order: int) -> None:
    fits = replace(PAID, imp_uid="imp_3", merchant_uid="by-hand-1")
    other = replace(PAID, imp_uid="imp_4", merchant_uid="by-hand-2", amount=Won(8800))
    assert find(QUESTION, [fits, other][::order]) == PaidElsewhere(fits, (other,))


def test_a_payment_by_hand_in_the_same_month() -> None:
    by_hand = replace(PAID, merchant_uid="by-hand")
    assert find(QUESTION, [by_hand]) == PaidElsewhere(by_hand)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 10, 31, 14, 59, 59, tzinfo=UTC),  # the last second of October in Seoul
        datetime(2026, 11, 30, 15, 0, tzinfo=UTC),  # the first of December
    ],
)
def test_another_month_does_not_concern_us(moment: datetime) -> None:
    assert find(QUESTION, [replace(PAID, merchant_uid="by-hand", paid_at=moment)]) == Nothing()


def test_another_customers_payment_does_not_concern_us() -> None:
    assert find(QUESTION, [replace(PAID, merchant_uid="other", customer_uid="c-2")]) == Nothing()


@pytest.mark.parametrize(
    "row",
    [
        replace(PAID, amount=Won(9901)),
        replace(PAID, customer_uid="c-2"),
        replace(PAID, currency="USD"),
        replace(PAID, sandbox=True),
        replace(PAID, paid_at=None),
        replace(PAID, merchant_uid="by-hand", amount=Won(100)),
    ],
    ids=["amount", "key", "currency", "test payment", "no moment", "by hand, other amount"],
)
def test_money_that_does_not_fit_is_never_approved(row: Payment) -> None:
    assert isinstance(find(QUESTION, [row]), Contradiction)


def test_a_person_is_told_which_of_the_two_modes_was_mixed_in() -> None:
    found = find(QUESTION, [replace(PAID, sandbox=True)])
    assert found == Contradiction("a test payment", "imp_1")
    tests = replace(QUESTION, sandbox=True)
    expected = Contradiction("a live payment, where test ones are expected", "imp_1")
    assert find(tests, [PAID]) == expected


def test_a_cancelled_payment_of_the_month_is_for_a_person() -> None:
    found = find(QUESTION, [replace(PAID, status="cancelled", merchant_uid="by-hand")])
    assert isinstance(found, Contradiction)
    assert found.cancelled


def test_our_own_payment_that_was_given_back_meanwhile_was_made() -> None:
    """It is the answer; nobody would ever find another."""
    back = replace(PAID, status="cancelled")
    assert find(QUESTION, [FAILED, back]) == PaidByThis(back)
    other = replace(PAID, imp_uid="imp_9", merchant_uid="by-hand")
    assert find(QUESTION, [back, other]) == PaidElsewhere(other), "that one stands"
    elsewhere = replace(other, imp_uid="imp_8", status="cancelled")
    assert find(QUESTION, [elsewhere, back]) == PaidByThis(back)
    for row in (
        replace(back, merchant_uid="mw-x-202611-01"),
        replace(back, amount=Won(100)),
        replace(back, paid_at=None, started_at=PAID.paid_at),
    ):
        found = find(QUESTION, [row])
        assert isinstance(found, Contradiction)
        assert found.cancelled


def test_failed_only_when_every_row_failed() -> None:
    assert find(QUESTION, [FAILED]) == FailedThis("[0031] 한도초과", "imp_2")
    assert find(QUESTION, [replace(FAILED, fail_reason=None)]) == FailedThis("", "imp_2")
    ready = replace(FAILED, imp_uid="imp_3", status="ready")
    assert find(QUESTION, [FAILED, ready]) == Pending("ready")
    assert find(QUESTION, [FAILED, replace(ready, status="a new word")]) == Pending("a new word")


def test_an_earlier_failure_says_nothing_about_this_attempt() -> None:
    assert find(QUESTION, [replace(FAILED, merchant_uid="mw-x-202611-01")]) == Nothing()
