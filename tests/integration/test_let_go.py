"""A held month is charged after all, once a person has looked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from billing.domain.errors import Conflict, NotFound
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.services.change_status import pause, resume
from billing.services.close_cycles import close_cycles
from billing.services.hold import hold, release
from billing.services.invariants import broken
from billing.services.let_go import LetGo, let_go
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock
from tests.world import World

WHO = "somebody"


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


def held(world: World) -> list[str | None]:
    return [row[0] for row in query(world.book, "SELECT held FROM cycles ORDER BY id")]


def test_what_our_own_mistake_held_is_charged_in_the_band(world: World) -> None:
    """A contract that did not fit: mended by a person, and then every month is paid."""
    people = [f"somebody-{number}" for number in range(4)]
    world.enrol(*people, script=["declined:0060/mismatch"])
    world.tick()
    assert held(world) == ["facts_mismatch"] * 4
    for one in people:
        gone = let_go(world.book, world.policy, one)
        assert gone.held == "facts_mismatch"
        assert gone.since == world.clock.now
        # Half an hour after the decline at least, then the next slot: 18:00 in Seoul.
        assert gone.at == world.clock.now.replace(hour=9)
    assert held(world) == [None] * 4
    world.run(every=timedelta(hours=1), times=10)
    assert world.statuses("cycles") == {"paid": 4}
    assert broken(world.book, world.policy) == []
    told = query(world.book, "SELECT data FROM events WHERE kind = 'cycle.let_go'")
    assert told == [({"reason": "facts_mismatch"},)] * 4


def test_what_is_still_wrong_holds_it_again(world: World) -> None:
    world.enrol(WHO)
    _rename(world, "another")
    world.tick()
    assert held(world) == ["facts_changed"]
    let_go(world.book, world.policy, WHO)
    world.run(times=2)
    assert held(world) == ["facts_changed"]
    assert world.requests() == 0
    _rename(world, "plan")
    let_go(world.book, world.policy, WHO)
    world.run(times=2)
    assert world.statuses("cycles") == {"paid": 1}


def test_what_waits_past_the_last_start_is_not_announced(world: World) -> None:
    world.enrol(WHO)
    world.open()
    late = "ready_at = c.last_start_at + interval '1 s' FROM cycles c"
    execute(world.book, f"UPDATE attempts SET {late}")
    execute(world.book, "UPDATE cycles SET held = 'contradiction'")
    gone = let_go(world.book, world.policy, WHO)
    assert (gone.at, gone.why_not) == (None, "band_over")


def _rename(world: World, order_name: str) -> None:
    """As nobody may, by going around the triggers."""
    execute(
        world.book,
        "SET LOCAL session_replication_role = replica;"
        f" UPDATE subscriptions SET order_name = '{order_name}'",
    )


def test_one_whose_outcome_is_unknown_is_asked_about_at_once(world: World) -> None:
    world.enrol(WHO, script=["wrong_amount"])
    world.tick()
    assert (held(world), world.statuses("attempts")) == (["contradiction"], {"unknown": 1})
    assert let_go(world.book, world.policy, WHO).at is None
    soonest = query(world.book, "SELECT ask_at FROM attempts")
    assert soonest == [(world.clock.now,)]


def test_a_pause_meanwhile_is_no_suspension(world: World) -> None:
    """Our mistake made five look unknown to the carrier; one of them was paused meanwhile."""
    people = [f"somebody-{number}" for number in range(5)]
    world.enrol(*people, script=["declined:0011"])
    world.tick()
    assert held(world) == ["unconfirmed"] * 5
    assert world.hold() is not None
    pause(world.book, world.policy, people[0])
    assert release(world.book, world.policy).tried_again == 5
    world.run(times=3)
    assert world.statuses("subscriptions") == {"active": 4, "paused": 1}
    resume(world.book, world.policy, people[0])
    world.run(every=timedelta(hours=1), times=10)
    assert world.statuses("cycles") == {"paid": 5}
    assert broken(world.book, world.policy) == []


def test_a_person_may_pardon_one_whose_decline_was_final(world: World) -> None:
    world.enrol(WHO, script=["declined:0011"])
    world.tick()
    hold(world.book, "somebody looks")
    assert let_go(world.book, world.policy, WHO).held == "unconfirmed"
    release(world.book, world.policy)
    world.run(every=timedelta(hours=1), times=10)
    assert world.statuses("subscriptions") == {"active": 1}
    assert world.statuses("cycles") == {"paid": 1}


def test_nothing_is_let_go_where_nothing_is_held(world: World) -> None:
    world.enrol(WHO)
    with pytest.raises(Conflict, match="no month of 'somebody' is held"):
        let_go(world.book, world.policy, WHO)
    with pytest.raises(NotFound):
        let_go(world.book, world.policy, "nobody")
    world.tick()
    close_cycles(world.book, world.policy)
    assert query(world.book, "SELECT count(*) FROM events WHERE kind = 'cycle.let_go'") == [(0,)]


@pytest.fixture
def stopped(book: Book, policy: BillingPolicy) -> Book:
    """One subscriber whose open month is held, with its first attempt due now."""
    enrolled(book, policy, a_row(1))
    assert open_cycles(book, policy) == 1
    execute(book, "UPDATE cycles SET held = 'facts_mismatch'")
    told = (
        "INSERT INTO events (at, kind, subscription_id, cycle_id) SELECT CAST(:at AS timestamptz),"
        " :kind, subscription_id, id + :further FROM cycles"
    )
    # The second time counts; then it says something else, and another month is held.
    for minute, kind, further in (
        (0, "cycle.held", 0),
        (1, "cycle.held", 0),
        (2, "cycle.paid", 0),
        (3, "cycle.held", 1),
    ):
        at = HELD_AT + timedelta(minutes=minute - 1)
        execute(book, told, at=at, kind=kind, further=further)
    return book


HELD_AT = datetime(2026, 11, 20, 0, 30, tzinfo=UTC)


def gone(at: datetime | None, why_not: NoRetryReason | None = None) -> LetGo:
    return LetGo("facts_mismatch", HELD_AT, at, why_not)


def test_one_that_is_planned_stays_planned(
    stopped: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    assert let_go(stopped, policy, "customer-1") == gone(clock.now)
    assert query(stopped, "SELECT number, status FROM attempts") == [(1, "due")]
    told = "SELECT subscription_id, cycle_id, data FROM events WHERE kind = 'cycle.let_go'"
    assert query(stopped, told) == [(1, 1, {"reason": "facts_mismatch"})]


def test_one_whose_attempt_was_withdrawn_is_planned_anew(
    stopped: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    withdraw(stopped)
    clock.move(hours=1)
    slot = clock.now.replace(hour=9)
    assert let_go(stopped, policy, "customer-1") == gone(slot)
    assert query(stopped, "SELECT planned_at FROM attempts WHERE number = 2") == [(slot,)]


def test_one_that_is_too_late_is_let_go_and_not_tried(
    stopped: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    withdraw(stopped)
    clock.move(days=6)
    assert let_go(stopped, policy, "customer-1") == gone(None, NoRetryReason.BAND_OVER)
    assert query(stopped, "SELECT held FROM cycles") == [(None,)]


def test_a_paused_one_is_tried_when_it_is_resumed(stopped: Book, policy: BillingPolicy) -> None:
    pause(stopped, policy, "customer-1")
    assert let_go(stopped, policy, "customer-1") == gone(None)
    assert query(stopped, "SELECT status FROM attempts") == [("withdrawn",)]
    resume(stopped, policy, "customer-1")
    assert query(stopped, "SELECT status FROM attempts ORDER BY number") == [
        ("withdrawn",),
        ("due",),
    ]


def withdraw(book: Book) -> None:
    execute(book, "UPDATE attempts SET status = 'withdrawn', settled_at = '2026-11-20T01:00Z'")


def test_the_shortest_lease_charges(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """As short as start-up allows: 10 seconds more than a request."""
    world = World(
        book,
        make_policy(
            charge_cron="* * * * *", portone_timeout_seconds=110, inquiry_settle_seconds=140
        ),
        clock,
    )
    world.enrol(WHO)
    world.run(times=2)
    assert world.statuses("cycles") == {"paid": 1}
