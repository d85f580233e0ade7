"""Erasure on request: the person is gone from the book, the payments are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing.domain.errors import Conflict, NotFound
from billing.domain.policy import BillingPolicy
from billing.sandbox import NewCustomer, register
from billing.services import change_status
from billing.services.close_cycles import close_cycles
from billing.services.forget import forget
from billing.services.import_subscriptions import ImportReport, import_subscriptions
from billing.services.invariants import broken
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import KEY, a_file, execute, query
from tests.conftest import MovedClock
from tests.world import PAID_AT, World

ROW = "somebody,9900,plan,2026-10-20T14:30:00+09:00,홍길동,010-1234-5678,member 17"
HEADER = "customer_uid,amount,order_name,initial_paid_at,buyer_name,buyer_tel,reference"
EVERY_TEXT = """
    SELECT coalesce(string_agg(row_to_json(t)::text, ' '), '') FROM (
        SELECT row_to_json(s)::text FROM subscriptions s UNION ALL
        SELECT row_to_json(b)::text FROM buyers b UNION ALL
        SELECT row_to_json(c)::text FROM cycles c UNION ALL
        SELECT row_to_json(a)::text FROM attempts a UNION ALL
        SELECT row_to_json(e)::text FROM events e UNION ALL
        SELECT row_to_json(n)::text FROM notices n UNION ALL
        SELECT row_to_json(w)::text FROM webhooks w) t
"""


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


def enrol(world: World) -> None:
    """A person whose first month was paid."""
    person = NewCustomer(
        customer_uid="somebody",
        amount=9900,
        name="plan",
        paid_at=PAID_AT,
        buyer_name="홍길동",
        buyer_tel="010-1234-5678",
    )
    register(world.sandbox, [person])
    assert imported(world).added == 1


def imported(world: World) -> ImportReport:
    return import_subscriptions(world.book, world.policy, lambda: KEY, a_file(ROW, header=HEADER))


def test_what_is_left_of_a_person(world: World) -> None:
    enrol(world)
    world.tick()
    for status in ("active", "paused"):
        if status == "paused":
            change_status.pause(world.book, world.policy, "somebody")
        with pytest.raises(Conflict, match=f"is {status}.*cancel it first"):
            forget(world.book, world.policy, "somebody")
    change_status.cancel(world.book, world.policy, "somebody")
    before = world.statuses("cycles"), world.statuses("attempts")
    shown = forget(world.book, world.policy, "somebody")
    assert (shown["status"], shown["reference"]) == ("cancelled", None)
    assert shown["forgotten_at"] == "2026-11-20T10:00:00+09:00"
    ((left,),) = query(world.book, EVERY_TEXT)
    assert "somebody" in left
    for private in ("홍길동", "1234-5678", "member 17"):
        assert private not in left
    assert before == (world.statuses("cycles"), world.statuses("attempts"))
    world.clock.move(days=1)
    assert forget(world.book, world.policy, "somebody") == shown
    assert broken(world.book, world.policy) == []
    # The same line again neither fails nor brings the person back.
    assert imported(world).unchanged == 1
    assert query(world.book, "SELECT count(*) FROM buyers b WHERE b.name IS NOT NULL") == [(0,)]


def test_a_suspended_one_ends_by_it(world: World) -> None:
    """Late proof of a payment must not set somebody going whose facts are gone."""
    enrol(world)
    open_cycles(world.book, world.policy)
    world.clock.move(days=11)
    close_cycles(world.book, world.policy)
    rows = query(world.book, "SELECT DISTINCT status FROM subscriptions")
    assert rows == [("suspended",)]
    assert forget(world.book, world.policy, "somebody")["status"] == "cancelled"
    assert broken(world.book, world.policy) == []


def test_not_while_a_charge_is_under_way(world: World) -> None:
    world.enrol("somebody", script=["timeout_before_charge"])
    world.tick()
    change_status.cancel(world.book, world.policy, "somebody")
    with pytest.raises(Conflict, match="under way"):
        forget(world.book, world.policy, "somebody")
    with pytest.raises(NotFound):
        forget(world.book, world.policy, "nobody at all")
    world.run(times=12)
    assert forget(world.book, world.policy, "somebody")["forgotten_at"] is not None
    # A hand that marks a row as erased does not hide a changed one.
    world.enrol("another")
    execute(world.book, "UPDATE subscriptions SET forgotten_at = now() WHERE status = 'active'")
    assert [one.name for one in broken(world.book, world.policy)] == ["I3 erased is ended"]
