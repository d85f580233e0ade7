"""Archives: events that were sealed long ago, moved into files, and what may then leave the book.

What tells of a subscription (`subscription.…`) stays: those lines are few, and they are asked for
as long as the subscription is there. All other lines of an archived run may go. Facts that are
proven by events then hold for the cycles that were opened since: every line of a cycle and of its
attempts is at least as young as its opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Row, func, select, text, update
from sqlalchemy.orm import Session

from billing.store import seals
from billing.store.tables import EventArchive, EventSeal

# Seals that are looked at for one file: more than a month has, at one a minute.
_MOST_SEALS = 50_000
_ONE_ARCHIVER = 727_801_208

# True for a cycle `c` whose events are all in the book.
NOT_YET = "c.opened_at >= coalesce((SELECT max(older_than) FROM event_archives), '-infinity')"
_KEPT = "e.kind LIKE 'subscription.%'"
_KEPT_DIGEST = (
    f"sha256(convert_to(coalesce(string_agg({seals.ROW}, E'\\n' ORDER BY e.id)"
    f" FILTER (WHERE {_KEPT}), ''), 'UTF8'))"
)
# The numbers of archives that do not follow the one before, that do not fit the seals they were
# made of, whose remaining lines were changed, or that were emptied and are not empty.
BROKEN = (
    "SELECT a.number FROM event_archives a"  # noqa: S608 - ours
    " LEFT JOIN event_archives p ON p.number = a.number - 1"
    " LEFT JOIN event_seals f ON f.number = a.first_seal"
    " LEFT JOIN event_seals l ON l.number = a.last_seal"
    f" CROSS JOIN LATERAL (SELECT {_KEPT_DIGEST} AS digest, count(*) FILTER (WHERE NOT {_KEPT})"
    " AS others FROM events e WHERE e.id > a.after_id AND e.id <= a.up_to_id) now_is"
    " WHERE a.first_seal <> coalesce(p.last_seal, 0) + 1"
    " OR f.after_id IS DISTINCT FROM a.after_id OR l.up_to_id IS DISTINCT FROM a.up_to_id"
    " OR now_is.digest <> a.kept_digest OR (a.removed_at IS NOT NULL AND now_is.others > 0)"
)
_LINES = text(
    f"SELECT e.id, e.at, {seals.ROW} AS line FROM events e"  # noqa: S608 - ours
    " WHERE e.id > :after AND e.id <= :up_to ORDER BY e.id"
)
_KEPT_NOW = text(
    f"SELECT {_KEPT_DIGEST} FROM events e WHERE e.id > :after AND e.id <= :up_to"  # noqa: S608
)
_REMOVE = text(
    "DELETE FROM events WHERE id IN (SELECT e.id FROM events e WHERE e.id > :after"  # noqa: S608
    f" AND e.id <= :up_to AND NOT {_KEPT} ORDER BY e.id LIMIT :most FOR UPDATE SKIP LOCKED)"
    " RETURNING id"
)


def only_archiver(session: Session) -> bool:
    """Whether this transaction is the only one that archives or removes; the others go home."""
    taken = session.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _ONE_ARCHIVER})
    return bool(taken.scalar_one())


def newest(session: Session) -> EventArchive | None:
    return session.execute(
        select(EventArchive).order_by(EventArchive.number.desc()).limit(1)
    ).scalar_one_or_none()


def every(session: Session) -> Sequence[EventArchive]:
    return session.execute(select(EventArchive).order_by(EventArchive.number)).scalars().all()


def unfinished(session: Session) -> Sequence[EventArchive]:
    """Archives whose events are, at least in part, still in the book; oldest first."""
    waiting = select(EventArchive).where(EventArchive.removed_at.is_(None))
    return session.execute(waiting.order_by(EventArchive.number)).scalars().all()


def seal_before(session: Session, number: int) -> EventSeal | None:
    return session.get(EventSeal, number - 1)


def archivable(session: Session, older_than: datetime) -> Sequence[EventSeal]:
    """Seals that no archive has yet and that were made before a moment, from the oldest on; never
    the newest one, so that the book always knows how far it had come."""
    done = select(func.coalesce(func.max(EventArchive.last_seal), 0)).scalar_subquery()
    last = select(func.max(EventSeal.number)).scalar_subquery()
    return (
        session.execute(
            select(EventSeal)
            .where(EventSeal.number > done, EventSeal.number < last)
            .where(EventSeal.sealed_at < older_than)
            .order_by(EventSeal.number)
            .limit(_MOST_SEALS)
        )
        .scalars()
        .all()
    )


def count_archivable(session: Session, older_than: datetime) -> int:
    """How many events an archive could take now."""
    done = select(func.coalesce(func.max(EventArchive.last_seal), 0)).scalar_subquery()
    last = select(func.max(EventSeal.number)).scalar_subquery()
    counted = select(func.coalesce(func.sum(EventSeal.events), 0)).where(
        EventSeal.number > done, EventSeal.number < last, EventSeal.sealed_at < older_than
    )
    return int(session.execute(counted).scalar_one())


def lines(session: Session, after: int, up_to: int) -> Sequence[Row[tuple[int, datetime, str]]]:
    """The events of a range, as (id, at, line); the line is what was sealed."""
    return session.execute(_LINES, {"after": after, "up_to": up_to}).all()


def kept_digest(session: Session, after: int, up_to: int) -> bytes:
    """SHA-256 of the lines of a range that stay in the book."""
    found = session.execute(_KEPT_NOW, {"after": after, "up_to": up_to})
    return bytes(found.scalar_one())


def remove(session: Session, archive: EventArchive, most: int) -> int:
    """Remove so many of an archive's events from the book; returns how many went."""
    bounds = {"after": archive.after_id, "up_to": archive.up_to_id, "most": most}
    return len(session.execute(_REMOVE, bounds).all())


def removed(session: Session, number: int, now: datetime) -> None:
    """Write down that an archive's events have left the book."""
    session.execute(
        update(EventArchive)
        .where(EventArchive.number == number, EventArchive.removed_at.is_(None))
        .values(removed_at=now)
    )
