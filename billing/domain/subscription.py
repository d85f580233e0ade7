"""Subscription: a customer's standing agreement to be charged a fixed amount each month."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from billing.domain.money import Won
from billing.domain.status import Transitions


class SubscriptionStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    # The billing key no longer works, or the chain is broken: the customer must register again.
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"


class SuspensionReason(StrEnum):
    # A calendar month without a payment ends the billing key for good (docs/gateway.md §1).
    CHAIN_BROKEN = "chain_broken"
    # The gateway or the carrier says that the key will never work again (docs/gateway.md §9).
    KEY_INVALID = "key_invalid"


# Not charged any more, unless a payment that is found later takes a suspension back.
ENDED: Final = frozenset({SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELLED})

# Charged, or charged again once it is resumed.
GOES_ON: Final = frozenset({SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED})

# The status reason of a subscription that goes on although a payment of its chain was given back:
# only next month's charge can tell whether the carrier goes along (docs/gateway.md §8).
CHAIN_AT_RISK: Final = "chain_at_risk"

SUBSCRIPTION_TRANSITIONS = Transitions(
    "subscription",
    {
        SubscriptionStatus.ACTIVE: frozenset(
            {SubscriptionStatus.PAUSED, SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELLED}
        ),
        SubscriptionStatus.PAUSED: frozenset(
            {SubscriptionStatus.ACTIVE, SubscriptionStatus.SUSPENDED, SubscriptionStatus.CANCELLED}
        ),
        # Back to active only when a payment is found that takes the suspension back.
        SubscriptionStatus.SUSPENDED: frozenset(
            {SubscriptionStatus.ACTIVE, SubscriptionStatus.CANCELLED}
        ),
        SubscriptionStatus.CANCELLED: frozenset(),
    },
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gateway compares with last month's payment. Fixed at enrolment, never edited."""

    customer_uid: str = field(repr=False)
    amount: Won
    order_name: str
    initial_paid_at: datetime
    buyer_name: str | None = field(default=None, repr=False)
    buyer_email: str | None = field(default=None, repr=False)
    buyer_tel: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """A subscription as it comes in: the facts, and what the merchant knows beside them."""

    facts: Facts
    initial_merchant_uid: str | None = None
    initial_imp_uid: str | None = None
    last_paid_on: date | None = None
    reference: str | None = None
