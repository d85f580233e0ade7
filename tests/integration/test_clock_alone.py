"""How long the gateway's clock was asked for in vain, to the second, and what may end meanwhile."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from billing.domain.errors import GatewayUnavailable
from billing.ports import PaymentGateway
from billing.services.clock_guard import (
    ALONE_AFTER,
    NOT_WAITING,
    TELL_AFTER,
    TELL_AGAIN_AFTER,
    ClockGuard,
    check_day,
    compare_clocks,
    compare_where_stale,
    guarded,
)
from billing.store import health
from billing.store.session import Book, Transaction
from tests.builders import execute, query
from tests.conftest import MovedClock

SECOND = timedelta(seconds=1)


class Gateway:
    """Its clock, as far ahead of ours as a test says; away where it says nothing. `slow` is how
    long an answer is on its way, by the clock that only goes forward."""

    def __init__(self, clock: MovedClock) -> None:
        self.clock = clock
        self.ahead: timedelta | None = timedelta(0)
        self.slow = timedelta(0)
        self.seconds = 0.0

    async def moment(self) -> datetime:
        self.seconds += self.slow.total_seconds()
        if self.ahead is None:
            raise GatewayUnavailable("it is away " * 40)
        return self.clock.now + self.ahead

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, for_how_long: timedelta) -> None:
        self.clock.now += for_how_long
        self.seconds += for_how_long.total_seconds()


@pytest.fixture
def gateway(clock: MovedClock) -> Gateway:
    return Gateway(clock)


@pytest.fixture
def guard(gateway: Gateway) -> ClockGuard:
    return a_guard(gateway)


def a_guard(gateway: Gateway) -> ClockGuard:
    """As a process that has just started."""
    return ClockGuard(lambda: gateway.clock.now, gateway.monotonic)


def compare(guard: ClockGuard, book: Book, gateway: Gateway) -> None:
    asyncio.run(guard.compare(book, cast(PaymentGateway, gateway)))


def in_vain(guard: ClockGuard, book: Book, gateway: Gateway, for_how_long: timedelta) -> None:
    """Tries without an answer, the first now and the last after so long."""
    compare(guard, book, gateway)
    while for_how_long:
        step = min(for_how_long, NOT_WAITING - gateway.slow)
        gateway.wait(step)
        compare(guard, book, gateway)
        for_how_long -= step


def alarms(book: Book, kind: str) -> list[dict[str, Any]]:
    rows = query(
        book, "SELECT data FROM events WHERE alarm AND kind = :kind ORDER BY id", kind=kind
    )
    return [row[0] for row in rows]


def may(guard: ClockGuard, book: Book) -> tuple[bool, bool]:
    """Whether months may open, and end."""
    return book.run(lambda tx: (guard.may_open(tx), guard.may_end(tx)))


# -- a comparison -------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_a_minute_apart_is_near_enough_and_more_is_told_once(
    book: Book, gateway: Gateway, guard: ClockGuard, sign: int
) -> None:
    gateway.ahead = sign * health.MAX_SKEW
    compare(guard, book, gateway)
    assert may(guard, book) == (True, True)
    gateway.ahead = sign * (health.MAX_SKEW + timedelta(seconds=0.26))
    for _ in range(2):
        compare(guard, book, gateway)
        assert may(guard, book) == (False, False)
    assert alarms(book, "clock.skewed") == [{"seconds": sign * 60.3}]


def test_what_was_found_holds_for_minutes_and_then_it_is_asked_anew(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    """And only where something waits: nobody is asked for nothing."""
    compare(guard, book, gateway)
    gateway.wait(health.SKEW_GOOD_FOR)
    assert not guard.must_compare(book, lambda _: True)
    gateway.wait(SECOND)
    assert guard.must_compare(book, lambda _: True)
    assert not guard.must_compare(book, lambda _: False)
    compare(guard, book, gateway)
    assert not guard.must_compare(book, lambda _: True)
    gateway.ahead = timedelta(hours=1)
    compare(guard, book, gateway)
    assert guard.must_compare(book, lambda _: True), "compared just now, and far apart"


@pytest.mark.parametrize(("slow", "says"), [(timedelta(seconds=10), True), (10.5 * SECOND, False)])
def test_an_answer_that_was_long_on_its_way_says_nothing(
    book: Book, gateway: Gateway, slow: timedelta, says: bool
) -> None:
    gateway.slow, gateway.ahead = slow, timedelta(hours=1)
    comparing = compare_clocks(book, cast(PaymentGateway, gateway), gateway.monotonic)
    assert asyncio.run(comparing) is says
    assert bool(alarms(book, "clock.skewed")) is says
    assert bool(query(book, "SELECT 1 FROM gateway_health WHERE clock_skew IS NOT NULL")) is says


def test_answers_that_all_come_late_are_told_as_a_gateway_that_is_away(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    gateway.slow = 11 * SECOND
    in_vain(guard, book, gateway, TELL_AFTER)
    (told,) = alarms(book, "clock.not_compared")
    assert told["why"] == "the gateway's answers come late"


# -- waiting ------------------------------------------------------------------------------------


def test_a_person_is_told_after_two_hours_and_once(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    gateway.ahead = None
    in_vain(guard, book, gateway, TELL_AFTER - SECOND)
    assert alarms(book, "clock.not_compared") == []
    gateway.wait(SECOND)
    for _ in range(2):
        compare(guard, book, gateway)
        assert alarms(book, "clock.not_compared") == [
            {"hours": 2.0, "why": ("it is away " * 40)[:200]}
        ]


def test_a_process_that_starts_anew_tells_again_the_next_day(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    gateway.ahead = None
    in_vain(guard, book, gateway, TELL_AFTER)
    gateway.wait(TELL_AGAIN_AFTER - TELL_AFTER)
    in_vain(a_guard(gateway), book, gateway, TELL_AFTER)
    assert len(alarms(book, "clock.not_compared")) == 1, "a day later to the moment"
    gateway.wait(SECOND - TELL_AFTER)
    in_vain(a_guard(gateway), book, gateway, TELL_AFTER)
    assert len(alarms(book, "clock.not_compared")) == 2


def test_told_again_only_when_the_gateway_was_there_in_between(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    """However long it stays away, a process tells of it once."""
    gateway.ahead = None
    in_vain(guard, book, gateway, TELL_AFTER + 2 * TELL_AGAIN_AFTER)
    assert len(alarms(book, "clock.not_compared")) == 1
    gateway.ahead = timedelta(0)
    compare(guard, book, gateway)
    gateway.ahead = None
    gateway.wait(timedelta(minutes=1))
    in_vain(guard, book, gateway, timedelta(hours=1, minutes=59))
    assert len(alarms(book, "clock.not_compared")) == 1
    gateway.wait(timedelta(minutes=3.5))
    compare(guard, book, gateway)
    assert [one["hours"] for one in alarms(book, "clock.not_compared")] == [2.0, 2.0]


def test_the_host_is_believed_after_a_day_of_trying(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    execute(book, "UPDATE gateway_health SET skew_checked_at = NULL")
    assert may(guard, book) == (True, False), "nobody was asked yet"
    gateway.ahead = None
    in_vain(guard, book, gateway, timedelta(hours=24) - SECOND)
    assert may(guard, book) == (True, False), "opening ends nothing"
    gateway.wait(SECOND)
    compare(guard, book, gateway)
    assert may(guard, book) == (True, True)


def test_who_did_not_try_for_an_hour_waits_anew(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    """Nothing waited meanwhile. An hour between two tries counts, and a second more does not."""
    gateway.ahead = None
    in_vain(guard, book, gateway, ALONE_AFTER)
    gateway.wait(timedelta(hours=1))
    compare(guard, book, gateway)
    assert may(guard, book) == (True, True)
    gateway.wait(timedelta(hours=1) + SECOND)
    compare(guard, book, gateway)
    assert may(guard, book) == (True, False)
    in_vain(guard, book, gateway, TELL_AFTER)
    assert len(alarms(book, "clock.not_compared")) == 2, "told anew, a day after the first"


def test_a_comparison_in_between_begins_the_day_anew(
    book: Book, gateway: Gateway, guard: ClockGuard
) -> None:
    gateway.ahead = None
    in_vain(guard, book, gateway, ALONE_AFTER)
    gateway.ahead = timedelta(0)
    compare(guard, book, gateway)
    gateway.ahead = None
    gateway.wait(NOT_WAITING)
    compare(guard, book, gateway)
    assert may(guard, book) == (True, False)


# -- the host's own clock -----------------------------------------------------------------------


@pytest.fixture
def alone(book: Book, gateway: Gateway) -> tuple[ClockGuard, list[timedelta]]:
    """After a day without the gateway; and how far ahead of the database the host then is."""
    ahead = [timedelta(0)]
    guard = ClockGuard(lambda: gateway.clock.now + ahead[0], gateway.monotonic)
    gateway.ahead = None
    in_vain(guard, book, gateway, ALONE_AFTER)
    return guard, ahead


@pytest.mark.parametrize("sign", [1, -1])
def test_a_host_that_is_more_than_a_minute_off_vouches_for_nothing(
    book: Book, gateway: Gateway, alone: tuple[ClockGuard, list[timedelta]], sign: int
) -> None:
    guard, ahead = alone
    ahead[0] = sign * health.MAX_SKEW
    assert may(guard, book) == (True, True)
    ahead[0] += sign * SECOND
    assert may(guard, book) == (False, False)
    gateway.ahead = timedelta(0)
    compare(guard, book, gateway)
    assert may(guard, book) == (True, True), "nor is it asked where the gateway was"


def test_a_moved_clock_is_compared_without_what_it_was_moved_by(
    book: Book, alone: tuple[ClockGuard, list[timedelta]]
) -> None:
    """In a demo billing time runs ahead by an offset that is written down."""
    guard, ahead = alone
    execute(book, "UPDATE installation SET clock_offset = interval '3 days'")
    assert may(guard, book) == (False, False)
    ahead[0] = -timedelta(days=3)
    assert may(guard, book) == (True, True)


# -- a step under guard -------------------------------------------------------------------------


def test_a_step_is_made_where_the_guard_allows_it_or_there_is_none(
    book: Book, guard: ClockGuard
) -> None:
    def allowed(asked: ClockGuard, _: Transaction) -> bool:
        assert asked is guard
        return True

    assert book.run(guarded(guard, allowed, lambda _: "made")) == "made"
    assert book.run(guarded(guard, lambda *_: False, lambda _: "made")) is None
    assert book.run(guarded(None, lambda *_: False, lambda _: "made")) == "made"


@pytest.mark.parametrize("way", [1, -1])
def test_by_a_clock_that_is_an_hour_off_the_day_can_be_told(book: Book, way: int) -> None:
    """By one that is further off it can not, as far as that was found out lately."""
    refused = []
    for off in (timedelta(0), timedelta(hours=1), timedelta(hours=1) + SECOND):
        with book.transaction() as tx:
            health.note_skew(tx.session, tx.now, way * off)
            try:
                check_day(tx)
            except GatewayUnavailable as error:
                refused.append((off, str(error).partition(",")[0]))
    assert refused == [
        (
            timedelta(hours=1) + SECOND,
            "the gateway's clock and the database's differ by more than an hour",
        )
    ]


def test_a_clock_that_was_not_compared_lately_is_believed_for_the_day(
    book: Book, clock: MovedClock
) -> None:
    with book.transaction() as tx:
        check_day(tx)
        health.note_skew(tx.session, tx.now, timedelta(days=1))
    clock.move(days=1)
    with book.transaction() as tx:
        check_day(tx)


def test_where_nobody_compared_lately_somebody_does(book: Book, clock: MovedClock) -> None:
    asked: list[datetime] = []

    class Asked(Gateway):
        async def moment(self) -> datetime:
            asked.append(clock.now)
            return await super().moment()

    seen = Asked(clock)

    def compared() -> bool:
        return asyncio.run(compare_where_stale(book, cast(PaymentGateway, seen)))

    seen.ahead = None
    assert not compared(), "it is away, and the clock stays in doubt"
    seen.ahead = timedelta(0)
    assert compared()
    assert compared()
    assert len(asked) == 2, "what was compared just now is not compared again"
