"""Enrolment after an initial payment: what the gateway shows comes in, once, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.errors import (
    AnswerUnusable,
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    NotFound,
)
from billing.domain.policy import BillingPolicy
from billing.domain.webhook import announced
from billing.portone.client import PortOneClient
from billing.sandbox import HandPayment, NewCustomer, mood, pay, register
from billing.sandbox.model import Payment, Schedule, Status
from billing.services import change_status
from billing.services.close_cycles import close_cycles
from billing.services.enrol_payment import EnrolledPayment, enrol_payment
from billing.services.import_subscriptions import import_subscriptions
from billing.services.invariants import broken
from billing.services.look_at_webhooks import look_at_webhooks
from billing.services.open_cycles import open_cycles
from billing.services.receive_webhook import receive_webhook
from billing.store.session import Book
from tests.builders import KEY, a_file, enrolled, execute, query
from tests.conftest import MovedClock
from tests.world import World

PLAN = {"amount": 9900, "name": "월정액", "buyer_name": "홍길동", "buyer_tel": "010-1234-5678"}


@pytest.fixture
def world(book: Book, policy: BillingPolicy, clock: MovedClock) -> World:
    return World(book, policy, clock)


def registered(world: World, name: str = "customer-1", **more: Any) -> Payment:
    """A customer who has just paid in the payment window."""
    wish = {"paid_at": world.clock.now - timedelta(minutes=1), **PLAN, **more}
    return register(world.sandbox, [NewCustomer(customer_uid=name, **wish)])[0]


def enrol(world: World, imp_uid: str, **options: Any) -> EnrolledPayment:
    async def use_case(gateway: PortOneClient) -> EnrolledPayment:
        return await enrol_payment(
            world.book, world.policy, lambda: KEY, gateway, imp_uid, **options
        )

    return world.ask(use_case)


def counts(world: World) -> tuple[int, int, int]:
    """Subscriptions, event lines and notices of an enrolment."""
    rows = query(
        world.book,
        "SELECT (SELECT count(*) FROM subscriptions),"
        " (SELECT count(*) FROM events WHERE kind = 'subscription.enrolled'),"
        " (SELECT count(*) FROM notices WHERE kind = 'subscription.enrolled')",
    )
    return rows[0]  # type: ignore[return-value]


def test_what_the_payment_shows_comes_in(world: World) -> None:
    payment = registered(world)
    found = enrol(world, payment.imp_uid, customer_uid="customer-1", amount=9900)
    paid_at = (world.clock.now - timedelta(minutes=1)).astimezone(SEOUL)
    assert found.added
    assert found.subscription == {
        "customer_uid": "customer-1",
        "status": "active",
        "reason": None,
        "amount": 9900,
        "order_name": "월정액",
        "anchor_on": "2026-11-20",
        "initial_paid_at": paid_at.isoformat(),
        "enrolled_at": world.clock.now.astimezone(SEOUL).isoformat(),
        "next_cycle": 1,
        "next_due_at": "2026-12-20T10:00:00+09:00",
        "reference": None,
        "previous": None,
        "next": None,
        "forgotten_at": None,
    }
    rows = query(world.book, "SELECT b.name, b.tel, b.email FROM buyers b")
    assert rows == [("홍길동", "010-1234-5678", None)]
    assert query(world.book, "SELECT data FROM notices") == [
        (
            {
                "amount": 9900,
                "currency": "KRW",
                "anchor_on": "2026-11-20",
                "first_cycle": 1,
                "first_due_at": "2026-12-20T10:00:00+09:00",
            },
        )
    ]
    assert broken(world.book, world.policy) == []


def test_the_next_month_is_charged_as_the_first_was_paid(world: World) -> None:
    enrol(world, registered(world).imp_uid)
    world.clock.move(days=30, hours=1)
    world.tick()
    assert world.statuses("cycles") == {"paid": 1}
    again = [seen for seen in world.sandbox.ledger.requests if seen.kind == "again"]
    assert [seen.differs for seen in again] == [""]


def test_the_same_payment_again_changes_nothing(world: World) -> None:
    payment = registered(world)
    first = enrol(world, payment.imp_uid)
    second = enrol(world, payment.imp_uid)
    assert (first.added, second.added) == (True, False)
    assert first.subscription == second.subscription
    assert counts(world) == (1, 1, 1)


def test_the_same_payment_again_is_answered_by_the_book_alone(world: World) -> None:
    """Also while the gateway is away, and whatever is said of it that is so."""
    payment = registered(world)
    first = enrol(world, payment.imp_uid)
    asked = len(world.sandbox.ledger.requests)
    world.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1}}})
    said = {"customer_uid": "customer-1", "merchant_uid": payment.merchant_uid, "amount": 9900}
    for options in ({}, said):
        again = enrol(world, payment.imp_uid, **options)
        assert not again.added
        assert again.subscription == first.subscription
    assert len(world.sandbox.ledger.requests) == asked
    assert counts(world) == (1, 1, 1)


@pytest.mark.parametrize(
    "said", [{"customer_uid": "customer-2"}, {"merchant_uid": "another"}, {"amount": 500}]
)
def test_what_differs_from_the_book_is_asked_about(world: World, said: dict[str, Any]) -> None:
    payment = registered(world)
    enrol(world, payment.imp_uid)
    with pytest.raises(Conflict, match="order"):
        enrol(world, payment.imp_uid, **said)
    assert counts(world) == (1, 1, 1)


def test_a_months_payment_is_no_registration(world: World) -> None:
    """The book knows it, as a cycle's: that enrols nobody."""
    enrol(world, registered(world).imp_uid)
    world.clock.move(days=30, hours=1)
    world.tick()
    ((imp_uid,),) = query(world.book, "SELECT paid_imp_uid FROM cycles WHERE status = 'paid'")
    with pytest.raises(Conflict, match="did not register one"):
        enrol(world, str(imp_uid))
    assert counts(world) == (1, 1, 1)


def test_a_payment_that_two_are_said_to_have_begun_by_is_asked_about(world: World) -> None:
    payment = registered(world, buyer_name="", buyer_tel="")
    paid_at = (world.clock.now - timedelta(minutes=1)).isoformat()
    header = "customer_uid,amount,order_name,initial_paid_at,initial_imp_uid"
    lines = [f"customer-{one},9900,월정액,{paid_at},{payment.imp_uid}" for one in (1, 2)]
    rows = a_file(*lines, header=header)
    assert import_subscriptions(world.book, world.policy, lambda: KEY, rows).added == 2
    assert enrol(world, payment.imp_uid).subscription["customer_uid"] == "customer-1"


def test_two_at_once_are_one(world: World) -> None:
    payment = registered(world)

    async def both(gateway: PortOneClient) -> list[EnrolledPayment]:
        one, two = (
            enrol_payment(world.book, world.policy, lambda: KEY, gateway, payment.imp_uid)
            for _ in range(2)
        )
        return list(await asyncio.gather(one, two))

    found = world.ask(both)
    assert sorted(one.added for one in found) == [False, True]
    assert counts(world) == (1, 1, 1)


def test_while_its_webhook_is_looked_up(world: World) -> None:
    """Whichever is first: enrolled once, and nobody is alarmed by the news of it."""
    payments = [registered(world, f"customer-{number}") for number in range(3)]
    for payment in payments:
        receive_webhook(world.book, announced(payment.imp_uid, payment.merchant_uid, "paid"))

    async def both(gateway: PortOneClient) -> None:
        looking = look_at_webhooks(world.book, gateway, world.policy)
        enrolling = (
            enrol_payment(world.book, world.policy, lambda: KEY, gateway, one.imp_uid)
            for one in payments
        )
        await asyncio.gather(looking, *enrolling)

    world.ask(both)
    assert counts(world) == (3, 3, 3)
    assert world.alarms() == []
    outcomes = {row[0] for row in query(world.book, "SELECT outcome FROM webhooks")}
    assert outcomes <= {"stranger", "agrees"}
    assert broken(world.book, world.policy) == []


def test_a_payment_that_the_gateway_does_not_know(world: World) -> None:
    with pytest.raises(NotFound, match="imp_unknown"):
        enrol(world, "imp_unknown")
    with pytest.raises(InvalidInput, match="imp_uid"):
        enrol(world, "../users/getToken")
    assert counts(world) == (0, 0, 0)


def test_a_gateway_that_does_not_answer_writes_nothing(world: World) -> None:
    payment = registered(world)
    world.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1}}})
    with pytest.raises(GatewayUnavailable):
        enrol(world, payment.imp_uid)
    assert counts(world) == (0, 0, 0)
    world.sandbox.mood = mood({})
    assert enrol(world, payment.imp_uid).added


def test_another_amount_than_ordered(world: World) -> None:
    """A browser paid 500 won where the merchant's server had ordered 9,900."""
    payment = registered(world, amount=500)
    with pytest.raises(Conflict, match="not the amount of the order"):
        enrol(world, payment.imp_uid, amount=9900)
    assert counts(world) == (0, 0, 0)


def test_a_key_that_was_deleted(world: World) -> None:
    payment = registered(world)
    key = world.sandbox.ledger.key("customer-1")
    assert key is not None
    world.sandbox.ledger.put(replace(key, deleted_at=1))
    with pytest.raises(Conflict, match="no such billing key"):
        enrol(world, payment.imp_uid)


def test_a_key_that_is_not_shown_yet_is_no_refusal(world: World) -> None:
    """Money has moved a moment ago, and a look-up is a while behind: nothing may be concluded."""
    payment = registered(world, paid_at=world.clock.now - timedelta(seconds=2))
    key = world.sandbox.ledger.key("customer-1")
    assert key is not None
    world.sandbox.ledger.put(replace(key, deleted_at=1))
    with pytest.raises(AnswerUnusable, match="no such billing key"):
        enrol(world, payment.imp_uid)
    assert counts(world) == (0, 0, 0)
    world.clock.move(seconds=world.policy.visibility.total_seconds())
    with pytest.raises(Conflict, match="no such billing key"):
        enrol(world, payment.imp_uid)
    world.sandbox.ledger.put(key)
    assert enrol(world, payment.imp_uid).added


def test_a_key_that_was_registered_again_is_the_last_payments(world: World) -> None:
    first = registered(world)
    world.clock.move(minutes=10)
    second = registered(world, amount=19900)
    with pytest.raises(Conflict, match=f"registered again by {second.imp_uid}"):
        enrol(world, first.imp_uid)
    assert enrol(world, second.imp_uid).subscription["amount"] == 19900
    with pytest.raises(Conflict):
        enrol(world, first.imp_uid)


def test_a_later_try_to_register_that_failed_changes_nothing(world: World) -> None:
    first = registered(world)
    world.clock.move(minutes=10)
    at = int(world.clock.now.timestamp())
    failed = replace(registered(world), status=Status.FAILED, paid_at=0, failed_at=at)
    world.sandbox.ledger.put(failed)
    assert enrol(world, first.imp_uid).added


def test_an_earlier_registration_that_was_given_back_later_is_no_later_one(world: World) -> None:
    first = registered(world)
    world.clock.move(minutes=10)
    second = registered(world)
    world.clock.move(minutes=10)
    at = int(world.clock.now.timestamp())
    world.sandbox.ledger.put(replace(first, status=Status.CANCELLED, cancelled_at=at))
    assert enrol(world, second.imp_uid).added


def test_of_two_registrations_in_one_second_nobody_knows_which_was_last(world: World) -> None:
    for payment in (registered(world), registered(world, amount=19900)):
        with pytest.raises(Conflict, match="registered again by"):
            enrol(world, payment.imp_uid)


def test_a_charge_of_the_key_is_no_registration(world: World) -> None:
    payment = registered(world)
    world.clock.move(days=30)
    pay(world.sandbox, HandPayment(customer_uid="customer-1"))
    assert enrol(world, payment.imp_uid).added


def test_a_key_that_the_gateway_charges_itself(world: World) -> None:
    payment = registered(world)
    at = int((world.clock.now + timedelta(days=30)).timestamp())
    world.sandbox.ledger.put(
        Schedule("their-1", "customer-1", schedule_at=at, amount=9900, name="월정액")
    )
    with pytest.raises(Conflict, match="the gateway itself will charge this key"):
        enrol(world, payment.imp_uid)


def test_a_known_customer_with_other_facts(world: World) -> None:
    enrolled(world.book, world.policy, "customer-1,9900,월정액,2026-10-20T14:30:00+09:00,,")
    with pytest.raises(Conflict, match="differs from the book"):
        enrol(world, registered(world).imp_uid)
    assert query(world.book, "SELECT anchor_on::text FROM subscriptions") == [("2026-10-20",)]


def test_a_known_customer_whose_first_payment_is_said_to_be_another(world: World) -> None:
    payment = registered(world, buyer_name="", buyer_tel="")
    paid_at = (world.clock.now - timedelta(minutes=1)).isoformat()
    header = "customer_uid,amount,order_name,initial_paid_at,initial_imp_uid"
    rows = a_file(f"customer-1,9900,월정액,{paid_at},imp_other", header=header)
    assert import_subscriptions(world.book, world.policy, lambda: KEY, rows).added == 1
    with pytest.raises(Conflict, match="another payment as this customer's first"):
        enrol(world, payment.imp_uid)


def test_test_payments_only_where_they_are_wanted(world: World) -> None:
    payment = registered(world, sandbox=True)
    with pytest.raises(NotFound):
        enrol(world, payment.imp_uid)


# -- the same customer, registered anew -----------------------------------------------------------


def test_a_suspended_customer_goes_on_with_a_new_key(world: World) -> None:
    enrol(world, registered(world, "old").imp_uid)
    suspended(world, "old")
    world.clock.move(days=70)
    found = enrol(world, registered(world, "new").imp_uid, previous="old")
    assert (found.subscription["previous"], found.subscription["next"]) == ("old", None)
    told = "SELECT subscription_id, data FROM events WHERE kind = 'subscription.goes_on'"
    assert query(world.book, told) == [(2, {"previous_id": 1})]
    rows = query(world.book, "SELECT customer_uid, status FROM subscriptions ORDER BY id")
    assert rows == [("old", "cancelled"), ("new", "active")]
    assert enrol(world, world.sandbox.ledger.payments[-1].imp_uid, previous="old").added is False
    assert query(
        world.book, "SELECT count(*) FROM notices WHERE kind = 'subscription.cancelled'"
    ) == [(1,)]
    assert broken(world.book, world.policy) == []
    execute(world.book, "UPDATE subscriptions SET status = 'active' WHERE customer_uid = 'old'")
    assert "I1 one registration" in [one.name for one in broken(world.book, world.policy)]


def test_who_came_in_as_somebody_new_is_linked_afterwards(world: World) -> None:
    """The checkout page knows nobody: without the link, late proof of a payment would set the old
    one going again beside the new one."""
    enrol(world, registered(world, "old").imp_uid)
    suspended(world, "old")
    world.clock.move(days=70)
    new = registered(world, "new").imp_uid
    assert enrol(world, new).subscription["previous"] is None
    linked = enrol(world, new, previous="old")
    assert (linked.added, linked.subscription["previous"]) == (False, "old")
    rows = query(world.book, "SELECT customer_uid, status FROM subscriptions ORDER BY id")
    assert rows == [("old", "cancelled"), ("new", "active")]
    assert broken(world.book, world.policy) == []


def suspended(world: World, name: str) -> None:
    """A subscriber whose month went by without a payment."""
    world.clock.move(days=30, hours=1)
    open_cycles(world.book, world.policy)
    world.clock.move(days=10)
    close_cycles(world.book, world.policy)
    rows = query(world.book, "SELECT status FROM subscriptions WHERE customer_uid = :uid", uid=name)
    assert rows == [("suspended",)]


@pytest.mark.parametrize("status", ["active", "paused"])
def test_one_that_goes_on_is_not_followed(world: World, status: str) -> None:
    """The customer would pay twice a month."""
    enrol(world, registered(world, "old").imp_uid)
    if status == "paused":
        change_status.pause(world.book, world.policy, "old")
    payment = registered(world, "new")
    with pytest.raises(Conflict, match=f"is {status}"):
        enrol(world, payment.imp_uid, previous="old")
    assert counts(world) == (1, 1, 1)
    change_status.cancel(world.book, world.policy, "old")
    assert enrol(world, payment.imp_uid, previous="old").subscription["previous"] == "old"


def test_one_key_is_followed_by_one(world: World) -> None:
    enrol(world, registered(world, "old").imp_uid)
    change_status.cancel(world.book, world.policy, "old")
    first, second = registered(world, "new-1"), registered(world, "new-2")
    enrol(world, first.imp_uid, previous="old")
    with pytest.raises(Conflict, match="another subscription goes on"):
        enrol(world, second.imp_uid, previous="old")
    assert counts(world)[0] == 2
    # The link is made once and never moved.
    change_status.cancel(world.book, world.policy, "new-1")
    enrol(world, second.imp_uid, previous="new-1")
    with pytest.raises(Conflict, match="does not go on from that one"):
        enrol(world, second.imp_uid, previous="old")


def test_nobody_goes_on_from_one_that_came_later(world: World) -> None:
    first = registered(world, "first")
    enrol(world, first.imp_uid)
    enrol(world, registered(world, "later").imp_uid)
    change_status.cancel(world.book, world.policy, "later")
    with pytest.raises(Conflict, match="does not go on from that one"):
        enrol(world, first.imp_uid, previous="later")


def test_the_same_follower_twice_at_once_is_one(world: World) -> None:
    enrol(world, registered(world, "old").imp_uid)
    change_status.cancel(world.book, world.policy, "old")
    payment = registered(world, "new")

    async def both(gateway: PortOneClient) -> list[EnrolledPayment]:
        calls = (
            enrol_payment(
                world.book, world.policy, lambda: KEY, gateway, payment.imp_uid, previous="old"
            )
            for _ in range(2)
        )
        return list(await asyncio.gather(*calls))

    found = world.ask(both)
    assert sorted(one.added for one in found) == [False, True]
    assert [one.subscription["previous"] for one in found] == ["old", "old"]
    assert query(world.book, "SELECT count(*) FROM events WHERE kind = 'subscription.goes_on'") == [
        (1,)
    ]


def test_two_followers_at_once(world: World) -> None:
    enrol(world, registered(world, "old").imp_uid)
    change_status.cancel(world.book, world.policy, "old")
    payments = [registered(world, f"new-{number}") for number in range(2)]

    async def both(gateway: PortOneClient) -> list[EnrolledPayment | BaseException]:
        calls = (
            enrol_payment(
                world.book, world.policy, lambda: KEY, gateway, one.imp_uid, previous="old"
            )
            for one in payments
        )
        return list(await asyncio.gather(*calls, return_exceptions=True))

    found = world.ask(both)
    assert sorted(type(one).__name__ for one in found) == ["Conflict", "EnrolledPayment"]
    assert counts(world)[0] == 2


def test_a_previous_that_cannot_be(world: World) -> None:
    payment = registered(world)
    with pytest.raises(NotFound, match="nobody"):
        enrol(world, payment.imp_uid, previous="nobody")
    with pytest.raises(Conflict, match="itself"):
        enrol(world, payment.imp_uid, previous="customer-1")
    assert counts(world) == (0, 0, 0)
