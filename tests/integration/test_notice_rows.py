"""The outbox to the row and to the moment: what may go out, what became of it, what may be gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from billing.domain.delivery import LONGEST_WAIT, TRIED_FOR
from billing.domain.notice import NoticeStatus, Resumed
from billing.domain.policy import BillingPolicy
from billing.store import events, notices
from billing.store.notices import NoticeClaim
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query, waits
from tests.conftest import MovedClock

MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)
LEASE = timedelta(minutes=1)
DELIVERED, DEAD = "delivered_at = :now", "dead_at = :now, problem = 'refused'"


@pytest.fixture
def kept(book: Book, clock: MovedClock) -> Book:
    """Notices 1 to 3 of three subscribers whom the book does not have, and 4 of nobody."""
    with book.transaction() as tx:
        for number in (1, 2, 3, None):
            news = Resumed(before=f"before-{number}")
            events.notify(tx.session, at=clock.now, subscription_id=number, news=news)
    return book


def put(book: Book, change: str, *ids: int, **values: Any) -> None:
    execute(book, f"UPDATE notices SET {change} WHERE id = ANY(:ids)", ids=list(ids), **values)


def due(book: Book, clock: MovedClock, limit: int = 9) -> list[int]:
    with book.transaction() as tx:
        return list(notices.due(tx.session, clock.now, LEASE, limit))


def claim(
    book: Book, clock: MovedClock, *ids: int, limit: int = 9, lease: timedelta = LEASE
) -> Sequence[NoticeClaim]:
    with book.transaction() as tx:
        return notices.claim(tx.session, ids or range(1, 9), clock.now, lease, limit)


def rows(book: Book, columns: str) -> list[tuple[Any, ...]]:
    return query(book, f"SELECT {columns} FROM notices ORDER BY id")


# -- what may go out ------------------------------------------------------------------------------


def test_the_longest_waiting_goes_first(kept: Book, clock: MovedClock) -> None:
    assert due(kept, clock) == [1, 2, 3, 4]
    put(kept, "next_try_at = :at", 3, at=clock.now - MOMENT)
    assert due(kept, clock) == [3, 1, 2, 4]
    assert due(kept, clock, limit=2) == [3, 1]
    assert [one.notice_id for one in claim(kept, clock, limit=2)] == [3, 1]


def test_not_before_its_time(kept: Book, clock: MovedClock) -> None:
    put(kept, "next_try_at = :at", 1, at=clock.now + MOMENT)
    put(kept, "next_try_at = :at", 2, at=clock.now + LONGEST_WAIT)
    put(kept, "next_try_at = :at", 3, at=clock.now + LONGEST_WAIT + MOMENT)
    assert due(kept, clock) == [4, 3]
    assert [one.notice_id for one in claim(kept, clock)] == [4, 3]


def test_neither_what_ended_nor_what_somebody_sends(kept: Book, clock: MovedClock) -> None:
    put(kept, DELIVERED, 1, now=clock.now)
    put(kept, DEAD, 2, now=clock.now)
    assert due(kept, clock) == [3, 4]
    for until, free in (
        (clock.now - MOMENT, True),
        (clock.now, True),
        (clock.now + MOMENT, False),
        (clock.now + LEASE, False),
        (clock.now + LEASE + MOMENT, True),
    ):
        put(kept, "lease_until = :at", 3, at=until)
        assert due(kept, clock) == ([3, 4] if free else [4])
    put(kept, DELIVERED, 4, now=clock.now)
    assert due(kept, clock) == [3]


def test_of_one_subscription_the_first_that_has_not_ended(kept: Book, clock: MovedClock) -> None:
    put(kept, "subscription_id = 7", 1, 2, 3)
    assert due(kept, clock) == [1, 4]
    put(kept, "next_try_at = :at", 1, at=clock.now + DAY / 3)
    assert due(kept, clock) == [4], "what is put off keeps back what follows it"
    put(kept, DELIVERED, 1, now=clock.now)
    assert due(kept, clock) == [2, 4]
    put(kept, DEAD, 2, now=clock.now)
    assert due(kept, clock) == [3, 4]
    put(kept, "subscription_id = NULL", 1, 2, 3)
    put(kept, "dead_at = NULL", 2)
    assert due(kept, clock) == [2, 3, 4], "those of nobody keep back nobody"


def test_a_claim_is_the_notice_as_it_goes_out(
    kept: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    enrolled(kept, policy, a_row(1))
    put(kept, "tries = 4", 1)
    (first, second) = claim(kept, clock, 1, 4)
    until = clock.now + LEASE
    assert (first.notice_id, first.kind, first.tries) == (1, "subscription.resumed", 5)
    assert (first.give_up_at, first.lease_until) == (clock.now + TRIED_FOR, until)
    assert b'"customer-1"' in first.outgoing.body
    assert (second.notice_id, second.tries) == (4, 1)
    assert b'"before-None"' in second.outgoing.body
    assert rows(kept, "id, tries, lease_until") == [
        (1, 5, until),
        (2, 0, None),
        (3, 0, None),
        (4, 1, until),
    ]
    assert claim(kept, clock, 1, 4) == ()


def test_what_another_holds_is_left_alone(kept: Book, clock: MovedClock) -> None:
    with kept.transaction() as tx:
        assert len(notices.claim(tx.session, [1, 2], clock.now, LEASE, 9)) == 2
        with kept.transaction() as other:
            found = notices.claim(other.session, [1, 2, 3], clock.now, LEASE, 9)
    assert [one.notice_id for one in found] == [3]


def test_what_tells_no_object_is_buried(kept: Book, clock: MovedClock) -> None:
    put(kept, "data = '[]'", 1, 2, 3)
    put(kept, DELIVERED, 2, now=clock.now)
    put(kept, "lease_until = :at", 1, at=clock.now)
    with kept.transaction() as tx:
        assert notices.bury_what_says_nothing(tx.session, [1, 2, 4], clock.now) == [1]
    assert rows(kept, "dead_at, lease_until, problem") == [
        (clock.now, None, "what it tells is no message"),
        (None, None, None),
        (None, None, None),
        (None, None, None),
    ]
    put(kept, "data = '[]'", 4)
    with kept.transaction() as tx:
        assert notices.bury_what_says_nothing(tx.session, [4, 3], clock.now) == [3, 4]


# -- what became of it ----------------------------------------------------------------------------


def test_delivered_is_delivered_also_when_it_was_given_up(kept: Book, clock: MovedClock) -> None:
    first, second = claim(kept, clock, 1, 2)
    put(kept, f"lease_until = NULL, {DEAD}", 1, now=clock.now)
    with kept.transaction() as tx:
        notices.delivered(tx.session, first, clock.now)
        notices.delivered(tx.session, first, clock.now + DAY)
    columns = "delivered_at, dead_at, lease_until, problem"
    lease = clock.now + LEASE
    assert rows(kept, columns)[:2] == [(clock.now, None, None, None), (None, None, lease, None)]
    assert second.notice_id == 2


def test_what_was_not_taken_waits_or_is_dead(kept: Book, clock: MovedClock) -> None:
    def failed(one: NoticeClaim, again_at: datetime | None, problem: str = "503") -> bool:
        with kept.transaction() as tx:
            return notices.failed(tx.session, one, clock.now, again_at, problem)

    first, second, third = claim(kept, clock, 1, 2, 3)
    assert failed(first, clock.now + DAY, "5" * 300)
    assert failed(second, None)
    columns = "next_try_at, dead_at, lease_until, problem"
    now = clock.now
    assert rows(kept, columns)[:3] == [
        (now + DAY, None, None, "5" * 200),
        (now, now, None, "503"),
        (now, None, now + LEASE, None),
    ]
    # By whom it was sent again, or taken, meanwhile: neither is it dead nor put off.
    put(kept, "lease_until = :at", 3, at=now + LEASE + MOMENT)
    assert not failed(third, None)
    put(kept, f"lease_until = :at, {DELIVERED}", 3, at=now + LEASE, now=now)
    assert not failed(third, None)
    assert rows(kept, "dead_at, problem")[2] == (None, None)


# -- what nobody waits for any more ---------------------------------------------------------------


def test_what_waited_for_too_long_is_given_up(kept: Book, clock: MovedClock) -> None:
    def give_up(limit: int = 9) -> list[int]:
        with kept.transaction() as tx:
            return list(notices.give_up(tx.session, clock.now, LEASE, limit))

    assert give_up() == []
    put(kept, "give_up_at = :at", 1, 2, 3, 4, at=clock.now)
    put(kept, "give_up_at = :at", 1, at=clock.now + MOMENT)
    put(kept, "lease_until = :at", 2, at=clock.now + MOMENT)
    put(kept, "give_up_at = :at, problem = 'busy'", 4, at=clock.now - MOMENT)
    assert give_up(limit=1) == [4], "the oldest first"
    put(kept, "lease_until = :at", 3, at=clock.now)
    assert give_up() == [3]
    assert rows(kept, "dead_at, lease_until, problem") == [
        (None, None, None),
        (None, clock.now + MOMENT, None),
        (clock.now, None, "never sent"),
        (clock.now, None, "busy"),
    ]
    put(kept, "lease_until = NULL, give_up_at = :at", 1, 2, at=clock.now)
    put(kept, DELIVERED, 2, now=clock.now)
    assert give_up() == [1]


def test_many_that_waited_for_too_long_are_told_in_their_order(
    kept: Book, clock: MovedClock
) -> None:
    for number in range(1, 5):
        put(kept, "give_up_at = :at", number, at=clock.now - number * MOMENT)
    with kept.transaction() as tx:
        assert list(notices.give_up(tx.session, clock.now, LEASE, 9)) == [1, 2, 3, 4]


def test_who_gives_up_waits_for_nobody(kept: Book, clock: MovedClock) -> None:
    put(kept, "give_up_at = :at", 1, 2, 3, 4, at=clock.now)
    with kept.transaction() as tx:
        assert notices.drop(tx.session, clock.now, LEASE, 1) == 1
        assert not waits(kept, lambda other: notices.drop(other.session, clock.now, LEASE, 1))
    assert rows(kept, "id") == [(3,), (4,)]
    put(kept, "give_up_at = :at", 4, at=clock.now + MOMENT)
    with kept.transaction() as tx:
        assert notices.drop(tx.session, clock.now, LEASE, 9) == 1
    assert rows(kept, "id") == [(4,)]


def test_what_ended_long_ago_goes(kept: Book, clock: MovedClock) -> None:
    def prune() -> int:
        with kept.transaction() as tx:
            return notices.prune(tx.session, clock.now)

    put(kept, DELIVERED, 1, 2, now=clock.now)
    put(kept, DEAD, 3, now=clock.now)
    assert prune() == 0
    put(kept, "created_at = :at", 2, 3, 4, at=clock.now - MOMENT)
    with patch.object(notices, "_OLDEST", 2):
        assert prune() == 1
    assert rows(kept, "id") == [(1,), (3,), (4,)]
    assert prune() == 1
    assert rows(kept, "id") == [(1,), (4,)]


# -- again ----------------------------------------------------------------------------------------

ANEW = "delivered_at, dead_at, tries, next_try_at, give_up_at"


def test_one_is_sent_again_whatever_became_of_it(kept: Book, clock: MovedClock) -> None:
    def again(number: int) -> bool:
        with kept.transaction() as tx:
            return notices.send_again(tx.session, number, clock.now)

    put(kept, f"tries = 3, {DELIVERED}", 1, 3, now=clock.now)
    put(kept, f"tries = 3, {DEAD}", 2, now=clock.now)
    clock.move(days=1)
    assert again(1)
    assert again(2)
    assert not again(9)
    anew = (None, None, 0, clock.now, clock.now + TRIED_FOR)
    assert rows(kept, ANEW)[:2] == [anew, anew]
    assert rows(kept, "delivered_at, tries")[2] == (clock.now - DAY, 3)


def test_the_dead_are_sent_again_the_oldest_first(kept: Book, clock: MovedClock) -> None:
    def again(limit: int) -> int:
        with kept.transaction() as tx:
            return notices.send_dead_again(tx.session, clock.now, limit)

    put(kept, f"tries = 3, {DEAD}", 1, 2, 4, now=clock.now)
    put(kept, DELIVERED, 3, now=clock.now)
    clock.move(days=1)
    assert again(2) == 2
    assert [dead is None for (dead,) in rows(kept, "dead_at")] == [True, True, True, False]
    anew = (None, None, 0, clock.now, clock.now + TRIED_FOR)
    assert rows(kept, ANEW)[:2] == [anew, anew]
    with kept.transaction() as tx:
        assert notices.send_dead_again(tx.session, clock.now, 9) == 1
        with kept.transaction() as other:
            assert notices.send_dead_again(other.session, clock.now, 9) == 0
    assert again(9) == 0


# -- for whoever looks ----------------------------------------------------------------------------


def test_notices_are_listed_and_counted_by_status(
    kept: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    def listed(status: NoticeStatus | None, limit: int = 9, before: int | None = None) -> list[int]:
        with kept.transaction() as tx:
            found = notices.listed(tx.session, status, limit, before)
        for notice, customer_uid in found:
            assert customer_uid == ("customer-1" if notice.id == 1 else None)
            assert status in (None, notices.status_of(notice))
            assert notices.waits(notice) is (notice.id in (3, 4))
        return [notice.id for notice, _ in found]

    enrolled(kept, policy, a_row(1))
    put(kept, DELIVERED, 1, now=clock.now)
    put(kept, DEAD, 2, now=clock.now)
    assert listed(None) == [4, 3, 2, 1]
    assert listed(None, limit=2) == [4, 3]
    assert listed(None, before=3) == [2, 1]
    assert listed(NoticeStatus.WAITING) == [4, 3]
    assert listed(NoticeStatus.DELIVERED) == [1]
    assert listed(NoticeStatus.DEAD) == [2]
    with kept.transaction() as tx:
        counts = [notices.count(tx.session, status) for status in NoticeStatus]
    assert counts == [2, 1, 1]
