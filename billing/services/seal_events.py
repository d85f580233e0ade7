"""Seal what happened: from then on a changed, missing or added event shows."""

from __future__ import annotations

from billing.store import seals
from billing.store.session import Book, Transaction


def seal_events(book: Book) -> int:
    """Seal the events that are final by now, as many as one seal holds; returns how many."""
    sealed = book.run(_seal_run)
    if sealed >= seals.BATCH:
        # There are more: what comes next is noted at once, so that the next tick can seal it.
        book.run(_seal_run)
    return sealed


def _seal_run(tx: Transaction) -> int:
    if not seals.only_sealer(tx.session):
        return 0
    last = seals.newest(tx.session)
    up_to = seals.final_up_to(tx.session, last.up_to_id if last else 0, tx.now)
    return 0 if up_to is None else seals.add(tx.session, last, up_to, tx.now)
