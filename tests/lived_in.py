"""A book that was lived in: two months of a small shop, as its operator finds it at 10:06 on 20
November 2026. Something of everything: paid, recovered, unknown, about to close, missed, suspended,
held, refunded, paused, cancelled, paid elsewhere; and names that break pages which are careless.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from billing.domain.calendar import SEOUL
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.sandbox import HandPayment, NewCustomer, pay, register
from billing.services import change_status, refund
from billing.services.dispatch import dispatch
from billing.services.import_subscriptions import import_subscriptions
from billing.services.open_cycles import open_cycles
from billing.services.reconcile import Span, reconcile
from billing.store import heartbeats
from billing.store.session import Book
from tests.builders import KEY, query
from tests.conftest import MovedClock
from tests.world import World

T = TypeVar("T")

NOW = datetime(2026, 11, 20, 10, 6, tzinfo=SEOUL)
BEGAN = date(2026, 10, 1)
# Each would break a page that trusts it.
HOSTILE = (
    "<img src=x onerror=alert('xss')>",
    "a?c=d&e#f \"quoted\" 'single' %2e%2e ..",
    "😀 이모지 고객 👨‍👩‍👧",
    "مشترك-٢٠٢٦",
    "{{ 7 * 7 }} {0} %s '; DROP TABLE cycles; --",
    "x" * 80,
)
_MONTHLY = "declined:0031"
_BILL = "declined:0016"


@dataclass(frozen=True)
class Person:
    """A subscriber since September, and what its requests from October on meet."""

    uid: str
    day: int
    amount: int = 9_900
    script: tuple[str, ...] = ()


def people() -> list[Person]:
    """Some ordinary ones, and one for every story."""
    ordinary = [
        Person(f"customer-{number:03d}", (5, 12, 20, 25)[number % 4], 4_900 + 1_000 * number)
        for number in range(24)
    ]
    hostile = [Person(uid, 5) for uid in HOSTILE]
    return [
        *ordinary,
        *hostile,
        Person("recovered", 16, 12_900, ("ok", "declined:0098", "ok")),
        Person("recovered-late", 12, 12_900, ("ok", _BILL, _BILL, "ok")),
        Person("closing-soon", 15, 19_900, ("ok", *[_BILL] * 9)),
        Person("closing-limit", 15, 49_000, ("ok", *[_MONTHLY] * 9)),
        Person("missed", 12, 9_900, ("ok", *[_BILL] * 9)),
        Person("gone", 16, 9_900, ("ok", "declined:0011")),
        Person("mismatch", 19, 9_900, ("ok", "declined:0060/mismatch")),
        Person("new-words", 19, 9_900, ("ok", "declined:0054")),
        Person("retrying", 19, 14_900, ("ok", _BILL, _BILL)),
        Person("unknown", 20, 29_000, ("ok", "timeout_after_charge")),
        Person("refunded", 5, 9_900),
        Person("paused", 22, 9_900),
        Person("cancelled", 12, 9_900),
        Person("by-hand", 21, 9_900),
        Person("twice", 12, 9_900),
    ]


def live(book: Book, policy: BillingPolicy, clock: MovedClock) -> World:
    """Let the two months pass. Returns the world they passed in, for what comes next."""
    clock.move_to(datetime(2026, 9, 30, 12, 0, tzinfo=SEOUL))
    world = World(book, policy, clock)
    _enrol(world, people())
    days = {one.day for one in people()}
    for ahead in range((NOW.date() - BEGAN).days):
        on = BEGAN + timedelta(days=ahead)
        # Nothing falls on the other days; time passes faster without them.
        if on.day in days or on >= date(2026, 11, 13):
            _day(world, on)
    clock.move_to(NOW.replace(hour=9, minute=0))
    _by_hand(world)
    clock.move_to(NOW.replace(minute=0))
    _morning(world)
    clock.move_to(NOW)
    _signs_of_life(world)
    return world


def number_of(book: Book, uid: str) -> int:
    """The number under which the console knows a subscriber."""
    ((found,),) = query(book, "SELECT id FROM subscriptions WHERE customer_uid = :uid", uid=uid)
    return int(found)


def ask(world: World, use_case: Callable[[PortOneClient], Awaitable[T]]) -> T:
    """A use case with a client of the gateway."""

    async def whole() -> T:
        client = world.client()
        try:
            return await use_case(client)
        finally:
            await client.aclose()

    return asyncio.run(whole())


def _enrol(world: World, cast: Sequence[Person]) -> None:
    file = io.StringIO()
    write = csv.writer(file).writerow
    write(
        (
            "customer_uid",
            "amount",
            "order_name",
            "initial_paid_at",
            "buyer_name",
            "buyer_email",
            "buyer_tel",
            "reference",
            "initial_merchant_uid",
        )
    )
    for place, one in enumerate(cast):
        paid_at = datetime(2026, 9, one.day, 11, 30, tzinfo=SEOUL)
        buyer = {
            "buyer_name": "홍길동",
            "buyer_email": f"hong{place}@example.com",
            "buyer_tel": f"010-2345-{place:04d}",
        }
        (initial,) = register(
            world.sandbox,
            [
                NewCustomer(
                    customer_uid=one.uid,
                    amount=one.amount,
                    name="월간 구독",
                    paid_at=paid_at,
                    script=list(one.script),
                    **buyer,
                )
            ],
        )
        facts = (one.uid, one.amount, "월간 구독", paid_at.isoformat(), *buyer.values())
        write((*facts, f"ORDER-{place:04d}", initial.merchant_uid))
    source = io.BytesIO(file.getvalue().encode())
    report = import_subscriptions(world.book, world.policy, lambda: KEY, source)
    assert report.added == len(cast), report.rejected


def _day(world: World, day: date) -> None:
    """One day: what people do in the morning, then the two slots."""
    world.clock.move_to(datetime(day.year, day.month, day.day, 9, 0, tzinfo=SEOUL))
    if (act := _ACTS.get((day.month, day.day))) is not None:
        act(world)
    for hour in (10, 18):
        world.clock.move_to(datetime(day.year, day.month, day.day, hour, tzinfo=SEOUL))
        _slot(world)


def _slot(world: World) -> None:
    """Ticks until nothing is left for this slot."""
    before = None
    while (state := (world.statuses("attempts"), world.statuses("cycles"))) != before:
        before = state
        world.tick()
        world.clock.move(seconds=20)


def _morning(world: World) -> None:
    """The slot of the day on which the operator looks: charged, and not asked about yet."""
    for _ in range(6):
        open_cycles(world.book, world.policy)
        dispatch(world.book, world, world.policy)
        world.work()
        world.clock.move(seconds=2)


def _pause(world: World) -> None:
    change_status.pause(world.book, world.policy, "paused")


def _cancel(world: World) -> None:
    change_status.cancel(world.book, world.policy, "cancelled")


def _by_hand(world: World) -> None:
    pay(world.sandbox, HandPayment(customer_uid="by-hand"))


def _refund(world: World) -> None:
    async def whole(client: PortOneClient) -> Any:
        named = refund.payment_of_month(world.book, world.policy, "refunded")
        assert named.merchant_uid is not None
        proposal = await refund.propose(
            world.book, client, world.policy, named.merchant_uid, named.imp_uid
        )
        refund_id = refund.request(world.book, proposal, "asked by the customer")
        return await refund.work_on(world.book, client, world.policy, refund_id)

    ask(world, whole)


def _compare(world: World) -> None:
    """Somebody pays a second time by hand; the daily run finds it, and a key nobody enrolled."""
    pay(world.sandbox, HandPayment(customer_uid="twice"))
    stranger = datetime(2026, 11, 12, 8, 0, tzinfo=SEOUL)
    register(
        world.sandbox,
        [NewCustomer(customer_uid="stranger", amount=5_000, name="other", paid_at=stranger)],
    )
    world.clock.move(minutes=10)
    span = Span(date(2026, 11, 1), date(2026, 11, 13))
    ask(world, lambda client: reconcile(world.book, client, world.policy, span, apply=True))


def _signs_of_life(world: World) -> None:
    """What daemons would have written."""

    def beats(tx: Any) -> None:
        for name in ("open", "dispatch", "inquire", "close", "seal", "check"):
            heartbeats.beat(tx.session, f"maewol.tick.{name}", tx.now - timedelta(seconds=14))
        heartbeats.beat(tx.session, "maewol.tick.reconcile", tx.now - timedelta(hours=5))
        heartbeats.beat(tx.session, "maewol.charge@worker-1", tx.now - timedelta(seconds=40))
        heartbeats.beat(tx.session, "maewol.charge@worker-2", tx.now - timedelta(days=2))

    world.book.run(beats)


_ACTS: dict[tuple[int, int], Callable[[World], None]] = {
    (11, 12): _refund,
    (11, 13): _compare,
    (11, 18): _cancel,
    (11, 19): _pause,
}
