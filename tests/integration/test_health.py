"""What all workers share: the ceiling, the circuit, the hold, the skew. On real rows and locks."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from billing.domain import brake
from billing.domain.brake import Verdict
from billing.domain.pace import Ceiling
from billing.domain.policy import BillingPolicy
from billing.services.open_cycles import open_cycles
from billing.store import health
from billing.store.health import Permit
from billing.store.session import Book, Transaction
from tests.builders import a_row, enrolled, execute, query, waits
from tests.conftest import MovedClock

MOMENT = timedelta(microseconds=1)
NO_WAIT = timedelta(0)
LONG = timedelta(seconds=30)


def reserve(book: Book, clock: MovedClock, wanted: int, rate: float, longest: timedelta) -> Permit:
    with book.transaction() as tx:
        return health.reserve(tx.session, clock.now, wanted, Ceiling(rate, canaries=0), longest)


def answered(
    book: Book, clock: MovedClock, usable: int = 0, useless: int = 0, claimed_ago: int = 0
) -> bool:
    with book.transaction() as tx:
        claimed = [clock.now - timedelta(seconds=claimed_ago)] * useless
        return health.note_answers(tx.session, clock.now, usable=usable, useless=claimed)


def judged(book: Book, clock: MovedClock, letters: str = "") -> bool:
    with book.transaction() as tx:
        verdicts = [Verdict(letter) for letter in letters]
        return health.note_verdicts(tx.session, clock.now, verdicts) is not None


def room(book: Book, clock: MovedClock, wanted: int = 100) -> int:
    with book.transaction() as tx:
        return health.room(tx.session, clock.now, wanted, Ceiling(0, canaries=0))


# -- the ceiling ------------------------------------------------------------------------------


def test_places_follow_each_other_at_the_rate(book: Book, clock: MovedClock) -> None:
    assert reserve(book, clock, 50, 10.0, LONG) == Permit(50, NO_WAIT, 10.0)
    assert reserve(book, clock, 50, 10.0, LONG) == Permit(50, timedelta(seconds=5), 10.0)
    clock.move(seconds=4)
    assert reserve(book, clock, 50, 10.0, LONG) == Permit(50, timedelta(seconds=6), 10.0)
    clock.move(seconds=60)
    assert reserve(book, clock, 1, 10.0, LONG) == Permit(1, NO_WAIT, 10.0), "no saved-up burst"


def test_nobody_is_given_a_place_beyond_the_lease(book: Book, clock: MovedClock) -> None:
    assert reserve(book, clock, 500, 10.0, LONG).count == 300
    assert reserve(book, clock, 500, 10.0, LONG).count == 0
    clock.move(seconds=1)
    assert reserve(book, clock, 500, 10.0, LONG) == Permit(10, timedelta(seconds=29), 10.0)


def test_no_ceiling_gives_everything_at_once(book: Book, clock: MovedClock) -> None:
    assert reserve(book, clock, 500, 0, LONG) == Permit(500, NO_WAIT)
    assert query(book, "SELECT next_start_at FROM gateway_health") == [(None,)]


def test_a_clock_that_jumped_back_does_not_block_for_ever(book: Book, clock: MovedClock) -> None:
    """The next place lies years ahead; nobody waits longer than `longest` for it."""
    execute(book, "UPDATE gateway_health SET next_start_at = '2036-01-01Z'")
    assert reserve(book, clock, 5, 10.0, LONG).count == 0
    clock.move(seconds=1)
    assert reserve(book, clock, 5, 10.0, LONG).count == 5


def test_workers_at_once_share_one_ceiling(book: Book, clock: MovedClock) -> None:
    """Eight workers, one rate: their places are one row of places, with no overlap."""
    permits: list[Permit] = []
    threads = [
        threading.Thread(target=lambda: permits.append(reserve(book, clock, 10, 10.0, LONG)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(permit.wait for permit in permits) == [timedelta(seconds=n) for n in range(8)]
    assert {permit.count for permit in permits} == {10}


# -- the circuit ------------------------------------------------------------------------------


def test_five_useless_answers_in_a_row_open_it_and_one_usable_closes_it(
    book: Book, clock: MovedClock
) -> None:
    assert not answered(book, clock, useless=4)
    assert not answered(book, clock, usable=1, useless=9), "any usable answer counts"
    assert not answered(book, clock, useless=4)
    assert room(book, clock) == 100
    assert answered(book, clock, useless=1)
    assert not answered(book, clock, useless=1), "told once"
    assert room(book, clock) == 0
    assert not answered(book, clock, usable=1)
    assert room(book, clock) == 100


def test_time_outs_of_what_went_before_the_last_answer_open_nothing(
    book: Book, clock: MovedClock
) -> None:
    """A few in a hundred hang, and are heard of last of all."""
    answered(book, clock, usable=1)
    clock.move(seconds=59)
    assert not answered(book, clock, useless=50, claimed_ago=60)
    assert room(book, clock) == 100
    assert answered(book, clock, useless=5, claimed_ago=58), "these went after it"
    assert room(book, clock) == 0


def test_however_slow_the_ceiling_somebody_may_go(book: Book, clock: MovedClock) -> None:
    assert reserve(book, clock, 50, 0.01, LONG) == Permit(1, NO_WAIT, 0.01)
    assert reserve(book, clock, 50, 0.01, LONG).count == 0, "the next in a hundred seconds"
    clock.move(seconds=99)
    assert reserve(book, clock, 50, 0.01, LONG).count == 0
    clock.move(seconds=1)
    assert reserve(book, clock, 50, 0.01, LONG).count == 1
    # Put off by a clock that was far ahead, it waits for one place, not for years.
    execute(book, "UPDATE gateway_health SET next_start_at = '2036-01-01Z'")
    assert reserve(book, clock, 50, 0.01, LONG).count == 0
    clock.move(seconds=100)
    assert reserve(book, clock, 50, 0.01, LONG).count == 1


def test_no_answers_change_nothing(book: Book, clock: MovedClock) -> None:
    before = query(book, "SELECT * FROM gateway_health")
    assert not answered(book, clock)
    assert not judged(book, clock)
    assert query(book, "SELECT * FROM gateway_health") == before


def test_while_it_is_open_one_probe_goes_after_each_pause(book: Book, clock: MovedClock) -> None:
    answered(book, clock, useless=5)
    assert reserve(book, clock, 50, 0, LONG).count == 0
    clock.move(seconds=health.PROBE_EVERY.total_seconds() + 1)
    assert room(book, clock) == 1
    assert reserve(book, clock, 50, 0, LONG).count == 1
    assert reserve(book, clock, 50, 0, LONG).count == 0, "the next pause has begun"
    assert room(book, clock) == 0


def test_a_probe_put_off_by_a_clock_far_ahead_is_not_waited_for(
    book: Book, clock: MovedClock
) -> None:
    """The gateway was away while the clock was a day ahead; then it was put right."""
    clock.move(days=1)
    answered(book, clock, useless=5)
    clock.move(days=-1)
    assert room(book, clock) == 1
    assert reserve(book, clock, 50, 0, LONG).count == 1
    assert reserve(book, clock, 50, 0, LONG).count == 0, "the next pause, by the right clock"


def test_what_was_under_way_at_a_failover_is_waited_for_whatever_the_lease(
    book: Book, clock: MovedClock
) -> None:
    with book.transaction() as tx:
        health.wait_out(tx.session, clock.now, timedelta(minutes=71))
    clock.move(minutes=70)
    assert reserve(book, clock, 1, 0, LONG).count == 0
    clock.move(minutes=2)
    assert reserve(book, clock, 1, 0, LONG).count == 1


def test_a_probe_goes_after_a_quarter_of_a_minute(book: Book, clock: MovedClock) -> None:
    def goes() -> tuple[int, int]:
        with book.transaction() as tx:
            up = health.is_up(health.read(tx.session), clock.now)
        assert not up
        return room(book, clock), room(book, clock, wanted=0)

    answered(book, clock, useless=5)
    for _ in range(2):
        clock.move_to(clock.now + timedelta(seconds=15) - MOMENT)
        assert goes() == (0, 0)
        assert reserve(book, clock, 50, 10.0, LONG).count == 0
        clock.move_to(clock.now + MOMENT)
        assert goes() == (1, 0)
        assert reserve(book, clock, 50, 10.0, LONG) == Permit(1, NO_WAIT, 10.0)
    answered(book, clock, usable=1)
    with book.transaction() as tx:
        assert health.is_up(health.read(tx.session), clock.now)


def test_what_was_claimed_with_the_last_usable_answer_counts(book: Book, clock: MovedClock) -> None:
    answered(book, clock, useless=4)
    answered(book, clock, usable=1)
    with book.transaction() as tx:
        assert health.is_up(health.read(tx.session), clock.now)
    row = "SELECT failures, open_until, last_answer_at, pace FROM gateway_health"
    assert query(book, row) == [(0, None, clock.now, 1.0)]
    clock.move(seconds=5)
    assert not answered(book, clock, useless=4, claimed_ago=5)
    assert answered(book, clock, useless=1, claimed_ago=5)
    assert query(book, "SELECT failures, open_until FROM gateway_health") == [
        (5, clock.now + timedelta(seconds=15))
    ]


@pytest.mark.parametrize(
    ("asked", "paused"), [(0, 1), (1, 1), (1.5, 1.5), (899, 899), (900, 900), (901, 900)]
)
def test_a_429_pauses_as_long_as_it_says_within_reason(
    book: Book, clock: MovedClock, asked: float, paused: float
) -> None:
    with book.transaction() as tx:
        health.slow_down(tx.session, clock.now, asked)
    until = "SELECT pause_until FROM gateway_health"
    assert query(book, until) == [(clock.now + timedelta(seconds=paused),)]


def test_the_longest_pause_stands(book: Book, clock: MovedClock) -> None:
    until = "SELECT pause_until FROM gateway_health"
    longest = clock.now + timedelta(minutes=10)
    with book.transaction() as tx:
        health.slow_down(tx.session, clock.now, 600)
        health.slow_down(tx.session, clock.now, 60)
        health.wait_out(tx.session, clock.now, timedelta(minutes=9))
    assert query(book, until) == [(longest,)]
    with book.transaction() as tx:
        health.wait_out(tx.session, clock.now, timedelta(minutes=11))
    assert query(book, until) == [(clock.now + timedelta(minutes=11),)]


def test_nothing_is_waited_out_for_more_than_two_hours(book: Book, clock: MovedClock) -> None:
    with book.transaction() as tx:
        health.wait_out(tx.session, clock.now, timedelta(hours=3))
    assert query(book, "SELECT pause_until FROM gateway_health") == [
        (clock.now + timedelta(hours=2),)
    ]
    assert room(book, clock) == 0
    clock.move_to(clock.now - MOMENT)
    assert room(book, clock) == 100, "written by a clock that was ahead"
    clock.move_to(clock.now + timedelta(hours=2))
    assert room(book, clock) == 0
    clock.move_to(clock.now + MOMENT)
    assert room(book, clock) == 100


def test_an_open_circuit_that_names_no_moment_is_probed(book: Book, clock: MovedClock) -> None:
    execute(book, "UPDATE gateway_health SET failures = 5, open_until = NULL")
    assert room(book, clock) == 1
    assert reserve(book, clock, 50, 0, LONG).count == 1


# -- who waits for whom ---------------------------------------------------------------------------


def claimed(tx: Transaction, clock: MovedClock, rate: float = 0) -> int:
    """How many of 50 may be claimed."""
    return health.reserve(tx.session, clock.now, 50, Ceiling(rate, canaries=0), LONG).count


@pytest.mark.parametrize(("rate", "one_by_one"), [(0, False), (10.0, True)])
def test_claims_wait_for_each_other_under_a_ceiling_alone(
    book: Book, clock: MovedClock, rate: float, one_by_one: bool
) -> None:
    with book.transaction() as tx:
        assert claimed(tx, clock, rate) == 50
        assert waits(book, lambda other: claimed(other, clock, rate)) == one_by_one
    assert not waits(book, lambda other: claimed(other, clock, rate))


@pytest.mark.parametrize("rate", [0, 10.0])
def test_a_hold_waits_for_claims_that_are_under_way(
    book: Book, clock: MovedClock, rate: float
) -> None:
    """Once it is committed, no claim follows."""
    with book.transaction() as tx:
        assert claimed(tx, clock, rate) == 50
        assert waits(book, lambda other: health.hold(other.session, clock.now, "by hand"))
    with book.transaction() as tx:
        assert health.hold(tx.session, clock.now, "by hand")
        assert waits(book, lambda other: claimed(other, clock, rate))


def test_a_probe_is_decided_on_by_one_at_a_time(book: Book, clock: MovedClock) -> None:
    answered(book, clock, useless=5)
    clock.move(seconds=15)
    others = list[int]()
    with book.transaction() as tx:
        assert claimed(tx, clock) == 1
        assert waits(book, lambda other: others.append(claimed(other, clock)))
    assert others == [], "it waits before it decides"


def test_a_circuit_that_opened_meanwhile_is_seen(book: Book, clock: MovedClock) -> None:
    """Nobody has locked the row by then so that a probe could be one worker's: it waits."""
    with book.transaction() as tx:
        assert health.is_up(health.read(tx.session), clock.now)
        execute(book, "UPDATE gateway_health SET failures = 5, open_until = :at", at=clock.now)
        assert claimed(tx, clock) == 0


def test_two_workers_send_one_probe(book: Book, clock: MovedClock) -> None:
    answered(book, clock, useless=5)
    clock.move(seconds=health.PROBE_EVERY.total_seconds() + 1)
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(reserve(book, clock, 50, 0, LONG).count))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(counts) == [0, 0, 0, 1]


# -- the hold, the brake, the skew ------------------------------------------------------------


def test_a_hold_stops_and_a_release_starts(book: Book, clock: MovedClock) -> None:
    def step(why: str | None) -> bool | health.Hold | None:
        with book.transaction() as tx:
            if why is None:
                return health.release(tx.session)
            return health.hold(tx.session, clock.now, why)

    assert step("first")
    assert not step("second"), "the first reason stands"
    assert query(book, "SELECT hold_reason, held_at FROM installation") == [("first", clock.now)]
    assert (room(book, clock), reserve(book, clock, 5, 0, LONG)) == (0, Permit(0, NO_WAIT))
    answered(book, clock, useless=9)
    assert step(None) == health.Hold("first", clock.now, "", by_brake=False)
    assert step(None) is None
    assert (room(book, clock), reserve(book, clock, 5, 0, LONG).count) == (100, 5)


def test_a_run_of_suspicious_declines_pulls_the_brake(book: Book, clock: MovedClock) -> None:
    assert not judged(book, clock, "oo")
    assert not judged(book, clock, "a"), "an approval clears our name"
    assert not judged(book, clock, "od")
    assert not judged(book, clock, "o")
    assert judged(book, clock, "o")
    assert not judged(book, clock), "told by an answer, not by none"
    assert query(book, "SELECT verdicts, suspicious FROM gateway_health") == [("ooaodoo", 3)]


def test_the_pace_falls_at_a_429_and_returns(book: Book, clock: MovedClock) -> None:
    with book.transaction() as tx:
        health.slow_down(tx.session, clock.now, 30)
    assert (room(book, clock), reserve(book, clock, 5, 10.0, LONG).count) == (0, 0)
    clock.move(seconds=30)
    assert reserve(book, clock, 5, 10.0, LONG) == Permit(5, NO_WAIT, pytest.approx(7.0))
    clock.move(seconds=60)
    assert reserve(book, clock, 5, 10.0, LONG) == Permit(5, NO_WAIT, 10.0)


def test_a_clock_that_jumped_back_does_not_pause_for_days(book: Book, clock: MovedClock) -> None:
    with book.transaction() as tx:
        health.slow_down(tx.session, clock.now, 9_999_999)
    clock.move(seconds=-1)
    assert reserve(book, clock, 5, 0, LONG).count == 0
    clock.move(days=-3)
    assert reserve(book, clock, 5, 0, LONG).count == 5


def test_a_clock_that_jumped_back_does_not_slow_for_days(book: Book, clock: MovedClock) -> None:
    answered(book, clock, useless=5)
    answered(book, clock, usable=1)
    # The whole way back takes no longer than this.
    clock.move(seconds=-150)
    assert reserve(book, clock, 5, 10.0, LONG).rate == pytest.approx(1.0)
    clock.move_to(clock.now - MOMENT)
    assert reserve(book, clock, 5, 10.0, LONG).rate == 10.0


def test_after_a_clock_jumped_back_the_gateway_is_given_its_pause(
    book: Book, clock: MovedClock
) -> None:
    with book.transaction() as tx:
        health.slow_down(tx.session, clock.now, 1)
    clock.move(days=-3)
    with book.transaction() as tx:
        health.slow_down(tx.session, clock.now, 30)
    assert room(book, clock) == 0
    clock.move(seconds=30)
    assert room(book, clock) == 100


def test_after_a_clock_jumped_back_the_circuit_opens_as_ever(book: Book, clock: MovedClock) -> None:
    answered(book, clock, usable=1)
    clock.move(days=-3)
    assert answered(book, clock, useless=5)
    assert room(book, clock) == 0


def test_after_an_outage_a_tenth_of_the_ceiling(book: Book, clock: MovedClock) -> None:
    answered(book, clock, useless=5)
    answered(book, clock, usable=1)
    assert reserve(book, clock, 5, 50.0, LONG).rate == pytest.approx(5.0)


def test_canaries_go_out_a_few_at_a_time(book: Book, clock: MovedClock) -> None:
    def places(canaries: int) -> int:
        with book.transaction() as tx:
            ceiling = Ceiling(0, canaries)
            return health.reserve(tx.session, clock.now, 50, ceiling, LONG).count

    assert (places(5), places(0)) == (5, 50)
    judged(book, clock, "a")
    assert places(5) == 50
    clock.move(hours=1, seconds=1)
    assert places(5) == 5
    judged(book, clock, "a")
    assert places(5) == 50
    with book.transaction() as tx:
        health.hold(tx.session, clock.now, "declines pile up")
        assert health.release(tx.session)
    assert places(5) == 5, "an approval before the hold says nothing of what comes after it"


@pytest.mark.parametrize(("seconds", "count"), [(-61, 0), (-60, 5), (0, 5), (60, 5), (61, 0)])
def test_a_skew_of_more_than_a_minute_stops(
    book: Book, clock: MovedClock, seconds: int, count: int
) -> None:
    with book.transaction() as tx:
        too_far = health.note_skew(tx.session, clock.now, timedelta(seconds=seconds))
    assert too_far == (count == 0)
    assert reserve(book, clock, 5, 0, LONG).count == count
    with book.transaction() as tx:
        again = health.note_skew(tx.session, clock.now, timedelta(seconds=seconds))
    assert not again, "told once"


@pytest.mark.parametrize("by_brake", [True, False])
def test_the_first_hold_says_who_it_was(book: Book, clock: MovedClock, by_brake: bool) -> None:
    """Also after a hold of another kind that is over."""
    with book.transaction() as tx:
        assert health.hold(tx.session, clock.now, "earlier", by_brake=not by_brake)
        assert health.release(tx.session)
        assert health.hold(tx.session, clock.now, "first", by_brake=by_brake)
        assert not health.hold(tx.session, clock.now, "second", by_brake=not by_brake)
        held = health.release(tx.session)
    assert held is not None
    assert (held.why, held.by_brake) == ("first", by_brake)


def test_a_long_reason_is_cut(book: Book, clock: MovedClock) -> None:
    with book.transaction() as tx:
        assert health.hold(tx.session, clock.now, "x" * 501)
    with book.transaction() as tx:
        assert health.hold_reason(tx.session) == "x" * 500


def test_a_release_forgets_what_was_held_against_the_gateway_and_us(
    book: Book, clock: MovedClock
) -> None:
    judged(book, clock, "oo")
    answered(book, clock, useless=5)
    with book.transaction() as tx:
        health.slow_down(tx.session, clock.now, 30)
        health.hold(tx.session, clock.now, "by itself", by_brake=True)
    columns = "SELECT suspicious, verdicts, failures, open_until, pause_until FROM gateway_health"
    assert query(book, columns)[0][:3] == (2, "oo", 5)
    with book.transaction() as tx:
        assert health.release(tx.session)
    assert query(book, columns) == [(0, "", 0, None, None)]
    # Code before 0011 does not set whose hold it is: the next one of its would be the brake's.
    left = "SELECT hold_reason, held_at, held_by_brake FROM installation"
    assert query(book, left) == [(None, None, False)]


def test_what_our_own_configuration_is_refused_for_counts_as_suspicious(
    book: Book, clock: MovedClock
) -> None:
    judged(book, clock, "sdo")
    assert query(book, "SELECT verdicts, suspicious, last_approved_at FROM gateway_health") == [
        ("sdo", 2, None)
    ]
    judged(book, clock, "as")
    assert query(book, "SELECT verdicts, suspicious, last_approved_at FROM gateway_health") == [
        ("sdoas", 1, clock.now)
    ]


def test_a_skew_is_measured_anew_after_five_minutes(book: Book, clock: MovedClock) -> None:
    def stale(now: datetime) -> bool:
        with book.transaction() as tx:
            return health.skew_is_stale(tx.session, now)

    assert stale(clock.now)
    with book.transaction() as tx:
        health.note_skew(tx.session, clock.now, timedelta(0))
    assert not stale(clock.now + timedelta(minutes=5))
    assert stale(clock.now + timedelta(minutes=5) + MOMENT)
    assert stale(clock.now - timedelta(minutes=5) - MOMENT), "a clock that jumped"


def test_the_newest_comparison_of_clocks_says_whether_they_are_apart(
    book: Book, clock: MovedClock
) -> None:
    def apart(seconds: float) -> tuple[bool, bool]:
        with book.transaction() as tx:
            just_now = health.note_skew(tx.session, clock.now, timedelta(seconds=seconds))
            return just_now, health.is_skewed(tx.session)

    with book.transaction() as tx:
        assert not health.is_skewed(tx.session)
    assert apart(61) == (True, True)
    assert apart(-61) == (False, True)
    assert apart(1) == (False, False)
    assert apart(61) == (True, True)


# -- canaries -----------------------------------------------------------------------------------


def places(book: Book, clock: MovedClock, canaries: int, wanted: int = 50) -> int:
    """What may be claimed, and, which is the same, what may be handed out."""
    with book.transaction() as tx:
        ceiling = Ceiling(0, canaries)
        claimed = health.reserve(tx.session, clock.now, wanted, ceiling, LONG).count
        assert health.room(tx.session, clock.now, wanted, ceiling) == claimed
    return claimed


def test_canaries_that_have_no_answer_yet_are_counted(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    enrolled(book, policy, *(a_row(number) for number in range(1, 8)))
    assert open_cycles(book, policy) == 7
    assert places(book, clock, 5) == 5
    assert places(book, clock, 5, wanted=3) == 3
    lost = "fence = 1, sent_at = :at, lease_until = :at, ask_at = :at, provable_at = :at"
    sent = f"UPDATE attempts SET status = :status, {lost} WHERE id <= :id AND status = 'due'"
    execute(book, sent, status="sending", at=clock.now, id=2)
    execute(book, sent, status="unknown", at=clock.now, id=3)
    assert places(book, clock, 5) == 2
    declined = "settled_at = :at, message = '한도초과', decline_class = 'x'"
    execute(
        book,
        f"UPDATE attempts SET status = 'declined', sent_at = :at, {declined} WHERE id = 4",
        at=clock.now,
    )
    assert places(book, clock, 5) == 2, "that one has its answer"
    execute(book, sent, status="sending", at=clock.now, id=7)
    assert places(book, clock, 5) == 0
    clock.move_to(clock.now + timedelta(minutes=4) - MOMENT)
    assert places(book, clock, 5) == 0, "they are waited for"
    clock.move_to(clock.now + MOMENT)
    assert places(book, clock, 5) == 5


@pytest.mark.parametrize("direction", [1, -1])
def test_an_approval_is_trusted_for_an_hour(book: Book, clock: MovedClock, direction: int) -> None:
    """Whichever way the clock was moved."""
    judged(book, clock, "a")
    clock.move_to(clock.now + direction * timedelta(hours=1))
    assert places(book, clock, 5) == 50
    clock.move_to(clock.now + direction * MOMENT)
    assert places(book, clock, 5) == 5


# -- what is not worth writing down --------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "counts"),
    [(health.MAX_SKEW, False), (health.MAX_SKEW + timedelta(microseconds=1), True)],
)
def test_an_answer_by_a_clock_that_was_far_ahead_hides_no_useless_one(
    book: Book, clock: MovedClock, ahead: timedelta, *, counts: bool
) -> None:
    execute(book, "UPDATE gateway_health SET last_answer_at = :at", at=clock.now + ahead)
    answered(book, clock, useless=1)
    assert query(book, "SELECT failures FROM gateway_health") == [(1 if counts else 0,)]


@pytest.fixture
def well(book: Book, clock: MovedClock) -> Book:
    """All is well: the newest answers are approvals, this very moment."""
    judged(book, clock, "a" * brake.KEPT)
    answered(book, clock, usable=1)
    return book


def noted(book: Book, clock: MovedClock) -> tuple[bool, bool]:
    """Whether one more usable answer, or one more approval, is written down; neither stays."""
    row = "SELECT last_answer_at, last_approved_at FROM gateway_health"
    (before,) = query(book, row)
    written = []
    for which, note in enumerate(
        (
            lambda tx: health.note_answers(tx.session, clock.now, usable=1, useless=()),
            lambda tx: health.note_verdicts(tx.session, clock.now, [Verdict.APPROVED]),
        )
    ):
        with book.transaction() as tx, tx.session.begin_nested() as undone:
            note(tx)
            tx.session.flush()
            written.append(tx.session.execute(text(row)).one()[which] != before[which])
            undone.rollback()
    return written[0], written[1]


@pytest.mark.parametrize("direction", [1, -1])
def test_for_a_second_more_of_the_same_is_not_written_down(
    well: Book, clock: MovedClock, direction: int
) -> None:
    clock.move(seconds=direction)
    assert noted(well, clock) == (False, False)
    clock.move_to(clock.now + direction * MOMENT)
    assert noted(well, clock) == (True, True)


@pytest.mark.parametrize(
    "change",
    [
        "failures = 1",
        "suspicious = 1",
        "verdicts = 'o' || substr(verdicts, 2)",
        "last_answer_at = NULL",
        "last_approved_at = NULL",
        "last_answer_at = last_answer_at - interval '1 second'",
        "last_approved_at = last_approved_at - interval '1 second'",
    ],
)
def test_where_anything_is_not_well_each_answer_is_written_down(
    well: Book, clock: MovedClock, change: str
) -> None:
    execute(well, f"UPDATE gateway_health SET {change}")
    clock.move(seconds=0.5)
    assert noted(well, clock) == (True, True)


def test_a_useless_answer_counts_at_once(well: Book, clock: MovedClock) -> None:
    assert not answered(well, clock, usable=1)
    assert answered(well, clock, useless=5)


def test_what_is_no_approval_is_written_down_at_once(well: Book, clock: MovedClock) -> None:
    judged(well, clock, "d")
    assert query(well, "SELECT verdicts FROM gateway_health") == [("a" * (brake.KEPT - 1) + "d",)]
    execute(well, "UPDATE gateway_health SET verdicts = :all", all="a" * brake.KEPT)
    judged(well, clock, "ad")
    assert query(well, "SELECT verdicts FROM gateway_health") == [("a" * (brake.KEPT - 1) + "d",)]
