"""The seal: what every release must make of the same facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.domain.calendar import SEOUL, day_of
from billing.domain.money import Won
from billing.domain.seal import is_as_enrolled, is_intact, seal
from billing.domain.subscription import Facts

KEY = bytes(range(32))
FACTS = Facts(
    customer_uid="customer-1",
    amount=Won(9900),
    order_name="월정액",
    initial_paid_at=datetime(2026, 10, 20, 5, 30, tzinfo=UTC),
    buyer_name="홍길동",
)


def test_every_release_makes_the_same_seal() -> None:
    """A seal that came out otherwise would stop all charging of a book that was made before."""
    made = "3e8c7c5ad251347a09142c5751fe433ee94b2b90b2b9624b95e2233ee38474ea"
    assert seal(KEY, FACTS).hex() == made
    assert is_intact(KEY, FACTS, bytes.fromhex(made))


@pytest.mark.parametrize(
    "change",
    [
        {"customer_uid": "customer-2"},
        {"amount": Won(9901)},
        {"order_name": "월정"},
        {"initial_paid_at": datetime(2026, 10, 20, 5, 30, 1, tzinfo=UTC)},
        {"buyer_name": None},
        {"buyer_email": "홍길동", "buyer_name": None},
        {"buyer_tel": "010"},
    ],
)
def test_another_fact_breaks_it(change: dict[str, Any]) -> None:
    assert not is_intact(KEY, replace(FACTS, **change), seal(KEY, FACTS))


def test_another_key_breaks_it() -> None:
    assert not is_intact(KEY[::-1], FACTS, seal(KEY, FACTS))


def test_the_anchor_is_the_day_of_the_sealed_payment() -> None:
    made, on = seal(KEY, FACTS), day_of(FACTS.initial_paid_at, SEOUL)
    assert is_as_enrolled(KEY, FACTS, on, made, SEOUL)
    assert not is_as_enrolled(KEY, FACTS, on + timedelta(days=1), made, SEOUL)
    assert not is_as_enrolled(KEY, replace(FACTS, order_name="another"), on, made, SEOUL)
