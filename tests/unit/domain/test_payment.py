"""A row of the gateway's book of which only the least is known."""

from __future__ import annotations

from billing.domain.money import Won
from billing.domain.payment import Payment


def test_what_a_payment_does_not_show_was_not_given_back() -> None:
    least = Payment("imp_1", "mw-1", "paid", Won(9900), customer_uid=None)
    assert least.cancelled_amount == Won(0)
    assert not least.sandbox
