"""What waits by a clock that may leap: row by row and in a query, the same."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import aliased

from billing.store.session import Book
from billing.store.tables import Webhook
from billing.store.waiting import LONGEST_WAIT, is_time, no_later, waits
from tests.conftest import MovedClock

A_MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("ahead", "does"),
    [
        (timedelta(0), False),
        (A_MOMENT, True),
        (LONGEST_WAIT, True),
        (LONGEST_WAIT + A_MOMENT, False),
        (timedelta(days=40), False),
    ],
)
def test_nothing_waits_longer_than_anything_of_ours(
    book: Book, clock: MovedClock, ahead: timedelta, does: bool
) -> None:
    now, until = clock.now, clock.now + ahead
    assert waits(until, now) is does
    row = text("SELECT CAST(:until AS timestamptz) AS look_at").bindparams(until=until)
    one = aliased(Webhook, row.columns(Webhook.look_at).subquery(), adapt_on_names=True)
    with book.transaction() as tx:
        found = tx.session.execute(select(one.look_at).where(is_time(one.look_at, now))).all()
    assert (found == []) is does
    assert no_later(until, now) == min(until, now + LONGEST_WAIT)


def test_without_a_moment_nothing_waits(clock: MovedClock) -> None:
    assert not waits(None, clock.now)
