"""What a customer may know of an order: the subscription it became, and when it is charged next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from billing.domain.calendar import LATEST_BAND_OPENING, cycle_dates
from billing.domain.order import Order
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.store import subscriptions
from billing.store.session import Book, Transaction


@dataclass(frozen=True, slots=True)
class SoldSubscription:
    """A subscription as its customer sees it; `next_on` None where nothing will be charged."""

    order_name: str
    amount: int
    anchor_day: int
    next_on: date | None

    @property
    def first_day(self) -> int:
        """The earliest day of a month on which it is charged: late anchors may begin earlier."""
        return min(self.anchor_day, LATEST_BAND_OPENING)


def show_order(book: Book, policy: BillingPolicy, order: Order) -> SoldSubscription | None:
    """The order's subscription, or None while it has none."""

    def read(tx: Transaction) -> SoldSubscription | None:
        row = subscriptions.found(tx.session, order.customer_uid)
        if row is None:
            return None
        dates = cycle_dates(row.anchor_on, row.next_cycle, policy.plan.calendar)
        active = row.status == SubscriptionStatus.ACTIVE
        next_on = dates.first_attempt_on if active else None
        return SoldSubscription(row.order_name, row.amount, row.anchor_on.day, next_on)

    return book.run(read)
