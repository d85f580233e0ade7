"""Send notices again that were given up, or that the merchant's system has lost."""

from __future__ import annotations

from billing.domain.errors import InvalidInput, NotFound
from billing.domain.notice import id_of
from billing.store import events, notices
from billing.store.session import Book, Transaction

_BATCH = 1000


def resend(book: Book, name: str) -> int:
    """Let one notice go out again with the next tick, under the same `webhook-id`, and be tried for
    three days. `name` is its number or its `webhook-id`. Raises `InvalidInput`, `NotFound`."""
    notice_id = id_of(name)
    if notice_id is None:
        raise InvalidInput("id", name, "is not the number of a notice", "See: maewol notices")

    def step(tx: Transaction) -> int:
        if not notices.send_again(tx.session, notice_id, tx.now):
            raise NotFound(f"no notice has the number {notice_id}")
        _tell(tx, {"notice": notice_id})
        return 1

    return book.run(step)


def resend_dead(book: Book) -> int:
    """The same for every dead letter; returns how many there were."""

    def step(tx: Transaction) -> int:
        count = notices.send_dead_again(tx.session, tx.now, _BATCH)
        if count:
            _tell(tx, {"notices": count})
        return count

    total = 0
    while count := book.run(step):
        total += count
    return total


def _tell(tx: Transaction, data: dict[str, object]) -> None:
    events.add(tx.session, at=tx.now, kind="notice.sent_again", data=data)
