"""What a worker that was held back asks the book before it begins again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError

from billing import clock
from billing.holding_back import HoldingBack
from billing.store import heartbeats
from billing.store.session import Book, create_book_engine, is_away


@contextmanager
def a_book(database_url: str, *, read_only: bool) -> Iterator[Book]:
    engine: Engine = create_book_engine(database_url)
    if read_only:

        @event.listens_for(engine, "begin")
        def _(connection: object) -> None:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")  # type: ignore[attr-defined]

    try:
        yield Book(engine, lambda _: clock.host_time())
    finally:
        engine.dispose()


def ask(book: Book) -> None:
    book.run(lambda tx: heartbeats.can_be_kept(tx.session), tries=1)


def test_a_book_that_can_be_written_lets_work_begin_and_nothing_changes(database_url: str) -> None:
    with a_book(database_url, read_only=False) as book:
        ask(book)
        assert book.run(lambda tx: heartbeats.seen(tx.session)) == {}
        book.run(lambda tx: heartbeats.beat(tx.session, "somebody", tx.now))
        before = book.run(lambda tx: heartbeats.seen(tx.session))
        ask(book)
        assert book.run(lambda tx: heartbeats.seen(tx.session)) == before


def test_one_that_is_only_read_from_is_away_still(database_url: str) -> None:
    """A standby answers a question, and refuses all work."""
    with a_book(database_url, read_only=True) as book:
        book.run(lambda tx: heartbeats.seen(tx.session))
        with pytest.raises(DBAPIError) as refused:
            ask(book)
        assert is_away(refused.value)
        asked: list[bool] = []

        def count(_: float) -> None:
            asked.append(True)

        held = HoldingBack(lambda: ask(book), lambda: len(asked) == 3, count)
        held.failed(refused.value)
        held.wait()
        assert len(asked) == 3
