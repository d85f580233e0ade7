"""What was announced is looked up, and only the gateway's own word changes the book."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from billing.domain import payment as domain
from billing.domain.errors import GatewayUnavailable
from billing.domain.policy import BillingPolicy
from billing.domain.webhook import LOOK_AGAIN, announced
from billing.portone.client import PortOneClient
from billing.portone.lookups import TRIES
from billing.sandbox import HandPayment, NewCustomer, mood, pay, register
from billing.sandbox.model import Payment, Status
from billing.services.change_status import cancel, pause
from billing.services.invariants import broken
from billing.services.look_at_webhooks import LOST_AFTER, WIDTH, look_at_webhooks, waiting
from billing.services.open_cycles import open_cycles
from billing.services.receive_webhook import receive_webhook
from billing.services.reconcile import Span, reconcile
from billing.store import webhooks
from billing.store.session import Book
from tests.builders import once_before, query
from tests.conftest import MovedClock
from tests.town import Town
from tests.world import PAID_AT, World


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


def announce(world: World, imp_uid: str, status: str = "paid", name: str | None = None) -> bool:
    return receive_webhook(world.book, announced(imp_uid, name, status))


def look(world: World) -> Counter[str]:
    """One tick of it."""
    if not waiting(world.book):
        return Counter()
    return world.ask(lambda gateway: look_at_webhooks(world.book, gateway, world.policy))


def outcomes(world: World) -> list[tuple[str, str | None]]:
    return query(world.book, "SELECT imp_uid, outcome FROM webhooks ORDER BY id")  # type: ignore[return-value]


def newest(world: World) -> Payment:
    return list(world.sandbox.ledger.payments)[-1]


def cancelled(world: World, payment: Payment) -> None:
    """Somebody cancels it in the gateway's console."""
    now = int(world.clock.now.timestamp())
    world.sandbox.ledger.put(replace(payment, status=Status.CANCELLED, cancelled_at=now))


def lookups(world: World) -> int:
    return sum(seen.kind != "again" for seen in world.sandbox.ledger.requests)


def test_a_second_witness_when_the_answer_was_lost(world: World) -> None:
    world.enrol("somebody", script=["timeout_after_charge"])
    world.tick()
    assert world.statuses("attempts") == {"unknown": 1}
    payment = newest(world)
    announce(world, payment.imp_uid, name=payment.merchant_uid)
    assert look(world) == {"inquired": 1}
    assert world.statuses("attempts") == {"approved": 1}
    assert query(world.book, "SELECT status, paid_imp_uid FROM cycles") == [
        ("paid", payment.imp_uid)
    ]
    assert world.requests() == 1
    assert broken(world.book, world.policy) == []


def test_while_the_charge_is_on_its_way_its_own_answer_comes_first(world: World) -> None:
    world.enrol("somebody")
    open_cycles(world.book, world.policy)
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    query(
        world.book,
        "UPDATE attempts SET status = 'sending', lease_until = :lease, sent_at = ready_at"
        " RETURNING id",
        lease=world.clock.now.replace(hour=23),
    )
    announce(world, by_hand.imp_uid)
    assert look(world) == {"again": 1}
    assert world.statuses("cycles") == {"open": 1}


def test_a_payment_by_hand_counts_as_its_months(world: World) -> None:
    world.enrol("somebody", script=["declined:D"])
    world.tick()
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    announce(world, by_hand.imp_uid)
    assert look(world) == {"counted": 1}
    assert query(world.book, "SELECT status, reason, paid_imp_uid FROM cycles") == [
        ("paid", "paid_elsewhere", by_hand.imp_uid)
    ]
    assert world.statuses("attempts") == {"declined": 1, "withdrawn": 1}
    # A second one is one too many: told once, with a notice, and never given back by itself.
    second = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    for _ in range(2):
        announce(world, second.imp_uid)
        assert look(world) == {"unknown_payment": 1}
    rows = query(world.book, "SELECT data FROM notices WHERE kind = 'payment.unknown'")
    assert [row[0]["reason"] for row in rows] == ["double"]
    assert world.alarms().count("reconcile.difference") == 1
    assert broken(world.book, world.policy) == []


def test_a_payment_counted_while_it_is_compared_is_no_second_one(world: World) -> None:
    """The daily run counts it between two statements of the look."""
    world.enrol("somebody", script=["declined:D"])
    world.tick()
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    announce(world, by_hand.imp_uid)

    world.clock.move(minutes=5)
    month = Span(date(2026, 11, 1), date(2026, 11, 30))

    def counted() -> None:
        run = world.ask(
            lambda gateway: reconcile(world.book, gateway, world.policy, month, apply=True)
        )
        assert len(run.applied) == 1

    # The first time is about whose the payment is.
    with once_before(world.book, "TABLE beside", counted, nth=2):
        assert look(world) == {"again": 1}
    assert query(world.book, "SELECT kind FROM events WHERE kind = 'reconcile.difference'") == []
    assert world.statuses("cycles") == {"paid": 1}
    look(world)
    assert outcomes(world) == [(by_hand.imp_uid, "agrees")]


@pytest.mark.parametrize("paused", [False, True])
def test_a_payment_by_hand_before_its_month_opens_counts_too(world: World, paused: bool) -> None:
    world.clock.move(days=-10)
    world.enrol("somebody")
    if paused:
        pause(world.book, world.policy, "somebody")
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    announce(world, by_hand.imp_uid)
    assert look(world) == {"counted": 1}
    assert query(world.book, "SELECT status, reason, paid_imp_uid FROM cycles") == [
        ("paid", "paid_elsewhere", by_hand.imp_uid)
    ]
    world.clock.move(days=17)
    world.tick()
    assert world.requests() == 0
    assert world.statuses("subscriptions") == {"paused" if paused else "active": 1}
    assert broken(world.book, world.policy) == []


def test_cancelled_in_the_console_and_told_out_of_order(world: World) -> None:
    world.enrol("somebody")
    world.tick()
    payment = newest(world)
    asked = lookups(world)
    announce(world, payment.imp_uid)
    # The book knows: the gateway is not even asked.
    assert look(world) == {}
    assert lookups(world) == asked
    assert outcomes(world) == [(payment.imp_uid, "agrees")]
    # A lie about it changes nothing.
    announce(world, payment.imp_uid, status="cancelled")
    assert look(world) == {"agrees": 1}
    assert world.statuses("cycles") == {"paid": 1}
    cancelled(world, payment)
    # The news overtook the older one: one row, looked at once.
    announce(world, payment.imp_uid, status="cancelled")
    announce(world, payment.imp_uid, status="paid")
    assert query(
        world.book, "SELECT times, claimed_status FROM webhooks WHERE looked_at IS NULL"
    ) == [(2, None)]
    assert look(world) == {"refunded": 1}
    announce(world, payment.imp_uid, status="paid")
    assert look(world) == {"agrees": 1}
    assert world.statuses("cycles") == {"refunded": 1}
    assert world.statuses("refunds") == {"done": 1}
    assert broken(world.book, world.policy) == []


def test_strangers_are_quiet_and_unknown_ones_under_our_name_are_not(world: World) -> None:
    world.enrol("somebody")
    shop, ours = register(
        world.sandbox,
        [
            NewCustomer(customer_uid="not-enrolled", amount=5000, name="book", paid_at=PAID_AT),
            NewCustomer(
                customer_uid="of-a-lost-book",
                amount=9900,
                name="plan",
                paid_at=PAID_AT,
                merchant_uid="mw-abcdefghabcdefgh-202610-01",
            ),
        ],
    )
    for payment in (shop, ours):
        announce(world, payment.imp_uid)
    assert look(world) == {"stranger": 1, "unknown_payment": 1}
    ((subscription_id, told),) = query(world.book, "SELECT subscription_id, data FROM notices")
    assert subscription_id is None
    assert (
        told.items()
        >= {
            "imp_uid": ours.imp_uid,
            "merchant_uid": "mw-abcdefghabcdefgh-202610-01",
            "amount": 9900,
            "reason": "not_in_book",
        }.items()
    )
    # The payment that registered a key of ours is nothing new.
    initial = next(one for one in world.sandbox.ledger.payments if one.customer_uid == "somebody")
    announce(world, initial.imp_uid)
    assert look(world) == {"agrees": 1}


def test_not_there_may_mean_not_there_yet(world: World) -> None:
    world.enrol("somebody")
    open_cycles(world.book, world.policy)
    world.sandbox.mood = mood({"lookup_lag_seconds": 600})
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    assert by_hand.visible_at > world.clock.now.timestamp() + 61
    announce(world, by_hand.imp_uid)
    announce(world, "imp_never")
    ends: Counter[str] = Counter()
    for minutes in (0, 2, 11, 61):
        world.clock.move(minutes=minutes)
        ends += look(world)
    assert ends == {"again": 5, "counted": 1, "not_found": 1}
    world.clock.move(hours=5)
    assert look(world) == {}


def test_each_look_that_finds_nothing_puts_the_next_off_for_longer(world: World) -> None:
    announce(world, "imp_never")
    for looks, longer in enumerate(LOOK_AGAIN, 1):
        assert look(world) == {"again": 1}
        assert query(world.book, "SELECT looks, look_at FROM webhooks") == [
            (looks, world.clock.now + longer)
        ]
        assert look(world) == {}
        world.clock.move_to(world.clock.now + longer)
    assert look(world) == {"not_found": 1}


def test_a_leap_of_the_clock_puts_off_no_look(world: World) -> None:
    """Nor was whoever bought a subscription, and closed the page, enrolled until then."""
    announce(world, "imp_000000000001")
    world.clock.move(days=40)
    assert look(world) == {"again": 1}
    world.clock.move(days=-40)
    assert look(world) == {"again": 1}


def test_of_two_payments_of_a_month_the_announced_one_is_judged(world: World) -> None:
    """Not the one that its month counts already, whichever is listed first."""
    world.enrol("somebody")
    open_cycles(world.book, world.policy)
    first, second = (pay(world.sandbox, HandPayment(customer_uid="somebody")) for _ in range(2))
    announce(world, first.imp_uid)
    world.clock.move(minutes=2)
    assert look(world) == {"counted": 1}
    announce(world, second.imp_uid)
    assert look(world) == {"unknown_payment": 1}
    ((key,),) = query(world.book, "SELECT key FROM ledger_differences")
    assert key == f"double:{second.imp_uid}"


@pytest.mark.parametrize(("bought", "outcome"), [(True, "enrolled"), (False, "stranger")])
def test_a_strangers_payment_is_offered_to_whoever_sells(
    world: World, bought: bool, outcome: str
) -> None:
    (payment,) = register(
        world.sandbox,
        [NewCustomer(customer_uid="new", amount=5000, name="another", paid_at=PAID_AT)],
    )
    offered: list[str] = []

    async def pick_up(one: domain.Payment) -> bool:
        offered.append(one.imp_uid)
        return bought

    announce(world, payment.imp_uid)
    assert world.ask(
        lambda gateway: look_at_webhooks(world.book, gateway, world.policy, pick_up)
    ) == {outcome: 1}
    assert offered == [payment.imp_uid]


def test_what_breaks_while_it_is_looked_at_is_heard_of(world: World) -> None:
    (payment,) = register(
        world.sandbox,
        [NewCustomer(customer_uid="new", amount=5000, name="another", paid_at=PAID_AT)],
    )

    async def pick_up(_: domain.Payment) -> bool:
        raise RuntimeError("ours")

    announce(world, payment.imp_uid)
    with pytest.raises(RuntimeError, match="ours"):
        world.ask(lambda gateway: look_at_webhooks(world.book, gateway, world.policy, pick_up))
    assert outcomes(world) == [(payment.imp_uid, None)], "it waits for another look"


@pytest.mark.parametrize(
    ("error", "looks"),
    [
        (RuntimeError("ours"), 1),
        (GatewayUnavailable("away"), 0),
        (
            OperationalError("", {}, psycopg.OperationalError("gone"), connection_invalidated=True),
            0,
        ),
    ],
)
def test_only_what_is_its_own_fault_counts_as_a_look(
    world: World, error: Exception, looks: int
) -> None:
    """What breaks again and again is left to the daily reconciliation at last; a gateway or a
    database that is away says nothing of it."""
    (payment,) = register(
        world.sandbox,
        [NewCustomer(customer_uid="new", amount=5000, name="another", paid_at=PAID_AT)],
    )

    async def pick_up(_: domain.Payment) -> bool:
        raise error

    def tick() -> None:
        with contextlib.suppress(type(error)):
            world.ask(lambda gateway: look_at_webhooks(world.book, gateway, world.policy, pick_up))

    announce(world, payment.imp_uid)
    tick()
    assert query(world.book, "SELECT looks, looked_at FROM webhooks") == [(looks, None)]
    for longer in LOOK_AGAIN:
        world.clock.move(seconds=longer.total_seconds())
        tick()
    assert outcomes(world) == [(payment.imp_uid, "failed" if looks else None)]


def test_what_changes_while_it_is_looked_at_is_looked_at_again(world: World) -> None:
    """The customer cancels between the look and the record: nothing is counted or concluded."""
    world.enrol("somebody")
    open_cycles(world.book, world.policy)
    announce(world, pay(world.sandbox, HandPayment(customer_uid="somebody")).imp_uid)
    world.clock.move(minutes=2)
    asked: list[str] = []

    async def meanwhile(gateway: PortOneClient) -> Counter[str]:
        as_ever = gateway.payment

        async def payment(imp_uid: str) -> domain.Payment | None:
            asked.append(imp_uid)
            if len(asked) == 2:
                await asyncio.to_thread(cancel, world.book, world.policy, "somebody")
            return await as_ever(imp_uid)

        gateway.payment = payment
        return await look_at_webhooks(world.book, gateway, world.policy)

    assert world.ask(meanwhile) == {"again": 1}
    assert world.statuses("cycles") == {"skipped": 1}
    world.clock.move_to(world.clock.now + LOOK_AGAIN[0])
    assert look(world) == {"unknown_payment": 1}


def test_what_is_announced_while_it_is_looked_at_is_looked_at_again(world: World) -> None:
    """Cancelled in the gateway's console a moment after it was looked up."""
    world.enrol("somebody")
    world.tick()
    charged = newest(world)
    announce(world, charged.imp_uid, status="ready")

    async def meanwhile(gateway: PortOneClient) -> Counter[str]:
        as_ever = gateway.payments_of_key

        async def payments_of_key(*about: Any) -> Any:
            found = await as_ever(*about)
            cancelled(world, charged)
            await asyncio.to_thread(announce, world, charged.imp_uid, "cancelled")
            return found

        gateway.payments_of_key = payments_of_key  # type: ignore[method-assign]
        return await look_at_webhooks(world.book, gateway, world.policy)

    assert world.ask(meanwhile) == {"again": 1}
    assert outcomes(world) == [(charged.imp_uid, None)]
    assert look(world) == {"refunded": 1}
    assert world.statuses("cycles") == {"refunded": 1}


def test_a_payment_under_our_name_that_was_given_back_is_nobodys_loss(world: World) -> None:
    wish = {"customer_uid": "lost", "amount": 9900, "name": "plan", "paid_at": PAID_AT}
    name = "mw-abcdefghabcdefgh-202610-01"
    (payment,) = register(world.sandbox, [NewCustomer(merchant_uid=name, **wish)])
    cancelled(world, payment)
    announce(world, payment.imp_uid)
    assert look(world) == {"agrees": 1}
    assert world.alarms() == []


def test_what_was_never_paid_is_nothing_to_count(world: World) -> None:
    world.enrol("somebody")
    at = int(world.clock.now.timestamp())
    payment = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    world.sandbox.ledger.put(replace(payment, status=Status.FAILED, paid_at=0, failed_at=at))
    announce(world, payment.imp_uid)
    world.clock.move(minutes=2)
    assert look(world) == {"agrees": 1}
    assert world.alarms() == []


def test_a_gateway_that_is_down_proves_nothing(world: World) -> None:
    for number in range(40):
        announce(world, f"imp_{number}")
    world.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1}}})
    assert look(world) == {}
    # It was left alone after the first few.
    assert lookups(world) <= (WIDTH + 1) * TRIES
    assert {outcome for _, outcome in outcomes(world)} == {None}
    world.sandbox.mood = mood({})
    world.clock.move(minutes=6)
    assert look(world) == {"again": 40}


def test_a_payment_that_cannot_be_read_is_no_outage(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """A store that sells in dollars and cents, too: its sales kept every other webhook waiting, and
    themselves for ever."""
    town = Town(book, make_policy(), clock)
    town.subscribe()
    sold = [town.register_only(number) for number in range(2, WIDTH + 4)]
    for one in sold:
        row = town.row(one.imp_uid, amount=10.5, currency="USD")
        town.wire.faults[f"/payments/{one.imp_uid}"] = partial(town.says, row)
    by_hand = town.pay_by_hand()
    for payment in (*sold, by_hand):
        receive_webhook(book, announced(payment.imp_uid, None, "paid"))

    def tick() -> Counter[str]:
        return town.run(lambda gateway: look_at_webhooks(book, gateway, town.policy))

    assert waiting(book)
    town.move(minutes=2)
    with capture_logs() as lines:
        assert tick() == {"again": len(sold), "counted": 1}
    unread = [line["imp_uid"] for line in lines if line["event"] == "not read"]
    assert unread == [payment.imp_uid for payment in sold]
    for longer in LOOK_AGAIN:
        town.move(seconds=longer.total_seconds())
        last = tick()
    assert last == {"failed": len(sold)}
    assert not waiting(book)


def test_what_is_never_answered_keeps_nothing_else_waiting(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    town = Town(book, make_policy(), clock)
    town.subscribe()
    unanswered = [f"imp_{number}" for number in range(WIDTH)]
    by_hand = town.pay_by_hand()
    town.wire.faults = {f"/payments/{imp_uid}": "http:503" for imp_uid in unanswered}
    for imp_uid in (*unanswered, by_hand.imp_uid):
        receive_webhook(book, announced(imp_uid, None, "paid"))
    town.move(minutes=2)
    ticks = [
        town.run(lambda gateway: look_at_webhooks(book, gateway, town.policy)) for _ in range(2)
    ]
    assert ticks == [Counter(), Counter(counted=1)]


def test_a_gateway_that_is_down_is_left_alone_whatever_broke_before(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """Looks that broke do not count as ones that the gateway has answered."""
    town = Town(book, make_policy(), clock)
    sold = [town.register_only(number).imp_uid for number in range(WIDTH)]
    unanswered = [f"imp_{number}" for number in range(3 * WIDTH)]
    town.wire.faults = {f"/payments/{imp_uid}": "http:503" for imp_uid in unanswered}
    for imp_uid in (*sold, *unanswered):
        receive_webhook(book, announced(imp_uid, None, "paid"))

    async def pick_up(_: domain.Payment) -> bool:
        raise RuntimeError("ours")

    town.move(minutes=2)
    with pytest.raises(RuntimeError, match="ours"):
        town.run(lambda gateway: look_at_webhooks(book, gateway, town.policy, pick_up))
    asked = [path for path in town.wire.asked if path.removeprefix("/payments/") in unanswered]
    assert len(asked) == WIDTH * TRIES


def test_where_a_gateway_goes_down_what_was_looked_at_before_stays_put_off(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """Each by what its look came to: ended in vain, lost on its way, and not begun."""
    town = Town(book, make_policy(), clock)
    nobodys = [f"imp_{number}" for number in range(WIDTH)]
    unanswered = [f"imp_{number}" for number in range(WIDTH, 2 * WIDTH)]
    town.wire.faults = {f"/payments/{imp_uid}": "http:503" for imp_uid in unanswered}
    for imp_uid in (*nobodys, *unanswered, "imp_last"):
        receive_webhook(book, announced(imp_uid, None, "paid"))
    town.move(minutes=2)
    now = clock.now
    assert town.run(lambda gateway: look_at_webhooks(book, gateway, town.policy)) == {
        "again": WIDTH
    }
    rows = query(book, "SELECT look_at FROM webhooks ORDER BY id")
    assert [at - now for (at,) in rows] == [
        *WIDTH * [LOOK_AGAIN[0]],
        *WIDTH * [LOST_AFTER],
        timedelta(0),
    ]


def test_a_database_that_goes_away_ends_the_looks_of_a_tick(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    town = Town(book, make_policy(), clock)
    for number in range(WIDTH + 1):
        receive_webhook(book, announced(town.register_only(number).imp_uid, None, "paid"))
    offered: list[str] = []

    async def pick_up(payment: domain.Payment) -> bool:
        offered.append(payment.imp_uid)
        raise OperationalError("", {}, psycopg.OperationalError("gone"))

    town.move(minutes=2)
    with pytest.raises(OperationalError, match="gone"):
        town.run(lambda gateway: look_at_webhooks(book, gateway, town.policy, pick_up))
    assert len(offered) == WIDTH


def test_a_flood_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many wait, so many are looked at in a tick; what names an attempt of ours goes first."""
    monkeypatch.setattr(webhooks, "MOST_WAITING", 100)
    world.enrol("somebody", script=["timeout_after_charge"])
    world.tick()
    payment = newest(world)
    kept = [announce(world, f"imp_{number}") for number in range(120)]
    assert (sum(kept), kept.index(False)) == (100, 100)
    assert announce(world, "imp_5")
    assert announce(world, payment.imp_uid, name=payment.merchant_uid)
    asked = lookups(world)
    assert look(world) == {"again": 60, "inquired": 1}
    assert lookups(world) - asked < 70
    assert query(world.book, "SELECT max(times), count(*) FROM webhooks") == [(2, 101)]


def test_two_ticks_at_once_share_the_work(world: World) -> None:
    for number in range(3):
        announce(world, f"imp_{number}")
    again_at = world.clock.now + LOST_AFTER
    with world.book.transaction() as one, world.book.transaction() as other:
        first = webhooks.take(one.session, one.now, again_at, ours=1, others=2)
        second = webhooks.take(other.session, other.now, again_at, ours=1, others=2)
        third = webhooks.take(other.session, other.now, again_at, ours=1, others=2)
    assert [[row.imp_uid for row in taken] for taken in (first, second, third)] == [
        ["imp_0", "imp_1"],
        ["imp_2"],
        [],
    ]
    # Nobody finished them: they are taken again when that is sure.
    assert look(world) == {}
    world.clock.move(minutes=5)
    assert look(world) == {"again": 3}


def test_the_old_ones_are_deleted(world: World) -> None:
    world.enrol("somebody")
    world.tick()
    announce(world, newest(world).imp_uid)
    announce(world, "imp_never")
    for _ in range(4):
        look(world)
        world.clock.move(hours=2)
    assert [outcome for _, outcome in outcomes(world)] == ["agrees", "not_found"]
    world.clock.move(days=7)
    look(world)
    assert [outcome for _, outcome in outcomes(world)] == ["agrees"]
    world.clock.move(days=84)
    look(world)
    assert outcomes(world) == []


def test_the_same_from_two_threads_at_once(world: World) -> None:
    world.enrol("somebody")
    open_cycles(world.book, world.policy)
    by_hand = pay(world.sandbox, HandPayment(customer_uid="somebody"))
    together = threading.Barrier(2)
    ends: list[Counter[str]] = []

    def tell_and_look() -> None:
        together.wait()
        for _ in range(10):
            assert announce(world, by_hand.imp_uid)
        together.wait()
        ends.append(look(world))

    threads = [threading.Thread(target=tell_and_look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ends, Counter()) == {"counted": 1}
    assert query(world.book, "SELECT times FROM webhooks") == [(20,)]
    assert query(world.book, "SELECT count(*) FROM events WHERE kind = 'cycle.paid'") == [(1,)]
