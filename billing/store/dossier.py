"""Everything the book holds about one subscription, for the person who looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.store.tables import (
    Attempt,
    BuyerData,
    Cycle,
    Event,
    Notice,
    Refund,
    Subscription,
)

MOST_CYCLES = 24
MOST_EVENTS = 60
MOST_NOTICES = 20


@dataclass(frozen=True, slots=True)
class CycleRows:
    """One cycle with its attempts and the refunds of its payment."""

    cycle: Cycle
    attempts: Sequence[Attempt]
    refunds: Sequence[Refund]


@dataclass(frozen=True, slots=True)
class Dossier:
    """One subscription. `buyer` is personal: masked unless somebody asks to see it."""

    subscription: Subscription
    buyer: BuyerData | None = field(repr=False)
    cycles: Sequence[CycleRows]
    events: Sequence[Event]
    # Where the next page of events begins; None when these are all.
    events_before: int | None
    notices: Sequence[Notice]


def find(session: Session, subscription_id: int) -> Subscription | None:
    """One subscription by its id."""
    return session.get(Subscription, subscription_id)


def read(
    session: Session, subscription_id: int, events_before: int | None = None
) -> Dossier | None:
    """The newest cycles, events and notices of a subscription; None when there is none."""
    subscription = find(session, subscription_id)
    if subscription is None:
        return None
    events = _events(session, subscription_id, events_before)
    return Dossier(
        subscription=subscription,
        buyer=session.get(BuyerData, subscription_id),
        cycles=_cycles(session, subscription_id),
        events=events[:MOST_EVENTS],
        events_before=events[MOST_EVENTS - 1].id if len(events) > MOST_EVENTS else None,
        notices=_notices(session, subscription_id),
    )


def buyer(session: Session, subscription_id: int) -> BuyerData | None:
    """The buyer data of a subscription."""
    return session.get(BuyerData, subscription_id)


def _cycles(session: Session, subscription_id: int) -> Sequence[CycleRows]:
    cycles = (
        session.execute(
            select(Cycle)
            .where(Cycle.subscription_id == subscription_id)
            .order_by(Cycle.number.desc())
            .limit(MOST_CYCLES)
        )
        .scalars()
        .all()
    )
    attempts: dict[int, list[Attempt]] = {cycle.id: [] for cycle in cycles}
    query = select(Attempt).where(Attempt.cycle_id.in_(attempts)).order_by(Attempt.number)
    for attempt in session.execute(query).scalars():
        attempts[attempt.cycle_id].append(attempt)
    refunds: dict[str, list[Refund]] = {}
    given_back = select(Refund).where(Refund.subscription_id == subscription_id)
    for refund in session.execute(given_back.order_by(Refund.id)).scalars():
        refunds.setdefault(refund.imp_uid, []).append(refund)
    return [
        CycleRows(cycle, attempts[cycle.id], refunds.get(cycle.paid_imp_uid or "", []))
        for cycle in cycles
    ]


def _events(session: Session, subscription_id: int, before: int | None) -> Sequence[Event]:
    query = (
        select(Event)
        .where(Event.subscription_id == subscription_id)
        .order_by(Event.id.desc())
        .limit(MOST_EVENTS + 1)
    )
    if before is not None:
        query = query.where(Event.id < before)
    return session.execute(query).scalars().all()


def _notices(session: Session, subscription_id: int) -> Sequence[Notice]:
    """Those that wait and those that were given up; what was delivered is in the event lines."""
    return (
        session.execute(
            select(Notice)
            .where(Notice.subscription_id == subscription_id, Notice.delivered_at.is_(None))
            .order_by(Notice.id.desc())
            .limit(MOST_NOTICES)
        )
        .scalars()
        .all()
    )
