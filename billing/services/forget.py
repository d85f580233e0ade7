"""Erase what the book holds of a person, on request; the ledger of payments stays."""

from __future__ import annotations

from typing import Any

from billing.domain.errors import Conflict, NotFound
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import ENDED
from billing.services import change_status
from billing.store import attempts, buyers, events, subscriptions, views
from billing.store.session import Book, Transaction


def forget(book: Book, policy: BillingPolicy, customer_uid: str) -> dict[str, Any]:
    """Erase name, address, number and reference of a subscription that has ended; returns it.

    A suspended one is cancelled by it: without its facts it can never be charged again. A second
    call changes nothing. Raises `NotFound`; `Conflict` for one that goes on, or whose charge is
    under way."""

    def step(tx: Transaction) -> dict[str, Any]:
        subscription = subscriptions.locked(tx.session, customer_uid)
        if subscription is None:
            raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
        if subscription.status not in ENDED:
            raise Conflict(
                f"the subscription is {subscription.status}, and its next charge needs what is to"
                " be erased; cancel it first (maewol subscription cancel)"
            )
        if attempts.in_flight(tx.session, subscription.id):
            raise Conflict("a charge of it is under way; try again when it has ended")
        if subscription.forgotten_at is None:
            change_status.end(tx, policy, subscription)
            buyers.erase(tx.session, subscription.id)
            subscription.reference = None
            subscription.forgotten_at = tx.now
            events.add(
                tx.session,
                at=tx.now,
                kind="subscription.forgotten",
                subscription_id=subscription.id,
            )
            tx.session.flush()
        (shown,) = views.subscriptions(
            tx.session, policy.plan.zone, customer_uid=subscription.customer_uid
        )
        return shown

    return book.run(step)
