"""Whole won, or nothing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.money import CURRENCY, MINIMUM_CHARGE, Won


@pytest.mark.parametrize("value", [9900.0, "9900", True, False, None, Decimal(9900)])
def test_only_plain_whole_numbers_are_won(value: object) -> None:
    with pytest.raises(TypeError, match="whole numbers"):
        Won(value)  # type: ignore[arg-type]  # the wrong type is the point


def test_no_amount_is_negative() -> None:
    assert Won(0).amount == 0
    with pytest.raises(ValueError, match="negative"):
        Won(-1)


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_won_add_and_compare_as_their_numbers(left: int, right: int) -> None:
    assert (Won(left) + Won(right)).amount == left + right
    assert (Won(left) < Won(right)) == (left < right)
    assert (Won(left) == Won(right)) == (left == right)
    assert len({Won(left), Won(left)}) == 1


def test_won_are_shown_as_people_write_them() -> None:
    assert str(Won(1234567)) == "1,234,567 KRW"
    assert (CURRENCY, MINIMUM_CHARGE) == ("KRW", 301)
