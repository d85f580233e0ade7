"""What the book should hold: the gateway's word, and of the rest what a seal vouches for."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.correction import Differing, differing, plain, proven
from billing.domain.errors import Unconfirmed
from billing.domain.money import Won
from billing.domain.seal import is_intact, seal
from billing.domain.subscription import Facts

KEY = b"key"
PAID_AT = datetime(2026, 10, 20, 14, 30, 7, tzinfo=SEOUL)
ENROLLED = Facts(
    customer_uid="customer-1",
    amount=Won(9900),
    order_name="plan",
    initial_paid_at=PAID_AT,
    buyer_name="홍길동",
    buyer_email="hong@example.com",
    buyer_tel="010-1234-5678",
)


def judged(book: Facts, payment: Facts, sealed: Facts = ENROLLED) -> Facts:
    stored = seal(KEY, sealed)
    return proven(book, payment, lambda facts: is_intact(KEY, facts, stored), SEOUL)


@pytest.mark.parametrize(
    "changed",
    [
        {"customer_uid": "customer-2"},
        {"amount": Won(301)},
        {"order_name": "another"},
        {"initial_paid_at": PAID_AT - timedelta(days=1)},
        {"buyer_name": None},
        {"buyer_email": "thief@example.com"},
        {"buyer_tel": "010-9999-9999"},
        {"amount": Won(301), "buyer_name": "김철수", "initial_paid_at": PAID_AT + timedelta(3)},
        {},
    ],
)
def test_a_change_by_hand_is_undone(changed: dict[str, Any]) -> None:
    assert judged(replace(ENROLLED, **changed), ENROLLED) == ENROLLED


def test_what_was_enrolled_wrongly_becomes_what_was_paid() -> None:
    """The seal is intact over the mistake: it vouches that nobody changed it, not that it is
    right."""
    book = replace(ENROLLED, order_name="typo", amount=Won(9000), buyer_name="홍길순")
    assert judged(book, ENROLLED, sealed=book) == ENROLLED


SHOWN = replace(ENROLLED, buyer_email=None, buyer_name="홍*동", buyer_tel="01012345678")


def test_what_the_gateway_shows_otherwise_or_not_is_kept_under_an_intact_seal() -> None:
    book = replace(ENROLLED, order_name="typo")
    assert judged(book, SHOWN, sealed=book) == ENROLLED


@pytest.mark.parametrize("changed", [{"amount": Won(301)}, {"order_name": "x"}])
@pytest.mark.parametrize("second", [0, 7])
def test_it_is_kept_as_well_where_the_seal_is_over_the_book_with_the_gateways_word(
    changed: dict[str, Any], second: int
) -> None:
    """The file that was imported told the moment to the minute, the gateway to the second."""
    enrolled = replace(ENROLLED, initial_paid_at=PAID_AT.replace(second=second))
    assert judged(replace(enrolled, **changed), SHOWN, sealed=enrolled) == enrolled


def test_an_hour_that_was_changed_does_not_hide_what_was_sealed() -> None:
    moved = replace(ENROLLED, initial_paid_at=PAID_AT + timedelta(hours=2))
    assert judged(moved, SHOWN) == ENROLLED


def test_a_dash_in_place_of_nothing_is_no_difference_and_an_empty_text_is_nothing() -> None:
    book = replace(ENROLLED, buyer_email=None)
    payment = replace(ENROLLED, buyer_email="-")
    assert judged(book, payment, sealed=book) == book
    assert judged(replace(book, amount=Won(301)), replace(payment, buyer_email="")) == book


def test_what_neither_shows_nor_a_seal_vouches_for_is_as_the_payment_shows_it() -> None:
    book = replace(ENROLLED, buyer_email="thief@example.com")
    assert judged(book, SHOWN) == replace(ENROLLED, buyer_email=None, buyer_tel="01012345678")


@pytest.mark.parametrize(
    ("mask", "ours", "fits"),
    [
        ("홍*동", "홍길동", True),
        ("홍*동", "홍동", True),
        ("홍*", "홍길동", True),
        ("010-****-5678", "01012345678", True),
        ("홍*동", "김길동", False),
        ("*동", "홍길순", False),
        ("010****5678", "010-1234-5679", False),
        ("홍*동", None, False),
    ],
)
@pytest.mark.parametrize("intact", [True, False])
def test_what_is_masked_is_kept_where_it_fits_and_else_nobody_can_tell(
    mask: str, ours: str | None, fits: bool, intact: bool
) -> None:
    book = replace(ENROLLED, buyer_tel=ours)
    payment = replace(ENROLLED, buyer_tel=mask)
    sealed = book if intact else replace(book, amount=Won(301))
    if fits:
        assert judged(book, payment, sealed).buyer_tel == ours
        return
    with pytest.raises(Unconfirmed) as refused:
        judged(book, payment, sealed)
    assert (refused.value.field, refused.value.value) == ("buyer_tel", "[hidden]")
    assert "010" not in str(refused.value)
    assert "register again" in refused.value.remedy


def test_a_moment_of_another_day_in_seoul_is_another_anchor() -> None:
    """23:59 and 00:01 in Seoul, on one UTC day."""
    payment = replace(ENROLLED, initial_paid_at=datetime(2026, 10, 20, 23, 59, tzinfo=SEOUL))
    next_day = replace(ENROLLED, initial_paid_at=datetime(2026, 10, 21, 0, 1, tzinfo=SEOUL))
    same_day = replace(ENROLLED, initial_paid_at=datetime(2026, 10, 20, 0, 1, tzinfo=SEOUL))
    assert judged(next_day, payment, next_day).initial_paid_at == payment.initial_paid_at
    assert judged(same_day, payment, same_day).initial_paid_at == same_day.initial_paid_at


def test_differences_are_named_and_nobody_is_shown() -> None:
    book = replace(
        ENROLLED,
        amount=Won(19900),
        initial_paid_at=PAID_AT - timedelta(days=1),
        buyer_name="김철수",
        buyer_email=None,
    )
    assert differing(book, date(2026, 10, 19), ENROLLED, SEOUL) == (
        Differing("amount", 19900, 9900),
        Differing("initial_paid_at", "2026-10-19T14:30:07+09:00", "2026-10-20T14:30:07+09:00"),
        Differing("buyer_name", "[hidden]", "[hidden]"),
        Differing("buyer_email", None, "[hidden]"),
        Differing("anchor_on", "2026-10-19", "2026-10-20"),
    )
    assert differing(ENROLLED, date(2026, 10, 20), ENROLLED, SEOUL) == ()


def test_writing_is_no_difference() -> None:
    assert plain("010-1234 5678") == "01012345678"
    assert plain("Hong@Example.com") == plain("hong@example.com")
    assert plain("홍길동") != plain("홍길순")
