"""A held month is charged after all, since a person has looked at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from billing.domain.attempt import AttemptStatus
from billing.domain.errors import Conflict
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.services.change_status import (
    attempt_again,
    found_one,
    goes_at,
    live_of,
    open_cycle_of,
)
from billing.store import events
from billing.store.session import Book, Transaction
from billing.store.tables import Cycle, Event, Subscription


@dataclass(frozen=True, slots=True)
class LetGo:
    """What the month was held for, since when, and when it is tried next; `at` is None where it is
    not tried: `why_not` says why, or an attempt of it is at the gateway, or the subscription is
    paused."""

    held: str
    since: datetime | None
    at: datetime | None
    why_not: NoRetryReason | None = None


def let_go(book: Book, policy: BillingPolicy, customer_uid: str) -> LetGo:
    """Lift what holds the open month of one subscription.

    What is still so holds it again before anything is sent: changed facts, a payment that was
    cancelled, a contradiction that the gateway still shows. Raises `NotFound`, `Conflict` (no month
    of it is held, or it has no attempt left).
    """

    def step(tx: Transaction) -> LetGo:
        subscription = found_one(tx, customer_uid)
        cycle = open_cycle_of(tx, subscription)
        if cycle is None or (held := cycle.held) is None:
            raise Conflict(f"no month of {customer_uid!r} is held; there is nothing to let go")
        since = _held_since(tx, cycle)
        planned = lift(tx, policy, subscription, cycle)
        if isinstance(planned, NoRetryReason):
            return LetGo(held, since, None, planned)
        return LetGo(held, since, planned)

    return book.run(step)


def _held_since(tx: Transaction, cycle: Cycle) -> datetime | None:
    """By the event line; None where somebody wrote it into the row by hand."""
    of_it = (Event.subscription_id == cycle.subscription_id, Event.cycle_id == cycle.id)
    query = select(Event.at).where(*of_it, Event.kind == "cycle.held")
    return tx.session.execute(query.order_by(Event.id.desc()).limit(1)).scalar()


def lift(
    tx: Transaction, policy: BillingPolicy, subscription: Subscription, cycle: Cycle
) -> datetime | NoRetryReason | None:
    """Let one held month go; its rows are locked. The decline that it was held for is pardoned: it
    counts as one that may be tried again soon, whatever it said. Where the subscription is paused,
    resuming it plans the attempt (`change_status`)."""
    told = {"reason": cycle.held}
    cycle.held = None
    events.add(
        tx.session,
        at=tx.now,
        kind="cycle.let_go",
        subscription_id=subscription.id,
        cycle_id=cycle.id,
        data=told,
    )
    live = live_of(tx, cycle)
    if live is None:
        if subscription.status != SubscriptionStatus.ACTIVE:
            return None
        return attempt_again(tx, subscription, policy, pardoned=True)
    if live.status == AttemptStatus.UNKNOWN:
        # A contradiction is asked about once an hour; now somebody waits for it.
        live.ask_at = tx.now
    return goes_at(live, cycle) if live.status == AttemptStatus.DUE else None
