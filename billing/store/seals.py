"""Seals over the event log: runs of events, each with a digest chained to the one before.

The database refuses to change events; who goes around that (a superuser, a restored file) cannot
do so unseen, because every later digest would have to be another one too. The newest digest, kept
elsewhere, vouches for everything before it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from billing.store.tables import EventSeal, Installation

# Numbers are given out before transactions commit, so the newest events are not final yet.
FINAL_AFTER = timedelta(minutes=1)
BATCH = 20_000
_ONE_SEALER = 727_801_207

# One event as the text that is sealed, and archived: the JSON has no line ends.
ROW = (
    "concat_ws('|', e.id, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), e.kind,"
    " coalesce(e.subscription_id, 0), coalesce(e.cycle_id, 0), coalesce(e.attempt_id, 0), e.alarm,"
    " e.data::text)"
)
_RUN = f"coalesce(string_agg({ROW}, E'\\n' ORDER BY e.id), '')"
DIGEST = text(
    f"SELECT count(*), sha256(:previous || convert_to({_RUN}, 'UTF8'))"  # noqa: S608 - ours
    " FROM events e WHERE e.id > :after AND e.id <= :up_to"
)
# The numbers of seals that do not fit what they cover, or the seal before them. What was archived
# is checked against its file (`services/archive_events.py`); here, its place in the chain.
BROKEN = (
    "SELECT s.number FROM event_seals s LEFT JOIN event_seals p ON p.number = s.number - 1"  # noqa: S608
    " CROSS JOIN LATERAL (SELECT count(*) AS events,"
    f" sha256(coalesce(p.digest, ''::bytea) || convert_to({_RUN}, 'UTF8')) AS digest"
    " FROM events e WHERE e.id > s.after_id AND e.id <= s.up_to_id) now_is"
    " WHERE s.number > coalesce((SELECT max(last_seal) FROM event_archives), 0)"
    " AND (now_is.digest <> s.digest OR now_is.events <> s.events)"
    " UNION SELECT s.number FROM event_seals s LEFT JOIN event_seals p ON p.number = s.number - 1"
    " WHERE s.after_id <> coalesce(p.up_to_id, 0)"
)


def only_sealer(session: Session) -> bool:
    """Whether this transaction is the only one that seals; the others may go home."""
    taken = session.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _ONE_SEALER})
    return bool(taken.scalar_one())


def newest(session: Session) -> EventSeal | None:
    return session.execute(
        select(EventSeal).order_by(EventSeal.number.desc()).limit(1)
    ).scalar_one_or_none()


def final_up_to(session: Session, after: int, now: datetime) -> int | None:
    """Up to which number every event is known to be there, or None when there is no new one.

    What was noted by an earlier call counts once every transaction that was under way then has
    ended; then the next number is noted.
    """
    row = session.execute(select(Installation.seal_up_to, Installation.seal_once_past)).one()
    oldest, coming = session.execute(
        text(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
            " pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        )
    ).one()
    noted, once_past = row
    # A database that was restored elsewhere counts its transactions anew.
    if noted is not None and noted > after and once_past is not None and once_past <= coming:
        return int(noted) if once_past <= oldest else None
    _note(session, after, now, coming)
    return None


def _note(session: Session, after: int, now: datetime, coming: int) -> None:
    up_to = session.execute(
        text("SELECT max(id) FROM events WHERE id > :after AND at <= :before"),
        {"after": after, "before": now - FINAL_AFTER},
    ).scalar_one()
    session.execute(update(Installation).values(seal_up_to=up_to, seal_once_past=coming))


def add(session: Session, last: EventSeal | None, final: int, now: datetime) -> int:
    """Seal the oldest events after the last seal, up to a final one and so many; returns how many
    they are."""
    after = last.up_to_id if last else 0
    up_to = session.execute(
        text(
            "SELECT coalesce(max(id), :final) FROM (SELECT id FROM events WHERE id > :after"
            " AND id <= :final ORDER BY id LIMIT :batch) oldest"
        ),
        {"after": after, "final": final, "batch": BATCH},
    ).scalar_one()
    events, digest = session.execute(
        DIGEST, {"previous": last.digest if last else b"", "after": after, "up_to": up_to}
    ).one()
    session.add(
        EventSeal(
            number=last.number + 1 if last else 1,
            after_id=after,
            up_to_id=up_to,
            events=events,
            digest=bytes(digest),
            sealed_at=now,
        )
    )
    return int(events)
