"""Queries on webhooks: kept once for each payment that waits for a look, and not without end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, select, text, update
from sqlalchemy.orm import Session

from billing.domain.attempt import AttemptStatus
from billing.domain.webhook import OF_NO_INTEREST, Announcement, WebhookOutcome
from billing.store.tables import Attempt, Cycle, Webhook
from billing.store.waiting import is_time

# Rows that may wait at once. Twice as many for those that name an attempt of ours, which a
# stranger cannot guess: a flood of made-up ones does not keep them out.
MOST_WAITING = 5000

_KEEP = text(
    """
    WITH told AS (
        SELECT CAST(:imp_uid AS varchar) AS imp_uid, CAST(:merchant_uid AS varchar) AS merchant_uid,
            CAST(:status AS varchar) AS status, CAST(:now AS timestamptz) AS now
    ), waiting AS (
        SELECT count(*) AS rows
        FROM (SELECT FROM webhooks WHERE looked_at IS NULL LIMIT 2 * CAST(:most AS bigint)) w
    )
    INSERT INTO webhooks (imp_uid, merchant_uid, claimed_status, received_at, look_at)
    SELECT t.imp_uid, t.merchant_uid, t.status, t.now, t.now FROM told t, waiting
    WHERE EXISTS (SELECT FROM webhooks w WHERE w.imp_uid = t.imp_uid AND w.looked_at IS NULL)
        OR waiting.rows < CAST(:most AS bigint)
            * (1 + EXISTS (SELECT FROM attempts a WHERE a.merchant_uid = t.merchant_uid)::int)
    ON CONFLICT (imp_uid) WHERE looked_at IS NULL DO UPDATE SET
        times = webhooks.times + 1,
        merchant_uid = coalesce(webhooks.merchant_uid, excluded.merchant_uid),
        -- Said to be paid and said to be cancelled: nothing can be told without looking.
        claimed_status = CASE WHEN webhooks.claimed_status = excluded.claimed_status
            THEN webhooks.claimed_status END
    RETURNING id
    """
)
# Paid, it says, and paid by that very payment, says the book: there is nothing to learn.
_AGREE = text(
    """
    WITH agreeing AS (
        SELECT w.id FROM webhooks w JOIN cycles c ON c.paid_imp_uid = w.imp_uid
        WHERE w.looked_at IS NULL AND w.claimed_status = 'paid' AND c.status = 'paid'
        LIMIT :most FOR UPDATE OF w SKIP LOCKED
    )
    UPDATE webhooks SET looked_at = :now, outcome = :outcome
    FROM agreeing WHERE webhooks.id = agreeing.id
    """
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """One webhook to look at; `looks` is how often nothing was found, `times` how often it was
    announced before this look."""

    webhook_id: int
    imp_uid: str
    looks: int
    times: int


def keep(session: Session, now: datetime, one: Announcement) -> bool:
    """Keep an announcement, or count it where it waits already; False when there is no room."""
    values = {
        "imp_uid": one.imp_uid,
        "merchant_uid": one.merchant_uid,
        "status": one.status,
        "now": now,
        "most": MOST_WAITING,
    }
    return session.execute(_KEEP, values).first() is not None


def settle_agreeing(session: Session, now: datetime, most: int) -> int:
    """End those that tell what the book knows; returns how many."""
    values = {"now": now, "most": most, "outcome": WebhookOutcome.AGREES}
    return session.execute(_AGREE, values).rowcount  # type: ignore[attr-defined, no-any-return]


def take(
    session: Session, now: datetime, again_at: datetime, ours: int, others: int
) -> Sequence[Waiting]:
    """What to look at now, each put off until `again_at`: so many that name an attempt of ours,
    then so many of all."""
    named = exists().where(Attempt.merchant_uid == Webhook.merchant_uid)
    due = select(Webhook).where(*_is_due(now))
    taken = []
    for query, most in ((due.where(named), ours), (due, others)):
        rows = session.execute(
            query.order_by(Webhook.look_at, Webhook.id)
            .limit(most)
            .with_for_update(skip_locked=True)
        ).scalars()
        for row in rows.all():
            row.look_at = again_at
            taken.append(Waiting(row.id, row.imp_uid, row.looks, row.times))
        session.flush()
    return taken


def _is_due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return Webhook.looked_at.is_(None), is_time(Webhook.look_at, now)


def any_due(session: Session, now: datetime) -> bool:
    """Whether there is something to look at now."""
    due = exists().where(*_is_due(now))
    return bool(session.execute(select(due)).scalar_one())


def finish(session: Session, now: datetime, one: Waiting, outcome: WebhookOutcome) -> bool:
    """End one; False where it was announced again since it was taken: what has happened since the
    look is in nobody's book, and the next tick looks again."""
    ended = session.execute(
        update(Webhook)
        .where(
            Webhook.id == one.webhook_id, Webhook.looked_at.is_(None), Webhook.times == one.times
        )
        .values(looked_at=now, outcome=outcome)
        .returning(Webhook.id)
    )
    if ended.first() is not None:
        return True
    give_back(session, now, [one.webhook_id])
    return False


def put_off(session: Session, webhook_id: int, look_at: datetime) -> None:
    """Look again later: this look proved nothing."""
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.looked_at.is_(None))
        .values(look_at=look_at, looks=Webhook.looks + 1)
    )


def give_back(session: Session, now: datetime, webhook_ids: Sequence[int]) -> None:
    """Let the next tick take those that were taken and not looked at."""
    session.execute(
        update(Webhook)
        .where(Webhook.id.in_(webhook_ids), Webhook.looked_at.is_(None))
        .values(look_at=now)
    )


def live_attempt(
    session: Session, merchant_uid: str, subscription_id: int | None, month: object
) -> Attempt | None:
    """The attempt of this name, or of this month of a subscription, whose request may be on its
    way."""
    in_flight = Attempt.status.in_([AttemptStatus.SENDING, AttemptStatus.UNKNOWN])
    named = select(Attempt).where(in_flight, Attempt.merchant_uid == merchant_uid)
    found = session.execute(named).scalar_one_or_none()
    if found is not None or subscription_id is None:
        return found
    of_month = (
        select(Attempt)
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .where(in_flight, Cycle.subscription_id == subscription_id, Cycle.month == month)
    )
    return session.execute(of_month).scalar_one_or_none()


def prune(
    session: Session, now: datetime, keep_for: timedelta, others_for: timedelta, most: int
) -> int:
    """Delete old ones, at most so many; returns how many."""
    old = Webhook.received_at < now - keep_for
    # A day of them, so that what is kept for longer is not read again and again.
    soon = Webhook.received_at.between(now - others_for - timedelta(days=1), now - others_for)
    gone = 0
    for which in (old, soon & Webhook.outcome.in_(OF_NO_INTEREST)):
        ids = select(Webhook.id).where(Webhook.looked_at.is_not(None), which).limit(most)
        ended = session.execute(delete(Webhook).where(Webhook.id.in_(ids)))
        gone += ended.rowcount  # type: ignore[attr-defined]
    return gone
