"""Who was seen working, and when."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.store.tables import Heartbeat

# The tick of the daily reconciliation: not when it last ran, but when it was last whole.
RECONCILED = "maewol.tick.reconcile"
# The process that makes it, for as long as it does.
RECONCILING = "maewol.reconciling"
# Who was not seen for longer is away.
SEEN_WITHIN = timedelta(minutes=5)


def beat(session: Session, name: str, now: datetime) -> None:
    """Write down that `name` was alive at `now`."""
    row = insert(Heartbeat).values(name=name, at=now)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": now}))


def take(session: Session, name: str, now: datetime) -> bool:
    """Be `name`, unless somebody else was seen as it lately; whether it is ours now. Seen long
    after `now` is seen by a clock that was wrong, and counts as not at all."""
    lately = Heartbeat.at.between(now - SEEN_WITHIN, now + SEEN_WITHIN)
    row = insert(Heartbeat).values(name=name, at=now)
    taken = row.on_conflict_do_update(index_elements=["name"], set_={"at": now}, where=~lately)
    return session.execute(taken.returning(Heartbeat.name)).first() is not None


def keep(session: Session, name: str, last: datetime, now: datetime) -> bool:
    """Go on being `name`, told the last time at `last`; False where somebody else took it since."""
    mine = update(Heartbeat).where(_is_mine(name, last)).values(at=now)
    return session.execute(mine.returning(Heartbeat.name)).first() is not None


def leave(session: Session, name: str, last: datetime) -> None:
    """Be `name` no longer, unless somebody else is by now: the next who asks may take it at
    once."""
    session.execute(delete(Heartbeat).where(_is_mine(name, last)))


def _is_mine(name: str, last: datetime) -> ColumnElement[bool]:
    """Not by the moment itself, since a commit whose answer was lost may have written a later one.
    Who took it has waited for `SEEN_WITHIN` before."""
    ours = and_(Heartbeat.at > last - SEEN_WITHIN, Heartbeat.at < last + SEEN_WITHIN)
    return and_(Heartbeat.name == name, ours)


def seen(session: Session) -> dict[str, datetime]:
    """When each was last seen."""
    rows = session.execute(select(Heartbeat.name, Heartbeat.at).order_by(Heartbeat.name))
    return {name: at for name, at in rows}


def can_be_kept(session: Session) -> None:
    """Nothing changes; raises what a write would. A server that is only read from, a standby say,
    answers every other question."""
    session.execute(select(Heartbeat.name).limit(1).with_for_update(skip_locked=True))


def is_tick(name: str) -> bool:
    """Whether it is a tick that was seen, and not a worker."""
    return ".tick." in name


def forget_hosts(session: Session, before: datetime) -> int:
    """Forget hosts that were last seen before a moment: every new container brings a new name.
    Ticks have no host, and stay. Returns how many went."""
    old = delete(Heartbeat).where(Heartbeat.name.contains("@"), Heartbeat.at < before)
    return len(session.execute(old.returning(Heartbeat.name)).all())
