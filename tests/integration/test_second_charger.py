"""Somebody charges beside us: found before our own request, counted once, told of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing.domain.policy import BillingPolicy
from billing.sandbox import HandPayment, pay
from billing.services.invariants import broken
from billing.store.session import Book
from tests.builders import query
from tests.conftest import MovedClock
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
