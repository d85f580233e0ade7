"""What opening writes is what the calendar and the plan say, column for column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from billing.domain.calendar import SEOUL, cycle_dates
from billing.domain.plan import closes_at, first_attempt_at, last_start
from billing.domain.policy import BillingPolicy
from billing.services import coming
from billing.services.change_status import cancel, pause, resume
from billing.services.open_cycles import (
    anything_opens,
    new_cycle,
    open_ahead,
    open_cycles,
    rules_of,
)
from billing.store.session import Book
from billing.store.tables import Attempt, Cycle, Subscription
from tests.builders import a_row, enrolled, execute, query, subscribed
from tests.conftest import MovedClock


@pytest.mark.parametrize("day", [1, 5, 20, 28, 30, 31])
def test_every_column_is_the_plans(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock, day: int
) -> None:
    policy = make_policy()
    clock.move_to(datetime(2026, 11, 1, 9, 30, tzinfo=SEOUL))
    anchor = date(2026, 10, day)
    paid_at = datetime(2026, 10, day, 21, 15, 3, tzinfo=SEOUL)
    enrolled(book, policy, a_row(1, paid_at.isoformat()))
    clock.move(days=45)
    assert open_cycles(book, policy) == 1
    with book.transaction() as tx:
        (cycle,) = tx.session.query(Cycle)
        (attempt,) = tx.session.query(Attempt)
        (subscription,) = tx.session.query(Subscription)
        dates = cycle_dates(anchor, cycle.number, policy.plan.calendar)
        wanted = new_cycle(subscription, dates, clock.now, policy)
        for column in Cycle.__table__.columns:
            if column.key != "id":
                assert getattr(cycle, column.key) == getattr(wanted, column.key), column.key
        assert (attempt.number, attempt.status) == (1, "due")
        assert attempt.cycle_id == cycle.id
        assert attempt.merchant_uid.endswith(f"-{dates.month:%Y%m}-01")
        assert attempt.closes_at == closes_at(dates, policy.plan) == cycle.closes_at
        assert attempt.planned_at == attempt.ready_at == first_attempt_at(dates, policy.plan)
        assert cycle.last_start_at == last_start(dates, policy.plan)
        following = cycle_dates(anchor, cycle.number + 1, policy.plan.calendar)
        assert subscription.next_cycle == following.number
        assert subscription.next_due_at == first_attempt_at(following, policy.plan)
        assert subscription.next_closes_at == closes_at(following, policy.plan)
    ((told, subscription_id, cycle_id, attempt_id),) = query(
        book,
        "SELECT data, subscription_id, cycle_id, attempt_id FROM events"
        " WHERE kind = 'cycle.opened'",
    )
    assert told == {"cycle": cycle.number, "merchant_uid": attempt.merchant_uid}
    assert (subscription_id, cycle_id, attempt_id) == (subscription.id, cycle.id, attempt.id)


def test_many_at_once_keep_their_own(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """More than one batch, each with moments of its own."""
    policy = make_policy()
    clock.move_to(datetime(2026, 11, 1, 9, 30, tzinfo=SEOUL))
    count = 620
    enrolled(
        book,
        policy,
        *(
            a_row(number, datetime(2026, 10, 1 + number % 28, 12, tzinfo=SEOUL).isoformat())
            for number in range(count)
        ),
    )
    clock.move_to(clock.now + timedelta(days=30))
    assert open_cycles(book, policy) == count
    rows = query(
        book,
        "SELECT s.anchor_on, c.number, c.due_on, c.last_start_at, a.planned_at, s.next_cycle"
        " FROM subscriptions s JOIN cycles c ON c.subscription_id = s.id"
        " JOIN attempts a ON a.cycle_id = c.id",
    )
    assert len(rows) == count
    for anchor, number, due_on, last_start_at, planned_at, next_cycle in rows:
        dates = cycle_dates(anchor, number, policy.plan.calendar)
        assert due_on == dates.due_on
        assert last_start_at == last_start(dates, policy.plan)
        assert planned_at == first_attempt_at(dates, policy.plan)
        assert next_cycle == number + 1


# -- when, and whose ----------------------------------------------------------------------------

MOMENT = timedelta(microseconds=1)
# The first slot of those who paid on 20 October, by the usual settings.
DUE = datetime(2026, 11, 20, 10, tzinfo=SEOUL)


@pytest.fixture
def early(clock: MovedClock) -> MovedClock:
    """Ten days before anything is due."""
    clock.move_to(DUE - timedelta(days=10))
    return clock


def coming_months(book: Book) -> list[tuple[Any, ...]]:
    return query(book, "SELECT next_cycle, next_due_at, next_closes_at FROM subscriptions")


def test_a_month_opens_at_its_slot_and_not_before(
    book: Book, policy: BillingPolicy, early: MovedClock
) -> None:
    subscribed(book, policy)
    early.move_to(DUE - MOMENT)
    assert not book.run(anything_opens)
    assert open_cycles(book, policy) == 0
    early.move_to(DUE)
    assert book.run(anything_opens)
    assert open_cycles(book, policy) == 1
    assert query(book, "SELECT opened_at FROM cycles") == [(DUE,)]
    assert not book.run(anything_opens)
    assert open_cycles(book, policy) == 0


@pytest.mark.parametrize("change", [pause, cancel])
def test_only_active_ones_are_opened(
    book: Book, policy: BillingPolicy, early: MovedClock, change: Callable[..., object]
) -> None:
    subscribed(book, policy)
    change(book, policy, "customer-1")
    early.move_to(DUE)
    assert not book.run(anything_opens)
    assert open_cycles(book, policy) == 0
    assert query(book, "SELECT id FROM cycles") == []


def test_a_month_still_open_is_judged_before_the_next_opens(
    book: Book, policy: BillingPolicy, early: MovedClock
) -> None:
    """An outage of a month: two are due by then, one after the other; another's open month keeps
    nobody waiting."""
    subscribed(book, policy)
    early.move_to(DUE)
    assert open_cycles(book, policy) == 1
    assert enrolled(book, policy, a_row(2)).added == 1
    early.move_to(datetime(2026, 12, 20, 10, tzinfo=SEOUL))
    assert book.run(anything_opens)
    assert open_cycles(book, policy) == 1
    assert query(book, "SELECT subscription_id, number FROM cycles ORDER BY id") == [(1, 1), (2, 1)]
    assert not book.run(anything_opens)
    execute(
        book,
        "UPDATE cycles SET status = 'paid', settled_at = now(), paid_at = now(),"
        " paid_imp_uid = 'imp_1', paid_merchant_uid = 'mw-1' WHERE subscription_id = 1",
    )
    assert book.run(anything_opens)
    assert open_cycles(book, policy) == 1
    assert query(book, "SELECT number FROM cycles WHERE subscription_id = 1 ORDER BY id") == [
        (1,),
        (2,),
    ]


@pytest.mark.timeout(20)
def test_whom_somebody_works_on_keeps_nobody_waiting(
    book: Book, policy: BillingPolicy, early: MovedClock
) -> None:
    subscribed(book, policy, 2)
    early.move_to(DUE)
    with book.transaction() as tx:
        tx.session.execute(text("SELECT 1 FROM subscriptions WHERE id = 1 FOR UPDATE"))
        assert open_cycles(book, policy) == 1
    assert query(book, "SELECT subscription_id FROM cycles") == [(2,)]
    assert open_cycles(book, policy) == 1


def test_what_is_due_only_as_it_was_planned_waits_for_its_new_moment(
    book: Book,
    make_policy: Callable[..., BillingPolicy],
    early: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The settings changed, and its turn to be planned anew has not come."""
    monkeypatch.setattr(coming, "BATCH", 1)
    subscribed(book, make_policy(), 2)
    noon = make_policy(charge_cron="0 12 * * *", window_days=4)
    early.move_to(DUE)
    assert open_cycles(book, noon) == 0
    planned = (1, DUE + timedelta(hours=2), datetime(2026, 11, 25, tzinfo=SEOUL))
    assert coming_months(book) == [planned, planned]
    assert not book.run(anything_opens)
    early.move_to(DUE + timedelta(hours=2))
    assert open_cycles(book, noon) == 2
    assert query(book, "SELECT DISTINCT planned_at, closes_at FROM attempts") == [planned[1:]]


def test_the_tick_that_opens_plans_anew_what_is_not_due_yet(
    book: Book, make_policy: Callable[..., BillingPolicy], early: MovedClock
) -> None:
    subscribed(book, make_policy())
    assert open_cycles(book, make_policy(charge_cron="0 12 * * *")) == 0
    assert coming_months(book)[0][1] == DUE + timedelta(hours=2)


def test_of_those_that_are_due_only_the_ones_that_stay_so_are_opened_and_counted(
    book: Book,
    make_policy: Callable[..., BillingPolicy],
    early: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One is due since yesterday, and by the new settings too; the other no more today."""
    monkeypatch.setattr(coming, "BATCH", 1)
    rows = [a_row(1, "2026-10-12T12:00:00+09:00"), a_row(2, "2026-10-19T12:00:00+09:00"), a_row(3)]
    assert enrolled(book, make_policy(), *rows).added == 3
    early.move_to(DUE)
    assert open_cycles(book, make_policy(charge_cron="0 12 * * *")) == 2
    assert query(
        book,
        "SELECT subscription_id, planned_at FROM cycles JOIN attempts"
        " ON cycle_id = cycles.id ORDER BY cycles.id",
    ) == [
        (1, datetime(2026, 11, 12, 12, tzinfo=SEOUL)),
        (2, datetime(2026, 11, 19, 12, tzinfo=SEOUL)),
    ]


# -- before it is due, for a payment that was found ---------------------------------------------

NOVEMBER, DECEMBER = date(2026, 11, 1), date(2026, 12, 1)


def ahead(book: Book, policy: BillingPolicy, who: int | None, month: date | None) -> int | None:
    return book.run(lambda tx: open_ahead(tx, policy, who, month))


@pytest.mark.parametrize("change", [None, pause])
def test_a_month_is_opened_ahead_as_it_would_be_when_it_is_due(
    book: Book, policy: BillingPolicy, early: MovedClock, change: Callable[..., object] | None
) -> None:
    subscribed(book, policy, 2)
    if change:
        change(book, policy, "customer-2")
    cycle_id = ahead(book, policy, 2, NOVEMBER)
    assert query(book, "SELECT id, subscription_id, month, status, opened_at FROM cycles") == [
        (cycle_id, 2, NOVEMBER, "open", early.now)
    ]
    assert query(book, "SELECT cycle_id, status, planned_at, ready_at FROM attempts") == [
        (cycle_id, "due", DUE, DUE)
    ]
    ((about, cycle, data),) = query(
        book, "SELECT subscription_id, cycle_id, data FROM events WHERE kind = 'cycle.opened'"
    )
    assert (about, cycle, data["cycle"]) == (2, cycle_id, 1)
    assert query(book, "SELECT next_cycle, next_due_at FROM subscriptions ORDER BY id") == [
        (1, DUE),
        (2, datetime(2026, 12, 20, 10, tzinfo=SEOUL)),
    ]


def test_only_the_next_month_is_opened_ahead_and_once(
    book: Book, policy: BillingPolicy, early: MovedClock
) -> None:
    subscribed(book, policy)
    before = coming_months(book)
    assert ahead(book, policy, 1, DECEMBER) is None
    assert ahead(book, policy, 1, None) is None
    assert ahead(book, policy, None, NOVEMBER) is None
    assert ahead(book, policy, 2, NOVEMBER) is None
    assert coming_months(book) == before
    assert ahead(book, policy, 1, NOVEMBER) is not None
    # December is next now, but November is still open.
    after = coming_months(book)
    assert ahead(book, policy, 1, DECEMBER) is None
    assert query(book, "SELECT month FROM cycles") == [(NOVEMBER,)]
    assert coming_months(book) == after, "and stays the next"


def test_the_month_opened_ahead_is_the_next_as_it_is_in_the_book(
    book: Book, policy: BillingPolicy, early: MovedClock
) -> None:
    """Not as this transaction has read it before."""
    subscribed(book, policy)
    with book.transaction() as tx:
        seen = tx.session.get(Subscription, 1)
        execute(book, "UPDATE subscriptions SET next_cycle = 2")
        assert open_ahead(tx, policy, 1, NOVEMBER) is None
        assert open_ahead(tx, policy, 1, DECEMBER) is not None
        assert seen is not None
    assert query(book, "SELECT number, month FROM cycles") == [(2, DECEMBER)]
    assert coming_months(book)[0][0] == 3


def test_a_month_that_is_there_already_is_not_opened_ahead(
    book: Book, policy: BillingPolicy, early: MovedClock
) -> None:
    """Another month of the book bears its number, by an edit behind our back."""
    subscribed(book, policy)
    assert ahead(book, policy, 1, NOVEMBER) is not None
    around = "SET LOCAL session_replication_role = replica; "
    execute(book, f"{around}UPDATE cycles SET status='missed', reason='declined', settled_at=now()")
    execute(
        book,
        f"{around}UPDATE subscriptions SET next_cycle = 1,"
        " anchor_on = anchor_on + interval '1 month'",
    )
    assert ahead(book, policy, 1, DECEMBER) is None
    assert query(book, "SELECT month FROM cycles") == [(NOVEMBER,)]


@pytest.mark.parametrize("status", ["suspended", "cancelled"])
def test_nothing_is_opened_ahead_for_whoever_has_ended(
    book: Book, policy: BillingPolicy, early: MovedClock, status: str
) -> None:
    subscribed(book, policy)
    execute(book, "UPDATE subscriptions SET status = :s, status_reason = 'key_invalid'", s=status)
    assert ahead(book, policy, 1, NOVEMBER) is None
    assert query(book, "SELECT id FROM cycles") == []


def test_a_month_opened_ahead_is_planned_by_the_settings_in_force(
    book: Book, make_policy: Callable[..., BillingPolicy], early: MovedClock
) -> None:
    """Also before its turn to be planned anew."""
    subscribed(book, make_policy())
    assert ahead(book, make_policy(charge_cron="0 12 * * *"), 1, NOVEMBER) is not None
    assert query(book, "SELECT planned_at FROM attempts") == [(DUE + timedelta(hours=2),)]


# -- another attempt ----------------------------------------------------------------------------


def test_another_attempt_says_what_it_was_planned_by(
    book: Book, make_policy: Callable[..., BillingPolicy], early: MovedClock
) -> None:
    policy = make_policy(max_attempts=7, attempts_per_day=3)
    subscribed(book, policy)
    early.move_to(DUE)
    open_cycles(book, policy)
    pause(book, policy, "customer-1")
    resume(book, policy, "customer-1")
    ((uid, at),) = query(book, "SELECT merchant_uid, planned_at FROM attempts WHERE number = 2")
    ((data,),) = query(book, "SELECT data FROM events WHERE kind = 'attempt.planned'")
    assert datetime.fromisoformat(data.pop("at")) == at
    assert data == {"merchant_uid": uid, "declines_allowed": 7, "declines_allowed_a_day": 3}


def test_another_attempt_waits_until_the_gateway_shows_the_one_before(
    book: Book, make_policy: Callable[..., BillingPolicy], early: MovedClock
) -> None:
    """Its slot is nearer than that."""
    policy = make_policy(
        retry_cron="* * * * *", gateway_visibility_seconds=300, inquiry_settle_seconds=360
    )
    subscribed(book, policy)
    early.move_to(DUE)
    open_cycles(book, policy)
    pause(book, policy, "customer-1")
    resume(book, policy, "customer-1")
    ((planned_at, ready_at),) = query(
        book, "SELECT planned_at, ready_at FROM attempts WHERE number = 2"
    )
    assert planned_at < DUE + timedelta(minutes=5)
    assert ready_at == DUE + timedelta(minutes=5)


# -- an open month, and settings that changed since ---------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {},
    {"window_days": 0},
    {"window_days": 2, "band_retry_days": 0},
    {"close_margin_minutes": 700},
    {"window_days": 1, "close_margin_minutes": 600, "band_retry_days": 5},
]
ANCHORS = [date(2026, 10, day) for day in (1, 3, 20, 26, 28, 31)]


def an_open_month(anchor: date, number: int, policy: BillingPolicy) -> tuple[Subscription, Cycle]:
    """As a policy opens it; in no book."""
    who = Subscription(anchor_on=anchor, amount=9900)
    dates = cycle_dates(anchor, number, policy.plan.calendar)
    return who, new_cycle(who, dates, DUE, policy)


@pytest.mark.parametrize("after", SETTINGS)
@pytest.mark.parametrize("before", SETTINGS)
def test_an_open_month_keeps_its_days_and_its_last_moment(
    make_policy: Callable[..., BillingPolicy], before: dict[str, Any], after: dict[str, Any]
) -> None:
    """It may be tried again within what it was opened with; the margin only ever grows."""
    old, new = make_policy(**before), make_policy(**after)
    for anchor in ANCHORS:
        # November, and February, which is shorter than some anchors.
        for number in (1, 4):
            opened = cycle_dates(anchor, number, old.plan.calendar)
            today = cycle_dates(anchor, number, new.plan.calendar)
            dates, plan = rules_of(*an_open_month(anchor, number, old), new)
            assert (dates.number, dates.month, dates.due_on) == (number, opened.month, today.due_on)
            assert (dates.window, dates.band) == (opened.window, opened.band)
            assert dates.first_attempt_on in opened.band
            assert dates.first_attempt_on in (today.first_attempt_on, opened.band.opens_on)
            assert plan == replace(
                new.plan, close_margin=max(old.plan.close_margin, new.plan.close_margin)
            )
            assert last_start(dates, plan) <= last_start(opened, old.plan)


@pytest.mark.parametrize("settings", SETTINGS)
def test_while_the_settings_stay_so_do_the_rules(
    make_policy: Callable[..., BillingPolicy], settings: dict[str, Any]
) -> None:
    policy = make_policy(**settings)
    for anchor in ANCHORS:
        wanted = cycle_dates(anchor, 1, policy.plan.calendar)
        assert rules_of(*an_open_month(anchor, 1, policy), policy) == (wanted, policy.plan)


def test_without_a_margin_the_last_day_is_the_one_that_ends(
    make_policy: Callable[..., BillingPolicy],
) -> None:
    usual = make_policy()
    policy = replace(usual, plan=replace(usual.plan, close_margin=timedelta(0)))
    who, cycle = an_open_month(ANCHORS[2], 1, policy)
    assert cycle.last_start_at == datetime(2026, 11, 26, tzinfo=SEOUL)
    dates, plan = rules_of(who, cycle, policy)
    assert dates.band.closes_on == date(2026, 11, 25)
    assert plan == policy.plan


def test_the_first_day_is_none_before_the_month_may_be_charged(
    make_policy: Callable[..., BillingPolicy],
) -> None:
    """By a wider window it would be the 27th; this month's only day is the 30th."""
    dates, _ = rules_of(
        *an_open_month(date(2026, 10, 31), 1, make_policy(window_days=0)), make_policy()
    )
    assert dates.first_attempt_on == date(2026, 11, 30)


def test_the_first_day_is_that_of_the_settings_in_force_where_the_month_has_it(
    make_policy: Callable[..., BillingPolicy],
) -> None:
    later = make_policy(band_retry_days=0)
    dates, _ = rules_of(*an_open_month(date(2026, 10, 31), 1, make_policy()), later)
    assert dates.first_attempt_on == date(2026, 11, 30)


def test_a_month_that_is_there_already_keeps_nobody_else_from_being_opened(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """An anchor moved behind our back counts the months from elsewhere."""
    enrolled(book, policy, a_row(1), a_row(2))
    assert open_cycles(book, policy) == 2
    around = "SET LOCAL session_replication_role = replica; "
    execute(book, f"{around}UPDATE cycles SET status='missed', reason='declined', settled_at=now()")
    execute(
        book,
        f"{around}UPDATE subscriptions SET anchor_on = anchor_on - interval '1 month'"
        " WHERE customer_uid = 'customer-1'",
    )
    clock.move(days=30)

    assert open_cycles(book, policy) == 1

    months = (
        "SELECT s.customer_uid, c.number, c.month FROM cycles c"
        " JOIN subscriptions s ON s.id = c.subscription_id ORDER BY 1, 2"
    )
    november, december = date(2026, 11, 1), date(2026, 12, 1)
    first, second = ("customer-1", 1, november), ("customer-2", 1, november)
    assert query(book, months) == [first, second, ("customer-2", 2, december)]
    told = "SELECT data FROM events WHERE kind = 'cycle.there_already' AND alarm"
    assert query(book, told) == [({"cycle": 2, "month": "2026-11-01"},)]
    # It was moved on, so its own next month is opened by the next tick.
    assert open_cycles(book, policy) == 1
    assert query(book, months)[1] == ("customer-1", 3, december)
    assert open_cycles(book, policy) == 0
