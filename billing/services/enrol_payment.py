"""Enrol a subscription from the payment that registered its billing key, as the gateway shows it.

known      answered from the book, where it has this payment as this customer's first already
look up    the payment, its billing key, and whether anybody else charges that key (no transaction)
bring in   by the road of an imported line, with the event line and the notice, in one transaction

Whoever calls names the payment and may say what was ordered. Nothing else of the call is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from billing.domain.enrolment import Misfit
from billing.domain.errors import AnswerUnusable, Conflict, NotFound
from billing.domain.policy import BillingPolicy
from billing.domain.registration import Expected, checked_imp_uid, registration
from billing.domain.subscription import ENDED, NewSubscription
from billing.ports import PaymentGateway
from billing.services import change_status
from billing.services.bring_in import bring_in
from billing.services.clock_guard import compare_where_stale
from billing.services.enrol import verify_at_gateway
from billing.store import events, subscriptions, views
from billing.store.session import Book, Transaction
from billing.store.tables import Subscription


@dataclass(frozen=True, slots=True)
class EnrolledPayment:
    """The subscription in the contract's shape; `added` is False when it was there already."""

    subscription: dict[str, Any]
    added: bool


async def enrol_payment(
    book: Book,
    policy: BillingPolicy,
    derive_key: Callable[[], bytes],
    gateway: PaymentGateway,
    imp_uid: str,
    *,
    customer_uid: str | None = None,
    merchant_uid: str | None = None,
    amount: int | None = None,
    previous: str | None = None,
) -> EnrolledPayment:
    """Enrol what `imp_uid` registered. A second call with the same payment changes nothing and asks
    nobody, so that it may be repeated while the gateway is down.

    `customer_uid`, `merchant_uid` and `amount` (won) are what was ordered; each that is given must
    be what was paid. `previous` is the `customer_uid` of an earlier subscription of the same
    customer that is suspended or cancelled: it ends, and the new one goes on from it.

    Raises `NotFound`, `Conflict`, `InvalidInput`, and `GatewayError`: then nothing was written.
    """
    checked_imp_uid(imp_uid)
    expected = Expected(customer_uid, merchant_uid, amount)
    known = await asyncio.to_thread(
        book.run, lambda tx: _known(tx, policy, imp_uid, expected, previous)
    )
    if known is not None:
        return EnrolledPayment(known, added=False)
    # By a clock that is wrong by far nobody is brought in; and no tick may have asked for days.
    await compare_where_stale(book, gateway)
    new = await _looked_up(book, policy, gateway, imp_uid, expected)

    def step(tx: Transaction) -> EnrolledPayment:
        earlier = _ended_one(tx, previous, new)
        added = bring_in(tx, policy, derive_key, new)
        subscription = _same_payment(tx, new)
        if earlier is not None:
            _go_on_from(tx, policy, subscription, earlier)
        return EnrolledPayment(_shown(tx, policy, subscription), added)

    return await asyncio.to_thread(book.run, step)


def _known(
    tx: Transaction,
    policy: BillingPolicy,
    imp_uid: str,
    expected: Expected,
    previous: str | None,
) -> dict[str, Any] | None:
    """The subscription that this payment began, where the book agrees with all that was said. None
    for what differs: the gateway's own row tells what is wrong with it."""
    found = subscriptions.begun_by(tx.session, imp_uid)
    if found is None:
        return None
    agrees = (
        expected.customer_uid in (None, found.customer_uid)
        and expected.merchant_uid in (None, found.initial_merchant_uid)
        and expected.amount in (None, found.amount)
    )
    shown = _shown(tx, policy, found)
    return shown if agrees and previous in (None, shown["previous"]) else None


async def _looked_up(
    book: Book, policy: BillingPolicy, gateway: PaymentGateway, imp_uid: str, expected: Expected
) -> NewSubscription:
    payment = await gateway.payment(imp_uid)
    if payment is None:
        raise NotFound(f"the gateway shows no payment {imp_uid} to this store")
    now = await asyncio.to_thread(book.run, lambda tx: tx.now)
    new = registration(payment, expected, now, sandbox=policy.sandbox)
    (found,) = await verify_at_gateway(gateway, [new])
    problem = found if isinstance(found, Misfit) else await registered_again(gateway, new)
    if problem is not None:
        if now - new.facts.initial_paid_at < policy.visibility:
            # One look-up may be behind another, and who is refused is never asked about again.
            raise AnswerUnusable(f"{imp_uid}: {problem}; it may not yet be shown")
        raise Conflict(f"{imp_uid}: {problem}")
    return new


async def registered_again(gateway: PaymentGateway, new: NewSubscription) -> str | None:
    """A key that was issued again is the last one's: its anchor and amount are another payment's
    (docs/gateway.md §5)."""
    since = new.facts.initial_paid_at
    for other in await gateway.payments_of_key(new.facts.customer_uid, since):
        later = other.paid_at is not None and other.paid_at >= since
        if later and other.customer_uid_usage == "issue" and other.imp_uid != new.initial_imp_uid:
            return f"the billing key was registered again by {other.imp_uid}"
    return None


def _ended_one(tx: Transaction, previous: str | None, new: NewSubscription) -> Subscription | None:
    """The earlier subscription, locked before the new one is there: older rows are locked first."""
    if previous is None:
        return None
    if previous == new.facts.customer_uid:
        raise Conflict("previous: a subscription cannot follow itself")
    found = subscriptions.locked(tx.session, previous)
    if found is None:
        raise NotFound(f"no subscription has the customer_uid {previous!r}")
    if found.status not in ENDED:
        raise Conflict(
            f"previous: that subscription is {found.status}, so the customer would pay twice a"
            " month; cancel it first"
        )
    return found


def _same_payment(tx: Transaction, new: NewSubscription) -> Subscription:
    found = subscriptions.locked(tx.session, new.facts.customer_uid)
    if found is None:
        raise AssertionError("it was just brought in")
    if found.initial_imp_uid not in (None, new.initial_imp_uid):
        raise Conflict("initial_imp_uid: the book knows another payment as this customer's first")
    return found


def _go_on_from(
    tx: Transaction, policy: BillingPolicy, subscription: Subscription, earlier: Subscription
) -> None:
    """Link the two, once, and end the earlier one."""
    if subscription.previous_id == earlier.id:
        return
    if subscription.previous_id is not None or earlier.id > subscription.id:
        raise Conflict("previous: this subscription does not go on from that one")
    if subscriptions.follower_of(tx.session, earlier.id) is not None:
        raise Conflict("previous: another subscription goes on from that one already")
    subscription.previous_id = earlier.id
    events.add(
        tx.session,
        at=tx.now,
        kind="subscription.goes_on",
        subscription_id=subscription.id,
        data={"previous_id": earlier.id},
    )
    change_status.end(tx, policy, earlier)
    tx.session.flush()


def _shown(tx: Transaction, policy: BillingPolicy, subscription: Subscription) -> dict[str, Any]:
    (shown,) = views.subscriptions(
        tx.session, policy.plan.zone, customer_uid=subscription.customer_uid
    )
    return shown
