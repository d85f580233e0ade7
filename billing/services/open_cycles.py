"""Subscriptions that are due → a cycle and its first attempt. The one door into charging."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus, merchant_uid
from billing.domain.calendar import (
    CycleDates,
    Window,
    cycle_dates,
    day_of,
    end_of,
    start_of,
)
from billing.domain.cycle import CycleStatus
from billing.domain.errors import InvalidInput
from billing.domain.plan import PlanPolicy, closes_at, first_attempt_at, last_start
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.services.clock_guard import ClockGuard, guarded
from billing.services.coming import next_dates, plan_anew
from billing.store import coming, events
from billing.store import opening as opening_rows
from billing.store.opening import Opened, Opening
from billing.store.session import Book, Transaction, by_index
from billing.store.tables import Attempt, Cycle, Subscription

BATCH = 500
# A month that cannot be opened is looked at again after this, and told of again once a day.
LOOK_AGAIN, TELL_AGAIN = timedelta(hours=1), timedelta(days=1)


def open_cycles(book: Book, policy: BillingPolicy, guard: ClockGuard | None = None) -> int:
    """Open every cycle that is due, in batches; returns how many. None by a clock that the `guard`
    does not believe; without a guard the caller vouches for the clock.

    Asks "what is due", so a missed, late or doubled tick is harmless. Two at once share the work:
    each takes rows the other has not locked.
    """

    book.run(lambda tx: plan_anew(tx, policy.plan))
    opened = guarded(guard, ClockGuard.may_open, lambda tx: _open_batch(tx, policy))
    return until_done(book, opened, BATCH)


def until_done(book: Book, step: Callable[[Transaction], tuple[int, int] | None], size: int) -> int:
    """Batch after batch of that size, each of which says how many it looked at and with how many of
    those it did what it is for; returns how many those were. None ends it, too."""
    total = 0
    while batch := book.run(step):
        looked_at, done = batch
        total += done
        if looked_at < size:
            break
    return total


def anything_opens(tx: Transaction) -> bool:
    """Whether `open_cycles` has anything to do."""
    by_index(tx.session)
    return tx.session.execute(select(_is_due(tx.now).exists())).scalar_one()


def _open_batch(tx: Transaction, policy: BillingPolicy) -> tuple[int, int]:
    """How many were due as they were stored, and how many of those were opened."""
    by_index(tx.session)
    due = _due(tx.session, tx.now)
    # Written by a statement for each table (`opening`); the session would write row by row.
    tx.session.expunge_all()
    openings, later = [], []
    for subscription in due:
        try:
            dates = next_dates(subscription, tx.now, policy.plan)
            point_at(subscription, dates, policy)
        except InvalidInput as error:
            put_off(tx, subscription, error.problem)
            later.append(subscription)
            continue
        if subscription.next_due_at <= tx.now:
            openings.append(_opening(subscription, dates, tx.now, policy))
        else:
            later.append(subscription)
    coming.write(tx.session, later)
    return len(due), len(_opened(tx, openings, policy))


def _opened(
    tx: Transaction, openings: Sequence[Opening], policy: BillingPolicy
) -> Mapping[int, Opened]:
    """Write these months and tell of each; returns those that are open now."""
    if not openings:
        return {}
    for opening in openings:
        move_on(opening.subscription, policy)
    written = opening_rows.write(tx.session, openings)
    for opening in openings:
        whose = opening.subscription.id
        if whose in written.opened:
            _tell(tx, opening, written.opened[whose])
        elif whose in written.there:
            number, month = opening.cycle["number"], opening.cycle["month"]
            tell_there_already(tx, opening.subscription, number, month)
        else:
            _leave(tx, opening)
    return written.opened


def open_ahead(
    tx: Transaction, policy: BillingPolicy, subscription_id: int | None, month: date | None
) -> int | None:
    """Open the next month of one that is active or paused before it is due, for a payment that was
    found; returns the cycle's id. None where that month is not the next, or the one before is open.
    """
    found = tx.session.execute(
        select(Subscription)
        .where(
            Subscription.id == subscription_id,
            Subscription.status.in_([SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED]),
            ~has_open_cycle(),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one_or_none()
    if found is None:
        return None
    dates = next_dates(found, tx.now, policy.plan)
    if dates.month != month:
        return None
    # As the batch does it: written by statements, not by the session.
    tx.session.expunge(found)
    point_at(found, dates, policy)
    opened = _opened(tx, [_opening(found, dates, tx.now, policy)], policy).get(found.id)
    return None if opened is None else opened.cycle_id


def _tell(tx: Transaction, opening: Opening, written: Opened) -> None:
    events.add(
        tx.session,
        at=tx.now,
        kind="cycle.opened",
        subscription_id=opening.subscription.id,
        cycle_id=written.cycle_id,
        attempt_id=written.attempt_id,
        data={
            "cycle": opening.cycle["number"],
            "merchant_uid": opening.attempt["merchant_uid"],
        },
    )


def tell_there_already(
    tx: Transaction, subscription: Subscription, number: int, month: date
) -> None:
    """Only an edit behind our back counts the months from elsewhere. One such row must not keep all
    the others from being opened, or skipped."""
    events.add(
        tx.session,
        at=tx.now,
        kind="cycle.there_already",
        subscription_id=subscription.id,
        data={"cycle": number, "month": month.isoformat()},
        alarm=True,
    )


def _leave(tx: Transaction, opening: Opening) -> None:
    """Its attempt cannot have the name that it must have: with another one the gateway could not
    tell a second charge of the month from the first."""
    subscription = opening.subscription
    subscription.next_cycle = opening.cycle["number"]
    subscription.next_closes_at = opening.cycle["closes_at"]
    put_off(tx, subscription, f"{opening.attempt['merchant_uid']} cannot be its attempt's name")
    coming.write(tx.session, [subscription])


def put_off(tx: Transaction, subscription: Subscription, why: str) -> None:
    """Look again later at one whose next month cannot be what its row says, which only an edit
    behind our back makes; an alarm once a day. It must not keep all the others waiting."""
    subscription.next_due_at = tx.now + LOOK_AGAIN
    kind = "cycle.not_opened"
    if not events.was_told_of(tx.session, subscription.id, kind, tx.now, TELL_AGAIN):
        events.add(
            tx.session,
            at=tx.now,
            kind=kind,
            subscription_id=subscription.id,
            data={"cycle": subscription.next_cycle, "why": why},
            alarm=True,
        )


def _due(session: Session, now: datetime) -> list[Subscription]:
    query = (
        _is_due(now)
        .order_by(Subscription.next_due_at)
        .limit(BATCH)
        .with_for_update(of=Subscription, skip_locked=True)
    )
    # Equal ones come as they lie in the table; in order, a simulation is the same run twice.
    found = session.execute(query).scalars()
    return sorted(found, key=lambda one: (one.next_due_at, one.id))


def _is_due(now: datetime) -> Select[Subscription]:
    """Active, due, and with no cycle still open: a month is judged before the next begins."""
    return select(Subscription).where(
        Subscription.status == SubscriptionStatus.ACTIVE,
        Subscription.next_due_at <= now,
        ~has_open_cycle(),
    )


def has_open_cycle() -> ColumnElement[bool]:
    """Whether a subscription's month is still open."""
    return exists().where(
        Cycle.subscription_id == Subscription.id, Cycle.status == CycleStatus.OPEN
    )


def _opening(
    subscription: Subscription, dates: CycleDates, now: datetime, policy: BillingPolicy
) -> Opening:
    cycle = _cycle_values(subscription, dates, now, policy)
    attempt = _attempt_values(
        subscription, dates.month, cycle["closes_at"], 1, subscription.next_due_at, policy
    )
    return Opening(subscription, cycle, attempt)


def new_cycle(
    subscription: Subscription, dates: CycleDates, now: datetime, policy: BillingPolicy
) -> Cycle:
    """The row of one month, with every moment that charging looks at worked out."""
    return Cycle(**_cycle_values(subscription, dates, now, policy))


def rules_of(
    subscription: Subscription, cycle: Cycle, policy: BillingPolicy
) -> tuple[CycleDates, PlanPolicy]:
    """The dates and the plan by which an open month may be tried again: within the moments that it
    was opened with, which are what claims look at, whatever the settings say by now."""
    plan = policy.plan
    dates = cycle_dates(subscription.anchor_on, cycle.number, plan.calendar)
    opens = day_of(cycle.band_opens_at, plan.zone)
    # Without a margin the last moment is the day's end, which is the next day's beginning.
    closes = day_of(cycle.last_start_at - timedelta.resolution, plan.zone)
    # Not later than the due day, which every band holds; but maybe before this one opens.
    first = max(dates.first_attempt_on, opens)
    margin = max(plan.close_margin, end_of(closes, plan.zone) - cycle.last_start_at)
    return (
        replace(
            dates,
            window=Window(cycle.opens_on, cycle.closes_on),
            band=Window(opens, closes),
            first_attempt_on=first,
        ),
        replace(plan, close_margin=margin),
    )


def another_attempt(
    subscription: Subscription,
    cycle: Cycle,
    number: int,
    at: datetime,
    now: datetime,
    policy: BillingPolicy,
) -> Attempt:
    """An attempt after a declined one, planned for `at`, under a `merchant_uid` of its own that
    never changes. It may not go before the gateway shows what it has done: "failed" may have been
    a payment, and the look-up before the charge must see it."""
    values = _attempt_values(subscription, cycle.month, cycle.closes_at, number, at, policy)
    values["ready_at"] = max(at, now + policy.visibility)
    return Attempt(cycle_id=cycle.id, **values)


def planned(attempt: Attempt, policy: BillingPolicy) -> dict[str, Any]:
    """What the event line `attempt.planned` holds of it: also how many declines were allowed then,
    by which it is judged ever after (`invariants`, I9)."""
    return {
        "merchant_uid": attempt.merchant_uid,
        "at": attempt.planned_at.isoformat(),
        "declines_allowed": policy.plan.max_attempts,
        "declines_allowed_a_day": policy.plan.attempts_per_day,
    }


# Plain values, since most months are opened by the hundred: a mapped object for each row would take
# half of the time.
def _cycle_values(
    subscription: Subscription, dates: CycleDates, now: datetime, policy: BillingPolicy
) -> dict[str, Any]:
    return {
        "subscription_id": subscription.id,
        "number": dates.number,
        "month": dates.month,
        "amount": subscription.amount,
        "due_on": dates.due_on,
        "opens_on": dates.window.opens_on,
        "closes_on": dates.window.closes_on,
        "band_opens_at": start_of(dates.band.opens_on, policy.plan.zone),
        "last_start_at": last_start(dates, policy.plan),
        "closes_at": closes_at(dates, policy.plan),
        "status": CycleStatus.OPEN,
        "opened_at": now,
    }


def _attempt_values(
    subscription: Subscription,
    month: date,
    closes_at: datetime,
    number: int,
    at: datetime,
    policy: BillingPolicy,
) -> dict[str, Any]:
    uid = merchant_uid(policy.merchant_uid_prefix, subscription.tag, month, number)
    return {
        "number": number,
        "merchant_uid": uid,
        "status": AttemptStatus.DUE,
        "closes_at": closes_at,
        "planned_at": at,
        "ready_at": at,
    }


def move_on(subscription: Subscription, policy: BillingPolicy) -> None:
    """Point the subscription at its next month, counted from the anchor, never from a payment."""
    following = cycle_dates(
        subscription.anchor_on, subscription.next_cycle + 1, policy.plan.calendar
    )
    subscription.next_cycle = following.number
    point_at(subscription, following, policy)


def point_at(subscription: Subscription, dates: CycleDates, policy: BillingPolicy) -> None:
    """Say when the next month, of these dates, is due and closes."""
    subscription.next_due_at = first_attempt_at(dates, policy.plan)
    subscription.next_closes_at = closes_at(dates, policy.plan)
