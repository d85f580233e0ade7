"""`correct`: the book is put right by the initial payment at the gateway, and by nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from billing.domain.calendar import SEOUL
from billing.domain.errors import Conflict, GatewayError, NotFound, Unconfirmed
from billing.domain.money import Won
from billing.domain.plan import NoRetryReason
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import Facts
from billing.portone.client import PortOneClient
from billing.sandbox import HandPayment, NewCustomer, mood, pay, register
from billing.sandbox.model import Payment, Status
from billing.services.change_status import cancel, pause, resume
from billing.services.correct import Corrected, Proposal, _correct, correct, propose
from billing.services.forget import forget
from billing.services.hold import hold
from billing.services.import_subscriptions import import_subscriptions
from billing.services.invariants import broken
from billing.services.let_go import let_go
from billing.store import attempts, corrections
from billing.store.session import Book, Transaction
from tests.builders import KEY, a_file, execute, query
from tests.conftest import MovedClock
from tests.world import PAID_AT, World

WHO = "somebody"
TEL, EMAIL = "010-1234-5678", "hong@example.com"
HEADER = (
    "customer_uid,amount,order_name,initial_paid_at,initial_imp_uid,initial_merchant_uid,"
    "buyer_name,buyer_email,buyer_tel"
)
AROUND = "SET LOCAL session_replication_role = replica; "


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


def registered(world: World, who: str = WHO, **facts: Any) -> Payment:
    """The initial payment of a customer."""
    known = {
        "amount": 9900,
        "name": "plan",
        "paid_at": PAID_AT,
        "buyer_name": "홍길동",
        "buyer_email": EMAIL,
        "buyer_tel": TEL,
    }
    (payment,) = register(world.sandbox, [NewCustomer(customer_uid=who, **(known | facts))])
    return payment


def enrol(
    world: World,
    payment: Payment,
    *,
    imp_uid: bool = True,
    merchant_uid: bool = True,
    **other: Any,
) -> None:
    """As the payment is, but for what a merchant's file says otherwise."""
    row = {
        "customer_uid": payment.customer_uid,
        "amount": payment.amount,
        "order_name": payment.name,
        "initial_paid_at": datetime.fromtimestamp(payment.paid_at, SEOUL).isoformat(),
        "initial_imp_uid": payment.imp_uid if imp_uid else "",
        "initial_merchant_uid": payment.merchant_uid if merchant_uid else "",
        "buyer_name": payment.buyer_name,
        "buyer_email": payment.buyer_email,
        "buyer_tel": payment.buyer_tel,
    }
    assert row.keys() >= other.keys()
    line = ",".join(str(value) for value in (row | other).values())
    file = a_file(line, header=HEADER)
    assert import_subscriptions(world.book, world.policy, lambda: KEY, file).added == 1


@pytest.fixture
def enrolled(world: World) -> Payment:
    """Somebody whose payment the book has by both of its ids."""
    payment = registered(world)
    enrol(world, payment)
    return payment


def by_hand(world: World, statement: str) -> None:
    """As nobody may, by going around the triggers and the foreign keys."""
    execute(world.book, AROUND + statement)


def proposed(world: World, who: str = WHO) -> Proposal:
    return world.ask(lambda client: propose(world.book, client, world.policy, who))


def corrected(world: World, who: str = WHO) -> Corrected:
    return correct(world.book, world.policy, proposed(world, who))


def differs(world: World) -> dict[str, tuple[Any, Any]]:
    return {one.field: (one.book, one.gateway) for one in proposed(world).differs}


def rows(world: World, statement: str) -> list[tuple[Any, ...]]:
    return query(world.book, statement)


def facts(world: World) -> tuple[Any, ...]:
    (found,) = rows(
        world,
        "SELECT customer_uid, amount, order_name, initial_paid_at, anchor_on::text, name, email,"
        " tel FROM subscriptions LEFT JOIN buyers ON subscription_id = id",
    )
    return found


RIGHT = (WHO, 9900, "plan", PAID_AT, "2026-10-20", "홍길동", EMAIL, TEL)


def held(world: World) -> list[str | None]:
    return [row[0] for row in rows(world, "SELECT held FROM cycles ORDER BY id")]


def told(world: World) -> list[dict[str, Any]]:
    return [
        row[0]
        for row in rows(
            world, "SELECT data FROM events WHERE kind = 'subscription.corrected' ORDER BY id"
        )
    ]


# Each is a change in the database by hand, and what must be said of it.
CHANGES: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {
    "amount": ("UPDATE subscriptions SET amount = 19900", {"amount": (19900, 9900)}),
    "order name": (
        "UPDATE subscriptions SET order_name = 'another'",
        {"order_name": ("another", "plan")},
    ),
    "buyer": (
        "UPDATE buyers SET tel = '010-9999-9999', name = '김철수'",
        {"buyer_name": ("[hidden]", "[hidden]"), "buyer_tel": ("[hidden]", "[hidden]")},
    ),
    "no buyer": (
        "DELETE FROM buyers",
        {
            "buyer_name": (None, "[hidden]"),
            "buyer_email": (None, "[hidden]"),
            "buyer_tel": (None, "[hidden]"),
        },
    ),
    "anchor": (
        "UPDATE subscriptions SET initial_paid_at = initial_paid_at - interval '2 days',"
        " anchor_on = anchor_on - 2",
        {
            "initial_paid_at": ("2026-10-18T14:30:00+09:00", "2026-10-20T14:30:00+09:00"),
            "anchor_on": ("2026-10-18", "2026-10-20"),
        },
    ),
    "everything": (
        "UPDATE subscriptions SET amount = 301, order_name = 'x', anchor_on = '2026-10-19',"
        " initial_paid_at = '2026-10-19T01:00Z'; UPDATE buyers SET email = 'x@example.com'",
        {
            "amount": (301, 9900),
            "order_name": ("x", "plan"),
            "initial_paid_at": ("2026-10-19T10:00:00+09:00", "2026-10-20T14:30:00+09:00"),
            "buyer_email": ("[hidden]", "[hidden]"),
            "anchor_on": ("2026-10-19", "2026-10-20"),
        },
    ),
    "seal alone": ("UPDATE subscriptions SET seal = 'x'", {}),
}


@pytest.mark.parametrize("when", ["before the month opens", "while it is open"])
@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
@pytest.mark.usefixtures("enrolled")
def test_what_was_changed_by_hand_is_put_right_and_charged(
    world: World, change: str, said: dict[str, tuple[Any, Any]], when: str
) -> None:
    if when == "while it is open":
        world.open()
    by_hand(world, change)
    world.run(times=3)
    assert held(world) == ["facts_changed"]
    assert world.requests() == 0
    (sealed,) = [one for one in broken(world.book, world.policy) if one.name.startswith("I3")]
    assert "maewol subscription correct" in sealed.remedy

    proposal = proposed(world)
    assert differs(world) == said
    assert not proposal.book.is_sealed
    done = correct(world.book, world.policy, proposal)
    assert (done.was_held, done.held, done.why_not) == ("facts_changed", None, None)
    assert done.at is not None
    assert facts(world) == RIGHT
    assert broken(world.book, world.policy) == []
    (line,) = told(world)
    expected: dict[str, Any] = {"fields": list(said), "why": "seal broken"}
    if "amount" in said:
        expected |= dict(zip(("book_amount", "ledger_amount"), said["amount"], strict=True))
    if "anchor_on" in said:
        expected |= dict(zip(("anchor_was", "anchor_on"), said["anchor_on"], strict=True))
    assert line == expected | {"imp_uid": proposal.imp_uid}
    for secret in (TEL, EMAIL, "홍길동", WHO, "010-9999-9999"):
        assert secret not in str(rows(world, "SELECT data FROM events"))

    world.run(every=timedelta(hours=1), times=14)
    assert world.statuses("cycles") == {"paid": 1}
    assert (world.requests(), [paid.amount for paid in paid_by_us(world)]) == (1, [9900])
    assert rows(world, "SELECT amount, due_on::text FROM cycles") == [(9900, "2026-11-20")]
    assert broken(world.book, world.policy) == []
    assert not proposed(world).is_needed


def paid_by_us(world: World) -> list[Payment]:
    ours = {row[0] for row in rows(world, "SELECT merchant_uid FROM attempts")}
    return [
        one
        for one in world.sandbox.ledger.payments
        if one.merchant_uid in ours and one.status is Status.PAID
    ]


@pytest.mark.parametrize(
    ("imp_uid", "merchant_uid"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_the_payment_is_found_by_what_the_book_has(
    world: World, imp_uid: bool, merchant_uid: bool
) -> None:
    """Without any id by the payments of the key, whatever day the book has; then both are kept."""
    payment = registered(world)
    enrol(world, payment, imp_uid=imp_uid, merchant_uid=merchant_uid)
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}
    by_hand(
        world,
        "UPDATE subscriptions SET anchor_on = '2026-10-01', initial_paid_at = '2026-10-01T03:00Z'",
    )
    corrected(world)
    assert facts(world) == RIGHT
    ids = "SELECT initial_imp_uid, initial_merchant_uid FROM subscriptions"
    assert rows(world, ids) == [(payment.imp_uid, payment.merchant_uid)]


def test_what_was_enrolled_wrongly_is_put_right_too(world: World) -> None:
    """A file that nobody verified: the carrier refuses, the seal is intact."""
    payment = registered(world)
    enrol(world, payment, order_name="another", buyer_tel="010-9999-9999")
    world.run(times=3)
    assert held(world) == ["facts_mismatch"]
    assert broken(world.book, world.policy) == []
    proposal = proposed(world)
    assert (proposal.book.is_sealed, list(differs(world))) == (True, ["order_name", "buyer_tel"])
    done = correct(world.book, world.policy, proposal)
    assert (done.was_held, done.held) == ("facts_mismatch", None)
    assert "why" not in told(world)[0]
    world.run(every=timedelta(hours=1), times=14)
    assert world.statuses("cycles") == {"paid": 1}
    assert broken(world.book, world.policy) == []


def test_a_wrong_day_of_the_month_is_mended_within_the_month(world: World) -> None:
    """Tried on the 20th for an anchor that is the 28th: refused, put right, and charged then. That
    the first request lay outside of the right band is no invariant's business."""
    payment = registered(world, paid_at=PAID_AT + timedelta(days=8))
    enrol(world, payment, initial_paid_at=PAID_AT.isoformat())
    world.run(times=3)
    assert held(world) == ["facts_mismatch"]
    done = corrected(world)
    assert done.at == datetime(2026, 11, 26, 10, tzinfo=SEOUL)
    assert rows(world, "SELECT due_on::text, opens_on::text, closes_on::text FROM cycles") == [
        ("2026-11-28", "2026-11-23", "2026-11-30")
    ]
    assert broken(world.book, world.policy) == []
    world.run(every=timedelta(hours=6), times=40)
    assert world.statuses("cycles") == {"paid": 1}
    assert broken(world.book, world.policy) == []
    (line,) = told(world)
    assert (line["anchor_was"], line["anchor_on"]) == ("2026-10-20", "2026-10-28")


def opened_by_the_wrong_day(world: World) -> None:
    """Changed before it opened, and nothing was sent: the 25th is right."""
    payment = registered(world, paid_at=PAID_AT + timedelta(days=5))
    enrol(world, payment)
    world.clock.move(days=2)
    by_hand(
        world,
        "UPDATE subscriptions SET anchor_on = '2026-10-20', initial_paid_at = '2026-10-20T03:00Z',"
        " next_due_at = next_due_at - interval '5 days'",
    )
    world.open()
    assert rows(world, "SELECT due_on::text FROM cycles") == [("2026-11-20",)]


def test_a_month_of_another_day_is_dated_anew_and_its_attempt_with_it(world: World) -> None:
    """The one that waits is for another slot: it must not go out."""
    opened_by_the_wrong_day(world)
    done = corrected(world)
    assert (done.was_held, done.at) == (None, datetime(2026, 11, 25, 10, tzinfo=SEOUL))
    assert rows(world, "SELECT number, status FROM attempts ORDER BY number") == [
        (1, "withdrawn"),
        (2, "due"),
    ]
    assert rows(world, "SELECT next_cycle, next_due_at FROM subscriptions") == [
        (2, datetime(2026, 12, 25, 0, tzinfo=SEOUL))
    ]


def test_a_month_that_was_dated_anew_is_charged_once(world: World) -> None:
    opened_by_the_wrong_day(world)
    corrected(world)
    world.run(every=timedelta(hours=6), times=16)
    assert world.statuses("cycles") == {"paid": 1}
    assert broken(world.book, world.policy) == []


def test_an_anchor_alone_that_was_moved_is_seen_and_put_right(
    world: World, enrolled: Payment
) -> None:
    """The seal is over the moment; that months are counted from its day is a fact of its own."""
    by_hand(world, "UPDATE subscriptions SET anchor_on = '2026-10-22'")
    assert [one.rows for one in broken(world.book, world.policy)] == [[1]]
    assert differs(world) == {"anchor_on": ("2026-10-22", "2026-10-20")}
    assert corrected(world).was_held is None
    assert broken(world.book, world.policy) == []
    assert enrolled.paid_at


@pytest.mark.usefixtures("enrolled")
def test_when_the_next_month_is_due_and_closes_follows_the_right_day(world: World) -> None:
    dates = "SELECT next_due_at, next_closes_at FROM subscriptions"
    right = rows(world, dates)
    by_hand(
        world,
        "UPDATE subscriptions SET anchor_on = anchor_on + 2,"
        " next_due_at = next_due_at + interval '2 days',"
        " next_closes_at = next_closes_at + interval '2 days'",
    )
    assert rows(world, dates) != right
    corrected(world)
    assert rows(world, dates) == right


def test_a_month_enrolled_wrongly_is_put_right_before_the_first_charge(world: World) -> None:
    """Numbers are counted from the anchor's month: the next calendar month stays the next."""
    payment = registered(world)
    enrol(world, payment, initial_paid_at=(PAID_AT - timedelta(days=30)).isoformat())
    assert rows(world, "SELECT next_cycle FROM subscriptions") == [(2,)]
    corrected(world)
    assert rows(world, "SELECT next_cycle, next_due_at FROM subscriptions") == [
        (1, datetime(2026, 11, 20, 0, tzinfo=SEOUL))
    ]
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}
    assert rows(world, "SELECT number, month::text FROM cycles") == [(1, "2026-11-01")]


def test_the_next_month_stays_the_next_over_a_turn_of_the_year(world: World) -> None:
    """Enrolled as of November 2025, paid in January 2026: the tenth month is November 2026."""
    payment = registered(world, paid_at=datetime(2026, 1, 20, 14, 30, tzinfo=SEOUL))
    enrol(world, payment, initial_paid_at="2025-11-20T14:30:00+09:00")
    assert rows(world, "SELECT next_cycle FROM subscriptions") == [(12,)]
    corrected(world)
    assert rows(world, "SELECT next_cycle, next_due_at FROM subscriptions") == [
        (10, datetime(2026, 11, 20, 0, tzinfo=SEOUL))
    ]


def test_never_before_the_month_after_the_initial_payment(world: World) -> None:
    world.clock.move_to(PAID_AT + timedelta(hours=1))
    payment = registered(world)
    enrol(world, payment, initial_paid_at=(PAID_AT - timedelta(days=30)).isoformat())
    assert rows(world, "SELECT next_cycle FROM subscriptions") == [(1,)]
    corrected(world)
    world.run(every=timedelta(days=1), times=10)
    assert world.statuses("cycles") == {}
    assert rows(world, "SELECT next_cycle FROM subscriptions") == [(1,)]


def test_months_that_were_counted_from_another_month_are_not_renumbered(world: World) -> None:
    payment = registered(world)
    enrol(world, payment, initial_paid_at=(PAID_AT - timedelta(days=30)).isoformat())
    world.open()
    before = rows(world, "SELECT * FROM subscriptions, cycles")
    with pytest.raises(Unconfirmed, match="counted from another calendar month") as refused:
        corrected(world)
    assert refused.value.field == "anchor_on"
    assert rows(world, "SELECT * FROM subscriptions, cycles") == before


@pytest.mark.usefixtures("enrolled")
def test_an_anchor_of_another_month_by_hand_leaves_the_numbers(world: World) -> None:
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}
    by_hand(
        world,
        "UPDATE subscriptions SET anchor_on = '2026-09-20', initial_paid_at = '2026-09-20T03:00Z'",
    )
    corrected(world)
    assert facts(world) == RIGHT
    assert rows(world, "SELECT next_cycle, next_due_at FROM subscriptions") == [
        (2, datetime(2026, 12, 20, 0, tzinfo=SEOUL))
    ]


@pytest.mark.usefixtures("enrolled")
def test_an_anchor_alone_of_another_month_leaves_the_numbers_too(world: World) -> None:
    """It numbered nothing: the seal is intact over the right moment."""
    by_hand(world, "UPDATE subscriptions SET anchor_on = '2026-11-20'")
    corrected(world)
    assert rows(world, "SELECT next_cycle, next_due_at FROM subscriptions") == [
        (1, datetime(2026, 11, 20, 0, tzinfo=SEOUL))
    ]


@pytest.mark.usefixtures("enrolled")
def test_a_month_that_opened_as_another_calendar_month_is_dated_anew(world: World) -> None:
    by_hand(
        world,
        "UPDATE subscriptions SET anchor_on = '2026-09-20', initial_paid_at = '2026-09-20T03:00Z'",
    )
    world.open()
    assert rows(world, "SELECT number, month::text FROM cycles") == [(1, "2026-10-01")]
    corrected(world)
    assert rows(world, "SELECT number, month::text FROM cycles") == [(1, "2026-11-01")]
    world.run(every=timedelta(hours=1), times=12)
    assert world.statuses("cycles") == {"paid": 1}
    assert rows(world, "SELECT right(merchant_uid, 9) FROM attempts WHERE imp_uid IS NOT NULL") == [
        ("202611-02",)
    ]
    assert broken(world.book, world.policy) == []


@pytest.mark.usefixtures("enrolled")
def test_a_paid_month_that_counts_from_elsewhere_is_left_to_people(world: World) -> None:
    world.run(times=3)
    by_hand(world, "UPDATE cycles SET number = 2")
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    with pytest.raises(Unconfirmed, match="counted from another calendar month"):
        corrected(world)
    assert told(world) == []


# -- only what the gateway vouches for ----------------------------------------------------------


def unchanged_by(
    world: World,
    error: type[Exception],
    match: str,
    *,
    about: tuple[str, object] | None = None,
    who: str = WHO,
) -> None:
    """A correction that is refused; `about` is the field that is named, and its value."""
    before = rows(world, "SELECT * FROM subscriptions")
    with pytest.raises(error, match=match) as refused:
        corrected(world, who)
    assert rows(world, "SELECT * FROM subscriptions") == before
    assert told(world) == []
    if isinstance(refused.value, Unconfirmed):
        assert (refused.value.field, refused.value.value) == about
        assert refused.value.remedy


@pytest.mark.usefixtures("enrolled")
def test_a_payment_that_is_not_there_vouches_for_nothing(world: World) -> None:
    """Also where it was the id itself that was changed."""
    nothing = "the gateway shows no initial payment of it to this store"
    by_hand(world, "UPDATE subscriptions SET amount = 19900, initial_imp_uid = 'imp_gone'")
    unchanged_by(world, Unconfirmed, nothing, about=("initial_imp_uid", "imp_gone"))
    by_hand(world, "UPDATE subscriptions SET initial_imp_uid = NULL, initial_merchant_uid = 'no'")
    unchanged_by(world, Unconfirmed, nothing, about=("initial_merchant_uid", "no"))


def test_a_key_without_payments_vouches_for_nothing(world: World) -> None:
    world.enrol(WHO, known=False)
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    unchanged_by(world, Unconfirmed, "shows no initial payment", about=("customer_uid", WHO))


@pytest.mark.usefixtures("enrolled")
def test_a_gateway_that_is_away_vouches_for_nothing(world: World) -> None:
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    world.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1.0}}})
    unchanged_by(world, GatewayError, "503")


@pytest.mark.usefixtures("enrolled")
def test_nobody_is_led_to_another_customers_payment(world: World) -> None:
    """Whoever writes its id into the book wants a larger amount charged, or another's."""
    other = registered(world, "another", amount=99000)
    lead = "UPDATE subscriptions SET amount = 99000, initial_merchant_uid = NULL,"
    stranger = "is not the payment of the customer who was enrolled"
    about = ("customer_uid", "another")
    by_hand(world, f"{lead} initial_imp_uid = '{other.imp_uid}'")
    unchanged_by(world, Unconfirmed, stranger, about=about)
    by_hand(world, f"{lead} customer_uid = 'another', initial_imp_uid = '{other.imp_uid}'")
    unchanged_by(world, Unconfirmed, stranger, about=about, who="another")
    by_hand(world, f"{lead} customer_uid = 'another', initial_imp_uid = NULL")
    unchanged_by(world, Unconfirmed, stranger, about=about, who="another")
    by_hand(world, "UPDATE subscriptions SET tag = 'x', customer_uid = 'somebody'")
    unchanged_by(world, Unconfirmed, stranger, about=("customer_uid", WHO))


def test_two_ids_that_do_not_belong_together_are_told(world: World, enrolled: Payment) -> None:
    by_hand(world, "UPDATE subscriptions SET initial_merchant_uid = 'other'")
    unchanged_by(
        world,
        Unconfirmed,
        f"{enrolled.imp_uid} has another one",
        about=("initial_merchant_uid", "other"),
    )


@pytest.mark.usefixtures("enrolled")
def test_a_later_payment_of_the_same_customer_is_not_the_first(world: World) -> None:
    """Its day would be another anchor."""
    paid = pay(world.sandbox, HandPayment(customer_uid=WHO, at=world.clock.now))
    by_hand(
        world,
        f"UPDATE subscriptions SET initial_imp_uid = '{paid.imp_uid}', initial_merchant_uid = NULL",
    )
    unchanged_by(world, Unconfirmed, "did not register one", about=("imp_uid", paid.imp_uid))


@pytest.mark.parametrize("ids", [True, False])
def test_a_customer_who_registered_again_has_other_facts(world: World, ids: bool) -> None:
    """The key is the last registration's: its amount and anchor are not this subscription's."""
    first = registered(world)
    enrol(world, first, imp_uid=ids, merchant_uid=ids)
    again = registered(world, amount=19900, paid_at=PAID_AT + timedelta(days=3))
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    says = f"registered again by {again.imp_uid}"
    if not ids:
        says = f"may have begun with any of {first.imp_uid}, {again.imp_uid}"
    unchanged_by(world, Unconfirmed, says, about=("customer_uid", WHO))


def test_a_try_that_failed_hides_no_payment(world: World) -> None:
    """Neither one under the same order nor one of the same key's payment window."""
    payment = registered(world)
    number = world.sandbox.ledger.next_number
    failed = replace(
        payment,
        number=number,
        imp_uid="imp_failed",
        status=Status.FAILED,
        paid_at=0,
        failed_at=payment.paid_at - 60,
        started_at=payment.paid_at - 60,
    )
    world.sandbox.ledger.put(failed)
    enrol(world, payment, imp_uid=False)
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    assert proposed(world).imp_uid == payment.imp_uid
    by_hand(world, "UPDATE subscriptions SET initial_merchant_uid = NULL")
    assert proposed(world).imp_uid == payment.imp_uid


class Untold:
    """A gateway that does not say which payment issued a key."""

    def __init__(self, client: PortOneClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def payments_of_key(self, customer_uid: str, since: datetime) -> list[Any]:
        rows = await self._client.payments_of_key(customer_uid, since)
        return [replace(row, customer_uid_usage=None) for row in rows]


def untold(world: World) -> Proposal:
    return world.ask(
        lambda client: propose(world.book, cast(Any, Untold(client)), world.policy, WHO)
    )


def test_where_the_gateway_does_not_say_it_is_the_one_of_the_anchors_day(world: World) -> None:
    payment = registered(world)
    enrol(world, payment, imp_uid=False, merchant_uid=False)
    pay(world.sandbox, HandPayment(customer_uid=WHO, at=world.clock.now))
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    assert untold(world).imp_uid == payment.imp_uid
    cancelled = replace(
        payment,
        number=world.sandbox.ledger.next_number,
        imp_uid="imp_cancelled",
        merchant_uid="cancelled",
        status=Status.CANCELLED,
        cancelled_at=payment.paid_at,
    )
    world.sandbox.ledger.put(cancelled)
    assert untold(world).imp_uid == payment.imp_uid
    second = pay(world.sandbox, HandPayment(customer_uid=WHO, at=PAID_AT + timedelta(hours=1)))
    with pytest.raises(Unconfirmed, match=f"any of {payment.imp_uid}, {second.imp_uid}") as refused:
        untold(world)
    assert (refused.value.field, refused.value.value) == ("customer_uid", WHO)
    # Of another day, nobody knows what began it.
    by_hand(world, "UPDATE subscriptions SET initial_paid_at = '2026-10-01T03:00Z'")
    with pytest.raises(Unconfirmed, match="shows no initial payment"):
        untold(world)


def test_a_payment_that_was_given_back_vouches_for_nothing(world: World, enrolled: Payment) -> None:
    given_back = replace(enrolled, status=Status.CANCELLED, cancelled_at=enrolled.paid_at)
    world.sandbox.ledger.put(given_back)
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    unchanged_by(world, Unconfirmed, "is cancelled", about=("imp_uid", enrolled.imp_uid))


def test_a_payment_that_no_enrolment_takes_vouches_for_nothing(
    world: World, enrolled: Payment
) -> None:
    world.sandbox.ledger.put(replace(enrolled, name=""))
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    unchanged_by(world, Unconfirmed, "is empty", about=("order_name", ""))


def test_a_test_payment_vouches_for_no_live_book(world: World) -> None:
    enrol(world, registered(world))
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    tests = replace(world.policy, sandbox=True)
    with pytest.raises(Unconfirmed, match="is a live payment: INCLUDE_SANDBOX"):
        world.ask(lambda client: propose(world.book, client, tests, WHO))


@pytest.mark.usefixtures("enrolled")
def test_from_a_copy_of_the_book_nothing_is_corrected(world: World) -> None:
    world.run(times=1)
    execute(world.book, "UPDATE installation SET system_identifier = 'another/1'")
    unchanged_by(world, Conflict, "moved or restored")


def test_a_stranger_and_one_who_was_erased(world: World) -> None:
    with pytest.raises(NotFound):
        proposed(world, "nobody")
    enrol(world, registered(world))
    cancel(world.book, world.policy, WHO)
    forget(world.book, world.policy, WHO)
    unchanged_by(world, Conflict, "erased on request")


# -- what is kept, and what is never touched ----------------------------------------------------


@pytest.mark.usefixtures("enrolled")
def test_a_customer_uid_that_was_changed_is_written_back(world: World) -> None:
    """The tag, made of it at enrolment, says who that was."""
    by_hand(world, "UPDATE subscriptions SET customer_uid = 'renamed'")
    done = corrected(world, "renamed")
    assert (done.customer_uid, facts(world)) == (WHO, RIGHT)
    assert broken(world.book, world.policy) == []


@pytest.mark.usefixtures("enrolled")
def test_a_customer_uid_that_another_has_by_now_is_not_taken(world: World) -> None:
    by_hand(world, "UPDATE subscriptions SET customer_uid = 'renamed'")
    world.enrol(WHO, known=False)
    with pytest.raises(Conflict, match="another subscription has the customer_uid"):
        corrected(world, "renamed")


def test_a_paid_month_of_another_amount_is_never_changed(world: World) -> None:
    """The book says 9,900, which was taken; the initial payment was of another amount."""
    payment = registered(world)
    enrol(world, payment)
    world.run(times=3)
    world.sandbox.ledger.put(replace(payment, amount=19900))
    unchanged_by(world, Unconfirmed, "2026-11 was paid with 9900", about=("amount", 19900))


@pytest.mark.parametrize("status", ["paid", "refunded"])
@pytest.mark.usefixtures("enrolled")
def test_the_database_itself_keeps_the_amount_of_a_month_with_a_payment(
    world: World, status: str
) -> None:
    world.run(times=3)
    by_hand(world, f"UPDATE cycles SET status = '{status}'")
    before = rows(world, "SELECT amount FROM subscriptions UNION ALL SELECT amount FROM cycles")

    def other(tx: Transaction) -> None:
        told = "INSERT INTO events (at, kind, subscription_id) VALUES (now(), :kind, 1)"
        tx.session.execute(text(told), {"kind": "subscription.corrected"})
        facts = Facts(WHO, Won(19900), "plan", PAID_AT)
        corrections.write(tx.session, 1, facts, PAID_AT.date(), b"seal")

    with pytest.raises(DBAPIError, match="fk_cycles_subscriptions"):
        world.book.run(other)
    after = rows(world, "SELECT amount FROM subscriptions UNION ALL SELECT amount FROM cycles")
    assert after == before


def test_a_neighbour_does_not_notice(world: World) -> None:
    """Who has the same trouble; and who has none."""
    for who in (WHO, "another", "a third"):
        enrol(world, registered(world, who))
    world.open()
    change = "UPDATE {} SET amount = 19900 WHERE {} IN (1, 2)"
    by_hand(world, change.format("subscriptions", "id"))
    by_hand(world, change.format("cycles", "subscription_id"))
    by_hand(world, "UPDATE buyers SET tel = '1' WHERE subscription_id IN (1, 2)")
    others = (
        "SELECT * FROM subscriptions LEFT JOIN buyers b ON b.subscription_id = id"
        " JOIN cycles c ON c.subscription_id = subscriptions.id WHERE subscriptions.id > 1"
        " ORDER BY 1"
    )
    before = rows(world, others)
    corrected(world)
    assert rows(world, others) == before
    assert [one.rows for one in broken(world.book, world.policy)] == [[2]]
    assert rows(world, "SELECT amount FROM cycles ORDER BY subscription_id") == [
        (9900,),
        (19900,),
        (9900,),
    ]


@pytest.mark.usefixtures("enrolled")
def test_a_missed_month_follows_and_a_paid_one_stays(world: World) -> None:
    """Put aside until its end: too late for it, but the book is whole again."""
    world.run(times=3)
    paid = rows(world, "SELECT * FROM cycles")
    world.clock.move(days=30)
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    world.run(every=timedelta(hours=6), times=60)
    assert rows(world, "SELECT status, reason, amount FROM cycles ORDER BY id") == [
        ("paid", None, 9900),
        ("missed", "held", 19900),
    ]
    done = corrected(world)
    assert (done.was_held, done.at, done.why_not) == (None, None, None)
    assert rows(world, "SELECT amount FROM cycles ORDER BY id") == [(9900,), (9900,)]
    assert rows(world, "SELECT * FROM cycles ORDER BY id LIMIT 1") == paid
    assert world.statuses("subscriptions") == {"suspended": 1}
    assert broken(world.book, world.policy) == []


@pytest.mark.usefixtures("enrolled")
def test_after_the_band_it_closes_as_usual(world: World) -> None:
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    world.run(times=3)
    world.clock.move_to(datetime(2026, 11, 25, 23, 50, tzinfo=SEOUL))
    done = corrected(world)
    assert (done.held, done.at, done.why_not) == (None, None, NoRetryReason.BAND_OVER)
    world.run(every=timedelta(hours=1), times=3)
    assert world.requests() == 0
    assert rows(world, "SELECT status, reason FROM cycles") == [("missed", "not_attempted")]
    assert broken(world.book, world.policy) == []


@pytest.mark.parametrize(
    ("late", "why_not"), [(0, None), (1, NoRetryReason.BAND_OVER)], ids=["at", "after"]
)
@pytest.mark.usefixtures("enrolled")
def test_up_to_the_last_moment_it_is_tried(
    world: World, late: int, why_not: NoRetryReason | None
) -> None:
    world.open()
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    ((last,),) = rows(world, "SELECT last_start_at FROM cycles")
    world.clock.move_to(last + timedelta(seconds=late))
    done = corrected(world)
    assert (done.why_not, done.at is None) == (why_not, bool(late))


@pytest.mark.usefixtures("enrolled")
def test_an_attempt_that_waits_is_left_as_it_is(world: World) -> None:
    world.open()
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    waiting = rows(world, "SELECT * FROM attempts")
    done = corrected(world)
    assert (done.was_held, done.at) == (None, rows(world, "SELECT ready_at FROM attempts")[0][0])
    assert rows(world, "SELECT * FROM attempts") == waiting


def test_what_was_declined_for_good_is_not_tried_for_it(world: World) -> None:
    """The plan allows no attempt: the facts were not why."""
    enrol(world, registered(world, script=["declined:0031"] * 9))
    world.run(every=timedelta(hours=6), times=23)
    statuses = world.statuses("attempts")
    assert (statuses.keys(), held(world)) == ({"declined"}, [None])
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    done = corrected(world)
    assert (done.at, done.held) == (None, None)
    assert world.statuses("attempts") == statuses


def test_a_paused_one_of_another_day_is_dated_anew_and_waits(world: World) -> None:
    enrol(world, registered(world, paid_at=PAID_AT + timedelta(days=5)), initial_paid_at=PAID_AT)
    world.open()
    pause(world.book, world.policy, WHO)
    done = corrected(world)
    assert (done.at, done.why_not) == (None, None)
    assert rows(world, "SELECT due_on::text FROM cycles") == [("2026-11-25",)]
    assert world.statuses("attempts") == {"withdrawn": 1}


@pytest.mark.usefixtures("enrolled")
def test_what_is_held_for_another_reason_stays_held(world: World) -> None:
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    world.open()
    execute(world.book, "UPDATE cycles SET held = 'payment_cancelled'")
    done = corrected(world)
    assert (done.held, done.at, done.why_not) == ("payment_cancelled", None, None)
    assert held(world) == ["payment_cancelled"]


@pytest.mark.usefixtures("enrolled")
def test_a_paused_one_is_put_right_and_waits(world: World) -> None:
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    world.run(times=3)
    pause(world.book, world.policy, WHO)
    done = corrected(world)
    assert (done.was_held, done.held, done.at) == ("facts_changed", None, None)
    resume(world.book, world.policy, WHO)
    world.run(every=timedelta(hours=1), times=14)
    assert world.statuses("cycles") == {"paid": 1}


def test_what_the_gateway_does_not_show_is_kept_where_the_seal_vouches(world: World) -> None:
    """The merchant's file knew an address that the payment does not show."""
    payment = registered(world, buyer_email="", buyer_tel="01012345678")
    enrol(world, payment, buyer_email=EMAIL, buyer_tel=TEL)
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    assert list(differs(world)) == ["amount"]
    corrected(world)
    assert facts(world) == RIGHT


def test_what_nothing_vouches_for_is_not_kept(world: World) -> None:
    payment = registered(world, buyer_email="", buyer_tel="01012345678")
    enrol(world, payment, buyer_email=EMAIL, buyer_tel=TEL)
    by_hand(world, "UPDATE buyers SET email = 'thief@example.com'")
    assert list(differs(world)) == ["buyer_email", "buyer_tel"]
    corrected(world)
    assert facts(world) == (*RIGHT[:6], None, "01012345678")


@pytest.mark.usefixtures("enrolled")
def test_what_is_right_is_left_alone(world: World) -> None:
    proposal = proposed(world)
    assert (proposal.is_needed, proposal.differs) == (False, ())
    with pytest.raises(Conflict, match="nothing to correct"):
        correct(world.book, world.policy, proposal)


@pytest.mark.usefixtures("enrolled")
def test_what_was_put_back_by_hand_is_let_go_without_a_word_of_the_book(world: World) -> None:
    """The seal is intact again; only the month is still put aside."""
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    world.run(times=3)
    by_hand(world, "UPDATE subscriptions SET order_name = 'plan'")
    proposal = proposed(world)
    assert (proposal.is_wrong, proposal.is_needed) == (False, True)
    assert correct(world.book, world.policy, proposal).held is None
    assert told(world) == []
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}


@pytest.mark.usefixtures("enrolled")
def test_a_month_put_aside_for_facts_that_are_right_is_let_go(world: World) -> None:
    world.open()
    execute(world.book, "UPDATE cycles SET held = 'facts_changed'")
    proposal = proposed(world)
    assert (proposal.held, proposal.is_wrong, proposal.is_needed) == ("facts_changed", False, True)
    done = correct(world.book, world.policy, proposal)
    assert (done.was_held, done.held, held(world)) == ("facts_changed", None, [None])


def test_a_carrier_that_refuses_what_is_right_is_not_answered_by_a_correction(
    world: World,
) -> None:
    enrol(world, registered(world, script=["declined:0060/mismatch"]))
    world.run(times=3)
    assert held(world) == ["facts_mismatch"]
    assert not proposed(world).is_needed
    assert held(world) == ["facts_mismatch"]


# -- others beside it ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["sending", "unknown"])
@pytest.mark.usefixtures("enrolled")
def test_nothing_is_touched_while_a_charge_is_under_way(world: World, status: str) -> None:
    world.open()
    execute(
        world.book,
        "UPDATE attempts SET status = :status, sent_at = now(), lease_until = now(), fence = 1,"
        " ask_at = now(), provable_at = now()",
        status=status,
    )
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    unchanged_by(world, Conflict, "a charge of it is under way")


def charged_and_unheard(world: World) -> None:
    """A charge whose answer is lost; and before it is asked about, somebody changes the amount."""
    enrol(world, registered(world, script=["timeout_after_charge"]))
    world.run(every=timedelta(seconds=3))
    assert world.statuses("attempts") == {"unknown": 1}
    by_hand(world, "UPDATE subscriptions SET amount = 19900")


def test_a_book_by_which_its_own_charge_contradicts_it_is_put_right(world: World) -> None:
    """The question what became of the charge has no end as long as the book is wrong."""
    charged_and_unheard(world)
    world.run(every=timedelta(minutes=10), times=3)
    assert (world.statuses("attempts"), held(world)) == ({"unknown": 1}, ["contradiction"])
    assert corrected(world).held == "contradiction"
    assert facts(world) == RIGHT
    # Asked about at once, not within the hour.
    world.run()
    assert (world.statuses("attempts"), world.statuses("cycles")) == ({"approved": 1}, {"paid": 1})
    assert world.requests() == 1
    assert broken(world.book, world.policy) == []


def test_also_when_its_month_is_over(world: World) -> None:
    charged_and_unheard(world)
    world.run(every=timedelta(hours=6), times=60)
    assert (world.statuses("attempts"), world.statuses("cycles")) == ({"unknown": 1}, {"missed": 1})
    corrected(world)
    world.run(every=timedelta(hours=1), times=2)
    assert (world.statuses("attempts"), world.statuses("cycles")) == ({"approved": 1}, {"paid": 1})
    assert world.statuses("subscriptions") == {"active": 1}


@pytest.mark.parametrize(
    "not_yet",
    [
        "UPDATE attempts SET provable_at = provable_at + interval '1 day'",
        "UPDATE cycles SET held = 'unconfirmed'",
        "UPDATE attempts SET status = 'sending', lease_until = now() + interval '30 days'",
        "UPDATE subscriptions SET anchor_on = anchor_on + 1",
    ],
    ids=["may be on its way", "not contradicted", "sending", "would move the month"],
)
def test_a_charge_that_may_still_be_under_way_is_waited_for(world: World, not_yet: str) -> None:
    charged_and_unheard(world)
    world.run(every=timedelta(minutes=10), times=3)
    by_hand(world, not_yet)
    unchanged_by(world, Conflict, "a charge of it is under way")


@pytest.mark.usefixtures("enrolled")
def test_a_book_that_moved_on_is_compared_again(world: World) -> None:
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    proposal = proposed(world)
    by_hand(world, "UPDATE subscriptions SET amount = 29900")
    with pytest.raises(Conflict, match="changed in the book meanwhile"):
        correct(world.book, world.policy, proposal)
    proposal = proposed(world)
    by_hand(world, "UPDATE buyers SET tel = NULL")
    with pytest.raises(Conflict, match="changed in the book meanwhile"):
        correct(world.book, world.policy, proposal)
    corrected(world)
    with pytest.raises(Conflict, match="changed in the book meanwhile"):
        correct(world.book, world.policy, proposal)
    assert len(told(world)) == 1


@pytest.mark.parametrize("buyer", ["", "홍길동"])
def test_one_who_was_erased_meanwhile_is_not_written_back(world: World, buyer: str) -> None:
    """Nor one of whom there was nothing to erase."""
    enrol(world, registered(world, buyer_name=buyer, buyer_email="", buyer_tel=""))
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    proposal = proposed(world)
    cancel(world.book, world.policy, WHO)
    forget(world.book, world.policy, WHO)
    with pytest.raises(Conflict, match="meanwhile"):
        correct(world.book, world.policy, proposal)
    assert rows(world, "SELECT * FROM buyers") == []


@pytest.mark.usefixtures("enrolled")
def test_a_claim_that_was_first_is_waited_for(world: World) -> None:
    """The claim holds the attempt's row until it commits; then a charge is under way."""
    world.open()
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    proposal = proposed(world)
    claimed, correcting = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def later() -> None:
        claimed.wait(20)
        correcting.set()
        try:
            correct(world.book, world.policy, proposal)
        except Conflict as error:
            errors.append(error)

    def claim(tx: Transaction) -> int:
        found = attempts.claim(tx.session, [1], tx.now, tx.now + world.policy.lease)
        claimed.set()
        assert correcting.wait(20)
        # Long enough for it to wait for the row.
        thread.join(0.5)
        assert thread.is_alive()
        return len(found)

    thread = threading.Thread(target=later)
    thread.start()
    assert world.book.run(claim) == 1
    thread.join(20)
    assert [str(error) for error in errors] == [
        "a charge of it is under way; try again when it has ended"
    ]
    assert told(world) == []


@pytest.mark.usefixtures("enrolled")
def test_a_claim_that_is_later_passes_by(world: World) -> None:
    world.open()
    by_hand(world, "UPDATE subscriptions SET order_name = 'another'")
    proposal = proposed(world)

    def both(tx: Transaction) -> int:
        _correct(tx, world.policy, proposal)
        with world.book.transaction() as other:
            return len(attempts.claim(other.session, [1], other.now, other.now))

    assert world.book.run(both) == 0
    world.run(times=3)
    assert world.statuses("cycles") == {"paid": 1}


@pytest.mark.usefixtures("enrolled")
def test_a_hold_of_all_charging_does_not_keep_the_book_wrong(world: World) -> None:
    hold(world.book, "somebody looks")
    by_hand(world, "UPDATE subscriptions SET amount = 19900")
    corrected(world)
    assert facts(world) == RIGHT
    with pytest.raises(Conflict, match="is held"):
        let_go(world.book, world.policy, WHO)
