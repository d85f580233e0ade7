"""Which refunds stand, are to be looked at, may be sent: each condition alone, to the second."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from billing.domain.money import Won
from billing.domain.policy import BillingPolicy
from billing.domain.refund import CancelRequest
from billing.services.open_cycles import open_cycles
from billing.store import refunds
from billing.store.session import Book
from billing.store.tables import Cycle, Refund, Subscription
from billing.store.waiting import LONGEST_WAIT
from tests.builders import execute, query, subscribed
from tests.conftest import MovedClock

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def now(book: Book, policy: BillingPolicy, clock: MovedClock) -> datetime:
    """Two subscribers with an open month each."""
    subscribed(book, policy, 2)
    open_cycles(book, policy)
    execute(book, "ALTER TABLE refunds ALTER id RESTART 31")
    return clock.now


def a_refund(book: Book, now: datetime, status: str = "requested", **columns: Any) -> int:
    """Refunds are numbered from 31, their payments, unless told otherwise, from imp_31."""
    columns = {
        "subscription_id": 1,
        "imp_uid": f"imp_{31 + query(book, 'SELECT count(*) FROM refunds')[0][0]}",
        "merchant_uid": "mw-1",
        "amount": 1001,
        "breaks_chain": False,
        "refund_by": now + HOUR,
        "reason": "asked for",
        "status": status,
        "requested_at": now,
        **STATES[status](now),
        **columns,
    }
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    execute(book, f"INSERT INTO refunds ({names}) VALUES ({values})", **columns)
    ((made,),) = query(book, "SELECT max(id) FROM refunds")
    return int(made)


STATES: dict[str, Callable[[datetime], dict[str, Any]]] = {
    "requested": lambda _: {},
    "sending": lambda now: {"lease_until": now, "sent_at": now},
    "unknown": lambda now: {"provable_at": now, "ask_at": now},
    "done": lambda now: {"settled_at": now, "cancelled_at": now},
    "refused": lambda now: {"settled_at": now},
}
OPEN = ("requested", "sending", "unknown")


@pytest.mark.parametrize("status", STATES)
def test_what_stands_of_a_payment(book: Book, now: datetime, status: str) -> None:
    made = a_refund(book, now, status)
    a_refund(book, now, "refused", imp_uid="imp_31")
    stands = status != "refused"
    with book.transaction() as tx:
        found = refunds.standing(tx.session, "imp_31")
        assert (found.id if found else None) == (made if stands else None)
        assert refunds.standing(tx.session, "imp_other") is None
        given_back = refunds.given_back(tx.session, ["imp_31", "imp_other"])
        assert given_back == ({"imp_31"} if stands else set())
        assert refunds.given_back(tx.session, ["imp_other"]) == set()
        # Whoever found it holds it.
        free = query(book, "SELECT id FROM refunds WHERE id = 31 FOR UPDATE SKIP LOCKED")
        assert free == ([] if stands else [(31,)])


@pytest.mark.parametrize("status", STATES)
def test_what_did_not_end_yet(book: Book, now: datetime, status: str) -> None:
    made = a_refund(book, now, status)
    is_open = status in OPEN
    with book.transaction() as tx:
        assert refunds.count_open(tx.session) == is_open
        found = refunds.locked(tx.session, made)
        assert (found is not None) is is_open
        assert refunds.locked(tx.session, made + 1) is None
        free = query(book, "SELECT id FROM refunds FOR UPDATE SKIP LOCKED")
        assert free == ([] if is_open else [(made,)])


@pytest.mark.parametrize(
    ("status", "columns", "due"),
    [
        ("sending", {"lease_until": -SECOND}, True),
        ("sending", {"lease_until": timedelta(0)}, False),
        ("sending", {"lease_until": SECOND, "ask_at": -HOUR}, False),
        ("requested", {}, True),
        ("requested", {"ask_at": timedelta(0), "lease_until": HOUR}, True),
        ("requested", {"ask_at": SECOND}, False),
        ("requested", {"ask_at": SECOND, "lease_until": -SECOND}, False),
        ("unknown", {"ask_at": timedelta(0)}, True),
        ("unknown", {"ask_at": SECOND}, False),
        # Nothing is put off for so long but by a clock that was ahead.
        ("requested", {"ask_at": LONGEST_WAIT}, False),
        ("unknown", {"ask_at": LONGEST_WAIT + SECOND}, True),
        ("done", {}, False),
        ("refused", {}, False),
    ],
)
def test_what_is_to_be_done_now(
    book: Book, now: datetime, status: str, columns: dict[str, timedelta], due: bool
) -> None:
    made = a_refund(book, now, status, **{name: now + ago for name, ago in columns.items()})
    with book.transaction() as tx:
        assert refunds.open_now(tx.session, now, 9) == ([made] if due else [])


def test_the_most_urgent_first(book: Book, now: datetime) -> None:
    for later in (2, 1, 1):
        a_refund(book, now, refund_by=now + later * HOUR)
    with book.transaction() as tx:
        assert refunds.open_now(tx.session, now, 9) == [32, 33, 31]
        assert refunds.open_now(tx.session, now, 2) == [32, 33]


def test_the_refunds_of_a_payment(book: Book, now: datetime) -> None:
    a_refund(book, now, "refused", imp_uid="imp_a")
    a_refund(book, now, imp_uid="imp_a")
    a_refund(book, now, imp_uid="imp_b")
    a_refund(book, now, imp_uid="imp_a2", merchant_uid="mw-2")
    with book.transaction() as tx:
        of = {
            about: [one.id for one in refunds.of_payment(tx.session, *about)]
            for about in (("mw-1", None), ("mw-1", "imp_a"), ("mw-2", None), ("mw-2", "imp_a"))
        }
    assert of == {
        ("mw-1", None): [33, 32, 31],
        ("mw-1", "imp_a"): [32, 31],
        ("mw-2", None): [34],
        ("mw-2", "imp_a"): [],
    }


def claimed(book: Book, refund_id: int, now: datetime) -> refunds.RefundClaim | None:
    with book.transaction() as tx:
        return refunds.claim(tx.session, refund_id, now, HOUR)


def test_a_claim_holds_what_is_sent_and_leaves_no_trace_of_the_last_one(
    book: Book, now: datetime
) -> None:
    a_refund(book, now)
    made = a_refund(
        book, now, fence=4, refusal="old", still_paid=2, provable_at=now, ask_at=now, sent_at=None
    )
    request = CancelRequest("imp_32", "mw-1", Won(1001), "asked for")
    assert claimed(book, made, now) == refunds.RefundClaim(made, 5, request)
    assert query(
        book,
        "SELECT status, fence, sent_at, lease_until, refusal, still_paid, provable_at, ask_at"
        " FROM refunds ORDER BY id",
    ) == [
        ("requested", 0, None, None, None, 0, None, None),
        ("sending", 5, now, now + HOUR, None, 0, None, None),
    ]
    assert claimed(book, made, now) is None, "it has an owner"


@pytest.mark.parametrize("status", STATES)
def test_what_is_asked_for_may_be_sent(book: Book, now: datetime, status: str) -> None:
    made = a_refund(book, now, status)
    assert (claimed(book, made, now) is not None) is (status == "requested")


def test_nothing_is_sent_when_the_month_is_over(book: Book, now: datetime) -> None:
    made = a_refund(book, now, refund_by=now)
    assert claimed(book, made, now) is None
    assert claimed(book, made, now - SECOND) is not None


def test_a_claim_and_its_rows_are_read_anew(book: Book, now: datetime) -> None:
    """What this transaction has read before may have changed since."""
    made = a_refund(book, now, imp_uid="imp_paid")
    pay = (
        "UPDATE cycles SET status = 'paid', settled_at = now(), paid_at = now(),"
        " paid_imp_uid = 'imp_paid', paid_merchant_uid = 'mw-1' WHERE subscription_id = 2"
    )
    with book.transaction() as tx:
        seen = [tx.session.execute(select(one)).scalars().all() for one in (Refund, Subscription)]
        months = tx.session.execute(select(Cycle)).scalars().all()
        execute(book, "UPDATE refunds SET fence = 7")
        execute(book, "UPDATE subscriptions SET status = 'paused' WHERE id = 1")
        execute(book, pay)
        found = refunds.locked(tx.session, made)
        assert found is not None
        assert found.fence == 7
        subscription, cycle = refunds.with_cycle(tx.session, found)
        assert (subscription.id, subscription.status) == (1, "paused")
        assert cycle is not None
        assert (cycle.subscription_id, cycle.status) == (2, "paid")
        for table, of in (("subscriptions", subscription.id), ("cycles", cycle.id)):
            free = f"SELECT id FROM {table} FOR UPDATE SKIP LOCKED"
            assert of not in [one for (one,) in query(book, free)]
            assert len(query(book, free)) == 1
        assert seen
        assert months
    with book.transaction() as tx:
        first = tx.session.execute(select(Refund)).scalar_one()
        execute(book, "UPDATE refunds SET fence = 8")
        claim = refunds.claim(tx.session, first.id, now, HOUR)
        assert claim is not None
        assert (claim.fence, first.status) == (9, "sending")


def test_a_payment_that_no_month_counts(book: Book, now: datetime) -> None:
    made = a_refund(book, now)
    with book.transaction() as tx:
        found = refunds.locked(tx.session, made)
        assert found is not None
        subscription, cycle = refunds.with_cycle(tx.session, found)
        assert (subscription.id, cycle) == (1, None)


# Around what the database refuses.
AROUND = "SET LOCAL session_replication_role = replica; "
SEOULS_DECEMBER = datetime(2026, 11, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changed", "besides"),
    [
        ("", True),
        ("UPDATE cycles SET paid_imp_uid = 'imp_31' WHERE subscription_id = 1", False),
        ("UPDATE cycles SET status = 'refunded' WHERE subscription_id = 1", False),
        ("UPDATE refunds SET refund_by = refund_by + interval '31 days'", False),
        ("UPDATE refunds SET subscription_id = 2", False),
    ],
)
def test_whether_a_month_is_paid_by_another_payment(
    book: Book, now: datetime, changed: str, besides: bool
) -> None:
    assert query(book, "SELECT month FROM cycles") == 2 * [(date(2026, 11, 1),)]
    a_refund(book, now, "done", refund_by=SEOULS_DECEMBER)
    paid = (
        "UPDATE cycles SET status = 'paid', paid_imp_uid = 'imp_other', paid_at = opened_at,"
        " paid_merchant_uid = 'other', settled_at = opened_at WHERE subscription_id = 1"
    )
    execute(book, f"{AROUND}{paid}; {changed}")
    assert is_paid_besides(book) is besides
    if besides:
        # A refund of that one that was refused leaves it; one that is asked for does not.
        a_refund(book, now, "refused", imp_uid="imp_other")
        assert is_paid_besides(book)
        a_refund(book, now, imp_uid="imp_other")
        assert not is_paid_besides(book)


def is_paid_besides(book: Book) -> bool:
    with book.transaction() as tx:
        return refunds.month_is_paid_besides(tx.session, tx.session.get_one(Refund, 31))


def test_who_finds_a_refund_holds_its_customer_and_no_other(book: Book, now: datetime) -> None:
    a_refund(book, now)
    with book.transaction() as tx:
        assert refunds.standing(tx.session, "imp_31") is not None
        with book.transaction() as other:
            free = text("SELECT id FROM subscriptions FOR UPDATE SKIP LOCKED")
            assert other.session.execute(free).all() == [(2,)]
