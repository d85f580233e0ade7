"""What follows from facts that were put right: dates from the right anchor, and a month that was
put aside goes on."""

from __future__ import annotations

from datetime import datetime

from billing.domain.calendar import cycle_dates
from billing.domain.cycle import CORRECTABLE
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.services.change_status import attempt_again, goes_at, withdraw
from billing.services.let_go import lift
from billing.services.open_cycles import new_cycle, point_at
from billing.store.session import Transaction
from billing.store.tables import Attempt, Cycle, Subscription

_DATES = (
    "month",
    "due_on",
    "opens_on",
    "closes_on",
    "band_opens_at",
    "last_start_at",
    "closes_at",
)


def point_anew(subscription: Subscription, number: int, policy: BillingPolicy) -> None:
    """Say when the next month is due and closes, by the anchor as it is now."""
    dates = cycle_dates(subscription.anchor_on, number, policy.plan.calendar)
    subscription.next_cycle = number
    point_at(subscription, dates, policy)


def go_on(
    tx: Transaction,
    policy: BillingPolicy,
    subscription: Subscription,
    cycle: Cycle,
    live: Attempt | None,
) -> datetime | NoRetryReason | None:
    """Let the open month go on, within the window that the facts give it. Its rows are locked, and
    nothing of it is in flight. Returns when it is tried next, or why it is not; None where the
    subscription is paused, its declines allow no attempt, or it stays held for another reason."""
    moved = _date_anew(tx, policy, subscription, cycle)
    if cycle.held in CORRECTABLE:
        planned = lift(tx, policy, subscription, cycle)
    elif cycle.held is not None:
        return None
    elif moved and subscription.status == SubscriptionStatus.ACTIVE:
        planned = attempt_again(tx, subscription, policy)
    else:
        planned = goes_at(live, cycle) if live is not None else None
    return NoRetryReason.BAND_OVER if tx.now > cycle.last_start_at else planned


def _date_anew(
    tx: Transaction, policy: BillingPolicy, subscription: Subscription, cycle: Cycle
) -> bool:
    """Give a month that was opened by another anchor the dates of this one. Its attempt is for
    another slot, or another month, and is withdrawn."""
    dates = cycle_dates(subscription.anchor_on, cycle.number, policy.plan.calendar)
    if (cycle.month, cycle.due_on) == (dates.month, dates.due_on):
        return False
    withdraw(tx, cycle)
    anew = new_cycle(subscription, dates, tx.now, policy)
    for name in _DATES:
        setattr(cycle, name, getattr(anew, name))
    cycle.closing_soon_at = None
    return True
