"""Approvals, many at once: the one change of rows that nearly every charge ends in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.domain.subscription import CHAIN_AT_RISK


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


# A claim that is still the newest, of a cycle that is still open, of a subscription that needs no
# further change. Locked in the order in which every recorder locks (`attempts.lock_with_cycle`).
_APPROVE = text(
    """
    WITH told AS (
        SELECT * FROM jsonb_to_recordset(:rows)
            AS (attempt_id bigint, fence bigint, imp_uid text, paid_at timestamptz)
    ), plain AS (
        SELECT a.id, a.cycle_id, c.subscription_id, c.number, c.month, c.amount, told.imp_uid,
            a.merchant_uid, told.paid_at
        FROM told
        JOIN attempts a ON a.id = told.attempt_id
        JOIN cycles c ON c.id = a.cycle_id
        JOIN subscriptions s ON s.id = c.subscription_id
        WHERE a.status = 'sending' AND a.fence = told.fence AND c.status = 'open'
            AND s.status_reason IS DISTINCT FROM :at_risk
        ORDER BY s.id
        FOR UPDATE OF a, c, s
    ), approved AS (
        UPDATE attempts SET status = 'approved', imp_uid = plain.imp_uid, settled_at = :now,
            dispatched_at = NULL, lease_until = NULL, ask_at = NULL
        FROM plain WHERE attempts.id = plain.id
    ), paid AS (
        UPDATE cycles SET status = 'paid', reason = NULL, held = NULL, settled_at = :now,
            paid_imp_uid = plain.imp_uid, paid_merchant_uid = plain.merchant_uid,
            paid_at = plain.paid_at
        FROM plain WHERE cycles.id = plain.cycle_id
    )
    SELECT id, cycle_id, subscription_id, number, month, amount, imp_uid, merchant_uid, paid_at
    FROM plain
    """
)


def approve(session: Session, now: datetime, told: Sequence[Told]) -> Mapping[int, Approved]:
    """Settle those of these attempts, at most one line for each, that are what they were when they
    were claimed; returns them by their ids. The others are left alone."""
    rows = [
        {
            "attempt_id": one.attempt_id,
            "fence": one.fence,
            "imp_uid": one.imp_uid,
            "paid_at": one.paid_at.isoformat(),
        }
        for one in told
    ]
    given = {"rows": json.dumps(rows), "now": now, "at_risk": CHAIN_AT_RISK}
    return {row.id: Approved(*row) for row in session.execute(_APPROVE, given)}
