"""Due attempts → queue messages, earliest window close first, at most so many outstanding."""

from __future__ import annotations

from collections.abc import Mapping

from billing.domain.policy import BillingPolicy
from billing.ports import WorkQueue
from billing.services.fence import why_not_now
from billing.services.hold import stop
from billing.store import attempts, health
from billing.store.session import Book, Transaction, by_index_in_order


def dispatch(
    book: Book, queue: WorkQueue, policy: BillingPolicy, seen: Mapping[str, int] | None = None
) -> int:
    """Hand due attempts to the workers; returns how many. `seen` are the highest event numbers that
    are remembered of databases (`ports.Watermark`).

    The book is written first, then the messages leave: one that is lost is handed out again when
    its `dispatched_at` has grown old. Raises `BrokerUnavailable`; nothing is lost by it.
    """
    drained = queue.charges_waiting() == 0
    ids = book.run(lambda tx: _hand_out(tx, policy, seen, drained=drained))
    for start in range(0, len(ids), policy.charge_batch):
        queue.charge(ids[start : start + policy.charge_batch])
    return len(ids)


def _hand_out(
    tx: Transaction,
    policy: BillingPolicy,
    seen: Mapping[str, int] | None = None,
    *,
    drained: bool = False,
) -> list[int]:
    by_index_in_order(tx.session)
    attempts.one_dispatcher(tx.session)
    if problem := why_not_now(tx, policy, seen or {}):
        # Known as soon as ticks run, and not when the next customer falls due: at ten in the
        # morning whoever restored the book at night has gone home.
        stop(tx, problem)
        return []
    again_after, most = policy.lost_after(drained=drained), policy.outstanding
    free = most - attempts.outstanding(tx.session, tx.now, again_after, most)
    room = health.room(tx.session, tx.now, free, policy.ceiling)
    if room <= 0:
        return []
    return attempts.hand_out(tx.session, tx.now, again_after, room)
