"""Look whether every fact still holds and the day was reconciled; raise an alarm for what is not
so."""

from __future__ import annotations

from datetime import timedelta

from billing.domain.policy import BillingPolicy
from billing.services.clock_guard import is_far_off
from billing.services.invariants import Checked, broken
from billing.services.reconciled import tell_if_late
from billing.store import events
from billing.store.session import Book, Transaction

# The same finding is told again once a day, not once an hour.
AGAIN_AFTER = timedelta(days=1)
# Enough to find them by; `maewol invariants` shows the others.
MOST_IDS = 10


def check(book: Book, policy: BillingPolicy) -> int:
    """One alarm for each fact that does not hold; returns how many do not. And one when the daily
    reconciliation stays away. None by a clock that is far off: it has an alarm of its own."""
    if book.run(is_far_off):
        return 0
    tell_if_late(book)
    found = broken(book, policy)
    for one in found:
        _tell(book, one)
    return len(found)


def _tell(book: Book, one: Checked) -> None:
    told = {"name": one.name, "rows": one.rows[:MOST_IDS]}

    def step(tx: Transaction) -> None:
        if told not in events.told_lately(tx.session, "invariant.broken", tx.now, AGAIN_AFTER):
            events.add(tx.session, at=tx.now, kind="invariant.broken", data=told, alarm=True)

    book.run(step)
