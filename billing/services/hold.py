"""Stop all charging, and start it again."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from billing.domain import brake
from billing.domain.cycle import CycleStatus, HoldReason
from billing.domain.errors import Conflict
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.services.answer import clean
from billing.services.change_status import tell_no_more
from billing.services.let_go import lift
from billing.store import events, health, heartbeats, installation
from billing.store.heartbeats import SEEN_WITHIN
from billing.store.session import Book, Transaction
from billing.store.tables import Cycle, Subscription


@dataclass(frozen=True, slots=True)
class Released:
    """What charging had been stopped for (None: it had not been), and how many customers whom the
    brake kept from being suspended are tried again."""

    hold: health.Hold | None
    tried_again: int


def hold(book: Book, why: str) -> str:
    """Stop all charging, at once for every worker; returns why it is stopped now. A reason that is
    no text, or none, stops it as well: who types in haste wants it stopped."""
    said = clean(why).strip() or "held by hand"

    def step(tx: Transaction) -> str:
        stop(tx, said)
        return health.hold_reason(tx.session) or said

    return book.run(step)


def is_unwatched(book: Book) -> bool:
    """Whether no tick was seen in this book lately: no scheduler works on it, or not any more."""

    def step(tx: Transaction) -> bool:
        seen = heartbeats.seen(tx.session).items()
        return not any(heartbeats.is_tick(name) and tx.now - at < SEEN_WITHIN for name, at in seen)

    return book.run(step)


def stop(tx: Transaction, why: str, *, by_brake: bool = False) -> None:
    """Stop all charging, with one alarm; the first reason stays."""
    if health.hold(tx.session, tx.now, why, by_brake=by_brake):
        events.add(tx.session, at=tx.now, kind="charging.held", data={"why": why}, alarm=True)


def release(book: Book, policy: BillingPolicy) -> Released:
    """Start charging again, from this database and for this store, also where nobody has noticed
    yet that it is another one.

    Customers whom the brake kept from being suspended are tried again. Where nothing had pointed at
    ourselves, who was declined for good just before a person's hold stays so: he is not asked
    again, and suspended as if there had been none.
    """

    def step(tx: Transaction) -> Released:
        here = installation.identity(tx.session, policy.store)
        # First, as whoever holds takes the two rows in this order.
        held = health.release(tx.session)
        installation.accept(tx.session, here)
        if held is None:
            return Released(None, 0)
        events.add(tx.session, at=tx.now, kind="charging.released")
        is_doubted = held.by_brake or not brake.are_believed(held.verdicts)
        return Released(held, _try_again(tx, policy) if is_doubted else 0)

    return book.run(step)


def _try_again(tx: Transaction, policy: BillingPolicy) -> int:
    rows = tx.session.execute(
        select(Cycle, Subscription)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(
            Cycle.status == CycleStatus.OPEN,
            Cycle.held == HoldReason.UNCONFIRMED,
            # Also of those who were paused meanwhile: else the next tick would suspend them.
            Subscription.status.in_([SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED]),
        )
        .order_by(Subscription.id)
        .with_for_update(of=[Subscription, Cycle])
    ).all()
    tried = 0
    for cycle, subscription in rows:
        try:
            tried += not isinstance(lift(tx, policy, subscription, cycle), NoRetryReason)
        except Conflict:
            # Its month has no number left for an attempt. The others are tried all the same.
            tell_no_more(tx, cycle, NoRetryReason.ATTEMPTS_USED_UP)
    return tried
