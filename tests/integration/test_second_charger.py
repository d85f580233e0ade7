"""Somebody charges beside us: found before our own request, counted once, told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime

import pytest
from sqlalchemy import text

from billing.domain.policy import BillingPolicy
from billing.sandbox import HandPayment, pay
from billing.services import reconcile, reconciled
from billing.services.invariants import broken
from billing.store import differences
from billing.store.session import Book
from tests.builders import query
from tests.conftest import MovedClock
from tests.town import Town, seoul, uid
from tests.world import World


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


def test_a_payment_by_hand_is_the_months_payment(world: World) -> None:
    world.enrol("somebody")
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    world.tick()
    assert world.requests() == 0
    assert query(world.book, "SELECT status, reason, paid_imp_uid FROM cycles") == [
        ("paid", "paid_elsewhere", by_hand.imp_uid)
    ]
    assert world.alarms() == ["payment.found_elsewhere"]
    assert broken(world.book, world.policy) == []


def test_two_payments_by_hand_are_one_too_many(world: World) -> None:
    world.enrol("somebody")
    first, second = (pay(world.sandbox, HandPayment(customer_uid="somebody")) for _ in range(2))
    world.tick()
    assert world.requests() == 0
    found = query(world.book, "SELECT data FROM events WHERE kind = 'payment.double'")
    assert len(found) == 1
    told = found[0][0]
    assert {told["imp_uid"], told["also"]} == {first.imp_uid, second.imp_uid}
    assert told["won"] == 9900
    assert query(world.book, "SELECT count(*) FROM notices WHERE kind = 'payment.unknown'") == [
        (1,)
    ]


def test_ours_and_another_are_one_too_many_and_ours_counts(world: World) -> None:
    """Our answer was lost after the charge; before we could ask, somebody paid as well."""
    world.enrol("somebody", script=["timeout_after_charge"])
    world.tick()
    assert world.statuses("attempts") == {"unknown": 1}
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    world.run(times=3)
    ours, reason, imp_uid = query(
        world.book, "SELECT paid_merchant_uid LIKE 'mw-%', reason, paid_imp_uid FROM cycles"
    )[0]
    assert (ours, reason) == (True, None)
    assert imp_uid != by_hand.imp_uid
    assert query(world.book, "SELECT data->>'also' FROM events WHERE kind = 'payment.double'") == [
        (by_hand.imp_uid,)
    ]


def test_a_payment_by_hand_of_another_amount_is_for_a_person(world: World) -> None:
    world.enrol("somebody")
    pay(world.sandbox, HandPayment(customer_uid="somebody", amount=5000))
    world.run(times=3)
    assert world.requests() == 0
    assert query(world.book, "SELECT status, held FROM cycles") == [("open", "contradiction")]
    assert world.alarms() == ["cycle.held"]


# -- the gateway's own schedules, in a book of more keys than are asked about in one run -----------


@pytest.fixture
def large(
    book: Book,
    make_policy: Callable[..., BillingPolicy],
    clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Town:
    """Nine that are charged on 20 November, and nine on 10 December: three would be few."""
    monkeypatch.setattr(reconcile, "FEW_KEYS", 3)
    town = Town(book, make_policy(), clock).at("2026-11-12 05:30")
    town.subscribe(9, paid="2026-10-20 14:30")
    town.subscribe(9, paid="2026-11-10 14:30", first=10)
    return town


def day(town: Town, number: int, month: int = 11) -> list[int]:
    """The daily run of a day, in November; whose schedules it asked about."""
    town.at(f"2026-{month}-{number:02} 05:30")
    town.wire.asked.clear()
    report = town.run(
        lambda client: reconciled.make(town.book, client, town.policy, None, sleep=town._no_sleep)
    )
    assert report.whole
    asked = {path for path in town.wire.asked if path.endswith("/schedules")}
    return [n for n in range(1, 19) if any(f"/{uid(n)}/" in path for path in asked)]


def test_each_key_is_asked_about_in_the_week_before_it_is_charged(large: Town) -> None:
    assert len(day(large, 12)) == 3, "nobody is charged within the week: the nearest three"
    asked = [day(large, number) for number in range(13, 20)]
    assert Counter(key for keys in asked for key in keys) == Counter(range(1, 10))
    assert max(len(one) for one in asked) == 2


def test_what_days_without_a_run_left_out_is_caught_up_with(large: Town) -> None:
    asked = [day(large, number) for number in (12, 13, 17, 18, 19)]
    assert Counter(key for keys in asked[1:] for key in keys) == Counter(range(1, 10))
    # A gateway that was away for the whole week, and longer.
    assert set(day(large, 5, month=12)) >= set(range(10, 19))


def test_of_too_many_for_a_month_each_is_asked_about_every_second(
    large: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eighteen, where nine are enough for a month; a share is a week of numbers."""
    monkeypatch.setattr(reconcile, "KEYS_A_MONTH", 9)
    assert day(large, 18) == [7, 8, 9]
    # Nobody has charged them yet; and their half of those of December.
    assert day(large, 5, month=12) == [7, 8, 9, *range(14, 19)]


def test_one_run_asks_no_more_than_its_most(large: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "MOST_KEYS", 2)
    assert day(large, 18) == [1, 2]


def test_the_first_run_of_all_asks_about_everybody_who_is_charged_soon(large: Town) -> None:
    assert day(large, 18) == list(range(1, 10))


def test_a_schedule_is_told_before_it_charges_and_looked_at_each_day(large: Town) -> None:
    """Theirs is on the 25th, five days after ours."""
    at = int(seoul("2026-11-25 10:00").timestamp())
    wish = {"merchant_uid": "theirs-1", "schedule_at": at, "amount": 1004, "name": "plan 4"}
    body = {"customer_uid": uid(4), "schedules": [wish]}
    assert large.post("/subscribe/payments/schedule", body)["code"] == 0
    told = "SELECT first_seen_at, resolved_at FROM ledger_differences"
    for number in range(12, 20):
        day(large, number)
    ((first, resolved),) = query(large.book, told)
    assert first < datetime.fromisoformat("2026-11-20T00:00+09:00")
    assert resolved is None
    # Whatever part of the keys the next days have.
    assert all(4 in day(large, number) for number in (20, 21))
    assert large.post("/subscribe/payments/unschedule", {"customer_uid": uid(4)})["code"] == 0
    assert 4 in day(large, 22)
    assert query(large.book, told)[0][1] is not None


def test_more_keys_than_a_statement_can_have_parameters(large: Town) -> None:
    """What is gone is ended with as many as one run asks about, and as many as it found."""
    insert = (
        "INSERT INTO ledger_differences (key, kind, at, subscription_id, first_seen_at,"
        " last_seen_at) SELECT 'key-' || id, 'scheduled_at_gateway', now(), id, now(), now()"
        " FROM subscriptions"
    )
    large.book.run(lambda tx: tx.session.execute(text(insert)))
    asked, seen = range(3, 70_000), [f"key-{n}" for n in range(5, 70_000)]
    ended = large.book.run(
        lambda tx: differences.resolve_unscheduled(tx.session, tx.now, asked, seen)
    )
    assert ended == 2
    there = "SELECT subscription_id FROM ledger_differences WHERE resolved_at IS NOT NULL"
    assert query(large.book, f"{there} ORDER BY 1") == [(3,), (4,)]
