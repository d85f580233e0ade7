"""Which book this is: the key that makes its customer tags and seals, and the fence around it.

The fence: a book remembers the database it lives in and the store it charges for. A dump that was
restored elsewhere, a standby that was promoted or a backup rolled forward has another identity, and
may have forgotten payments; a staging copy must not charge at all. So a change stops all charging
until a person has looked (reliability D7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from billing.store.session import single
from billing.store.tables import Installation

# The timeline rises with every promotion and recovery to a point in time, at once; the control file
# would tell of it only after a checkpoint. The database's own number tells copies in one cluster
# apart.
_WHERE = text(
    """
    SELECT (SELECT system_identifier FROM pg_control_system())
            || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()),
        substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
    """
)


# No cluster's: those are numbers.
_NOWHERE = "nowhere"
_READABLE: WeakSet[Engine | Connection] = WeakSet()


@dataclass(frozen=True, slots=True)
class Identity:
    """The database (cluster and number), its timeline, and the store; None where it cannot be told
    (some hosted databases hide the first two)."""

    database: str | None
    timeline: str | None
    store: str | None


def key(session: Session, derive: Callable[[], bytes]) -> bytes:
    """The key, made by `derive` when this book has none yet. Written once, then never changed.

    The row is locked only to write: a long import must not keep `hold` from stopping all charging.
    """
    if known := stored_key(session):
        return known
    # Anew: another may have written it since this transaction first looked.
    query = select(Installation).with_for_update().execution_options(populate_existing=True)
    row = session.execute(query).scalar_one()
    if row.key is None:
        row.key = derive()
        session.flush()
    return row.key


def stored_key(session: Session) -> bytes:
    """The key of a book that has subscriptions, and therefore has one; empty otherwise."""
    return single(session, Installation).key or b""


def identity(session: Session, store: str | None) -> Identity:
    """Where this book is now, and for which store we are about to charge."""
    # Where it was readable once, it is, and the savepoint is left out.
    engine = session.get_bind()
    readable = engine in _READABLE
    try:
        with contextlib.nullcontext() if readable else session.begin_nested():
            database, timeline = session.execute(_WHERE).one()
    except DBAPIError:
        if readable:
            _READABLE.discard(engine)
            raise
        return Identity(None, None, store)
    _READABLE.add(engine)
    return Identity(database, timeline, store)


def fence(session: Session, here: Identity) -> str | None:
    """Why nothing may be charged from here, or None. The first who asks sets the fence."""
    row = single(session, Installation)
    known = Identity(row.system_identifier, row.timeline, row.imp_key_fingerprint)
    if known == here:
        return None
    for was, now, problem in (
        (known.store, here.store, "this book was used with another store at the gateway"),
        (known.database, here.database, "this book was moved or restored to another database"),
        (known.timeline, here.timeline, "the database went back in time, or failed over"),
    ):
        if was is not None and now is not None and was != now:
            return problem
    session.execute(
        update(Installation).values(
            system_identifier=here.database or known.database,
            timeline=here.timeline or known.timeline,
            imp_key_fingerprint=here.store or known.store,
        )
    )
    return None


def failed_over(session: Session, here: Identity) -> bool:
    """Whether all that changed is that a standby was promoted; the fence is then moved there, by
    one worker of all. Only for a merchant who says that his standbys have every commit."""
    if not promoted(session, here):
        return False
    query = select(Installation).with_for_update().execution_options(populate_existing=True)
    row = session.execute(query).scalar_one()
    if not _promoted(row, here):
        return False
    row.timeline = here.timeline
    session.flush()
    return True


def promoted(session: Session, here: Identity) -> bool:
    """Whether all that changed is that a standby was promoted."""
    return _promoted(single(session, Installation), here)


def _promoted(row: Installation, here: Identity) -> bool:
    same = (row.system_identifier, row.imp_key_fingerprint) == (here.database, here.store)
    return same and None not in (row.timeline, here.timeline) and row.timeline != here.timeline


def accept(session: Session, here: Identity) -> None:
    """Set the fence here: a person says that all is well. At once, since a book that is copied
    before it is asked again would know nothing of where it was."""
    session.execute(
        update(Installation).values(
            system_identifier=here.database,
            timeline=here.timeline,
            imp_key_fingerprint=here.store,
        )
    )


def be_nowhere(session: Session) -> None:
    """Forget where this book is, so that every place is another one until a person says that all is
    well (`accept`). Not its timeline, by which a promoted standby is told."""
    session.execute(update(Installation).values(system_identifier=_NOWHERE))


def is_coming_by(session: Session, settings: str) -> bool:
    """Whether the next months of all subscriptions are planned by these settings."""
    row = single(session, Installation)
    return row.coming_by == settings and row.coming_up_to is None


def coming_up_to(session: Session, settings: str) -> int | None:
    """Up to which id next months are planned by these settings, and locked until the transaction
    ends: 0 where it begins, None where another is at it, or all are."""
    query = select(Installation).with_for_update(skip_locked=True)
    found = session.execute(query.execution_options(populate_existing=True))
    row = found.scalar_one_or_none()
    if row is None:
        return None
    return row.coming_up_to if row.coming_by == settings else 0


def note_coming(session: Session, settings: str, up_to: int | None) -> None:
    """Next months are planned by these settings up to this id; None for all."""
    session.execute(update(Installation).values(coming_by=settings, coming_up_to=up_to))
