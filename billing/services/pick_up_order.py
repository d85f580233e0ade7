"""Pick up an order whose customer paid and never came back: the gateway announced the payment."""

from __future__ import annotations

import logging
from collections.abc import Callable

from billing.domain.errors import AnswerUnusable, Conflict, InvalidInput, NotFound
from billing.domain.order import Offer, Order
from billing.domain.policy import BillingPolicy
from billing.ports import Payment, PaymentGateway
from billing.services.enrol_payment import enrol_payment
from billing.store.session import Book

_log = logging.getLogger(__name__)


async def pick_up_order(
    book: Book,
    policy: BillingPolicy,
    derive_key: Callable[[], bytes],
    gateway: PaymentGateway,
    offer: Offer | None,
    payment: Payment,
) -> bool:
    """Enrol the subscription that `payment` bought from the checkout page; False where it bought
    something else, or was refused. Raises `GatewayError`: then nothing was written."""
    order = None if offer is None else Order.paid_by(payment, offer)
    if order is None:
        return False
    try:
        await enrol_payment(
            book,
            policy,
            derive_key,
            gateway,
            payment.imp_uid,
            customer_uid=order.customer_uid,
            merchant_uid=order.merchant_uid,
            amount=order.amount.amount,
        )
    except NotFound as error:
        # It was there a moment ago: to be looked at again.
        raise AnswerUnusable(str(error)) from error
    except (Conflict, InvalidInput) as error:
        # The words of the error may hold what the buyer wrote.
        _log.warning("order %s was refused (%s)", order.merchant_uid, type(error).__name__)
        return False
    return True
