"""The key of this installation: it makes the customer tags and the seals over the facts."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.store.tables import Installation


def key(session: Session, derive: Callable[[], bytes]) -> bytes:
    """The key, made by `derive` when this book has none yet. Written once, then never changed.

    The row is locked only to write: a long import must not keep `hold` from stopping all charging.
    """
    if known := stored_key(session):
        return known
    row = session.execute(select(Installation).with_for_update()).scalar_one()
    if row.key is None:
        row.key = derive()
        session.flush()
    return row.key


def stored_key(session: Session) -> bytes:
    """The key of a book that has subscriptions, and therefore has one; empty otherwise."""
    return session.execute(select(Installation.key)).scalar_one() or b""
