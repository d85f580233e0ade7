"""Figures of days and months for whoever looks at charts, to the row and to the moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.policy import BillingPolicy
from billing.store import figures
from billing.store.figures import Cohort, Collected, CollectedInHour, DeclinedBy, Group
from billing.store.session import Book
from tests.builders import execute
from tests.conftest import MovedClock
from tests.plant import numbered_apart, one_more, paid, plant, settled

NOVEMBER, DECEMBER = date(2026, 11, 1), date(2026, 12, 1)
BEGINS, ENDS = datetime(2026, 11, 1, tzinfo=SEOUL), datetime(2026, 12, 1, tzinfo=SEOUL)
MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def kept(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> Book:
    """Subscribers 1 to 3 with November's cycles 11 to 13 and due attempts 21 to 23, ready now; 4
    comes on 28 November. They pay 1,001 to 1,004 won. Nothing guards the book any more."""
    numbered_apart(book, make_policy(), "2026-10-18", "2026-10-19", "2026-10-20", "2026-10-28")
    execute(book, "UPDATE attempts SET planned_at = :now, ready_at = :now", now=clock.now)
    return book


def planted(book: Book, *statements: str) -> None:
    with book.transaction() as tx:
        plant(tx, tx.now, statements)


def at(book: Book, cycle: int, moment: datetime, status: str = "paid") -> None:
    planted(book, settled(cycle + 10, "approved"), paid(cycle, cycle + 10, status))
    execute(book, "UPDATE cycles SET paid_at = :at WHERE id = :id", at=moment, id=cycle)


def test_money_by_the_hour_in_which_it_was_paid(kept: Book) -> None:
    def hours() -> list[CollectedInHour]:
        with kept.transaction() as tx:
            return list(figures.by_hour(tx.session, BEGINS, ENDS, SEOUL))

    first, last = date(2026, 11, 1), date(2026, 11, 30)
    assert hours() == []
    at(kept, 11, ENDS - MOMENT)
    at(kept, 12, BEGINS)
    at(kept, 13, BEGINS, "refunded")
    assert hours() == [
        CollectedInHour(Collected(first, 1, 1002, 1, 1003), 0),
        CollectedInHour(Collected(last, 1, 1001, 0, 0), 23),
    ]
    at(kept, 11, ENDS)
    at(kept, 12, BEGINS - MOMENT)
    assert hours() == [CollectedInHour(Collected(first, 0, 0, 1, 1003), 0)]


def test_money_by_month(kept: Book) -> None:
    def months(first: date, last: date) -> list[Collected]:
        with kept.transaction() as tx:
            return list(figures.by_month(tx.session, first, last))

    october = date(2026, 10, 1)
    assert months(october, DECEMBER) == [], "what is not paid is no money"
    at(kept, 11, BEGINS)
    at(kept, 12, BEGINS, "refunded")
    at(kept, 13, BEGINS)
    assert months(NOVEMBER, NOVEMBER) == [Collected(NOVEMBER, 2, 2004, 1, 1002)]
    execute(kept, "UPDATE cycles SET month = '2026-10-01' WHERE id = 13")
    expected = [Collected(october, 1, 1003, 0, 0), Collected(NOVEMBER, 1, 1001, 1, 1002)]
    assert months(october, NOVEMBER) == expected
    assert months(DECEMBER, DECEMBER) == []
    assert expected[0] + expected[1] == Collected(october, 2, 2004, 1, 1002)
    planted(kept, "UPDATE cycles SET status = 'missed' WHERE id = 13")
    assert months(october, NOVEMBER) == expected[1:]
    at(kept, 11, BEGINS, "refunded")
    assert months(NOVEMBER, NOVEMBER) == [Collected(NOVEMBER, 0, 0, 2, 2003)]


def test_a_months_cycles_by_due_day_and_status(kept: Book) -> None:
    def month() -> list[Cohort]:
        with kept.transaction() as tx:
            return list(figures.month(tx.session, NOVEMBER))

    def due(day: int, status: str, *of: int) -> Cohort:
        won = sum(1000 + number for number in of)
        return Cohort(date(2026, 11, day), status, len(of), won)

    assert month() == [due(18, "open", 1), due(19, "open", 2), due(20, "open", 3)]
    execute(kept, "UPDATE cycles SET due_on = '2026-11-19'")
    assert month() == [due(19, "open", 1, 2, 3)]
    at(kept, 11, BEGINS)
    execute(kept, "UPDATE cycles SET due_on = '2026-11-18' WHERE id = 12")
    assert month() == [due(18, "open", 2), due(19, "open", 3), due(19, "paid", 1)]
    execute(kept, "UPDATE cycles SET month = '2026-10-01' WHERE id = 13")
    assert month() == [due(18, "open", 2), due(19, "paid", 1)]


def test_who_comes_is_summed_by_anchor_day_month_and_close(kept: Book) -> None:
    def to_come(before: datetime) -> set[Group]:
        with kept.transaction() as tx:
            found = figures.to_come(tx.session, before, SEOUL)
        assert len(set(found)) == len(found)
        return set(found)

    # In Seoul it is December already.
    opens = datetime(2026, 12, 1, 0, 30, tzinfo=SEOUL)
    closes = opens + 5 * DAY
    dates = "UPDATE subscriptions SET next_due_at = :opens, next_closes_at = :closes"
    execute(kept, dates, opens=opens, closes=closes)
    assert to_come(opens) == set()
    assert to_come(opens + MOMENT) == {
        Group(18, DECEMBER, closes, 1, 1001),
        Group(19, DECEMBER, closes, 1, 1002),
        Group(20, DECEMBER, closes, 1, 1003),
        Group(28, DECEMBER, closes, 1, 1004),
    }
    # One more month's day, of another month; and three that are not charged.
    planted(
        kept,
        "UPDATE subscriptions SET anchor_on = '2026-09-18' WHERE id = 2",
        "UPDATE subscriptions SET status = 'paused' WHERE id = 3",
        "UPDATE subscriptions SET status = 'suspended' WHERE id = 4",
    )
    assert to_come(opens + MOMENT) == {Group(18, DECEMBER, closes, 2, 2003)}
    # By the settings of another time.
    execute(kept, "UPDATE subscriptions SET next_closes_at = :at WHERE id = 2", at=closes - DAY)
    apart = {Group(18, DECEMBER, closes, 1, 1001), Group(18, DECEMBER, closes - DAY, 1, 1002)}
    assert to_come(opens + MOMENT) == apart
    execute(kept, dates, opens=opens, closes=closes)
    execute(kept, "UPDATE subscriptions SET next_due_at = :at WHERE id = 2", at=opens - DAY)
    apart = {Group(18, DECEMBER, closes, 1, 1001), Group(18, NOVEMBER, closes, 1, 1002)}
    assert to_come(opens + MOMENT) == apart


def test_what_is_planned_and_may_go(kept: Book, clock: MovedClock) -> None:
    def planned(before: datetime = clock.now + 2 * DAY) -> dict[date, tuple[int, int]]:
        with kept.transaction() as tx:
            found = figures.planned(tx.session, clock.now, before, SEOUL)
        return {on: (count, won) for on, count, won in found}

    today = clock.now.astimezone(SEOUL).date()
    midnight = datetime.combine(today + DAY, datetime.min.time(), SEOUL)
    execute(kept, "UPDATE attempts SET ready_at = :at WHERE id = 22", at=midnight)
    execute(kept, "UPDATE attempts SET ready_at = :at WHERE id = 21", at=midnight - MOMENT)
    execute(kept, "UPDATE cycles SET last_start_at = :at", at=clock.now + 5 * DAY)
    both = {today: (2, 2004), today + DAY: (1, 1002)}
    assert planned() == both
    assert planned(before=midnight) == {today: (2, 2004)}
    # Overdue: what may still start now, but not what might have started once.
    execute(kept, "UPDATE attempts SET ready_at = :at WHERE id = 23", at=clock.now - MOMENT)
    last = "UPDATE cycles SET last_start_at = :at WHERE id = :id"
    execute(kept, last, at=clock.now, id=13)
    execute(kept, last, at=midnight, id=12)
    assert planned() == both
    execute(kept, last, at=clock.now - MOMENT, id=13)
    execute(kept, last, at=midnight - MOMENT, id=12)
    assert planned() == {today: (1, 1001)}
    execute(kept, "UPDATE cycles SET last_start_at = :at", at=clock.now + 5 * DAY)
    planted(
        kept,
        "UPDATE cycles SET held = 'unconfirmed' WHERE id = 11",
        "UPDATE subscriptions SET status = 'paused' WHERE id = 2",
        "UPDATE attempts SET status = 'sending' WHERE id = 23",
    )
    assert planned() == {}


def test_declines_by_class_and_what_became_of_their_months(kept: Book) -> None:
    def declines() -> list[DeclinedBy]:
        with kept.transaction() as tx:
            return list(figures.declines(tx.session, BEGINS, ENDS))

    def declined(attempt: int, decline_class: str, moment: datetime) -> None:
        execute(
            kept,
            "UPDATE attempts SET decline_class = :class, settled_at = :at WHERE id = :id",
            **{"class": decline_class, "at": moment, "id": attempt},
        )

    planted(
        kept,
        *(one_more(30 + number, 11, "declined") for number in range(1, 5)),
        one_more(41, 12, "declined"),
        one_more(42, 13, "approved"),
        one_more(43, 13, "declined"),
    )
    for attempt, decline_class, moment in (
        (31, "soon", BEGINS),
        (32, "soon", ENDS - MOMENT),
        (33, "soon", ENDS),
        (34, "soon", BEGINS - MOMENT),
        (41, "soon", BEGINS),
        (42, "soon", BEGINS),
        (43, "late", BEGINS),
    ):
        declined(attempt, decline_class, moment)
    assert declines() == [DeclinedBy("soon", 3, 2, 0, 2), DeclinedBy("late", 1, 1, 0, 1)]
    at(kept, 11, BEGINS)
    planted(kept, "UPDATE cycles SET status = 'missed' WHERE id = 13")
    assert declines() == [DeclinedBy("soon", 3, 2, 1, 1), DeclinedBy("late", 1, 1, 0, 0)]
    declined(32, "again", BEGINS)
    declined(41, "again", BEGINS)
    assert [one.decline_class for one in declines()] == ["again", "late", "soon"]


def test_declines_by_the_hour_in_seoul(kept: Book) -> None:
    def hours() -> dict[int, int]:
        with kept.transaction() as tx:
            return figures.declined_by_hour(tx.session, BEGINS, ENDS, SEOUL)

    assert hours() == {}
    planted(kept, *(one_more(attempt, 11, "declined") for attempt in range(31, 36)))
    planted(kept, one_more(36, 11, "approved"))
    for attempt, moment in (
        (31, BEGINS),
        (32, BEGINS + DAY),
        (33, ENDS - MOMENT),
        (34, ENDS),
        (35, BEGINS - MOMENT),
        (36, BEGINS),
    ):
        execute(kept, "UPDATE attempts SET settled_at = :at WHERE id = :id", at=moment, id=attempt)
    assert hours() == {0: 2, 23: 1}
