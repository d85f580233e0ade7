"""One subscription into the book, by hand; and what the gateway says of those that come in."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Mapping, Sequence

from billing.domain.calendar import SEOUL, day_of
from billing.domain.enrolment import COLUMNS
from billing.domain.errors import Conflict, InvalidInput
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import NewSubscription
from billing.ports import PaymentGateway
from billing.services.import_subscriptions import import_subscriptions
from billing.store.session import Book

# Look-ups of a verification that are open at the gateway at once.
_WIDTH = 10


def enrol(
    book: Book,
    policy: BillingPolicy,
    derive_key: Callable[[], bytes],
    fields: Mapping[str, str],
) -> bool:
    """Enrol one subscription, by the same rules as a line of a file; False when it was there.

    Raises `InvalidInput` for a field that is wrong, `Conflict` for other facts of a known customer.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [name for name in COLUMNS if name in fields])
    writer.writeheader()
    writer.writerow(fields)
    file = io.BytesIO(table.getvalue().encode())
    report = import_subscriptions(book, policy, derive_key, file)
    for rejection in report.rejected:
        if "differs from the book" in rejection.problem:
            raise Conflict(f"{rejection.field}: {rejection.problem}")
        raise InvalidInput(rejection.field, rejection.value, rejection.problem)
    return report.added == 1


async def verify_at_gateway(
    gateway: PaymentGateway, incoming: Sequence[NewSubscription]
) -> list[str | None]:
    """What is wrong with each at the gateway, or None: does the billing key exist, and is the
    initial payment the one that is claimed? Raises `GatewayError`."""
    door = asyncio.Semaphore(_WIDTH)

    async def one(new: NewSubscription) -> str | None:
        async with door:
            if await gateway.billing_key(new.facts.customer_uid) is None:
                return "no such billing key at the gateway"
            for payment in await _initial_payments(gateway, new):
                problem = _misfit(new, payment)
                if problem is not None:
                    return problem
            return None

    return list(await asyncio.gather(*(one(new) for new in incoming)))


async def _initial_payments(gateway: PaymentGateway, new: NewSubscription) -> list[Payment | None]:
    found: list[Payment | None] = []
    if new.initial_imp_uid is not None:
        found.append(await gateway.payment(new.initial_imp_uid))
    elif new.initial_merchant_uid is not None:
        rows = await gateway.payments_of_order(new.initial_merchant_uid)
        found.append(next((row for row in rows if row.status == "paid"), None))
    return found


def _misfit(new: NewSubscription, payment: Payment | None) -> str | None:
    """Why a payment is not the initial payment of this subscription."""
    facts = new.facts
    if payment is None or payment.paid_at is None:
        return "the initial payment is not at the gateway"
    if payment.status != "paid":
        return f"the initial payment is {payment.status}"
    if payment.amount != facts.amount:
        return f"the initial payment was {payment.amount}"
    if payment.customer_uid not in (None, facts.customer_uid):
        return "the initial payment belongs to another billing key"
    if day_of(payment.paid_at, SEOUL) != day_of(facts.initial_paid_at, SEOUL):
        return f"the initial payment was made on {day_of(payment.paid_at, SEOUL)}"
    return None
