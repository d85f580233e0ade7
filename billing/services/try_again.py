"""Try a month again because a person says so: at the next slot, where the plan allows one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto

from sqlalchemy import select

from billing.domain.attempt import LIVE, AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.services.change_status import attempt_again, found_one
from billing.store.session import Book, Transaction
from billing.store.tables import Attempt, Cycle, Subscription


class NotTried(StrEnum):
    """Why nothing was planned, beside the reasons of the plan (`NoRetryReason`)."""

    NOT_ACTIVE = auto()
    NO_OPEN_CYCLE = auto()
    HELD_CYCLE = auto()
    # An attempt has not ended: it waits for its slot, is at the gateway, or is asked about.
    PLANNED = auto()
    UNDER_WAY = auto()
    UNKNOWN = auto()


_LIVE = {
    AttemptStatus.DUE: NotTried.PLANNED,
    AttemptStatus.SENDING: NotTried.UNDER_WAY,
    AttemptStatus.UNKNOWN: NotTried.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Tried:
    """The moment of the attempt that is planned now, or the reason why there is no new one; with
    `PLANNED` the moment is that of the attempt that waits already."""

    at: datetime | None
    why_not: NotTried | NoRetryReason | None = None


def try_again(book: Book, policy: BillingPolicy, customer_uid: str) -> Tried:
    """Plan an attempt of the open cycle at the next retry slot.

    By the rules that follow a decline, which no person can lift: the band, the number of tries in a
    day and a month, and what the newest decline says (by the table of declines as it is now).
    Raises `NotFound`, `Conflict` (the month has no attempt left)."""

    def step(tx: Transaction) -> Tried:
        subscription = found_one(tx, customer_uid)
        if (refused := _why_not(tx, subscription)) is not None:
            return refused
        planned = attempt_again(tx, subscription, policy)
        if isinstance(planned, NoRetryReason):
            return Tried(None, planned)
        return Tried(planned)

    return book.run(step)


def _why_not(tx: Transaction, subscription: Subscription) -> Tried | None:
    if subscription.status != SubscriptionStatus.ACTIVE:
        return Tried(None, NotTried.NOT_ACTIVE)
    row = tx.session.execute(
        select(Cycle, Attempt)
        .outerjoin(Attempt, (Attempt.cycle_id == Cycle.id) & Attempt.status.in_(LIVE))
        .where(Cycle.subscription_id == subscription.id, Cycle.status == CycleStatus.OPEN)
    ).first()
    if row is None:
        return Tried(None, NotTried.NO_OPEN_CYCLE)
    cycle, live = row
    if cycle.held is not None:
        return Tried(None, NotTried.HELD_CYCLE)
    if live is None:
        return None
    return Tried(live.planned_at, _LIVE[AttemptStatus(live.status)])
