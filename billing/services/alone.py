"""One process at a time makes the reconciliation, however many ticks workers there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from billing.store import heartbeats
from billing.store.session import Book, Transaction

_log = structlog.get_logger(__name__)
_EVERY_SECONDS = 60.0


@contextmanager
def alone(
    book: Book, due: Callable[[Transaction], bool], every: float = _EVERY_SECONDS
) -> Iterator[bool]:
    """Whether it is `due` and nobody else is at it; until the end the others are told so.

    For millions, or with a slow gateway, a run takes more than an hour: the next tick must not
    begin another beside it, nor must the broker, which delivers a message again that is not
    acknowledged within the hour. Two at once do no harm, but ask the gateway everything twice. So
    it is a row and no lock: whoever dies with it, or cannot write for five minutes, has lost it.
    """

    def take(tx: Transaction) -> datetime | None:
        taken = due(tx) and heartbeats.take(tx.session, heartbeats.RECONCILING, tx.now)
        return tx.now if taken else None

    began = book.run(take)
    if began is None:
        yield False
        return
    turn, over = _Turn(began), threading.Event()
    teller = threading.Thread(target=_tell, args=(book, turn, over, every), daemon=True)
    teller.start()
    try:
        yield True
    finally:
        over.set()
        teller.join()
        _write(book, turn.end)


@dataclass
class _Turn:
    """Being the one who does it; `last` is when that was told."""

    last: datetime

    def tell(self, tx: Transaction) -> None:
        """Go on, unless another has it by now."""
        if heartbeats.keep(tx.session, heartbeats.RECONCILING, self.last, tx.now):
            self.last = tx.now

    def end(self, tx: Transaction) -> None:
        """Leave it to the next, unless another has it by now."""
        heartbeats.leave(tx.session, heartbeats.RECONCILING, self.last)


def _tell(book: Book, turn: _Turn, over: threading.Event, every: float) -> None:
    while not over.wait(every):
        _write(book, turn.tell)


def _write(book: Book, line: Callable[[Transaction], None]) -> None:
    try:
        book.run(line)
    except SQLAlchemyError as error:
        # The row gets old, which is all that it can say then.
        _log.warning("heartbeat not written", error=type(error).__name__)
