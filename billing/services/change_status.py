"""Pause, resume and cancel a subscription, with the warning that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select

from billing.domain.attempt import LIVE, MAX_ATTEMPT_NUMBER, AttemptStatus
from billing.domain.cycle import CycleReason, CycleStatus
from billing.domain.declines import DeclineClass
from billing.domain.errors import Conflict, NotFound, TransitionRefused
from billing.domain.notice import Cancelled, News, Paused, Resumed
from billing.domain.plan import (
    Declines,
    NoRetry,
    NoRetryReason,
    RetryAt,
    last_start,
    next_attempt,
    resume_at,
)
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import (
    CHAIN_AT_RISK,
    SUBSCRIPTION_TRANSITIONS,
    SubscriptionStatus,
)
from billing.services import news
from billing.services.clock_guard import check_day
from billing.services.coming import next_dates
from billing.services.open_cycles import another_attempt, planned, rules_of
from billing.store import attempts, events, subscriptions
from billing.store.session import Book, Transaction
from billing.store.tables import Attempt, Cycle, Event, Subscription


@dataclass(frozen=True, slots=True)
class Changed:
    """The status now, and what the operator must know about it."""

    status: str
    warning_en: str = ""
    warning_ko: str = ""


def pause(book: Book, policy: BillingPolicy, customer_uid: str) -> Changed:
    """Stop charging until it is resumed. Raises `NotFound`, `TransitionRefused`."""

    def step(tx: Transaction) -> Changed:
        subscription = found_one(tx, customer_uid)
        if _moves(tx, subscription, SubscriptionStatus.PAUSED, policy):
            withdraw(tx, open_cycle_of(tx, subscription))
        return Changed(subscription.status, *_what_pausing_risks(tx, subscription, policy))

    return book.run(step)


def was_paused(tx: Transaction, subscription: Subscription) -> bool:
    """Whether a suspended one had been paused, and not resumed, when it was suspended."""
    newest = (
        select(Event.kind)
        .where(
            Event.subscription_id == subscription.id,
            Event.kind.in_(["subscription.paused", "subscription.resumed"]),
        )
        .order_by(Event.id.desc())
        .limit(1)
    )
    return tx.session.execute(newest).scalar_one_or_none() == "subscription.paused"


def pause_again(tx: Transaction, subscription: Subscription, policy: BillingPolicy) -> None:
    """What was paused before it was suspended, and is not suspended any more, is paused again."""
    _moves(tx, subscription, SubscriptionStatus.PAUSED, policy)


def before_pause(book: Book, policy: BillingPolicy, customer_uid: str) -> Changed:
    """What pausing now would risk; nothing is changed. Raises `NotFound`."""

    def step(tx: Transaction) -> Changed:
        subscription = found_one(tx, customer_uid)
        return Changed(subscription.status, *_what_pausing_risks(tx, subscription, policy))

    return book.run(step)


def resume(book: Book, policy: BillingPolicy, customer_uid: str) -> Changed:
    """Charge again; an open cycle gets an attempt at the next retry slot of its band, unless its
    declines forbid one.

    Raises `NotFound`, `TransitionRefused` (a suspended customer must register again), `Conflict`
    (paused and resumed so often that the month has no attempt left)."""

    def step(tx: Transaction) -> Changed:
        subscription = found_one(tx, customer_uid)
        if subscription.status == SubscriptionStatus.SUSPENDED:
            # Only proof of a payment lifts a suspension (docs/console.md, Resume), never a command.
            raise TransitionRefused(
                "subscription: a suspended one cannot be resumed; the customer must register again"
            )
        warning = ("", "")
        if _moves(tx, subscription, SubscriptionStatus.ACTIVE, policy):
            attempt_again(tx, subscription, policy)
            warning = _too_late(tx, subscription, policy)
        return Changed(subscription.status, *warning)

    return book.run(step)


# What a cancellation means, in English and Korean.
FINAL = (
    "This is final. The customer can come back only by registering again.",
    "되돌릴 수 없습니다. 다시 이용하려면 고객이 새로 등록해야 합니다.",
)


def cancel(book: Book, policy: BillingPolicy, customer_uid: str) -> Changed:
    """End the subscription for good. A charge that is under way ends as it ends.

    Raises `NotFound`."""

    def step(tx: Transaction) -> Changed:
        subscription = found_one(tx, customer_uid)
        end(tx, policy, subscription)
        return Changed(subscription.status, *FINAL)

    return book.run(step)


def end(tx: Transaction, policy: BillingPolicy, subscription: Subscription) -> None:
    """Cancel a subscription that is locked; nothing where it is cancelled already."""
    if _moves(tx, subscription, SubscriptionStatus.CANCELLED, policy):
        cycle = open_cycle_of(tx, subscription)
        if cycle is not None and withdraw(tx, cycle):
            _skip(tx, subscription, cycle)


def found_one(tx: Transaction, customer_uid: str) -> Subscription:
    """The subscription, locked. Raises `NotFound`."""
    found = subscriptions.locked(tx.session, customer_uid)
    if found is None:
        raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
    return found


def _moves(
    tx: Transaction,
    subscription: Subscription,
    status: SubscriptionStatus,
    policy: BillingPolicy,
) -> bool:
    """Change the status; False when it is that already, so that a second call does nothing."""
    if subscription.status == status:
        return False
    SUBSCRIPTION_TRANSITIONS.check(SubscriptionStatus(subscription.status), status)
    before, subscription.status = subscription.status, status
    if subscription.status_reason != CHAIN_AT_RISK or status is SubscriptionStatus.CANCELLED:
        # A month that a refund left without a payment is none the better for a pause.
        subscription.status_reason = None
    kind = f"subscription.{'resumed' if status is SubscriptionStatus.ACTIVE else status}"
    data = {"before": before}
    events.add(tx.session, at=tx.now, kind=kind, subscription_id=subscription.id, data=data)
    _notify(tx, subscription, before, policy)
    return True


def _notify(
    tx: Transaction, subscription: Subscription, before: str, policy: BillingPolicy
) -> None:
    told: News = Cancelled(before=before)
    if subscription.status == SubscriptionStatus.PAUSED:
        last = _last_chance(tx, subscription, policy)
        told = Paused(before=before, last_chance_at=last)
    elif subscription.status == SubscriptionStatus.ACTIVE:
        told = Resumed(before=before)
    events.notify(tx.session, at=tx.now, subscription_id=subscription.id, news=told)


def open_cycle_of(tx: Transaction, subscription: Subscription) -> Cycle | None:
    """The one open month of a subscription, locked."""
    return tx.session.execute(
        select(Cycle)
        .where(Cycle.subscription_id == subscription.id, Cycle.status == CycleStatus.OPEN)
        .with_for_update()
    ).scalar_one_or_none()


def live_of(tx: Transaction, cycle: Cycle) -> Attempt | None:
    """The one live attempt of a cycle, locked: a claim of it comes wholly before or after."""
    return tx.session.execute(
        select(Attempt)
        .where(Attempt.cycle_id == cycle.id, Attempt.status.in_(LIVE))
        .with_for_update()
    ).scalar_one_or_none()


def withdraw(tx: Transaction, cycle: Cycle | None) -> bool:
    """Withdraw a due attempt; False when one may have been sent and has to end first."""
    if cycle is None or (live := live_of(tx, cycle)) is None:
        return True
    if live.status != AttemptStatus.DUE:
        return False
    live.status = AttemptStatus.WITHDRAWN
    live.settled_at = tx.now
    live.dispatched_at = None
    events.add(
        tx.session,
        at=tx.now,
        kind="attempt.withdrawn",
        subscription_id=cycle.subscription_id,
        cycle_id=cycle.id,
        attempt_id=live.id,
    )
    return True


def _skip(tx: Transaction, subscription: Subscription, cycle: Cycle) -> None:
    cycle.status = CycleStatus.SKIPPED
    cycle.reason = CycleReason.CANCELLED
    cycle.settled_at = tx.now
    events.add(
        tx.session,
        at=tx.now,
        kind="cycle.skipped",
        subscription_id=subscription.id,
        cycle_id=cycle.id,
        data={"reason": CycleReason.CANCELLED, "cycle": cycle.number},
    )
    events.notify(tx.session, at=tx.now, subscription_id=subscription.id, news=news.ended(cycle))


def attempt_again(
    tx: Transaction, subscription: Subscription, policy: BillingPolicy, *, pardoned: bool = False
) -> datetime | NoRetryReason | None:
    """Plan an attempt at the next retry slot of the open cycle, where there is room for one.

    `pardoned` when the newest decline was our own fault, now mended: it counts as one that may be
    tried again soon, whatever it said. Returns when it is planned for, or why the plan allows none;
    None where no cycle is open, or one of its attempts has not ended. Raises `GatewayUnavailable`
    where the clock was just found to be wrong by far: nobody would ask once more.
    """
    cycle = open_cycle_of(tx, subscription)
    if cycle is None or live_of(tx, cycle) is not None:
        return None
    check_day(tx)
    at = _next_moment(tx, subscription, cycle, policy, pardoned=pardoned)
    if isinstance(at, NoRetryReason):
        return at
    numbers = tx.session.execute(select(Attempt.number).where(Attempt.cycle_id == cycle.id))
    number = max(numbers.scalars(), default=0) + 1
    if number > MAX_ATTEMPT_NUMBER:
        raise Conflict(f"this month has had {MAX_ATTEMPT_NUMBER} attempts; there is no number left")
    attempt = another_attempt(subscription, cycle, number, at, tx.now, policy)
    tx.session.add(attempt)
    tx.session.flush()
    events.add(
        tx.session,
        at=tx.now,
        kind="attempt.planned",
        subscription_id=subscription.id,
        cycle_id=cycle.id,
        attempt_id=attempt.id,
        data=planned(attempt, policy),
    )
    return at


def goes_at(attempt: Attempt, cycle: Cycle) -> datetime | NoRetryReason:
    """When a due attempt may go; or that it is too late, where its month allows none by then."""
    in_time = attempt.ready_at <= cycle.last_start_at
    return attempt.ready_at if in_time else NoRetryReason.BAND_OVER


def _next_moment(
    tx: Transaction,
    subscription: Subscription,
    cycle: Cycle,
    policy: BillingPolicy,
    *,
    pardoned: bool,
) -> datetime | NoRetryReason:
    """When the open cycle may be tried again, or why not. A pause is no way around the rules that
    follow a decline: neither its wait nor the number of tries in a day and a month."""
    dates, plan = rules_of(subscription, cycle, policy)
    newest = _newest_decline(tx, cycle)
    if newest is None or newest.settled_at is None:
        return resume_at(tx.now, dates, plan) or NoRetryReason.BAND_OVER
    sent = attempts.declined_sent_at(tx.session, [cycle.id])[cycle.id]
    declines = Declines.counted(sent, newest.settled_at, plan.zone)
    decline = policy.declines.classify(newest.message)
    if pardoned or _was_let_go(tx, cycle, newest.settled_at):
        decline = replace(decline, decline_class=DeclineClass.AGAIN_SOON)
    match next_attempt(decline, newest.settled_at, declines, dates, plan):
        case NoRetry(why=why):
            tell_no_more(tx, cycle, why)
            return why
        case RetryAt(at=at) if at > tx.now:
            return at
        case RetryAt():
            # Its slot passed while the subscription was paused: the next one.
            return resume_at(tx.now, dates, plan) or NoRetryReason.BAND_OVER


def tell_no_more(tx: Transaction, cycle: Cycle, why: NoRetryReason) -> None:
    """Write down that an open month is not tried any more, and why."""
    events.add(
        tx.session,
        at=tx.now,
        kind="cycle.no_more_attempts",
        subscription_id=cycle.subscription_id,
        cycle_id=cycle.id,
        data={"why": why},
    )


def _was_let_go(tx: Transaction, cycle: Cycle, since: datetime) -> bool:
    """Whether a person has looked at this month since, and let it go (`let_go`)."""
    told = select(Event.id).where(
        Event.subscription_id == cycle.subscription_id,
        Event.cycle_id == cycle.id,
        Event.kind == "cycle.let_go",
        Event.at >= since,
    )
    return tx.session.execute(told.limit(1)).first() is not None


def _newest_decline(tx: Transaction, cycle: Cycle) -> Attempt | None:
    return tx.session.execute(
        select(Attempt)
        .where(Attempt.cycle_id == cycle.id, Attempt.status == AttemptStatus.DECLINED)
        .order_by(Attempt.number.desc())
        .limit(1)
    ).scalar_one_or_none()


def _what_pausing_risks(
    tx: Transaction, subscription: Subscription, policy: BillingPolicy
) -> tuple[str, str]:
    """Until when it must be resumed, in English and Korean; or that this month's time is over."""
    until = _last_chance(tx, subscription, policy)
    if until < tx.now:
        return _over(until, policy)
    day = _shown(until, policy)
    return (
        f"Resume before {day} (Seoul): a month without a payment ends the billing key.",
        f"{day}(서울) 전에 재개하십시오. 결제가 없는 달이 생기면 빌링키를 다시 쓸 수 없습니다.",
    )


def _too_late(
    tx: Transaction, subscription: Subscription, policy: BillingPolicy
) -> tuple[str, str]:
    """What must be said of a subscription resumed when this month can be charged no more."""
    until = _last_chance(tx, subscription, policy)
    return _over(until, policy) if until < tx.now else ("", "")


def _over(until: datetime, policy: BillingPolicy) -> tuple[str, str]:
    day = _shown(until, policy)
    return (
        f"The last moment for this month's charge has passed ({day}, Seoul). Unless a payment is"
        " still under way, the billing key ends at the close: the customer must register again.",
        f"이번 달 결제를 시작할 수 있는 마지막 시각({day}, 서울)이 지났습니다. 진행 중인 결제가"
        " 없다면 마감과 함께 빌링키가 끝나며, 고객이 다시 등록해야 합니다.",
    )


def _shown(moment: datetime, policy: BillingPolicy) -> str:
    return f"{moment.astimezone(policy.plan.zone):%Y-%m-%d %H:%M}"


def _last_chance(tx: Transaction, subscription: Subscription, policy: BillingPolicy) -> datetime:
    """The last moment at which the open month, or the next one, may be charged."""
    cycle = open_cycle_of(tx, subscription)
    if cycle is not None:
        return cycle.last_start_at
    return last_start(next_dates(subscription, tx.now, policy.plan), policy.plan)
