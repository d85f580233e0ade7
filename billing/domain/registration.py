"""The payment that registered a billing key → `NewSubscription`, or a clear no.

What must hold of it is in docs/gateway.md §11. The payment is the gateway's own row. What it shows
is stored as it stands: the carrier compares next month's payment with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing.domain.enrolment import LENGTHS, UNPRINTABLE, shown, text_field
from billing.domain.errors import Conflict, InvalidInput
from billing.domain.money import CURRENCY, MINIMUM_CHARGE, Won
from billing.domain.payment import Payment
from billing.domain.subscription import Facts, NewSubscription

# The older module alone. Window, chain and codes are documented for it; about `mobilians_v2`
# (2025-11) the documents say none of that, so nobody could promise to charge it rightly.
PROVIDER = "mobilians"
METHOD = "phone"

# The gateway's clock may run ahead of ours by a little.
_AHEAD = timedelta(minutes=5)
_IMP_UID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What the merchant ordered, as far as it says so: a browser can change what is paid."""

    customer_uid: str | None = field(default=None, repr=False)
    merchant_uid: str | None = None
    amount: int | None = None


def checked_imp_uid(value: str) -> str:
    """Raises `InvalidInput` unless it looks like an id of the gateway."""
    if not is_imp_uid(value):
        raise InvalidInput(
            "imp_uid",
            shown("imp_uid", value),
            "is not the id of a payment",
            "Pass on what the payment window returned, e.g. imp_123456789012",
        )
    return value


def is_imp_uid(value: str) -> bool:
    """Whether it looks like an id of the gateway."""
    return _IMP_UID.fullmatch(value) is not None


def registration(
    payment: Payment, expected: Expected, now: datetime, *, sandbox: bool
) -> NewSubscription:
    """The subscription that a payment begins. `sandbox` says which kind of payment is taken.

    Raises `Conflict` for a payment that registers nothing or is not the one that was ordered,
    `InvalidInput` for a text that no later payment could repeat."""
    problem = _not_a_registration(payment, sandbox) or _not_as_ordered(payment, expected)
    if problem is not None:
        raise Conflict(f"{payment.imp_uid} {problem}")
    if payment.paid_at is None or payment.paid_at > now + _AHEAD:
        raise Conflict(f"{payment.imp_uid} was paid at no moment that has passed")
    return NewSubscription(
        facts=Facts(
            customer_uid=_customer_uid(payment),
            amount=payment.amount,
            order_name=_as_shown("order_name", payment.order_name) or _no_name(),
            initial_paid_at=payment.paid_at,
            buyer_name=_as_shown("buyer_name", payment.buyer.name),
            buyer_email=_as_shown("buyer_email", payment.buyer.email),
            buyer_tel=_as_shown("buyer_tel", payment.buyer.tel),
        ),
        initial_merchant_uid=_as_shown("initial_merchant_uid", payment.merchant_uid),
        initial_imp_uid=payment.imp_uid,
    )


def _not_a_registration(payment: Payment, sandbox: bool) -> str | None:
    """Why the payment registered no billing key that we may charge."""
    if payment.status != "paid":
        return f"is {shown('status', payment.status)}, not paid"
    if payment.cancelled_amount.amount:
        return f"was given back in part ({payment.cancelled_amount})"
    if payment.pay_method != METHOD:
        return "is no payment by phone bill"
    if payment.pg_provider != PROVIDER:
        return f"was not made through {PROVIDER}, whose rules alone are known"
    if payment.currency not in (None, CURRENCY):
        return f"is not in {CURRENCY}"
    if payment.amount < Won(MINIMUM_CHARGE):
        return f"is below {MINIMUM_CHARGE} won, which the carrier would not take again"
    if not payment.customer_uid:
        return "registered no billing key: the payment window was opened without customer_uid"
    if payment.customer_uid_usage not in (None, "issue"):
        return "was made with a billing key and did not register one"
    if payment.sandbox != sandbox:
        return "is a test payment" if payment.sandbox else "is a live payment: INCLUDE_SANDBOX"
    return None


def _not_as_ordered(payment: Payment, expected: Expected) -> str | None:
    if expected.customer_uid not in (None, payment.customer_uid):
        return "belongs to another customer_uid than the one that was ordered for"
    if expected.merchant_uid not in (None, payment.merchant_uid):
        return "has another merchant_uid than the order"
    if expected.amount not in (None, payment.amount.amount):
        return f"is of {payment.amount}, which is not the amount of the order"
    return None


def _customer_uid(payment: Payment) -> str:
    """By the rule of imported lines: it is how people name the subscription."""
    name = text_field({"customer_uid": payment.customer_uid or ""}, "customer_uid")
    if name is None:
        raise AssertionError("a payment without customer_uid was refused before")
    return name


def _as_shown(name: str, value: str | None) -> str | None:
    """A text that every later request must repeat. Looser than a cell: nothing may be corrected."""
    if value is None:
        return None
    problem = None
    if UNPRINTABLE.search(value):
        problem = "holds a control character"
    elif len(value) > LENGTHS[name]:
        problem = f"is {len(value)} characters long; the gateway takes {LENGTHS[name]} each month"
    if problem is not None:
        raise InvalidInput(
            name, shown(name, value), problem, "Open the payment window with another text"
        )
    return value


def _no_name() -> str:
    raise InvalidInput(
        "order_name", "", "is empty", "Open the payment window with the name of the order"
    )
