"""What PostgreSQL says of a row that it does not take stays without the row, by COPY too."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import psycopg.errors
import pytest
from sqlalchemy.orm import Session

from billing.store import ledger, subscriptions
from billing.store.session import Book, Transaction

SECRETS = ("customer-17", "홍길동", "010-1234-5678")
SCOPE = ledger.Scope(
    since=datetime(2026, 11, 1, tzinfo=UTC),
    until=datetime(2026, 11, 30, tzinfo=UTC),
    month_begins=datetime(2026, 11, 1, tzinfo=UTC),
    zone=ZoneInfo("Asia/Seoul"),
    prefix="mw",
    sandbox=False,
)


def an_import(session: Session) -> None:
    row: dict[str, Any] = dict.fromkeys(subscriptions.STAGED_COLUMNS)
    row |= {"customer_uid": SECRETS[0], "buyer_name": SECRETS[1], "buyer_tel": SECRETS[2]}
    # Of another type than its column: the error's CONTEXT names the line, column and value.
    row |= {"amount": f"{SECRETS[0]} {SECRETS[1]} {SECRETS[2]}"}
    subscriptions.stage(session, iter([list(row.values())]))


def a_ledger(session: Session) -> None:
    row: dict[str, Any] = dict.fromkeys(ledger.STAGED_COLUMNS)
    row |= {"customer_uid": SECRETS[0], "merchant_uid": SECRETS[1]}
    # One column too many: the error's CONTEXT shows the whole line.
    ledger.stage(session, iter([[*row.values(), SECRETS[2]]]), SCOPE)


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        (an_import, psycopg.errors.InvalidTextRepresentation),
        (a_ledger, psycopg.errors.BadCopyFileFormat),
    ],
)
def test_a_copy_that_is_refused_does_not_show_the_row(
    book: Book, stage: Callable[[Session], None], kind: type[psycopg.Error]
) -> None:
    with pytest.raises(psycopg.Error) as refused:
        book.run(lambda tx: stage(tx.session))
    error = refused.value
    assert type(error) is kind, "the same kind of error"
    assert (error.__cause__, error.__context__) == (None, None)
    assert str(error), "what it is about is kept"
    told = ["".join(traceback.format_exception(error)), str(error), repr(error.args)]
    for secret in (*SECRETS, "CONTEXT"):
        assert not [one for one in told if secret in one]
    # Nor does any frame of ours that the error came through, for whoever shows variables.
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if frame.f_code.co_filename.endswith("store/session.py")]
    assert ours[-1].f_code.co_name == "copy_rows"
    assert not [one for one in SECRETS for frame in ours if one in repr(frame.f_locals)]


def test_what_breaks_in_the_rows_themselves_passes_as_it_is(book: Book) -> None:
    class Broken(Exception):
        pass

    def rows() -> Sequence[Any]:
        raise Broken

    def step(tx: Transaction) -> None:
        subscriptions.stage(tx.session, (row for row in rows()))

    with pytest.raises(Broken):
        book.run(step)
