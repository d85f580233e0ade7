"""Was the day's reconciliation made, whole? The ticks ask often, so that one that failed is made
again within the hour; and a person is told when none has been whole for longer than a day."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.domain.plan import Cron
from billing.domain.policy import BillingPolicy
from billing.ports import PaymentGateway
from billing.services.questions import Sleep
from billing.services.reconcile import Report, reconcile_today
from billing.store import events, heartbeats
from billing.store.session import Book, Transaction
from billing.store.tables import Subscription

# A day, and time for a run that takes long.
LATE_AFTER = timedelta(hours=26)
# As long as it stays away it is told of again once a day.
AGAIN_AFTER = timedelta(days=1)


def last_whole(tx: Transaction) -> datetime | None:
    """When the last whole daily run was made; None where there was none. One in the future was made
    by a clock that was wrong, and counts as none."""
    at = heartbeats.seen(tx.session).get(heartbeats.RECONCILED)
    return None if at is None or at > tx.now else at


def is_due(tx: Transaction, policy: BillingPolicy, slots: Cron) -> bool:
    """Whether a slot of the schedule has passed since the last whole run."""
    last = last_whole(tx)
    return last is None or slots.after(last, policy.plan.zone) <= tx.now


async def make(
    book: Book,
    gateway: PaymentGateway,
    policy: BillingPolicy,
    proofs: Path | None,
    *,
    sleep: Sleep = asyncio.sleep,
) -> Report:
    """Make the day's reconciliation; where it was whole, the next is due at the next slot. Raises
    `GatewayError`."""
    last = await asyncio.to_thread(book.run, last_whole)
    report = await reconcile_today(book, gateway, policy, last, proofs, sleep=sleep)
    if report.whole:
        await asyncio.to_thread(book.run, _note_whole)
    return report


def _note_whole(tx: Transaction) -> None:
    heartbeats.beat(tx.session, heartbeats.RECONCILED, tx.now)


def age(tx: Transaction) -> timedelta | None:
    """How long ago the last whole run was; or, where there was none yet, the first enrolment. None
    where there is nothing to reconcile."""
    since = last_whole(tx) or _first_enrolled(tx.session)
    return None if since is None else max(tx.now - since, timedelta(0))


def tell_if_late(book: Book) -> None:
    """An alarm, once a day, when the last whole run is too long ago."""

    def step(tx: Transaction) -> None:
        late = age(tx)
        if late is None or late <= LATE_AFTER:
            return
        data = {"hours": int(late / timedelta(hours=1))}
        events.alarm_unless_told(
            tx.session, at=tx.now, kind="reconcile.late", data=data, within=AGAIN_AFTER
        )

    book.run(step)


def _first_enrolled(session: Session) -> datetime | None:
    query = select(Subscription.enrolled_at).order_by(Subscription.id).limit(1)
    return session.execute(query).scalar_one_or_none()
