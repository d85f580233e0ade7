"""The gateway's own view of one billing key, beside ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.errors import GatewayUnavailable, NotFound
from billing.domain.payment import Payment
from billing.ports import BillingKey, PaymentGateway
from billing.store import dossier
from billing.store.dossier import CycleRows, Dossier
from billing.store.session import Book
from billing.store.tables import Attempt

# Three whole months and some days: what a person wants to see of a chain of payments.
LOOKS_BACK = timedelta(days=100)


@dataclass(frozen=True, slots=True)
class Line:
    """One payment as both sides have it; None on the side that does not.

    `initial` says that it registered the billing key. `agrees` is False where a person should look;
    None where there is nothing to compare with (made elsewhere, before the enrolment)."""

    at: datetime | None
    payment: Payment | None
    rows: CycleRows | None
    attempt: Attempt | None
    initial: bool
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Beside:
    """What the gateway said when it was asked."""

    asked_at: datetime
    key: BillingKey | None = field(repr=False)
    lines: Sequence[Line]


async def beside(
    book: Book, gateway: PaymentGateway, subscription_id: int, seconds: float
) -> Beside:
    """Ask the gateway about a key and its newest payments, for so many seconds at most. Writes
    nothing. Raises `NotFound`, `GatewayError`."""

    def read() -> tuple[Dossier | None, datetime]:
        with book.transaction() as tx:
            return dossier.read(tx.session, subscription_id), tx.now

    ours, now = await asyncio.to_thread(read)
    if ours is None:
        raise NotFound(f"no subscription has the number {subscription_id}")
    customer_uid = ours.subscription.customer_uid
    try:
        async with asyncio.timeout(seconds):
            key, payments = await asyncio.gather(
                gateway.billing_key(customer_uid),
                gateway.payments_of_key(customer_uid, now - LOOKS_BACK),
            )
    except TimeoutError:
        raise GatewayUnavailable(f"no answer within {seconds:g} seconds") from None
    return Beside(now, key, _lines(ours, payments, now - LOOKS_BACK))


def _lines(ours: Dossier, payments: Sequence[Payment], since: datetime) -> list[Line]:
    found = [_line(ours, payment) for payment in payments]
    seen = {payment.imp_uid for payment in payments}
    for rows in ours.cycles:
        cycle = rows.cycle
        missing = cycle.paid_imp_uid is not None and cycle.paid_imp_uid not in seen
        if missing and cycle.paid_at is not None and cycle.paid_at >= since:
            found.append(Line(cycle.paid_at, None, rows, None, initial=False, agrees=False))
    return sorted(found, key=lambda line: (line.at is None, line.at), reverse=True)


def _line(ours: Dossier, payment: Payment) -> Line:
    at = payment.paid_at or payment.cancelled_at or payment.failed_at or payment.started_at
    subscription = ours.subscription
    initial = payment.imp_uid == subscription.initial_imp_uid or (
        payment.merchant_uid == subscription.initial_merchant_uid
        or payment.customer_uid_usage == "issue"
    )
    for rows in ours.cycles:
        attempt = next(
            (one for one in rows.attempts if one.merchant_uid == payment.merchant_uid), None
        )
        if attempt is not None or rows.cycle.paid_imp_uid == payment.imp_uid:
            same = _agrees(payment, rows, attempt)
            return Line(at, payment, rows, attempt, initial=initial, agrees=same)
    stray = payment.status == "paid" and not initial
    return Line(at, payment, None, None, initial=initial, agrees=False if stray else None)


def _agrees(payment: Payment, rows: CycleRows, attempt: Attempt | None) -> bool:
    """Whether the gateway's word and ours mean the same."""
    cycle = rows.cycle
    counted = cycle.paid_imp_uid == payment.imp_uid
    match payment.status:
        case "paid":
            return (
                counted
                and cycle.status == CycleStatus.PAID
                and payment.amount.amount == cycle.amount
            )
        case "cancelled":
            return counted and cycle.status == CycleStatus.REFUNDED
        case "failed":
            return attempt is not None and attempt.status == AttemptStatus.DECLINED
        case _:
            return attempt is not None and attempt.status in (
                AttemptStatus.SENDING,
                AttemptStatus.UNKNOWN,
            )
