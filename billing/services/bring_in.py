"""One new subscription into the book: the row that is staged, and how it contradicts the book."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from billing.domain.attempt import customer_tag
from billing.domain.calendar import cycle_dates, day_of, first_cycle
from billing.domain.errors import Conflict
from billing.domain.plan import closes_at, first_attempt_at
from billing.domain.policy import BillingPolicy
from billing.domain.seal import seal
from billing.domain.subscription import NewSubscription
from billing.services.clock_guard import check_day
from billing.store import installation, subscriptions
from billing.store.session import Transaction


def bring_in(
    tx: Transaction, policy: BillingPolicy, derive_key: Callable[[], bytes], new: NewSubscription
) -> bool:
    """Enrol one by the road of an imported line, and tell the merchant's system; False when it was
    there with the same facts.

    Raises `Conflict` for other facts of a known customer, and `GatewayUnavailable` where the clock
    was just found to be wrong by far."""
    check_day(tx)
    key = installation.key(tx.session, derive_key)
    subscriptions.stage(tx.session, [staged_row(tx, policy, key, 1, new)])
    added = subscriptions.insert_staged(tx.session, tx.now, notify=True)
    # Who was there, if only a moment earlier, made the insert do nothing; it must agree.
    _refuse_changed(tx)
    return added == 1


def _refuse_changed(tx: Transaction) -> None:
    for row in subscriptions.drop_changed_in_book(tx.session, 1).rows:
        name, _, problem = contradiction(row)
        raise Conflict(f"{name}: {problem}")


def contradiction(row: Any) -> tuple[str, str, str]:
    """Field, value and problem of a staged row whose facts the book knows otherwise."""
    if row.amount_differs:
        name, value, known = "amount", str(row.amount), str(row.known_amount)
    elif row.anchor_differs:
        name, value, known = "initial_paid_at", str(row.anchor_on), str(row.known_anchor_on)
    else:
        name, value, known = "customer_uid", row.customer_uid, "other facts"
    return name, value, f"differs from the book ({known}); other facts need a new registration"


def staged_row(
    tx: Transaction, policy: BillingPolicy, key: bytes, line: int, new: NewSubscription
) -> Sequence[Any]:
    """In the order of `subscriptions.STAGED_COLUMNS`."""
    facts, plan = new.facts, policy.plan
    anchor_on = day_of(facts.initial_paid_at, plan.zone)
    number = first_cycle(anchor_on, tx.now, new.last_paid_on, plan.calendar, plan.zone)
    dates = cycle_dates(anchor_on, number, plan.calendar)
    return (
        line,
        facts.customer_uid,
        facts.amount.amount,
        facts.order_name,
        anchor_on,
        facts.initial_paid_at,
        seal(key, facts),
        customer_tag(key, facts.customer_uid),
        new.initial_merchant_uid,
        new.initial_imp_uid,
        new.last_paid_on,
        new.reference,
        number,
        first_attempt_at(dates, plan),
        closes_at(dates, plan),
        facts.buyer_name,
        facts.buyer_email,
        facts.buyer_tel,
    )
