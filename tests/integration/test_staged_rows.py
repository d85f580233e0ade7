"""Rows that come in, as the database sorts them: what contradicts the book or its own file, and
what is written of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.domain.delivery import TRIED_FOR
from billing.store import subscriptions
from billing.store.session import Book
from billing.store.subscriptions import STAGED_COLUMNS
from tests.builders import execute, query
from tests.conftest import MovedClock

# 00:30 on the 20th in Seoul.
DUE = datetime(2026, 11, 19, 15, 30, tzinfo=UTC)
WHOLE: dict[str, Any] = {
    "amount": 9900,
    "order_name": "plan",
    "anchor_on": date(2026, 10, 20),
    "initial_paid_at": datetime(2026, 10, 20, 5, 30, tzinfo=UTC),
    "seal": b"s" * 32,
    "initial_merchant_uid": "order-1",
    "initial_imp_uid": "imp_1",
    "last_paid_on": None,
    "reference": "ref",
    "next_cycle": 1,
    "next_due_at": DUE,
    "next_closes_at": DUE + timedelta(days=5),
    "buyer_name": "홍길동",
    "buyer_email": "hong@example.com",
    "buyer_tel": "010-1234-5678",
}


def a_line(line: int, name: str, **changes: Any) -> list[Any]:
    row = {**WHOLE, "line": line, "customer_uid": name, "tag": name.ljust(8, "x"), **changes}
    return [row[column] for column in STAGED_COLUMNS]


def enrolled(book: Book, *rows: Sequence[Any], notify: bool = False) -> int:
    with book.transaction() as tx:
        subscriptions.stage(tx.session, rows)
        return subscriptions.insert_staged(tx.session, tx.now, notify=notify)


def staged(session: Session) -> list[int]:
    return list(session.execute(text("SELECT line FROM staged ORDER BY line")).scalars())


def test_the_first_line_of_each_new_customer_comes_in(book: Book, clock: MovedClock) -> None:
    rows = [a_line(3, "b", reference="later", buyer_name="later"), a_line(1, "a"), a_line(2, "b")]
    assert enrolled(book, *rows) == 2
    columns = ", ".join(name for name in STAGED_COLUMNS[1:15] if name != "tag")
    expected = tuple(WHOLE[name] for name in STAGED_COLUMNS[2:15] if name != "tag")
    found = query(book, f"SELECT {columns}, status, enrolled_at FROM subscriptions ORDER BY id")
    assert [
        tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
        for row in found
    ] == [(name, *expected, "active", clock.now) for name in ("a", "b")]
    buyer = ("홍길동", "hong@example.com", "010-1234-5678")
    assert (
        query(book, "SELECT name, email, tel FROM buyers ORDER BY subscription_id") == [buyer] * 2
    )
    told = "SELECT at, kind, subscription_id, data FROM events ORDER BY subscription_id"
    assert query(book, told) == [
        (clock.now, "subscription.enrolled", number, {"first_cycle": 1}) for number in (1, 2)
    ]
    assert query(book, "SELECT count(*) FROM notices") == [(0,)]
    assert enrolled(book, *rows, notify=True) == 0, "they are there"
    assert query(book, "SELECT count(*) FROM notices") == [(0,)]
    assert query(book, "SELECT count(*) FROM events") == [(2,)]


def test_where_it_is_wanted_the_merchant_is_told_of_each(book: Book, clock: MovedClock) -> None:
    assert enrolled(book, a_line(1, "a", next_cycle=3), notify=True) == 1
    columns = "subscription_id, kind, data, created_at, next_try_at, give_up_at"
    assert query(book, f"SELECT {columns} FROM notices") == [
        (
            1,
            "subscription.enrolled",
            {
                "amount": 9900,
                "currency": "KRW",
                "anchor_on": "2026-10-20",
                "first_cycle": 3,
                "first_due_at": "2026-11-20T00:30:00+09:00",
            },
            clock.now,
            clock.now,
            clock.now + TRIED_FOR,
        )
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"seal": b"t" * 32},
        {"initial_merchant_uid": None},
        {"initial_imp_uid": "imp_2"},
        {"last_paid_on": date(2026, 11, 20)},
        {"reference": "another"},
    ],
)
def test_lines_of_one_file_agree_in_everything_or_the_first_is_meant(
    book: Book, change: dict[str, Any]
) -> None:
    with book.transaction() as tx:
        rows = [a_line(4, "b", **change), a_line(3, "a", **change), a_line(2, "a"), a_line(1, "a")]
        subscriptions.stage(tx.session, rows)
        dropped = subscriptions.drop_changed_in_file(tx.session, 9)
        assert [(one.line, one.customer_uid, one.first_line) for one in dropped.rows] == [
            (3, "a", 1)
        ]
        assert dropped.total == 1
        assert staged(tx.session) == [1, 2, 4]
        assert subscriptions.drop_changed_in_file(tx.session, 9).total == 0


def test_of_many_that_are_dropped_the_first_are_shown(book: Book) -> None:
    enrolled(book, a_line(1, "known"))
    with book.transaction() as tx:
        lines = [a_line(line, "a", reference=str(line)) for line in (5, 3, 2, 4, 1)]
        others = [a_line(line, "known", seal=b"t" * 32) for line in (9, 7, 8)]
        subscriptions.stage(tx.session, [*lines, *others])
        of_file = subscriptions.drop_changed_in_file(tx.session, 2)
        of_book = subscriptions.drop_changed_in_book(tx.session, 2)
    assert ([one.line for one in of_file.rows], of_file.total) == ([2, 3], 4)
    assert ([one.line for one in of_book.rows], of_book.total) == ([7, 8], 3)


def test_what_contradicts_the_book_is_named_with_what_the_book_knows(book: Book) -> None:
    enrolled(book, a_line(1, "a"), a_line(2, "b"), a_line(3, "c"))
    with book.transaction() as tx:
        other = {"seal": b"t" * 32}
        day = date(2026, 10, 21)
        rows = [
            a_line(1, "a", **other, amount=500),
            a_line(2, "b", **other, anchor_on=day),
            # The same seal is the same facts; and of one who is new there is nothing to compare.
            a_line(3, "c", amount=500),
            a_line(4, "d", **other),
        ]
        subscriptions.stage(tx.session, rows)
        dropped = subscriptions.drop_changed_in_book(tx.session, 9)
        anchor = WHOLE["anchor_on"]
        assert [tuple(one) for one in dropped.rows] == [
            (1, "a", 500, 9900, True, anchor, anchor, False, 2),
            (2, "b", 9900, 9900, False, day, anchor, True, 2),
        ]
        assert staged(tx.session) == [3, 4]


def test_the_time_that_an_import_takes_is_its_own(book: Book) -> None:
    """The next transaction on the same connection has its limits again."""
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    shown = text("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))

    def limits(*, lifted: bool) -> tuple[int, tuple[str, ...]]:
        with book.transaction() as tx:
            if lifted:
                subscriptions.take_time(tx.session)
            connection = tx.session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            return connection, tuple(tx.session.execute(shown).one())

    connection, usual = limits(lifted=False)
    assert "0" not in usual
    assert limits(lifted=True) == (connection, ("0", "0", "0"))
    assert limits(lifted=False) == (connection, usual)


def test_one_is_found_by_what_began_it_by_its_name_and_by_what_it_goes_on_from(book: Book) -> None:
    enrolled(
        book,
        a_line(1, "a"),
        a_line(2, "b", initial_imp_uid="imp_2"),
        a_line(3, "c", initial_imp_uid="imp_3"),
        a_line(4, "d", initial_imp_uid="imp_3"),
    )
    execute(book, "UPDATE subscriptions SET previous_id = 1 WHERE id = 2")
    with book.transaction() as tx:
        for lookup in (subscriptions.found, subscriptions.locked):
            one = lookup(tx.session, "b")
            assert one is not None
            assert one.id == 2
            assert lookup(tx.session, "nobody") is None
        begun = subscriptions.begun_by(tx.session, "imp_2")
        assert begun is not None
        assert begun.customer_uid == "b"
        assert subscriptions.begun_by(tx.session, "imp_3") is None, "two claim it"
        assert subscriptions.begun_by(tx.session, "imp_9") is None
        assert subscriptions.follower_of(tx.session, 1) == 2
        assert subscriptions.follower_of(tx.session, 2) is None


def test_one_that_is_locked_is_waited_for_and_another_is_not(book: Book) -> None:
    enrolled(book, a_line(1, "a"), a_line(2, "b"))

    def free() -> list[int]:
        with book.transaction() as other:
            rows = "SELECT id FROM subscriptions ORDER BY id FOR UPDATE SKIP LOCKED"
            return list(other.session.execute(text(rows)).scalars())

    with book.transaction() as tx:
        subscriptions.locked(tx.session, "a")
        assert free() == [2]
    with book.transaction() as tx:
        subscriptions.lock(tx.session, 2)
        assert free() == [1]
    with book.transaction() as tx:
        subscriptions.found(tx.session, "a")
        assert free() == [1, 2]
