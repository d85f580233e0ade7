"""Which attempts may be handed out, claimed, asked about: each condition alone, to the second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from billing.domain.policy import BillingPolicy
from billing.services.open_cycles import open_cycles
from billing.store import attempts
from billing.store.session import Book
from billing.store.tables import Attempt, BuyerData, Subscription
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.world import World

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def now(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> datetime:
    """Five are due, with attempts 1 to 5."""
    policy = make_policy(charge_cron="* * * * *")
    World(book, policy, clock).enrol(*(f"customer-{number}" for number in range(5)))
    assert open_cycles(book, policy) == 5
    execute(book, "UPDATE attempts SET ready_at = :now", now=clock.now)
    assert [one for (one,) in query(book, "SELECT id FROM attempts ORDER BY id")] == [1, 2, 3, 4, 5]
    return clock.now


def become(book: Book, attempt_id: int, **columns: Any) -> None:
    """An attempt as it may lie in the book."""
    if columns.get("status") == "sending":
        columns = {"sent_at": columns["now"], "lease_until": columns["now"]} | columns
    columns.pop("now", None)
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    execute(book, f"UPDATE attempts SET {changes} WHERE id = {attempt_id}", **columns)


def outstanding(book: Book, now: datetime, at_most: int = 9) -> int:
    with book.transaction() as tx:
        return attempts.outstanding(tx.session, now, MINUTE, at_most)


def handed_out(book: Book, now: datetime, limit: int = 9) -> list[int]:
    with book.transaction() as tx:
        return attempts.hand_out(tx.session, now, MINUTE, limit)


def claimed(book: Book, now: datetime, *ids: int, **options: Any) -> list[attempts.Claim]:
    with book.transaction() as tx:
        return list(attempts.claim(tx.session, ids, now, now + HOUR, **options))


def ids_of(claims: list[attempts.Claim]) -> list[int]:
    return [one.attempt_id for one in claims]


def declined_and_due_again(book: Book, now: datetime) -> tuple[str, int]:
    """The first's `merchant_uid`, and the id of the second attempt of that month."""
    become(book, 1, status="declined", decline_class="soft", settled_at=now)
    execute(
        book,
        "INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at,"
        " ready_at) SELECT cycle_id, 2, 'mw-second', 'due', closes_at, planned_at, ready_at"
        " FROM attempts WHERE id = 1",
    )
    ((merchant_uid,),) = query(book, "SELECT merchant_uid FROM attempts WHERE id = 1")
    ((second,),) = query(book, "SELECT id FROM attempts WHERE number = 2")
    return merchant_uid, second


@contextmanager
def held_elsewhere(book: Book, *ids: int) -> Iterator[None]:
    """Other transactions that do not end hold these."""
    with book.transaction() as other:
        locked = text("SELECT 1 FROM attempts WHERE id = ANY(:ids) FOR UPDATE")
        other.session.execute(locked, {"ids": list(ids)})
        yield


# -- handed out and not finished ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ago", "counts"),
    [
        ("due", None, 0),
        ("due", timedelta(0), 1),
        ("due", MINUTE, 1),
        ("due", MINUTE + SECOND, 0),
        ("due", -MINUTE, 1),
        ("due", -MINUTE - SECOND, 0),
        ("sending", None, 0),
        ("sending", MINUTE + SECOND, 1),
        ("unknown", timedelta(0), 0),
    ],
)
def test_what_is_under_way(
    book: Book, now: datetime, status: str, ago: timedelta | None, counts: int
) -> None:
    become(book, 1, status=status, dispatched_at=None if ago is None else now - ago, now=now)
    assert outstanding(book, now) == counts


def test_no_more_is_counted_than_matters(book: Book, now: datetime) -> None:
    execute(book, "UPDATE attempts SET dispatched_at = :now", now=now)
    assert (outstanding(book, now, 3), outstanding(book, now)) == (3, 5)


# -- what may be sent -----------------------------------------------------------------------------

MAY_BE_SENT = [
    ("attempts", "status = 'unknown'", False),
    ("attempts", "ready_at = :now", True),
    ("attempts", "ready_at = :now + interval '1 second'", False),
    ("cycles", "status = 'skipped', reason = 'x', settled_at = :now", False),
    ("cycles", "held = 'somebody paid'", False),
    ("cycles", "band_opens_at = :now", True),
    ("cycles", "band_opens_at = :now + interval '1 second'", False),
    ("cycles", "last_start_at = :now", True),
    ("cycles", "last_start_at = :now - interval '1 second'", False),
    ("subscriptions", "status = 'paused'", False),
    ("subscriptions", "status = 'suspended', status_reason = 'x'", False),
]


@pytest.mark.parametrize(("table", "change", "may"), MAY_BE_SENT)
def test_each_condition_keeps_from_handing_out_and_from_claiming(
    book: Book, now: datetime, table: str, change: str, may: bool
) -> None:
    # Of the third of five, which has one number in all tables.
    assert query(
        book,
        "SELECT c.id, c.subscription_id FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
        " WHERE a.id = 3",
    ) == [(3, 3)]
    execute(
        book,
        f"UPDATE {table} SET {change.replace(':now', 'CAST(:now AS timestamptz)')} WHERE id = 3",
        now=now,
    )
    expected = [1, 2, 3, 4, 5] if may else [1, 2, 4, 5]
    assert sorted(handed_out(book, now)) == expected
    assert ids_of(claimed(book, now, 1, 2, 3, 4, 5)) == expected


def test_those_that_close_first_go_first_then_those_that_are_ready_longest(
    book: Book, now: datetime
) -> None:
    become(book, 5, closes_at=now + HOUR)
    become(book, 4, ready_at=now - SECOND)
    become(book, 1, closes_at=now)
    assert handed_out(book, now, 1) == [5]
    assert handed_out(book, now, 2) == [4, 2]
    assert query(book, "SELECT id FROM attempts WHERE dispatched_at = :now ORDER BY id",
        now=now) == [(2,), (4,), (5,)]  # fmt: skip
    # The first is past its close; nobody starts it any more.
    assert handed_out(book, now) == [3]


def test_every_closing_has_its_turn(book: Book, now: datetime) -> None:
    for hours, attempt_id in enumerate((3, 1, 5, 2, 4), 1):
        become(book, attempt_id, closes_at=now + hours * HOUR)
    assert handed_out(book, now) == [3, 1, 5, 2, 4]


def test_so_many_and_no_more_over_all_closings(book: Book, now: datetime) -> None:
    become(book, 5, closes_at=now + HOUR)
    assert handed_out(book, now, 2) == [5, 1]


def test_what_another_holds_is_passed_over(book: Book, now: datetime) -> None:
    with held_elsewhere(book, 1, 3):
        assert handed_out(book, now) == [2, 4, 5]
        assert ids_of(claimed(book, now, 1, 2, 3)) == [2]


def test_one_hands_out_at_a_time(book: Book) -> None:
    held = (
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
        " WHERE locktype = 'advisory' AND granted AND datname = current_database()"
    )
    with book.transaction() as tx:
        attempts.one_dispatcher(tx.session)
        assert query(book, held) == [(1,)]
    assert query(book, held) == [(0,)]


def test_what_was_lost_on_the_way_goes_again(book: Book, now: datetime) -> None:
    execute(book, "UPDATE attempts SET dispatched_at = :at", at=now - MINUTE)
    assert handed_out(book, now) == []
    become(book, 2, dispatched_at=now - MINUTE - SECOND)
    assert handed_out(book, now) == [2]
    # By a clock that was ahead, which must keep nobody waiting until then.
    execute(book, "UPDATE attempts SET dispatched_at = :at", at=now + MINUTE)
    assert handed_out(book, now) == []
    become(book, 2, dispatched_at=now + MINUTE + SECOND)
    assert handed_out(book, now) == [2]


def test_what_is_taken_back_is_found_at_once(book: Book, now: datetime) -> None:
    assert len(handed_out(book, now)) == 5
    become(book, 2, status="sending", now=now)
    with book.transaction() as tx:
        attempts.take_back(tx.session, [1, 2, 3])
    assert query(book, "SELECT id FROM attempts WHERE dispatched_at IS NULL ORDER BY id") == [
        (1,),
        (3,),
    ]
    assert handed_out(book, now) == [1, 3]


# -- claims ---------------------------------------------------------------------------------------


def test_a_claim_holds_what_is_sent_and_leaves_no_trace_of_the_last_one(
    book: Book, now: datetime
) -> None:
    earlier = now - HOUR
    become(book, 2, fence=1, refusal="old", nothing_found=2, provable_at=earlier, ask_at=earlier)
    (claim,) = claimed(book, now, 2)
    assert query(
        book,
        "SELECT status, fence, sent_at, lease_until, refusal, nothing_found, provable_at, ask_at"
        " FROM attempts WHERE id = 2",
    ) == [("sending", 2, now, now + HOUR, None, 0, None, None)]
    uid, merchant_uid, month, last, amount = query(
        book,
        "SELECT s.customer_uid, a.merchant_uid, c.month, c.last_start_at, s.amount FROM attempts a"
        " JOIN cycles c ON c.id = a.cycle_id JOIN subscriptions s ON s.id = c.subscription_id"
        " WHERE a.id = 2",
    )[0]
    assert (claim.attempt_id, claim.fence, claim.cycle_id, claim.number) == (2, 2, 2, 1)
    assert (claim.subscription_id, claim.month, claim.last_start_at) == (2, month, last)
    assert (claim.resent, claim.earlier) == (True, ())
    assert (claim.request.customer_uid, claim.facts.customer_uid) == (uid, uid)
    assert (claim.request.merchant_uid, claim.request.amount.amount) == (merchant_uid, amount)
    assert claim.request.amount == claim.facts.amount
    assert claimed(book, now, 2) == [], "it has an owner"


def test_the_first_time_is_no_other_time(book: Book, now: datetime) -> None:
    (claim,) = claimed(book, now, 1)
    assert (claim.fence, claim.resent) == (1, False)


def test_a_second_attempt_knows_the_first(book: Book, now: datetime) -> None:
    first, second = declined_and_due_again(book, now)
    claims = claimed(book, now, 2, second)
    assert {one.attempt_id: one.earlier for one in claims} == {2: (), second: (first,)}


def test_those_without_a_place_go_back(book: Book, now: datetime) -> None:
    handed_out(book, now)
    become(book, 5, status="unknown")
    asked: list[int] = []

    def places(wanted: int) -> int:
        asked.append(wanted)
        return 3

    assert ids_of(claimed(book, now, 1, 2, 3, 4, 5, places=places)) == [1, 2, 3]
    assert asked == [4]
    assert query(book, "SELECT status, dispatched_at FROM attempts WHERE id = 4") == [("due", None)]
    assert claimed(book, now, 5, places=places) == []
    assert asked == [4], "nobody asks for no place"
    assert claimed(book, now, 4, places=lambda _: 0) == []


# -- what became of them --------------------------------------------------------------------------


def test_a_lease_ends_after_its_last_moment(book: Book, now: datetime) -> None:
    def expired(limit: int) -> list[tuple[int, int]]:
        with book.transaction() as tx:
            return [(one.id, who) for one, who in attempts.expired(tx.session, now, limit)]

    become(book, 1, status="sending", now=now)
    become(book, 2, status="sending", now=now, lease_until=now - SECOND)
    become(book, 3, status="sending", now=now, lease_until=now - MINUTE)
    become(book, 4, status="unknown", lease_until=now - MINUTE)
    become(book, 5, status="sending", now=now, lease_until=now - SECOND)
    assert expired(9) == [(3, 3), (2, 2), (5, 5)]
    assert expired(1) == [(3, 3)]
    with held_elsewhere(book, 3):
        assert expired(9) == [(2, 2), (5, 5)]


def test_questions_are_asked_when_they_are_due_and_put_off(book: Book, now: datetime) -> None:
    def taken(limit: int) -> list[int]:
        with book.transaction() as tx:
            return list(attempts.take_to_ask(tx.session, now, now + HOUR, limit))

    become(book, 1, status="unknown", ask_at=now + SECOND)
    become(book, 2, status="unknown", ask_at=now)
    become(book, 3, status="unknown", ask_at=now - MINUTE)
    become(book, 4, ask_at=now - MINUTE)
    become(book, 5, status="unknown", ask_at=now)
    with held_elsewhere(book, 2, 5):
        assert taken(1) == [3]
        assert taken(9) == []
    assert taken(9) == [2, 5]
    assert taken(9) == []
    put_off = "SELECT id FROM attempts WHERE ask_at = :at ORDER BY id"
    assert query(book, put_off, at=now + HOUR) == [(2,), (3,), (5,)]


def test_only_what_is_unknown_is_an_open_question(book: Book, now: datetime) -> None:
    become(book, 1, status="unknown", fence=4)
    become(book, 2, status="sending", now=now)
    with book.transaction() as tx:
        found = list(attempts.open_questions(tx.session, [1, 2, 3]))
    assert [(one.attempt_id, one.fence) for one in found] == [(1, 4)]


@pytest.mark.parametrize(
    ("status", "flies"), [("due", False), ("sending", True), ("unknown", True)]
)
def test_what_may_still_arrive(book: Book, now: datetime, status: str, flies: bool) -> None:
    become(book, 2, status=status, now=now)
    with book.transaction() as tx:
        assert attempts.in_flight(tx.session, 2) is flies
        assert attempts.in_flight(tx.session, 1) is False


# -- one month's attempts -------------------------------------------------------------------------


def test_the_newest_is_the_live_one_or_the_last(book: Book, now: datetime) -> None:
    def newest(cycle_id: int) -> int | None:
        with book.transaction() as tx:
            return attempts.newest_of(tx.session, cycle_id)

    _, second = declined_and_due_again(book, now)
    assert newest(1) == second
    become(book, second, status="withdrawn", settled_at=now)
    assert newest(1) == second
    execute(book, "UPDATE attempts SET number = 3 WHERE id = 1")
    assert newest(1) == 1
    assert newest(99) is None


def test_all_of_a_month_in_order(book: Book, now: datetime) -> None:
    _, second = declined_and_due_again(book, now)
    with book.transaction() as tx:
        found = attempts.of_cycles(tx.session, [1, 2, 99])
        numbers = {cycle: [one.id for one in these] for cycle, these in found.items()}
    assert numbers == {1: [1, second], 2: [2], 99: []}


def test_when_each_decline_was_sent(book: Book, now: datetime) -> None:
    declined_and_due_again(book, now)
    become(book, 1, sent_at=now)
    become(book, 2, status="sending", now=now)
    become(book, 3, status="declined", decline_class="soft", settled_at=now)
    become(book, 4, status="declined", decline_class="soft", settled_at=now, sent_at=now)
    with book.transaction() as tx:
        found = attempts.declined_sent_at(tx.session, [1, 2, 3])
    # The fourth was not asked for; the third was sent by nobody knows whom.
    assert found == {1: [now], 2: [], 3: []}


def test_rows_to_change_are_read_anew_when_they_are_locked(book: Book, now: datetime) -> None:
    with book.transaction() as tx:
        # Held, else the session forgets it and reads it anew in any case.
        read_before = tx.session.get_one(Attempt, 2)
        assert read_before.fence == 0
        tx.session.execute(text("UPDATE attempts SET fence = 9 WHERE id = 2"))
        locked = attempts.lock_with_cycle(tx.session, [2, 3])
        assert locked[2][0] is read_before
        assert read_before.fence == 9
        kept = {key: (one.id, month.id, who.id) for key, (one, month, who) in locked.items()}
    assert kept == {2: (2, 2, 2), 3: (3, 3, 3)}


def test_facts_are_what_the_book_holds(book: Book, now: datetime) -> None:
    with book.transaction() as tx:
        who = tx.session.get_one(Subscription, 1)
        buyer = BuyerData(subscription_id=1, name="홍길동", email="a@b", tel="010")
        full, bare = attempts.facts_of(who, buyer), attempts.facts_of(who, None)
        assert (full.buyer_name, full.buyer_email, full.buyer_tel) == ("홍길동", "a@b", "010")
        assert (bare.buyer_name, bare.buyer_email, bare.buyer_tel) == (None, None, None)
        assert (full.customer_uid, full.amount.amount) == (who.customer_uid, who.amount)
        assert (full.order_name, full.initial_paid_at) == (who.order_name, who.initial_paid_at)
