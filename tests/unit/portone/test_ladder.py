"""Rungs whose words people and Korean texts go by, and the limits of what is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from billing.domain.outcome import Unknown
from billing.portone.wire import Unsendable, charge_body
from tests.unit.portone.ladder import ASKED, ECHO, outcome_of, wrapped


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("merchant_uid", {"merchant_uid": "another"}),
        ("amount", {"amount": 9901}),
        ("currency", {"currency": "USD"}),
        ("customer_uid", {"customer_uid": "another"}),
        ("customer_uid", {"customer_uid": "another", "status": "failed", "paid_at": 0}),
    ],
)
def test_an_answer_that_contradicts_says_by_which_field(
    field: str, changes: dict[str, Any]
) -> None:
    why = f"the answer has another {field}"
    assert outcome_of(200, wrapped(ECHO | changes)) == Unknown(
        why, contradiction=True, other_mode=False
    )


def test_a_payment_of_the_other_mode_is_told_from_other_contradictions() -> None:
    why = "the answer has another sandbox"
    assert outcome_of(200, wrapped(ECHO | {"sandbox": True})) == Unknown(
        why, contradiction=True, other_mode=True
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("merchant_uid", ""),
        ("merchant_uid", "m" * 41),
        ("merchant_uid", "한글"),
        ("customer_uid", ""),
        ("customer_uid", "c" * 81),
        ("order_name", ""),
    ],
)
def test_what_cannot_be_sent_is_named(field: str, value: str) -> None:
    with pytest.raises(Unsendable, match=f"^{field}$"):
        charge_body(replace(ASKED, **{field: value}))


@pytest.mark.parametrize("value", ["c", "c" * 80])
def test_the_shortest_and_the_longest_customer_uid_are_sent(value: str) -> None:
    sent = json.loads(charge_body(replace(ASKED, customer_uid=value)))
    assert sent["customer_uid"] == value
