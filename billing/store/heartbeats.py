"""Who was seen working, and when."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.store.tables import Heartbeat


def beat(session: Session, name: str, now: datetime) -> None:
    """Write down that `name` was alive at `now`."""
    row = insert(Heartbeat).values(name=name, at=now)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": now}))


def seen(session: Session) -> dict[str, datetime]:
    """When each was last seen."""
    rows = session.execute(select(Heartbeat.name, Heartbeat.at).order_by(Heartbeat.name))
    return {name: at for name, at in rows}
