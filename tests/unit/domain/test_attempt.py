"""Names for attempts at the gateway: short, ASCII, stable, and telling nothing about the person."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.attempt import (
    LIVE,
    AttemptStatus,
    check_prefix,
    customer_tag,
    merchant_uid,
)
from billing.domain.errors import InvalidSetting

KEY = b"k" * 32
customers = st.text(min_size=1, max_size=80)


@given(customers, customers)
def test_a_tag_belongs_to_one_customer(one: str, other: str) -> None:
    assert (customer_tag(KEY, one) == customer_tag(KEY, other)) == (one == other)


def test_a_tag_needs_the_key() -> None:
    assert customer_tag(KEY, "01012345678") != customer_tag(b"x" * 32, "01012345678")
    assert "1234" not in customer_tag(KEY, "01012345678")


def test_a_tag_is_the_same_in_every_release() -> None:
    """Or a book restored under a newer one would charge again under new names."""
    assert customer_tag(KEY, "customer-1") == "rxj4nn65iitrchbn"


@given(
    customers,
    st.dates(date(2000, 1, 1), date(2400, 12, 31)),
    st.integers(1, 99),
    st.from_regex(r"\A[A-Za-z0-9]{1,10}\Z"),
)
def test_a_merchant_uid_is_ascii_and_at_most_40_characters(
    customer: str, month: date, number: int, prefix: str
) -> None:
    made = merchant_uid(check_prefix(prefix), customer_tag(KEY, customer), month, number)
    assert made.isascii()
    assert 4 <= len(made) <= 40
    assert made == merchant_uid(prefix, customer_tag(KEY, customer), month, number)


def test_the_parts_are_prefix_tag_month_and_number() -> None:
    made = merchant_uid("mw", "a" * 16, date(2026, 11, 1), 3)
    assert made == "mw-aaaaaaaaaaaaaaaa-202611-03"
    assert merchant_uid("mw", "a", date(2026, 11, 1), 99) == "mw-a-202611-99"


@pytest.mark.parametrize("number", [0, 100, -1])
def test_numbers_outside_two_digits_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="1 to 99"):
        merchant_uid("mw", "a" * 16, date(2026, 11, 1), number)


@pytest.mark.parametrize("prefix", ["", "m w", "한글", "a" * 11, "mw-"])
def test_a_prefix_that_does_not_fit_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^MERCHANT_UID_PREFIX"):
        check_prefix(prefix)


def test_live_is_what_may_still_move_money() -> None:
    """A new status must be put on one side: what is not live lets a second attempt in."""
    ended = {AttemptStatus.APPROVED, AttemptStatus.DECLINED, AttemptStatus.WITHDRAWN}
    assert set(AttemptStatus) - ended == LIVE
