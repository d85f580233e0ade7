"""Window over and unpaid → missed or skipped, with its true reason, an alarm, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, or_, select

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleReason, CycleStatus, HoldReason
from billing.domain.errors import InvalidInput
from billing.domain.plan import closes_at
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus, SuspensionReason
from billing.services import confirm, news
from billing.services.clock_guard import ClockGuard, guarded
from billing.services.coming import next_dates
from billing.services.fence import why_not_yet
from billing.services.open_cycles import (
    has_open_cycle,
    move_on,
    new_cycle,
    point_at,
    put_off,
    tell_there_already,
    until_done,
)
from billing.store import attempts, events, health
from billing.store.opening import there_already
from billing.store.session import Book, Transaction, by_index_in_order
from billing.store.tables import Attempt, Cycle, Subscription

T = TypeVar("T")

BATCH = 500
# An unknown that cannot be settled so long after the close becomes `missed`, `unproven`
# (docs/protocol.md, 7).
GIVE_UP_AFTER = timedelta(hours=48)


def close_cycles(book: Book, policy: BillingPolicy, guard: ClockGuard | None = None) -> int:
    """End every open cycle whose window is over, every paused month that passed, suspend whom the
    gateway declined for good, and warn of those that close soon. Returns how many ended. Nothing by
    a clock that the `guard` does not believe; without a guard the caller vouches for the clock.
    Nothing in a book that was moved or went back in time, either, before a person releases it: the
    payment may be what it has forgotten, and closing late is harmless."""
    warned = guarded(
        guard, ClockGuard.may_open, _here(policy, lambda tx: _warn_closing_soon(tx, policy))
    )
    suspended = guarded(
        guard,
        ClockGuard.may_end,
        _here(policy, lambda tx: _as_batch(confirm.confirm_suspensions(tx))),
    )
    closed = guarded(guard, ClockGuard.may_end, _here(policy, lambda tx: _close_batch(tx, policy)))
    skipped = guarded(guard, ClockGuard.may_end, _here(policy, lambda tx: _skip_paused(tx, policy)))
    until_done(book, warned, BATCH)
    until_done(book, suspended, confirm.BATCH)
    return until_done(book, closed, BATCH) + until_done(book, skipped, BATCH)


def _as_batch(done: int) -> tuple[int, int]:
    """For `until_done`: with each that was looked at, it did what it is for."""
    return done, done


def _here(
    policy: BillingPolicy, step: Callable[[Transaction], T]
) -> Callable[[Transaction], T | None]:
    """The step, in the database that the book was last used in."""
    return lambda tx: None if why_not_yet(tx, policy) else step(tx)


def anything_ends(tx: Transaction, policy: BillingPolicy) -> bool:
    """Whether `close_cycles` may have anything to do."""
    waits = (
        _is_over(tx).exists(),
        _passed_paused(tx).exists(),
        _closing_soon(tx, policy).exists(),
        select(Cycle.id)
        .where(Cycle.status == CycleStatus.OPEN, Cycle.held == HoldReason.UNCONFIRMED)
        .exists(),
    )
    return tx.session.execute(select(or_(*waits))).scalar_one()


def _close_batch(tx: Transaction, policy: BillingPolicy) -> tuple[int, int]:
    rows = tx.session.execute(
        _is_over(tx).order_by(Cycle.closes_at).limit(BATCH).with_for_update(skip_locked=True)
    ).all()
    ended = [(cycle, subscription) for cycle, subscription in rows]
    _end_all(tx, sorted(ended, key=lambda one: (one[0].closes_at, one[0].id)))
    return _as_batch(len(rows))


def _is_over(tx: Transaction) -> Select[Cycle, Subscription]:
    return (
        select(Cycle, Subscription)
        .join(Subscription, Subscription.id == Cycle.subscription_id)
        .where(Cycle.status == CycleStatus.OPEN, Cycle.closes_at <= tx.now)
        .where(~_still_settling(tx))
    )


def _still_settling(tx: Transaction) -> ColumnElement[bool]:
    """An attempt that may have been charged keeps its cycle open, for 48 hours at most."""
    # A month has one live attempt. Not EXISTS: for that the planner reads every live attempt there
    # is beforehand, also those that wait for their next try (0.5 s in a book of ten million).
    live = select(Attempt.id).where(
        Attempt.cycle_id == Cycle.id,
        Attempt.status.in_([AttemptStatus.SENDING, AttemptStatus.UNKNOWN]),
    )
    return live.scalar_subquery().is_not(None) & (Cycle.closes_at > tx.now - GIVE_UP_AFTER)


def _end_all(tx: Transaction, rows: Sequence[tuple[Cycle, Subscription]]) -> None:
    # Not what it is now: one paused or resumed between the band's end and this tick was what it was
    # when the last charge could have started, and that is why the month has no payment.
    last_starts = {subscription.id: cycle.last_start_at for cycle, subscription in rows}
    paused = events.paused_then(tx.session, last_starts)
    tried: dict[int, list[Attempt]] = {cycle.id: [] for cycle, _ in rows}
    query = select(Attempt).where(Attempt.cycle_id.in_(tried)).order_by(Attempt.id)
    for attempt in tx.session.execute(query.with_for_update()).scalars():
        tried[attempt.cycle_id].append(attempt)
    held = health.hold_reason(tx.session) is not None
    for cycle, subscription in rows:
        was_paused = subscription.id in paused
        cycle.status, cycle.reason = _verdict(
            cycle, subscription, was_paused, tried[cycle.id], charging_is_held=held
        )
        _end(tx, cycle, subscription, tried[cycle.id])


def _end(tx: Transaction, cycle: Cycle, subscription: Subscription, found: list[Attempt]) -> None:
    for attempt in found:
        if attempt.status == AttemptStatus.DUE:
            attempt.status = AttemptStatus.WITHDRAWN
            attempt.settled_at = tx.now
            attempt.dispatched_at = None
            events.add(
                tx.session,
                at=tx.now,
                kind="attempt.withdrawn",
                subscription_id=subscription.id,
                cycle_id=cycle.id,
                attempt_id=attempt.id,
                data={"why": "the window closed"},
            )
    cycle.settled_at = tx.now
    events.add(
        tx.session,
        at=tx.now,
        kind=f"cycle.{cycle.status}",
        subscription_id=subscription.id,
        cycle_id=cycle.id,
        data={"reason": cycle.reason, "cycle": cycle.number},
        alarm=cycle.status == CycleStatus.MISSED,
    )
    events.notify(tx.session, at=tx.now, subscription_id=subscription.id, news=news.ended(cycle))
    _break_chain(tx, subscription)


def _verdict(
    cycle: Cycle,
    subscription: Subscription,
    was_paused: bool,
    found: list[Attempt],
    *,
    charging_is_held: bool,
) -> tuple[CycleStatus, CycleReason]:
    statuses = {attempt.status for attempt in found}
    if statuses & {AttemptStatus.SENDING, AttemptStatus.UNKNOWN}:
        return CycleStatus.MISSED, CycleReason.UNPROVEN
    if subscription.status == SubscriptionStatus.CANCELLED:
        return CycleStatus.SKIPPED, CycleReason.CANCELLED
    if was_paused:
        return CycleStatus.SKIPPED, CycleReason.PAUSED
    if cycle.held not in (None, HoldReason.UNCONFIRMED):
        return CycleStatus.MISSED, CycleReason.HELD
    if AttemptStatus.DECLINED in statuses:
        return CycleStatus.MISSED, CycleReason.DECLINED
    if charging_is_held:
        return CycleStatus.MISSED, CycleReason.HELD
    return CycleStatus.MISSED, CycleReason.NOT_ATTEMPTED


def _break_chain(tx: Transaction, subscription: Subscription) -> None:
    """A calendar month without a payment ends the billing key for good (docs/gateway.md §1)."""
    if subscription.status not in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED):
        return
    subscription.status = SubscriptionStatus.SUSPENDED
    subscription.status_reason = SuspensionReason.CHAIN_BROKEN
    events.add(
        tx.session,
        at=tx.now,
        kind="subscription.suspended",
        subscription_id=subscription.id,
        data={"reason": SuspensionReason.CHAIN_BROKEN},
    )
    events.notify(
        tx.session,
        at=tx.now,
        subscription_id=subscription.id,
        news=news.suspended(SuspensionReason.CHAIN_BROKEN),
    )


def _skip_paused(tx: Transaction, policy: BillingPolicy) -> tuple[int, int]:
    rows = tx.session.execute(
        _passed_paused(tx)
        .order_by(Subscription.next_closes_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).scalars()
    found = sorted(rows, key=lambda one: (one.next_closes_at, one.id))
    passed = []
    for subscription in found:
        try:
            dates = next_dates(subscription, tx.now, policy.plan)
            if closes_at(dates, policy.plan) > tx.now:
                # The settings changed, and its turn to be planned anew has not come.
                point_at(subscription, dates, policy)
                continue
        except InvalidInput as error:
            put_off(tx, subscription, error.problem)
            subscription.next_closes_at = subscription.next_due_at
            continue
        passed.append((new_cycle(subscription, dates, tx.now, policy), subscription))
        move_on(subscription, policy)
    skipped = _not_there_yet(tx, passed)
    _end_all(tx, skipped)
    return len(found), len(skipped)


def _not_there_yet(
    tx: Transaction, months: Sequence[tuple[Cycle, Subscription]]
) -> list[tuple[Cycle, Subscription]]:
    """Write these months; of one that the book has already only tell."""
    asked = [(subscription.id, cycle.number, cycle.month) for cycle, subscription in months]
    there = there_already(tx.session, asked)
    for cycle, subscription in months:
        if subscription.id in there:
            tell_there_already(tx, subscription, cycle.number, cycle.month)
    fresh = [one for one in months if one[1].id not in there]
    tx.session.add_all(cycle for cycle, _ in fresh)
    tx.session.flush()
    return fresh


def _passed_paused(tx: Transaction) -> Select[Subscription]:
    """Paused subscriptions whose next window passed without a cycle: the month was skipped."""
    return select(Subscription).where(
        Subscription.status == SubscriptionStatus.PAUSED,
        Subscription.next_closes_at <= tx.now,
        ~has_open_cycle(),
    )


def _closing_soon(tx: Transaction, policy: BillingPolicy) -> Select[Cycle]:
    return select(Cycle).where(
        Cycle.status == CycleStatus.OPEN,
        Cycle.closing_soon_at.is_(None),
        Cycle.closes_at > tx.now,
        Cycle.closes_at <= tx.now + policy.closing_soon,
    )


def _warn_closing_soon(tx: Transaction, policy: BillingPolicy) -> tuple[int, int]:
    by_index_in_order(tx.session)
    rows = tx.session.execute(
        _closing_soon(tx, policy)
        # By the index on open cycles' ends, so that only those are read which close soon.
        .order_by(Cycle.closes_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).scalars()
    cycles = sorted(rows, key=lambda one: (one.closes_at, one.id))
    tried = attempts.of_cycles(tx.session, [cycle.id for cycle in cycles])
    for cycle in cycles:
        cycle.closing_soon_at = tx.now
        data = {"cycle": cycle.number, "last_start_at": cycle.last_start_at.isoformat()}
        events.add(
            tx.session,
            at=tx.now,
            kind="cycle.closing_soon",
            subscription_id=cycle.subscription_id,
            cycle_id=cycle.id,
            data=data,
            alarm=True,
        )
        events.notify(
            tx.session,
            at=tx.now,
            subscription_id=cycle.subscription_id,
            news=news.closing_soon(policy, cycle, tried[cycle.id]),
        )
    return _as_batch(len(cycles))
