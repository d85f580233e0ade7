"""Queries on the outbox: what may be sent, what became of it, what nobody waits for any more.

The notices of one subscription go out in their order: a later one waits while an earlier one is
neither delivered nor dead. Notices without a subscription have no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from billing.domain.delivery import LONGEST_WAIT, TRIED_FOR
from billing.domain.notice import NoticeStatus, Outgoing, outgoing
from billing.store.tables import Notice, Subscription
from billing.store.waiting import is_time

# Ended notices are only looked for among so many of the oldest: those come first to be pruned.
_OLDEST = 1000


@dataclass(frozen=True, slots=True)
class NoticeClaim:
    """A notice that this sender alone may send until its lease ends."""

    notice_id: int
    kind: str
    tries: int
    give_up_at: datetime
    lease_until: datetime
    outgoing: Outgoing


_WAITING = and_(Notice.delivered_at.is_(None), Notice.dead_at.is_(None))


def _sendable(now: datetime, lease: timedelta) -> ColumnElement[bool]:
    """The one place that says which notices may go out now."""
    other = aliased(Notice)
    # One look into the index for each. "No earlier one exists" would be planned as a join of
    # everything that waits with itself, which takes minutes where thousands wait behind one.
    first = (
        select(other.id)
        .where(
            other.subscription_id == Notice.subscription_id,
            other.delivered_at.is_(None),
            other.dead_at.is_(None),
        )
        .order_by(other.id)
        .limit(1)
        .scalar_subquery()
    )
    in_order = or_(Notice.subscription_id.is_(None), Notice.id == first)
    # Put off, or written, by a clock far ahead it would keep back all that follows it, too.
    ready = is_time(Notice.next_try_at, now, LONGEST_WAIT)
    return and_(_WAITING, ready, _free(now, lease), in_order)


def _free(now: datetime, lease: timedelta) -> ColumnElement[bool]:
    """Nobody is sending it. A clock that was moved back must not make a lease of a minute one of
    days."""
    return or_(
        Notice.lease_until.is_(None), Notice.lease_until <= now, Notice.lease_until > now + lease
    )


def due(session: Session, now: datetime, lease: timedelta, limit: int) -> Sequence[int]:
    """Notices that may be sent now, the longest waiting first."""
    query = (
        select(Notice.id)
        .where(_sendable(now, lease))
        .order_by(Notice.next_try_at, Notice.id)
        .limit(limit)
    )
    return list(session.execute(query).scalars())


def claim(
    session: Session, notice_ids: Sequence[int], now: datetime, lease: timedelta, limit: int
) -> Sequence[NoticeClaim]:
    """Take up to `limit` of these for sending. What another sender holds is left alone."""
    free = (
        select(Notice.id)
        .where(_sendable(now, lease), Notice.id.in_(notice_ids))
        .order_by(Notice.next_try_at, Notice.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    won = list(session.execute(free).scalars())
    if not won:
        return ()
    session.execute(
        update(Notice)
        .where(Notice.id.in_(won))
        .values(lease_until=now + lease, tries=Notice.tries + 1)
    )
    rows = session.execute(
        select(Notice, Subscription.customer_uid)
        .outerjoin(Subscription, Subscription.id == Notice.subscription_id)
        .where(Notice.id.in_(won))
        .order_by(Notice.next_try_at, Notice.id)
    )
    return [_as_claim(row.Notice, row.customer_uid, now + lease) for row in rows]


def bury_what_says_nothing(
    session: Session, notice_ids: Sequence[int], now: datetime
) -> Sequence[int]:
    """Make those of these dead whose data is no object, so that no message can be made of them;
    which those are."""
    changed = session.execute(
        update(Notice)
        .where(Notice.id.in_(notice_ids), _WAITING, func.jsonb_typeof(Notice.data) != "object")
        .values(dead_at=now, lease_until=None, problem="what it tells is no message")
        .returning(Notice.id)
    )
    return sorted(changed.scalars())


def _as_claim(notice: Notice, customer_uid: str | None, lease_until: datetime) -> NoticeClaim:
    return NoticeClaim(
        notice.id,
        notice.kind,
        notice.tries,
        notice.give_up_at,
        lease_until,
        as_outgoing(notice, customer_uid),
    )


def as_outgoing(notice: Notice, customer_uid: str | None) -> Outgoing:
    """The notice as it goes out; without a subscription `customer_uid` is None."""
    return outgoing(notice.id, notice.kind, notice.created_at, customer_uid, notice.data)


def delivered(session: Session, claim: NoticeClaim, now: datetime) -> None:
    """The receiver took it: true also when the lease ran out, or it was given up, meanwhile."""
    session.execute(
        update(Notice)
        .where(Notice.id == claim.notice_id, Notice.delivered_at.is_(None))
        .values(delivered_at=now, dead_at=None, lease_until=None, problem=None)
    )


def failed(
    session: Session, claim: NoticeClaim, now: datetime, again_at: datetime | None, problem: str
) -> bool:
    """It was not taken: again at a moment, or (None) it is dead. False when another sender has it
    by now, or somebody sent it again."""
    ended = {"dead_at": now} if again_at is None else {"next_try_at": again_at}
    changed = session.execute(
        update(Notice)
        .where(Notice.id == claim.notice_id, Notice.lease_until == claim.lease_until, _WAITING)
        .values(lease_until=None, problem=problem[:200], **ended)
        .returning(Notice.id)
    )
    return changed.first() is not None


def give_up(session: Session, now: datetime, lease: timedelta, limit: int) -> Sequence[int]:
    """Make dead what waited for three days, without another try; which those are."""
    changed = session.execute(
        update(Notice)
        .where(Notice.id.in_(_overdue(now, lease, limit)))
        .values(dead_at=now, lease_until=None, problem=func.coalesce(Notice.problem, "never sent"))
        .returning(Notice.id)
    )
    return sorted(changed.scalars())


def drop(session: Session, now: datetime, lease: timedelta, limit: int) -> int:
    """Delete what waited for three days, for there is nobody to send it to; how many."""
    gone = session.execute(
        delete(Notice).where(Notice.id.in_(_overdue(now, lease, limit))).returning(Notice.id)
    )
    return len(gone.all())


def _overdue(now: datetime, lease: timedelta, limit: int) -> Select[int]:
    return (
        select(Notice.id)
        .where(_WAITING, Notice.give_up_at <= now, _free(now, lease))
        .order_by(Notice.give_up_at, Notice.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def prune(session: Session, before: datetime) -> int:
    """Delete ended notices, delivered or dead, that were written before a moment; how many.

    Only the oldest thousand are looked at: whatever waits has ended long before it is so old."""
    oldest = select(Notice.id).order_by(Notice.id).limit(_OLDEST)
    gone = session.execute(
        delete(Notice)
        .where(Notice.id.in_(oldest), Notice.created_at < before, ~_WAITING)
        .returning(Notice.id)
    )
    return len(gone.all())


def send_again(session: Session, notice_id: int, now: datetime) -> bool:
    """Let one be sent (again), whatever became of it, for three days from now. False when there is
    none of that number."""
    changed = session.execute(
        update(Notice).where(Notice.id == notice_id).values(**_anew(now)).returning(Notice.id)
    )
    return changed.first() is not None


def send_dead_again(session: Session, now: datetime, limit: int) -> int:
    """Let dead letters be sent again, the oldest first; how many."""
    dead = (
        select(Notice.id)
        .where(Notice.dead_at.is_not(None))
        .order_by(Notice.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    changed = session.execute(
        update(Notice).where(Notice.id.in_(dead)).values(**_anew(now)).returning(Notice.id)
    )
    return len(changed.all())


def listed(
    session: Session, status: NoticeStatus | None, limit: int, before: int | None
) -> Sequence[tuple[Notice, str | None]]:
    """Notices with their `customer_uid`, newest first; those below a number where it is given."""
    query = (
        select(Notice, Subscription.customer_uid)
        .outerjoin(Subscription, Subscription.id == Notice.subscription_id)
        .order_by(Notice.id.desc())
        .limit(limit)
    )
    if status is not None:
        query = query.where(_HAS[status])
    if before is not None:
        query = query.where(Notice.id < before)
    return [(row[0], row[1]) for row in session.execute(query)]


def count(session: Session, status: NoticeStatus) -> int:
    """How many notices have a status."""
    return session.execute(select(func.count(Notice.id)).where(_HAS[status])).scalar_one()


def status_of(notice: Notice) -> NoticeStatus:
    if notice.dead_at is not None:
        return NoticeStatus.DEAD
    return NoticeStatus.WAITING if notice.delivered_at is None else NoticeStatus.DELIVERED


def waits(notice: Notice) -> bool:
    return status_of(notice) is NoticeStatus.WAITING


_HAS = {
    NoticeStatus.WAITING: _WAITING,
    NoticeStatus.DELIVERED: Notice.delivered_at.is_not(None),
    NoticeStatus.DEAD: Notice.dead_at.is_not(None),
}


def _anew(now: datetime) -> dict[str, Any]:
    return {
        "delivered_at": None,
        "dead_at": None,
        "tries": 0,
        "next_try_at": now,
        "give_up_at": now + TRIED_FOR,
    }
