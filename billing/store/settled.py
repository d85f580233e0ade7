"""Approvals, many at once: the one change of rows that nearly every charge ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.subscription import SubscriptionStatus
from billing.store.tables import Cycle


@dataclass(frozen=True, slots=True)
class Told:
    """The gateway approved the charge of this claim."""

    attempt_id: int
    fence: int
    imp_uid: str
    paid_at: datetime


@dataclass(frozen=True, slots=True)
class Approved:
    """An attempt that has just been settled as approved, and the cycle that it paid."""

    attempt_id: int
    cycle_id: int
    subscription_id: int
    number: int
    month: date
    amount: int
    paid_imp_uid: str
    paid_merchant_uid: str
    paid_at: datetime
    reason: None = None


# Locked in the order in which every recorder locks (`attempts.lock_with_cycle`). What they must be
# is compared afterwards, not here: beside a condition on its status the planner may prefer the
# index of all that are being sent, and read a thousand rows for ten.
_LOCK = text(
    """
    SELECT a.id, a.cycle_id, a.status, a.fence, a.merchant_uid, c.subscription_id, c.number,
        c.month, c.amount, c.status AS cycle_status, s.status AS subscription_status,
        s.status_reason, EXISTS (SELECT FROM cycles other WHERE other.paid_imp_uid
            = (CAST(:imp_uids AS text[]))[array_position(:ids, a.id)]) AS counted
    FROM attempts a
    JOIN cycles c ON c.id = a.cycle_id
    JOIN subscriptions s ON s.id = c.subscription_id
    WHERE a.id = ANY(:ids)
    ORDER BY s.id
    FOR UPDATE OF s, c, a
    """
)
# Values by their place in an array, not by a join: rows are found by their keys, whatever the
# planner believes of the tables.
_APPROVE_ATTEMPTS = text(
    """
    UPDATE attempts SET status = 'approved', settled_at = :now, dispatched_at = NULL,
        lease_until = NULL, ask_at = NULL,
        imp_uid = (CAST(:imp_uids AS text[]))[array_position(:ids, id)]
    WHERE id = ANY(:ids)
    """
)
_PAY_CYCLES = text(
    """
    UPDATE cycles SET status = 'paid', reason = NULL, held = NULL, settled_at = :now,
        paid_imp_uid = (CAST(:imp_uids AS text[]))[array_position(:ids, id)],
        paid_merchant_uid = (CAST(:merchant_uids AS text[]))[array_position(:ids, id)],
        paid_at = (CAST(:moments AS timestamptz[]))[array_position(:ids, id)]
    WHERE id = ANY(:ids)
    """
)


def approve(session: Session, now: datetime, told: Sequence[Told]) -> Mapping[int, Approved]:
    """Settle those of these attempts, at most one line for each, that are what they were when they
    were claimed; returns them by their ids. The others are left alone."""
    of = {one.attempt_id: one for one in told}
    named = {"ids": list(of), "imp_uids": [one.imp_uid for one in told]}
    locked = session.execute(_LOCK, named)
    approved = [
        Approved(
            attempt_id=row.id,
            cycle_id=row.cycle_id,
            subscription_id=row.subscription_id,
            number=row.number,
            month=row.month,
            amount=row.amount,
            paid_imp_uid=of[row.id].imp_uid,
            paid_merchant_uid=row.merchant_uid,
            paid_at=of[row.id].paid_at,
        )
        for row in locked
        if _is_as_claimed(row, of[row.id].fence)
    ]
    if approved:
        paid = {"now": now, "imp_uids": [one.paid_imp_uid for one in approved]}
        session.execute(_APPROVE_ATTEMPTS, {**paid, "ids": [one.attempt_id for one in approved]})
        session.execute(
            _PAY_CYCLES,
            {
                **paid,
                "ids": [one.cycle_id for one in approved],
                "merchant_uids": [one.paid_merchant_uid for one in approved],
                "moments": [one.paid_at for one in approved],
            },
        )
    return {one.attempt_id: one for one in approved}


def is_counted(session: Session, imp_uid: str) -> bool:
    """Whether a month counts this payment as its own."""
    counted = select(Cycle.id).where(Cycle.paid_imp_uid == imp_uid)
    return session.execute(counted).first() is not None


def _is_as_claimed(row: Row[Any], fence: int) -> bool:
    """A claim that is still the newest, of a cycle that is still open, of a subscription that needs
    no further change, paid by what no other month counts."""
    return bool(
        row.status == AttemptStatus.SENDING
        and row.fence == fence
        and row.cycle_status == CycleStatus.OPEN
        and row.subscription_status != SubscriptionStatus.CANCELLED
        and row.status_reason is None
        and not row.counted
    )
