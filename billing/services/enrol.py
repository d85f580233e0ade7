"""One subscription into the book, by hand; and what the gateway says of those that come in."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta

from billing.domain.calendar import SEOUL, day_of, start_of
from billing.domain.correction import plain
from billing.domain.enrolment import COLUMNS, Misfit, new_subscription
from billing.domain.errors import Conflict, InvalidInput
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import NewSubscription
from billing.ports import PaymentGateway
from billing.services.import_subscriptions import import_subscriptions
from billing.store.session import Book

# Look-ups of a verification that are open at the gateway at once.
_WIDTH = 10
# The gateway tells at most three months of its schedule at once (docs/gateway.md §5).
_SCHEDULE_SPAN = timedelta(days=89)


def enrol(
    book: Book,
    policy: BillingPolicy,
    derive_key: Callable[[], bytes],
    fields: Mapping[str, str],
    *,
    notify: bool = False,
) -> bool:
    """Enrol one subscription, by the same rules as a line of a file; False when it was there. With
    `notify` the merchant's own system is told.

    Raises `InvalidInput` for a field that is wrong, `Conflict` for other facts of a known customer.
    """
    for name in fields:
        if name not in COLUMNS:
            raise InvalidInput(name, "", "is no field of a subscription", "Leave it out")
    row = {name: fields.get(name, "") for name in COLUMNS}
    with book.transaction() as tx:
        new_subscription(row, tx.now, policy.plan.zone)
    report = import_subscriptions(book, policy, derive_key, _as_file(row), notify=notify)
    # The row itself is good, so it is the book that it contradicts.
    for rejection in report.rejected:
        raise Conflict(f"{rejection.field}: {rejection.problem}")
    return report.added == 1


def _as_file(row: Mapping[str, str]) -> io.BytesIO:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([row.keys(), row.values()])
    return io.BytesIO(table.getvalue().encode())


async def verify_at_gateway(
    gateway: PaymentGateway, incoming: Sequence[NewSubscription]
) -> list[Misfit | Payment]:
    """The initial payment of each, or what is wrong with it at the gateway: does the billing key
    exist, is the initial payment the one that is claimed, and does the gateway charge the key by
    itself already?

    Raises `GatewayError`."""
    door = asyncio.Semaphore(_WIDTH)
    now = await gateway.moment()

    async def one(new: NewSubscription) -> Misfit | Payment:
        async with door:
            return await _verified(gateway, new, now)

    return list(await asyncio.gather(*(one(new) for new in incoming)))


async def _verified(
    gateway: PaymentGateway, new: NewSubscription, now: datetime
) -> Misfit | Payment:
    if await gateway.billing_key(new.facts.customer_uid) is None:
        return Misfit("customer_uid", "no such billing key at the gateway")
    initial = await _initial(gateway, new)
    if isinstance(initial, Misfit):
        return initial
    held = await gateway.scheduled_payments(new.facts.customer_uid, now, now + _SCHEDULE_SPAN)
    for scheduled in held:
        if scheduled.status == "scheduled":
            day = day_of(scheduled.scheduled_at, SEOUL)
            return Misfit(
                "customer_uid",
                f"the gateway itself will charge this key on {day}; unschedule that first",
            )
    return initial


async def _initial(gateway: PaymentGateway, new: NewSubscription) -> Misfit | Payment:
    """The initial payment, found by its ids or, without one, by its day; or what is wrong."""
    if new.initial_imp_uid is not None:
        return _fitting(new, await gateway.payment(new.initial_imp_uid))
    if new.initial_merchant_uid is not None:
        rows = await gateway.payments_of_order(new.initial_merchant_uid)
        return _fitting(new, next((row for row in rows if row.status == "paid"), None))
    anchor_on = day_of(new.facts.initial_paid_at, SEOUL)
    near = await payments_around(gateway, new.facts.customer_uid, anchor_on)
    if not near:
        return Misfit(
            "initial_paid_at",
            f"the billing key has no payment around {anchor_on} at the gateway; if it was made"
            " otherwise, give its initial_imp_uid",
        )
    # The one that fits best speaks for all: another day is nearer than another amount.
    near = sorted(near, key=lambda row: (row.status != "paid", row.amount != new.facts.amount))
    found = [_fitting(new, row) for row in near]
    return next((one for one in found if isinstance(one, Payment)), found[0])


async def payments_around(
    gateway: PaymentGateway, customer_uid: str, day: date
) -> Sequence[Payment]:
    """A billing key's payments of a day, the one before and the one after. Raises
    `GatewayError`."""
    days = (day - timedelta(days=1), day, day + timedelta(days=1))
    rows = await gateway.payments_of_key(customer_uid, start_of(days[0], SEOUL))
    return [row for row in rows if row.paid_at and day_of(row.paid_at, SEOUL) in days]


def _fitting(new: NewSubscription, payment: Payment | None) -> Misfit | Payment:
    """The payment, or why it is not the initial payment of this subscription."""
    if payment is None or payment.paid_at is None:
        return Misfit(_found_by(new), "the initial payment is not at the gateway")
    return _misfit(new, payment, payment.paid_at) or payment


def _misfit(new: NewSubscription, payment: Payment, paid_at: datetime) -> Misfit | None:
    facts = new.facts
    if payment.status != "paid":
        return Misfit(_found_by(new), f"the initial payment is {payment.status}")
    if new.initial_merchant_uid not in (None, payment.merchant_uid):
        return Misfit("initial_merchant_uid", "the initial payment has another merchant_uid")
    if payment.amount != facts.amount:
        return Misfit("amount", f"the initial payment was {payment.amount}")
    if payment.customer_uid not in (None, facts.customer_uid):
        return Misfit("customer_uid", "the initial payment belongs to another billing key")
    # What the carrier compares every month: with another name each charge would be refused (0060),
    # and facts in the book are never changed.
    if payment.order_name not in (None, facts.order_name):
        return Misfit("order_name", f"the initial payment was for {payment.order_name!r}")
    told = (
        ("buyer_name", payment.buyer.name, facts.buyer_name),
        ("buyer_email", payment.buyer.email, facts.buyer_email),
        ("buyer_tel", payment.buyer.tel, facts.buyer_tel),
    )
    for field, theirs, ours in told:
        # Somebody's data: never shown.
        if theirs and ours and not _alike(theirs, ours):
            return Misfit(field, "the initial payment was made with another one")
    paid_on = day_of(paid_at, SEOUL)
    if paid_on != day_of(facts.initial_paid_at, SEOUL):
        return Misfit("initial_paid_at", f"the initial payment was made on {paid_on}")
    return None


def _alike(theirs: str, ours: str) -> bool:
    """Whether the gateway's row may mean what we have. How it writes buyer data is documented
    nowhere: what it masks, or sets otherwise, is no difference."""
    return "*" in theirs or plain(theirs) == plain(ours)


def _found_by(new: NewSubscription) -> str:
    """The field by which the initial payment is looked for."""
    if new.initial_imp_uid is not None:
        return "initial_imp_uid"
    return "initial_paid_at" if new.initial_merchant_uid is None else "initial_merchant_uid"
