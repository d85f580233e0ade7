"""What a checkout page sells: one order, of which one payment begins one subscription."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from billing.domain.errors import InvalidInput
from billing.domain.money import Won
from billing.domain.payment import Payment

# Not the prefix of charges: an initial payment is none of them, and reconciliation tells by it.
_MERCHANT_UID = "order"
_CUSTOMER_UID = "customer"
_HEX = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Offer:
    """What the checkout page sells now."""

    amount: Won
    order_name: str


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `customer_uid` is new with each: a registration is never put over another
    (docs/gateway.md §5)."""

    merchant_uid: str
    customer_uid: str = field(repr=False)
    amount: Won
    order_name: str

    @classmethod
    def paid_by(cls, payment: Payment, offer: Offer) -> Order | None:
        """The order that a payment was made for, None where it is of something else.

        Nobody need remember an order for this: whoever pays the whole price of the offer under a
        name of this form has bought it."""
        name = payment.merchant_uid.removeprefix(f"{_MERCHANT_UID}-")
        if payment.status != "paid" or not _HEX.fullmatch(name):
            return None
        order = cls.new(offer.amount, offer.order_name, name)
        paid = (payment.merchant_uid, payment.customer_uid, payment.amount, payment.order_name)
        wanted = (order.merchant_uid, order.customer_uid, order.amount, order.order_name)
        return order if paid == wanted else None

    @classmethod
    def new(cls, amount: Won, order_name: str, name: str) -> Order:
        """An order under a `name` of 24 hexadecimal digits that nobody can guess. Raises
        `InvalidInput` for another."""
        if not _HEX.fullmatch(name):
            raise InvalidInput("name", name, "is not 24 hexadecimal digits")
        return cls(f"{_MERCHANT_UID}-{name}", f"{_CUSTOMER_UID}-{name}", amount, order_name)

    def as_json(self) -> dict[str, Any]:
        """The order as it is signed and handed to the customer's browser."""
        name = self.merchant_uid.removeprefix(f"{_MERCHANT_UID}-")
        return {"name": name, "amount": self.amount.amount, "order_name": self.order_name}

    @classmethod
    def from_json(cls, document: Any) -> Order:
        """The order of `as_json`. Raises `InvalidInput` for anything else."""
        match document:
            case {"name": str(name), "amount": int(amount), "order_name": str(order_name)}:
                return cls.new(Won(amount), order_name, name)
        raise InvalidInput("order", "…", "is not an order of ours")
