"""Finish an order: whatever the browser says, the gateway's own book tells whether it is paid.

ask      for the payments of the order, by its merchant_uid (no transaction)
enrol    the one that is paid, by the road of every enrolment; a second time changes nothing

So it also works where the browser never heard of its payment, and where the webhook came first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from billing.domain.errors import Conflict, NotFound
from billing.domain.order import Order
from billing.domain.policy import BillingPolicy
from billing.domain.registration import checked_imp_uid
from billing.ports import Payment, PaymentGateway
from billing.services.enrol_payment import enrol_payment
from billing.store.session import Book

# The gateway's words for a payment that comes to nothing any more.
_ENDED = frozenset({"failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The order is paid and its subscription in the book, in the contract's shape."""

    subscription: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NotPaid:
    """The gateway shows how the order failed. `said` is its reason, if it gave one."""

    said: str | None = None


@dataclass(frozen=True, slots=True)
class NotShown:
    """There is a payment that the gateway does not show everywhere yet: ask again soon."""


@dataclass(frozen=True, slots=True)
class NothingShown:
    """Nobody names a payment, and the gateway shows none that ended. Perhaps nothing was paid;
    perhaps the line broke as it was, and the payment cannot be seen yet."""


FinishedOrder = Subscribed | NotPaid | NotShown | NothingShown


async def finish_order(
    book: Book,
    policy: BillingPolicy,
    derive_key: Callable[[], bytes],
    gateway: PaymentGateway,
    order: Order,
    imp_uid: str | None = None,
) -> FinishedOrder:
    """What became of an order; `imp_uid` is the payment that the browser names, if any.

    Raises `Conflict` for a payment that is not this order's or not as ordered, `InvalidInput`, and
    `GatewayError`: then nothing was written.
    """
    payments = await gateway.payments_of_order(order.merchant_uid)
    if imp_uid and imp_uid not in {one.imp_uid for one in payments}:
        return await _unlisted(gateway, order, checked_imp_uid(imp_uid))
    paid = next((one for one in payments if one.status == "paid"), None)
    if paid is None:
        return _unpaid(payments)
    try:
        enrolled = await enrol_payment(
            book,
            policy,
            derive_key,
            gateway,
            paid.imp_uid,
            customer_uid=order.customer_uid,
            merchant_uid=order.merchant_uid,
            amount=order.amount.amount,
        )
    except NotFound:
        # The list of the order had it a moment ago.
        return NotShown()
    return Subscribed(enrolled.subscription)


async def _unlisted(gateway: PaymentGateway, order: Order, imp_uid: str) -> NotShown:
    """A payment that the order's list does not have: another order's, or not listed yet."""
    payment = await gateway.payment(imp_uid)
    if payment is not None and payment.merchant_uid != order.merchant_uid:
        raise Conflict("the payment belongs to another order")
    return NotShown()


def _unpaid(payments: Sequence[Payment]) -> NotPaid | NothingShown:
    """What the rows of an order prove, none of which is paid. Who is told that nothing was paid
    pays again: without a row that has ended nobody knows."""
    has_ended = bool(payments) and all(one.status in _ENDED for one in payments)
    return NotPaid(_newest_reason(payments)) if has_ended else NothingShown()


def _newest_reason(payments: Sequence[Payment]) -> str | None:
    failed = [(one.failed_at, one.fail_reason) for one in payments if one.failed_at is not None]
    return max(failed, key=lambda one: one[0])[1] if failed else None
