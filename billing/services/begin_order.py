"""Begin an order: a name of its own, and its amount pinned at the gateway."""

from __future__ import annotations

import secrets

from billing.domain.order import Offer, Order
from billing.ports import PaymentGateway

_NAME_BYTES = 12


async def begin_order(gateway: PaymentGateway, offer: Offer) -> Order:
    """A new order. Nothing is written: what was never paid need not be remembered.

    Raises `GatewayError` when its amount could not be pinned: no window should open then.
    """
    order = Order.new(offer.amount, offer.order_name, secrets.token_hex(_NAME_BYTES))
    await gateway.prepare(order.merchant_uid, order.amount)
    return order
