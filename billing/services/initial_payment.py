"""The initial payment of a subscription, by which its facts in the book can be judged: found at the
gateway, and only if it is this customer's.

Whoever can write into the database can write the id of another payment there, but not the tag that
belongs to it: that was made of the `customer_uid` at enrolment, with a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from billing.domain.attempt import customer_tag
from billing.domain.calendar import day_of
from billing.domain.enrolment import shown
from billing.domain.errors import Conflict, InvalidInput, Unconfirmed
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.registration import Expected, registration
from billing.domain.seal import is_intact
from billing.domain.subscription import Facts, NewSubscription
from billing.ports import PaymentGateway
from billing.services.enrol import payments_around
from billing.services.enrol_payment import registered_again
from billing.store import installation
from billing.store.attempts import facts_of
from billing.store.session import Transaction
from billing.store.tables import BuyerData, Subscription

REGISTER_ANEW = "The customer must register again; then cancel this subscription"
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class InBook:
    """What the book says, with the seal and the tag that nobody makes without the key."""

    facts: Facts
    anchor_on: date
    seal: bytes
    tag: str
    initial_imp_uid: str | None
    initial_merchant_uid: str | None
    key: bytes = field(repr=False)

    def is_sealed_over(self, facts: Facts) -> bool:
        """Whether the seal is the one over these facts."""
        return is_intact(self.key, facts, self.seal)

    @property
    def is_sealed(self) -> bool:
        """Whether the facts are those that were sealed."""
        return self.is_sealed_over(self.facts)


def in_book(tx: Transaction, subscription: Subscription) -> InBook:
    """As the book has it now."""
    facts = facts_of(subscription, tx.session.get(BuyerData, subscription.id))
    return InBook(
        facts=facts,
        anchor_on=subscription.anchor_on,
        seal=subscription.seal,
        tag=subscription.tag,
        initial_imp_uid=subscription.initial_imp_uid,
        initial_merchant_uid=subscription.initial_merchant_uid,
        key=installation.stored_key(tx.session),
    )


async def confirmed(
    gateway: PaymentGateway, policy: BillingPolicy, known: InBook, now: datetime
) -> NewSubscription:
    """What the initial payment began, as it would be enrolled today.

    Raises `Unconfirmed` where the gateway does not show it, or it is not what this customer's
    subscription began with, or the customer has registered again since; `GatewayError`."""
    new = _registered(await _initial_payment(gateway, policy, known), now, policy)
    _check_same_customer(known, new)
    if (again := await registered_again(gateway, new)) is not None:
        raise Unconfirmed("customer_uid", new.facts.customer_uid, again, REGISTER_ANEW)
    return new


async def _initial_payment(
    gateway: PaymentGateway, policy: BillingPolicy, known: InBook
) -> Payment:
    """By the ids that the book has; without any, by what the billing key has paid."""
    imp_uid, merchant_uid = known.initial_imp_uid, known.initial_merchant_uid
    if imp_uid is not None:
        found = await gateway.payment(imp_uid)
        if found is None:
            raise _not_shown("initial_imp_uid", imp_uid)
        if merchant_uid not in (None, found.merchant_uid):
            raise Unconfirmed(
                "initial_merchant_uid",
                merchant_uid,
                f"{imp_uid} has another one: one of the two was changed in the book",
                "Look both up in the gateway's console",
            )
        return found
    if merchant_uid is not None:
        rows = await gateway.payments_of_order(merchant_uid)
        return _the_one([row for row in rows if row.paid_at], "initial_merchant_uid", merchant_uid)
    return await _first_of_key(gateway, policy, known)


async def _first_of_key(gateway: PaymentGateway, policy: BillingPolicy, known: InBook) -> Payment:
    """The payment that issued the key; where the gateway does not say which that was, the one of
    the anchor's day, as a verified import finds it."""
    uid = known.facts.customer_uid
    rows = await gateway.payments_of_key(uid, _EVER)
    if issued := [row for row in rows if row.paid_at and row.customer_uid_usage == "issue"]:
        return _the_one(issued, "customer_uid", uid)
    day = day_of(known.facts.initial_paid_at, policy.plan.zone)
    near = await payments_around(gateway, uid, day)
    return _the_one([row for row in near if row.status == "paid"], "customer_uid", uid)


def _the_one(found: Sequence[Payment], name: str, value: str) -> Payment:
    if not found:
        raise _not_shown(name, value)
    if len(found) > 1:
        raise Unconfirmed(
            name,
            shown(name, value),
            f"may have begun with any of {', '.join(sorted(row.imp_uid for row in found))}",
            "Look them up in the gateway's console; where the key was registered again, the new"
            " registration needs a customer_uid of its own",
        )
    return found[0]


def _not_shown(name: str, value: str) -> Unconfirmed:
    return Unconfirmed(
        name,
        shown(name, value),
        "the gateway shows no initial payment of it to this store, so nothing vouches for the book",
        "Check PORTONE_IMP_KEY and INCLUDE_SANDBOX (maewol doctor), and look it up in the"
        " gateway's console",
    )


def _registered(payment: Payment, now: datetime, policy: BillingPolicy) -> NewSubscription:
    """What the payment began, by the rules of an enrolment."""
    try:
        return registration(payment, Expected(), now, sandbox=policy.sandbox)
    except InvalidInput as error:
        raise Unconfirmed(error.field, error.value, error.problem, REGISTER_ANEW) from None
    except Conflict as error:
        raise Unconfirmed("imp_uid", payment.imp_uid, str(error), REGISTER_ANEW) from None


def _check_same_customer(known: InBook, new: NewSubscription) -> None:
    if customer_tag(known.key, new.facts.customer_uid) != known.tag:
        raise Unconfirmed(
            "customer_uid",
            new.facts.customer_uid,
            f"{new.initial_imp_uid} is not the payment of the customer who was enrolled",
            "The id of the initial payment, or the tag, was changed in the book: find out who did",
        )
