"""Tells the book that this charging worker is there, also while there is nothing to charge."""

from __future__ import annotations

import socket
from concurrent.futures import Future, ThreadPoolExecutor

import structlog
from celery import signals
from sqlalchemy.exc import SQLAlchemyError

from billing import clock
from billing.broker import CHARGE_TASK
from billing.store import heartbeats
from billing.store.session import Book

_log = structlog.get_logger(__name__)
_EVERY_SECONDS = 10.0


def tell(book: Book) -> None:
    """Write a line at Celery's heartbeats from now on: none comes while its loop hangs, nor without
    a broker. A thread of its own writes, so that a slow database does not make the loop hang."""
    name = f"{CHARGE_TASK}@{socket.gethostname()}"
    writer = ThreadPoolExecutor(1, thread_name_prefix="alive")
    written: Future[None] | None = None
    told_at = -_EVERY_SECONDS

    def write() -> None:
        try:
            book.run(lambda tx: heartbeats.beat(tx.session, name, tx.now))
        except SQLAlchemyError as error:
            # Whoever asks sees an old line, which is what it is for.
            _log.warning("heartbeat not written", error=type(error).__name__)

    def beat(**_: object) -> None:
        nonlocal written, told_at
        if clock.monotonic() - told_at < _EVERY_SECONDS or not (written is None or written.done()):
            return
        told_at = clock.monotonic()
        written = writer.submit(write)

    signals.heartbeat_sent.connect(beat, weak=False)
