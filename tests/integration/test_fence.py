"""The fence and the brake: our own mistakes, and a book that forgot something, charge nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from billing.domain.policy import BillingPolicy
from billing.sandbox import HandPayment, pay
from billing.services.answer import Result
from billing.services.change_status import pause
from billing.services.fence import Newest, fenced, why_not_after
from billing.services.hold import hold, is_unwatched, release
from billing.services.invariants import broken
from billing.services.notify import deliver, find_due
from billing.services.reconcile import Span, reconcile
from billing.store import events, health, heartbeats, installation
from billing.store.heartbeats import SEEN_WITHIN
from billing.store.session import Book
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.post import Post
from tests.world import World

SETTINGS: dict[str, Any] = {
    "charge_cron": "* * * * *",
    "charges_per_second": 0,
    "portone_imp_key": "store-1",
    "portone_imp_secret": "secret",
}


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(**SETTINGS)


@pytest.fixture
def world(book: Book, policy: BillingPolicy, clock: MovedClock) -> World:
    return World(book, policy, clock)


def names(count: int) -> list[str]:
    return [f"customer-{number:03d}" for number in range(count)]


# -- the brake --------------------------------------------------------------------------------


def test_wrong_keys_stop_after_a_few_and_suspend_nobody(world: World) -> None:
    world.enrol(*names(150), known=False)
    world.run(times=8)
    assert world.requests() <= 10
    assert world.statuses("subscriptions") == {"active": 150}
    assert "unknown to the gateway" in (world.hold() or "")
    assert world.alarms().count("charging.held") == 1


def test_after_the_mistake_is_mended_everybody_is_charged(world: World) -> None:
    world.enrol(*names(12), known=False)
    world.run(times=6)
    declined = world.statuses("attempts")["declined"]
    assert world.hold() is not None
    for name in names(12):
        _register(world, name)
    assert release(world.book, world.policy).tried_again == declined
    # Those who were declined get another try at the next retry slot, in the evening.
    world.run(times=3)
    world.clock.move(hours=7, minutes=55)
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 12}
    assert broken(world.book, world.policy) == []


def test_one_customer_who_is_gone_is_suspended_within_two_ticks_more(world: World) -> None:
    world.enrol("gone", known=False)
    world.run(times=5)
    assert query(world.book, "SELECT status, status_reason FROM subscriptions") == [
        ("suspended", "key_invalid")
    ]
    assert query(world.book, "SELECT held FROM cycles") == [(None,)]
    assert world.hold() is None
    assert world.requests() == 1


def test_among_approvals_those_who_are_gone_are_suspended(world: World) -> None:
    world.enrol(*names(40))
    world.enrol("gone-1", "gone-2", "gone-3", known=False)
    world.run(times=8)
    assert world.statuses("cycles") == {"paid": 40, "open": 3}
    assert world.statuses("subscriptions") == {"active": 40, "suspended": 3}
    assert world.hold() is None


def test_until_something_is_approved_only_a_few_go_out_at_once(world: World) -> None:
    world.enrol(*names(20))
    world.tick()
    assert world.requests() == world.policy.canaries
    world.tick()
    assert world.requests() == 20


def test_declines_by_our_own_configuration_stop_the_rest(world: World) -> None:
    world.enrol(*names(30), script=["declined:0071"])
    world.run(times=6)
    assert world.requests() <= 5
    assert "our own configuration" in (world.hold() or "")


# -- the hold ---------------------------------------------------------------------------------


def test_nothing_is_sent_while_held_and_the_end_says_so(world: World) -> None:
    world.enrol("somebody")
    hold(world.book, "a look first")
    world.run(times=3)
    assert world.requests() == 0
    world.clock.move(days=10)
    world.tick()
    assert query(world.book, "SELECT status, reason FROM cycles") == [("missed", "held")]


@pytest.mark.parametrize("why", ["", " \n\t", "\x00"])
def test_who_gives_no_reason_stops_it_all_the_same(world: World, why: str) -> None:
    assert hold(world.book, why) == world.hold() == "held by hand"


def test_the_first_reason_of_a_hold_stays(world: World) -> None:
    assert hold(world.book, "first") == "first"
    assert hold(world.book, "second") == "first"
    held = query(world.book, "SELECT data FROM events WHERE kind = 'charging.held'")
    assert held == [({"why": "first"},)]
    assert release(world.book, world.policy).tried_again == 0
    assert world.hold() is None


def test_a_release_is_written_down_and_another_one_is_nothing(world: World) -> None:
    hold(world.book, "a look first")
    for _ in range(2):
        assert release(world.book, world.policy).tried_again == 0
    released = "SELECT count(*) FROM events WHERE kind = 'charging.released'"
    assert query(world.book, released) == [(1,)]


def test_a_release_tries_only_those_again_whom_the_brake_kept(world: World) -> None:
    """Who is due is due already, and who was refused in the ordinary way has a retry planned."""
    world.enrol("due")
    world.enrol("refused", script=["declined:0031"])
    world.run(times=2)
    world.clock.move(days=30)
    world.open()
    before = query(world.book, "SELECT id, status, ready_at FROM attempts ORDER BY id")
    hold(world.book, "a look first")
    assert release(world.book, world.policy).tried_again == 0
    assert query(world.book, "SELECT id, status, ready_at FROM attempts ORDER BY id") == before


def test_who_was_declined_for_good_before_a_hold_by_hand_is_not_asked_again(world: World) -> None:
    """Another was approved: nothing points at ourselves, and a look at something else is no pardon.
    Asked again together, with no approval between them, more of them would set off the brake."""
    world.enrol("paid")
    world.enrol(*names(3), script=["declined:0011"])
    world.tick()
    assert world.statuses("attempts") == {"approved": 1, "declined": 3}
    assert query(world.book, "SELECT held FROM cycles WHERE status = 'open'") == 3 * [
        ("unconfirmed",)
    ]
    hold(world.book, "a look at something else")
    assert release(world.book, world.policy).tried_again == 0
    world.clock.move(minutes=1)
    world.run(times=2)
    assert world.statuses("attempts") == {"approved": 1, "declined": 3}
    assert world.statuses("subscriptions") == {"active": 1, "suspended": 3}


def test_a_person_who_stops_before_the_brake_does_is_believed_as_it_is(world: World) -> None:
    """Nobody was approved and three are unknown: it may be our own fault, whoever stopped it.
    Whose month waits for something else goes on waiting for it."""
    world.enrol("has a retry planned", script=["declined:0031"])
    world.tick()
    world.enrol(*names(3), script=["declined:0011"])
    world.tick()
    assert world.hold() is None, "too few for the brake"
    hold(world.book, "wrong keys")
    released = release(world.book, world.policy)
    assert released.tried_again == 3
    assert released.hold is not None
    assert not released.hold.by_brake
    assert query(world.book, "SELECT DISTINCT held FROM cycles") == [(None,)]
    # The planned one, and those who were tried again.
    assert world.statuses("attempts") == {"declined": 4, "due": 4}


def test_a_book_on_which_no_tick_was_seen_lately_is_unwatched(world: World) -> None:
    """Whoever holds charging there should hear that it stops nothing: a worker is no scheduler, and
    neither is a tick of long ago."""
    assert is_unwatched(world.book)
    _seen(world, "worker@here", timedelta(0))
    assert is_unwatched(world.book)
    _seen(world, "maewol.tick.open", SEEN_WITHIN)
    assert is_unwatched(world.book)
    _seen(world, "maewol.tick.close", SEEN_WITHIN - timedelta(microseconds=1))
    assert not is_unwatched(world.book)


def _seen(world: World, name: str, ago: timedelta) -> None:
    world.book.run(lambda tx: heartbeats.beat(tx.session, name, tx.now - ago))


# -- the fence --------------------------------------------------------------------------------

MOVES = [
    ("system_identifier = '1/2'", "another database"),
    ("timeline = '00000009'", "back in time"),
    ("imp_key_fingerprint = 'other'", "another store"),
]


@pytest.mark.parametrize(("change", "why"), MOVES, ids=[why for _, why in MOVES])
def test_a_book_that_moved_charges_nobody_until_a_person_has_looked(
    world: World, change: str, why: str
) -> None:
    world.enrol("first")
    world.run()
    assert world.requests() == 1
    world.enrol("second")
    execute(world.book, f"UPDATE installation SET {change}")
    world.run(times=3)
    assert world.requests() == 1
    assert why in (world.hold() or "")
    assert world.alarms() == ["charging.held"]
    release(world.book, world.policy)
    world.run(times=2)
    assert world.requests() == 2
    assert world.hold() is None


def test_the_fence_is_set_by_the_first_tick(world: World) -> None:
    world.tick()
    database, timeline, store = query(
        world.book, "SELECT system_identifier, timeline, imp_key_fingerprint FROM installation"
    )[0]
    assert "/" in database
    assert len(timeline) == 8
    assert store
    assert "store-1" not in store


def place(world: World) -> list[tuple[str | None, str | None, str | None]]:
    return query(
        world.book, "SELECT system_identifier, timeline, imp_key_fingerprint FROM installation"
    )


@pytest.mark.parametrize(("change", "why"), MOVES, ids=[why for _, why in MOVES])
def test_a_book_that_moved_is_known_before_anybody_is_due(
    world: World, change: str, why: str
) -> None:
    """Whoever restores it at night sees the hold then, and not when somebody falls due."""
    world.tick()
    execute(world.book, f"UPDATE installation SET {change}")
    world.tick()
    assert why in (world.hold() or "")
    assert world.alarms() == ["charging.held"]
    release(world.book, world.policy)
    world.tick()
    assert world.hold() is None


@pytest.mark.parametrize(("change", "why"), MOVES, ids=[why for _, why in MOVES])
def test_a_book_that_moved_gives_nobody_up(world: World, change: str, why: str) -> None:
    """It may have forgotten the payment of a month whose window has closed since the backup."""
    world.enrol("somebody", "nobody", script=["declined:D"])
    pause(world.book, world.policy, "nobody")
    world.run()
    pay(world.sandbox, HandPayment(customer_uid="somebody"))
    told = query(world.book, "SELECT count(*) FROM notices")
    execute(world.book, f"UPDATE installation SET {change}")
    world.clock.move(days=8)
    world.tick()
    world.tick()
    assert why in (world.hold() or "")
    assert world.statuses("cycles") == {"open": 1}
    assert world.statuses("subscriptions") == {"active": 1, "paused": 1}
    assert query(world.book, "SELECT count(*) FROM notices") == told, "no word to the customers"
    november = Span(date(2026, 11, 1), date(2026, 11, 30))
    caught_up = world.ask(
        lambda gateway: reconcile(world.book, gateway, world.policy, november, apply=True)
    )
    assert [str(one.kind) for one in caught_up.applied] == ["paid_elsewhere"]
    release(world.book, world.policy)
    world.tick()
    assert world.statuses("cycles") == {"paid": 1, "skipped": 1}
    assert world.statuses("subscriptions") == {"active": 1, "suspended": 1}


@pytest.mark.parametrize(("change", "why"), MOVES, ids=[why for _, why in MOVES])
def test_a_book_that_moved_tells_the_merchant_nothing(world: World, change: str, why: str) -> None:
    """A copy of the live book would tell what the live book tells; a backup, what is true no more.
    It keeps it all, also for longer than notices are kept where nobody wants them."""
    world.enrol("somebody")
    world.run()
    execute(world.book, f"UPDATE installation SET {change}")
    post = Post()
    ids = [one for (one,) in query(world.book, "SELECT id FROM notices")]
    assert ids
    world.clock.move(days=4)
    for wanted in (True, False):
        assert find_due(world.book, post, world.policy, wanted=wanted) == 0
    # A message that was on its way already.
    assert asyncio.run(deliver(world.book, post, world.policy, ids)) == {}
    left = "SELECT count(*) FROM notices WHERE delivered_at IS NULL AND dead_at IS NULL"
    assert query(world.book, left) == [(len(ids),)]
    release(world.book, world.policy)
    assert find_due(world.book, post, world.policy, wanted=True) == len(ids)
    told = asyncio.run(deliver(world.book, post, world.policy, post.due))
    assert told == {"delivered": len(ids)}


def test_charging_that_is_held_in_its_own_place_keeps_no_notice_back(world: World) -> None:
    world.enrol("somebody")
    world.run()
    hold(world.book, "a look first")
    assert find_due(world.book, Post(), world.policy, wanted=True) == 1


def test_a_release_sets_the_fence_at_once(world: World) -> None:
    """A copy that is made between a release and the next charge must know that it is one."""
    world.enrol("first")
    world.run()
    before = place(world)
    hold(world.book, "a look first")
    release(world.book, world.policy)
    assert place(world) == before
    assert None not in before[0]


def test_a_release_accepts_a_move_that_nobody_has_noticed_yet(world: World) -> None:
    world.enrol("first")
    world.run()
    here = place(world)
    execute(world.book, "UPDATE installation SET timeline = '00000009'")
    assert world.hold() is None
    assert release(world.book, world.policy).tried_again == 0
    assert place(world) == here
    world.enrol("second")
    world.run(times=2)
    assert world.hold() is None
    assert world.requests() == 2


def test_a_promoted_standby_is_gone_on_from_where_the_merchant_says_that_it_has_all(
    world: World, make_policy: Callable[..., BillingPolicy]
) -> None:
    """What the primary may have sent last is waited for, and one alarm says what happened."""
    world.policy = make_policy(**SETTINGS, database_failover="go_on")
    world.enrol("first")
    world.run()
    ((timeline,),) = query(world.book, "SELECT timeline FROM installation")
    execute(world.book, "UPDATE installation SET timeline = '00000009'")
    world.tick()
    assert (world.hold(), world.alarms()) == (None, []), "nobody is due, nothing is asked"
    world.enrol("second")
    world.tick()
    assert (world.hold(), world.requests()) == (None, 1)
    told = query(world.book, "SELECT kind, data FROM events WHERE alarm")
    assert told == [("database.failed_over", {"timeline": timeline})]
    world.clock.move(seconds=world.policy.over_after.total_seconds() - 1)
    world.tick()
    assert world.requests() == 1
    world.clock.move(minutes=2)
    world.run(times=2)
    assert world.requests() == 2
    assert world.alarms() == ["database.failed_over"]


def test_a_copy_is_no_promoted_standby(
    world: World, make_policy: Callable[..., BillingPolicy]
) -> None:
    """Also where standbys are gone on from, a book in another database waits for a person."""
    world.policy = make_policy(**SETTINGS, database_failover="go_on")
    world.tick()
    execute(world.book, "UPDATE installation SET system_identifier = '1/2'")
    world.tick()
    assert "another database" in (world.hold() or "")
    assert world.alarms() == ["charging.held"]


def test_two_who_make_the_key_at_once_have_one(book: Book) -> None:
    with book.transaction() as late:
        assert installation.stored_key(late.session) == b""
        with book.transaction() as early:
            assert installation.key(early.session, lambda: b"the first") == b"the first"
        assert installation.key(late.session, lambda: b"the second") == b"the first"


class _Redis:
    """Remembers as Redis does, for one database."""

    def __init__(self) -> None:
        self.database = ""
        self.highest: int | None = None

    async def seen(self) -> dict[str, int]:
        return {"elsewhere": 10**9, **({self.database: self.highest} if self.highest else {})}

    async def raise_to(self, database: str, number: int) -> None:
        assert database
        self.database, self.highest = database, max(number, self.highest or 0)

    async def begin_anew(self, database: str, number: int) -> None:
        self.database, self.highest = database, number


def _forgets_events(world: World) -> _Redis:
    """One customer is charged, the book forgets a thousand events, and another one enrols."""
    remembered = world.watermark = _Redis()
    world.enrol("first")
    world.run()
    assert world.requests() == 1
    assert remembered.highest is not None
    remembered.highest += 1000
    world.enrol("second")
    world.run(times=2)
    return remembered


def test_a_book_that_forgot_events_charges_nobody(world: World) -> None:
    _forgets_events(world)
    assert world.requests() == 1
    assert "back in time" in (world.hold() or "")


def test_a_book_whose_newest_event_is_the_one_that_was_seen_has_all(world: World) -> None:
    with world.book.transaction() as tx:
        assert why_not_after(tx, seen=7, newest=7) is None
        assert why_not_after(tx, seen=7, newest=8) is None
        assert "event 7 is gone" in (why_not_after(tx, seen=7, newest=6) or "")


def test_whether_events_are_missing_and_a_person_knows_of_it(world: World) -> None:
    def looked(above: int) -> tuple[Newest | None, str | None]:
        with world.book.transaction() as tx:
            place = installation.identity(tx.session, world.policy.store).database
            newest = events.newest(tx.session)
            seen = {str(place): newest + above, "elsewhere": 10**9}
            return fenced(tx, world.policy, seen), health.hold_reason(tx.session)

    assert newest_of(world) == 0, "no event yet, and none was seen"
    with world.book.transaction() as tx:
        assert fenced(tx, world.policy, {}) is not None
    assert world.hold() is None
    world.enrol("somebody")
    number = newest_of(world)
    for above in (-1, 0):
        found, held = looked(above)
        assert found is not None
        assert (found.number, found.is_known, held) == (number, False, None)
    found, held = looked(7)
    assert found is not None
    assert (found.is_known, held) == (
        False,
        f"the database went back in time: event {number + 7} is gone",
    )
    # The hold itself is an event.
    found, held = looked(6)
    assert found is not None
    assert (found.is_known, held) == (False, world.hold())
    release(world.book, world.policy)
    found, held = looked(number + 7 - newest_of(world))
    assert found is not None
    assert (found.number, found.is_known, held) == (newest_of(world), True, None)


@pytest.mark.parametrize(("is_known", "highest"), [(False, 8), (True, 5)])
def test_what_is_remembered_begins_anew_where_a_person_knows(is_known: bool, highest: int) -> None:
    remembered = _Redis()
    remembered.database, remembered.highest = "here", 8
    asyncio.run(Newest("here", 5, is_known).tell(remembered))
    assert remembered.highest == highest


def test_a_place_without_a_name_has_no_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = installation.Identity(None, None, None)
    monkeypatch.setattr(installation, "identity", lambda *_: nameless)
    with world.book.transaction() as tx:
        assert fenced(tx, world.policy, {"elsewhere": 10**9}) is None
        assert health.hold_reason(tx.session) is None


def newest_of(world: World) -> int:
    ((newest,),) = query(world.book, "SELECT coalesce(max(id), 0) FROM events")
    assert isinstance(newest, int)
    return newest


def test_a_book_that_forgot_events_is_held_before_anybody_is_due(world: World) -> None:
    """Whoever set it back is still there then, and no month ends by what the book has forgotten."""
    remembered = world.watermark = _Redis()
    world.enrol("first")
    world.run()
    assert remembered.highest is not None
    remembered.highest += 1000
    world.tick()
    assert "back in time" in (world.hold() or "")
    release(world.book, world.policy)
    world.run(times=2)
    assert world.hold() is None


def test_after_a_release_a_book_that_forgot_events_charges_again(world: World) -> None:
    """A person has looked. What is remembered outside of the book is as high as before."""
    remembered = _forgets_events(world)
    release(world.book, world.policy)
    world.run(times=3)
    assert (world.hold(), world.requests()) == (None, 2)
    # And it forgets more: that is another number, and another look.
    remembered.highest += 1000
    world.enrol("third")
    world.run(times=2)
    assert "back in time" in (world.hold() or "")
    assert world.requests() == 2
    assert world.alarms().count("charging.held") == 2


def test_after_a_release_a_book_that_forgets_again_is_noticed(world: World) -> None:
    """Also where it has not as many events again as it had before it forgot the first."""
    _forgets_events(world)
    release(world.book, world.policy)
    for name in names(4):
        world.enrol(name)
        world.run(times=2)
    assert (world.hold(), world.requests()) == (None, 6)
    execute(world.book, "ALTER TABLE events DISABLE TRIGGER ALL")
    ((last,),) = query(world.book, "SELECT max(id) FROM events WHERE kind = 'charging.released'")
    execute(world.book, "DELETE FROM events WHERE id > :last", last=last)
    execute(world.book, f"ALTER TABLE events ALTER id RESTART {last + 1}")
    world.enrol("third")
    world.run(times=2)
    assert "back in time" in (world.hold() or "")
    assert world.requests() == 6


def test_a_book_that_forgot_events_gives_nobody_up(world: World) -> None:
    """What it forgot may be the payment of a month whose window closes under the hold."""
    _forgets_events(world)
    world.clock.move(days=8)
    world.run(times=2)
    assert world.statuses("cycles") == {"paid": 1, "open": 1}
    assert world.statuses("subscriptions") == {"active": 2}
    assert "is gone" in (world.hold() or "")
    release(world.book, world.policy)
    world.run(times=2)
    assert world.statuses("cycles") == {"paid": 1, "missed": 1}


def test_a_book_that_forgot_events_gives_nobody_up_before_a_claim_has_noticed(
    world: World,
) -> None:
    """A disk that was put back has the same identity, and nobody is due in it any more: only what
    was seen of the events tells that it may have forgotten the payment of a month that is over."""
    remembered = world.watermark = _Redis()
    world.enrol("somebody", "nobody", script=["declined:D"])
    world.run()
    pause(world.book, world.policy, "nobody")
    assert remembered.highest is not None
    remembered.highest += 1000
    told = query(world.book, "SELECT count(*) FROM notices")
    world.clock.move(days=8)
    world.close()
    assert "is gone" in (world.hold() or "")
    assert world.statuses("cycles") == {"open": 2}
    assert world.statuses("subscriptions") == {"active": 1, "paused": 1}
    assert query(world.book, "SELECT count(*) FROM notices") == told, "no word to the customers"
    world.run(times=2)
    assert world.alarms() == ["charging.held"]
    release(world.book, world.policy)
    world.tick()
    assert (world.hold(), world.statuses("cycles")) == (None, {"missed": 1, "skipped": 1})


def test_the_tick_that_closes_is_a_witness_of_what_the_book_holds(world: World) -> None:
    """Also what was written since the last claim, a pause for example, is missed if it is gone."""
    remembered = world.watermark = _Redis()
    world.enrol("somebody")
    world.run()
    claimed = remembered.highest
    pause(world.book, world.policy, "somebody")
    world.close()
    assert claimed is not None
    assert query(world.book, "SELECT max(id) FROM events") == [(remembered.highest,)]
    assert remembered.highest > claimed


def test_a_book_whose_events_were_all_archived_has_forgotten_none(world: World) -> None:
    remembered = world.watermark = _Redis()
    world.enrol("somebody")
    world.run()
    world.clock.move(minutes=10)
    world.run(times=3)
    newest = query(world.book, "SELECT max(id) FROM events")[0][0]
    assert query(world.book, "SELECT max(up_to_id) FROM event_seals") == [(newest,)]
    around = "SET LOCAL session_replication_role = replica"
    execute(world.book, f"{around}; DELETE FROM events")
    world.close()
    assert (world.hold(), remembered.highest) == (None, newest)


# -- slowing down -----------------------------------------------------------------------------


def test_too_many_requests_slow_everybody_down_and_nobody_pays_twice(world: World) -> None:
    world.enrol("slow", script=["too_many:120"])
    world.enrol("other")
    world.tick()
    pause, pace, failures = query(
        world.book, "SELECT pause_until - slowed_at, pace, failures FROM gateway_health"
    )[0]
    assert pause == timedelta(seconds=120)
    assert pace == 0.5
    assert failures == 0
    sent = world.requests()
    world.enrol("late")
    world.run(every=timedelta(seconds=40), times=3)
    assert world.requests() == sent
    world.run(times=12)
    assert world.statuses("cycles") == {"paid": 3}
    assert world.tally[Result.APPROVED] == 3


def test_after_an_outage_speed_returns_step_by_step(world: World) -> None:
    world.enrol(*names(6), script=["http_before_charge:502"])
    world.run(times=20)
    assert "gateway.down" in world.alarms()
    pace = query(world.book, "SELECT pace FROM gateway_health")[0][0]
    assert pace == pytest.approx(0.1)
    world.run(times=20)
    assert world.statuses("cycles") == {"paid": 6}


# -- stopping ---------------------------------------------------------------------------------


def test_a_batch_that_is_told_to_stop_writes_down_what_it_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers in flight end as unknown, and none stays `sending` until its lease runs out."""
    world.enrol(*names(4))
    world.tick()
    world.clock.move(days=30)
    for name in names(4):
        _slow(world, name)

    async def stopped(seconds: float) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(world.sandbox, "sleep", stopped)
    from billing.services.open_cycles import open_cycles

    open_cycles(world.book, world.policy)
    ids = [row[0] for row in query(world.book, "SELECT id FROM attempts WHERE status = 'due'")]
    assert len(ids) == 4
    world.charge(ids)

    async def cancelled() -> None:
        task = asyncio.create_task(world._work())
        while world.statuses("attempts").get("sending") != 4:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert world.statuses("attempts") == {"approved": 4, "unknown": 4}


def _register(world: World, name: str) -> None:
    from billing.sandbox import NewCustomer, register
    from tests.world import PAID_AT

    register(
        world.sandbox,
        [NewCustomer(customer_uid=name, amount=9900, name="plan", paid_at=PAID_AT)],
    )


def _slow(world: World, name: str) -> None:
    from billing.sandbox import LineChange, change

    change(world.sandbox, name, LineChange(script=["slow:5000"]))
