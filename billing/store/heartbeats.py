"""Who was seen working, and when."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.store.tables import Heartbeat

# The tick of the daily reconciliation: not when it last ran, but when it was last whole.
RECONCILED = "maewol.tick.reconcile"
# Who was not seen for longer is away.
SEEN_WITHIN = timedelta(minutes=5)


def beat(session: Session, name: str, now: datetime) -> None:
    """Write down that `name` was alive at `now`."""
    row = insert(Heartbeat).values(name=name, at=now)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": now}))


def seen(session: Session) -> dict[str, datetime]:
    """When each was last seen."""
    rows = session.execute(select(Heartbeat.name, Heartbeat.at).order_by(Heartbeat.name))
    return {name: at for name, at in rows}


def is_tick(name: str) -> bool:
    """Whether it is a tick that was seen, and not a worker."""
    return ".tick." in name


def forget_hosts(session: Session, before: datetime) -> int:
    """Forget hosts that were last seen before a moment: every new container brings a new name.
    Ticks have no host, and stay. Returns how many went."""
    old = delete(Heartbeat).where(Heartbeat.name.contains("@"), Heartbeat.at < before)
    return len(session.execute(old.returning(Heartbeat.name)).all())
