"""Seal what happened: from then on a changed, missing or added event shows."""

from __future__ import annotations

from billing.store import seals
from billing.store.session import Book, Transaction

# A tick does not go on for ever; the next one is a minute away.
MOST_RUNS = 50


def seal_events(book: Book) -> int:
    """Seal the events that are final by now; returns how many."""
    sealed = 0
    for _ in range(MOST_RUNS):
        run = book.run(_seal_run)
        sealed += run
        if run < seals.BATCH:
            break
    return sealed


def _seal_run(tx: Transaction) -> int:
    if not seals.only_sealer(tx.session):
        return 0
    last = seals.newest(tx.session)
    final = seals.final_up_to(tx.session, last.up_to_id if last else 0, tx.now)
    return 0 if final is None else seals.add(tx.session, last, final, tx.now)
