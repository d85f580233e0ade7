"""What the database finds to differ between the gateway's ledger and the book, to the row: each
condition alone, with what comes as near as it may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import BookSide, Case
from billing.store import ledger
from billing.store.session import Book, Transaction
from tests.builders import execute, rows_read
from tests.conftest import MovedClock
from tests.plant import numbered_apart, paid, plant, refund, settled

SEOUL = ZoneInfo("Asia/Seoul")
SECOND = timedelta(seconds=1)
NOW = datetime(2026, 11, 20, 1, tzinfo=UTC)
FIRST_PAID = datetime(2026, 10, 18, tzinfo=UTC)


def at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=SEOUL).astimezone(UTC)


SCOPE = ledger.Scope(
    since=at("2026-08-01T00:00"),
    until=NOW,
    month_begins=at("2026-11-01T00:00"),
    zone=SEOUL,
    prefix="mw",
    sandbox=False,
)


@pytest.fixture
def tx(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> Any:
    """1 to 3 registered on 18 to 20 October, with the open cycles 11 to 13 of November and the due
    attempts 21 to 23; 4 registered on 28 October, and its November is coming; 5 on 28 August, and
    its first month with us is November, too."""
    assert clock.now == NOW
    days = ("2026-10-18", "2026-10-19", "2026-10-20", "2026-10-28", "2026-08-28")
    numbered_apart(book, make_policy(), *days)
    execute(book, "UPDATE attempts SET merchant_uid = 'mw-' || id")
    execute(book, "UPDATE subscriptions SET next_cycle = 3 WHERE id = 5")
    with book.transaction() as tx:
        yield tx
        tx.session.rollback()


PAYMENT = Payment(
    imp_uid="imp_21",
    merchant_uid="mw-21",
    status="paid",
    amount=Won(1001),
    customer_uid="customer-1",
    paid_at=at("2026-11-19T12:00"),
    pay_method="phone",
    currency="KRW",
)


def a_payment(**facts: Any) -> Payment:
    return replace(PAYMENT, **facts)


def staged(tx: Transaction, *payments: Payment, scope: ledger.Scope = SCOPE) -> None:
    for name in ("beside", "ledger", "staged_payments"):
        plant(tx, NOW, [f"DROP TABLE IF EXISTS {name}"])
    ledger.stage(tx.session, [ledger.row_of(one) for one in payments], scope)


def differing(
    tx: Transaction, *payments: Payment, scope: ledger.Scope = SCOPE, most: int = 99
) -> list[Case]:
    staged(tx, *payments, scope=scope)
    return ledger.differing(tx.session, scope, most)


def differs(tx: Transaction, *payments: Payment, scope: ledger.Scope = SCOPE) -> list[str]:
    return [one.payment.imp_uid for one in differing(tx, *payments, scope=scope)]


def side(tx: Transaction, *payments: Payment) -> BookSide:
    """The book beside the first of them, which differs."""
    (found,) = [
        one.book for one in differing(tx, *payments) if one.payment.imp_uid == payments[0].imp_uid
    ]
    assert found is not None
    return found


def cancelled(**facts: Any) -> Payment:
    both = {"cancelled_at": at("2026-11-19T13:00"), "cancelled_amount": Won(1001)}
    return a_payment(**({"status": "cancelled"} | both | facts))


# A payment that nobody counts, made by hand in the month that is open.
BY_HAND = a_payment(imp_uid="imp_hand", merchant_uid="by-hand")
# The one that registered the key of 1.
INITIAL = a_payment(imp_uid="imp_first", merchant_uid="first", paid_at=FIRST_PAID)


def test_a_difference_holds_the_whole_payment(tx: Transaction) -> None:
    whole = cancelled(
        amount=Won(7), sandbox=True, currency="USD", customer_uid_usage="payment", pay_method="card"
    )
    plant(tx, NOW, [paid(11, 21)])
    (case,) = differing(tx, whole)
    assert case.payment == whole
    assert (case.named, case.double_of) == (False, None)
    assert case.book == BookSide(
        subscription_id=1,
        customer_uid="customer-1",
        subscription_status="active",
        amount=Won(1001),
        cycle_id=11,
        cycle_number=1,
        cycle_status="paid",
        counted=True,
        counted_as="mw-21",
        attempt_status="due",
    )


COUNTED: list[tuple[str, dict[str, Any], bool]] = [
    ("paid", {}, False),
    ("paid", {"currency": None, "customer_uid": None}, False),
    ("paid", {"sandbox": True}, True),
    ("paid", {"amount": Won(1002)}, True),
    ("paid", {"currency": "USD"}, True),
    ("paid", {"customer_uid": "customer-2"}, True),
    ("paid", {"merchant_uid": "mw-22"}, True),
    ("paid", {"cancelled_amount": Won(1)}, True),
    ("paid", {"status": "cancelled", "cancelled_at": NOW}, True),
    ("refunded", {"status": "cancelled", "cancelled_at": NOW}, False),
    ("refunded", {}, True),
    ("paid", {"status": "failed"}, True),
]


@pytest.mark.parametrize(("status", "facts", "is_one"), COUNTED)
def test_a_payment_that_a_month_counts(
    tx: Transaction, status: str, facts: dict[str, Any], is_one: bool
) -> None:
    plant(tx, NOW, [settled(21, "approved"), paid(11, 21, status)])
    assert differs(tx, a_payment(**facts)) == (["imp_21"] if is_one else [])


def test_a_name_that_the_gateway_cut_or_the_book_did(tx: Transaction) -> None:
    name = "m" * 40
    plant(tx, NOW, [paid(11, 21), f"UPDATE cycles SET paid_merchant_uid = '{name}'"])
    assert differs(tx, a_payment(merchant_uid=name + "n")) == []
    assert differs(tx, a_payment(merchant_uid=name[:39])) == ["imp_21"]
    plant(tx, NOW, ["UPDATE cycles SET paid_merchant_uid = NULL"])
    assert differs(tx, a_payment()) == ["imp_21"], "what cannot be compared is not the same"


REGISTERED = [
    {"customer_uid_usage": "issue"},
    {"imp_uid": "imp_initial"},
    {"merchant_uid": "initial"},
    {"paid_at": FIRST_PAID},
]


@pytest.mark.parametrize("facts", REGISTERED)
def test_the_payment_that_registered_the_key(tx: Transaction, facts: dict[str, Any]) -> None:
    known = "initial_imp_uid = 'imp_initial', initial_merchant_uid = 'initial'"
    plant(tx, NOW, [f"UPDATE subscriptions SET {known} WHERE id = 1"])
    other_day = {"paid_at": FIRST_PAID + SECOND}
    registered = replace(INITIAL, **(other_day | facts))
    given_back = {"status": "cancelled", "cancelled_at": NOW, "cancelled_amount": Won(1001)}
    # Kept, it is nothing to tell of; given back, the chain is broken.
    assert differs(tx, registered) == []
    found = side(tx, replace(registered, **given_back))
    assert (found.initial, found.first_month, found.counted) == (True, True, False)
    # Another of that month, given back, is nothing to us.
    assert differs(tx, replace(INITIAL, **(other_day | given_back))) == []


def test_a_payment_of_the_first_month_is_taken_for_the_first(tx: Transaction) -> None:
    """Where the book does not know the payment that registered the key."""
    plant(tx, NOW, [paid(11, 21)])
    wrong = a_payment(amount=Won(5), paid_at=FIRST_PAID + SECOND)
    assert side(tx, wrong).initial
    assert not side(tx, replace(wrong, status="failed")).initial


@pytest.mark.parametrize(
    ("change", "is_one"),
    [
        ("UPDATE subscriptions SET status = 'paused'", True),
        ("UPDATE subscriptions SET status = 'cancelled'", False),
        (refund(99, "done"), True),
        (refund(99, "done").replace("imp_99", "imp_first"), False),
        (refund(99, "requested").replace("imp_99", "imp_first"), True),
    ],
)
def test_a_first_payment_that_was_given_back(tx: Transaction, change: str, is_one: bool) -> None:
    plant(tx, NOW, [change])
    gone = replace(INITIAL, status="cancelled", cancelled_at=NOW, cancelled_amount=Won(1001))
    assert differs(tx, gone) == (["imp_first"] if is_one else [])


def test_what_is_neither_paid_nor_cancelled_is_no_payment(tx: Transaction) -> None:
    assert differs(tx, replace(BY_HAND, status="failed")) == []
    assert differs(tx, replace(BY_HAND, paid_at=None)) == []
    assert differs(tx, BY_HAND) == ["imp_hand"]


NOBODYS: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"merchant_uid": "mw-abcdefghijkl2345-202611-01"}, True),
    ({"merchant_uid": "mw-abcdefghijkl2345-202611-011"}, False),
    ({"merchant_uid": "xmw-abcdefghijkl2345-202611-01"}, False),
    ({"merchant_uid": "mw-abcdefghijkl2341-202611-01"}, False),
    ({"customer_uid_usage": "issue"}, True),
    ({"customer_uid_usage": "payment", "pay_method": None}, True),
    ({"customer_uid_usage": "issue", "pay_method": "card"}, False),
]


@pytest.mark.parametrize(("facts", "is_one"), NOBODYS)
def test_a_payment_of_nobody_in_the_book(
    tx: Transaction, facts: dict[str, Any], is_one: bool
) -> None:
    found = differing(tx, replace(BY_HAND, customer_uid="somebody", **facts))
    assert [one.payment.imp_uid for one in found] == (["imp_hand"] if is_one else [])
    for one in found:
        assert one.book is None
        assert one.named is ("merchant_uid" in facts)


def test_whose_a_payment_is(tx: Transaction) -> None:
    """The month that counts it, then the attempt of its name, then its key, then its tag."""

    def owner(**facts: Any) -> int | None:
        staged(tx, replace(BY_HAND, **facts))
        found = ledger.owner(tx.session, "imp_hand")
        assert found is not None
        uid = f"customer-{found.subscription_id}"
        assert found.customer_uid == (None if found.subscription_id is None else uid)
        assert found.month == date(2026, 11, 1)
        assert found.named is facts.get("merchant_uid", "").startswith("mw-tag")
        return found.subscription_id

    plant(tx, NOW, ["UPDATE subscriptions SET tag = 'tag' || repeat(id::text, 13)"])
    tagged = "mw-tag4444444444444-202611-01"
    assert owner(customer_uid="somebody") is None
    assert owner(customer_uid="somebody", merchant_uid=tagged) == 4
    assert owner(customer_uid="somebody", merchant_uid=tagged[1:]) is None
    assert owner(customer_uid="customer-3", merchant_uid=tagged) == 3
    # Each by its own name.
    staged(
        tx,
        replace(BY_HAND, customer_uid="somebody", merchant_uid=tagged),
        replace(BY_HAND, customer_uid="x", merchant_uid=tagged.replace("4", "2"), imp_uid="imp_2"),
        replace(BY_HAND, customer_uid="y", imp_uid="imp_3"),
    )
    whose = "SELECT imp_uid, subscription_id FROM ledger ORDER BY imp_uid"
    assert tx.session.execute(text(whose)).all() == [("imp_2", 2), ("imp_3", None), ("imp_hand", 4)]
    assert owner(customer_uid="customer-3", merchant_uid="mw-22") == 2
    plant(tx, NOW, [paid(11, 21), "UPDATE cycles SET paid_imp_uid = 'imp_hand' WHERE id = 11"])
    assert owner(customer_uid="customer-3", merchant_uid="mw-22") == 1
    # Our form, and an attempt of that name: the attempt's, whatever the tag.
    plant(tx, NOW, ["UPDATE cycles SET paid_imp_uid = 'x' WHERE id = 11"])
    plant(tx, NOW, [f"UPDATE attempts SET merchant_uid = '{tagged}' WHERE id = 23"])
    assert owner(customer_uid="somebody", merchant_uid=tagged) == 3
    # A tag that two have is nobody's.
    plant(tx, NOW, ["UPDATE attempts SET merchant_uid = 'mw-23' WHERE id = 23"])
    plant(tx, NOW, ["UPDATE subscriptions SET tag = 'tag' || repeat('4', 13) WHERE id = 5"])
    assert owner(customer_uid="somebody", merchant_uid=tagged) is None
    staged(tx, BY_HAND, replace(BY_HAND, imp_uid="imp_ready", status="ready", paid_at=None))
    assert ledger.owner(tx.session, "imp_ready") is None, "it was never paid"
    assert ledger.owner(tx.session, "imp_other") is None


def test_a_second_payment_of_a_month(tx: Transaction) -> None:
    """The counted one is kept, else the one that registered the key, else the earlier one, else
    the one with the lower id."""

    def second(*payments: Payment) -> list[tuple[str, str | None]]:
        return [(one.payment.imp_uid, one.double_of) for one in differing(tx, *payments)]

    later = a_payment(imp_uid="imp_later", merchant_uid="b", paid_at=at("2026-11-19T12:00:01"))
    assert second(later, BY_HAND) == [("imp_later", "imp_hand"), ("imp_hand", None)]
    twin = replace(BY_HAND, imp_uid="imp_a")
    assert second(BY_HAND, twin) == [("imp_hand", "imp_a"), ("imp_a", None)]
    plant(tx, NOW, [paid(11, 21), "UPDATE cycles SET paid_imp_uid = 'imp_later' WHERE id = 11"])
    assert ("imp_hand", "imp_later") in second(later, BY_HAND)
    # In the month of the registration.
    early = replace(INITIAL, imp_uid="imp_early", paid_at=FIRST_PAID - SECOND)
    assert second(early, INITIAL) == [("imp_early", "imp_first")]
    # What is gone, of somebody else, of another month, or made in test is no second one.
    for other in (
        cancelled(imp_uid="imp_later", merchant_uid="b"),
        replace(BY_HAND, imp_uid="imp_b", merchant_uid="b", customer_uid="customer-2"),
        INITIAL,
        replace(later, imp_uid="imp_b", sandbox=True),
        replace(later, imp_uid="imp_b", sandbox=True, paid_at=SCOPE.month_begins),
    ):
        assert ("imp_hand", None) in second(BY_HAND, other)
    nobodys = [
        a_payment(imp_uid=f"imp_{n}", merchant_uid=f"mw-{'a' * 16}-202611-0{n}", customer_uid=None)
        for n in (1, 2)
    ]
    assert second(*nobodys) == [("imp_1", None), ("imp_2", None)]


def test_a_second_registration_in_one_month_registers_nothing(tx: Transaction) -> None:
    again = replace(INITIAL, imp_uid="imp_again", customer_uid_usage="issue", paid_at=FIRST_PAID)
    first = replace(INITIAL, paid_at=FIRST_PAID - SECOND, customer_uid_usage="issue")
    assert not side(tx, again, first).initial


def test_a_second_payment_is_told_of_whenever_it_was(tx: Transaction) -> None:
    span = replace(SCOPE, since=NOW - timedelta(hours=1))
    later = a_payment(imp_uid="imp_later", merchant_uid="b", paid_at=at("2026-11-19T12:00:01"))
    assert differs(tx, BY_HAND, later, scope=span) == ["imp_later"]
    # Not in a month before our time that registered nothing.
    old = [
        a_payment(
            imp_uid=f"imp_{month}_{day}",
            merchant_uid=f"old-{month}-{day}",
            customer_uid="customer-5",
            amount=Won(1005),
            paid_at=at(f"2026-{month}-{day}T09:00"),
        )
        for month, day in (("09", "27"), ("09", "28"), ("08", "28"), ("08", "29"), ("11", "18"))
    ]
    assert differs(tx, *old) == ["imp_08_29", "imp_11_18"]


@pytest.mark.parametrize(
    ("status", "is_one"), [("due", True), ("sending", False), ("unknown", False)]
)
def test_a_payment_while_a_charge_is_on_its_way(tx: Transaction, status: str, is_one: bool) -> None:
    plant(tx, NOW, ["UPDATE attempts SET status = 'sending' WHERE id = 22"])
    plant(tx, NOW, [f"UPDATE attempts SET status = '{status}' WHERE id = 21"])
    assert differs(tx, BY_HAND) == (["imp_hand"] if is_one else [])
    # Where it is a second one, that is told of all the same.
    later = a_payment(imp_uid="imp_later", merchant_uid="b", paid_at=at("2026-11-19T12:00:01"))
    ((_, found),) = [
        (one.payment, one.book) for one in differing(tx, BY_HAND, later) if one.double_of
    ]
    assert found is not None
    assert found.in_flight is not is_one


def test_another_amount_in_a_month_that_is_held_is_nothing_that_an_inquiry_settles(
    tx: Transaction,
) -> None:
    less = replace(BY_HAND, amount=Won(1000))
    plant(tx, NOW, ["UPDATE attempts SET status = 'sending' WHERE id = 21"])
    plant(tx, NOW, ["UPDATE cycles SET held = 'contradiction' WHERE id = 11"])
    assert differs(tx, less) == [], "its answer is still to come"
    plant(tx, NOW, ["UPDATE attempts SET status = 'unknown' WHERE id = 21"])
    assert differs(tx, less) == ["imp_hand"]
    assert side(tx, less).in_flight is False
    assert differs(tx, BY_HAND) == [], "that one may be what it waits for"
    plant(tx, NOW, ["UPDATE cycles SET held = NULL WHERE id = 11"])
    assert differs(tx, less) == []


def test_what_the_book_knows_of_the_month(tx: Transaction) -> None:
    open_month = side(tx, BY_HAND)
    assert (open_month.cycle_id, open_month.cycle_number, open_month.cycle_status) == (
        11,
        1,
        "open",
    )
    assert (open_month.coming, open_month.counted, open_month.month_stands) == (False,) * 3
    assert (open_month.initial, open_month.first_month) == (False, False)
    assert open_month.attempt_status is None
    assert side(tx, a_payment()).attempt_status == "due"
    coming = replace(BY_HAND, customer_uid="customer-4")
    assert side(tx, coming).coming
    assert side(tx, coming).cycle_id is None
    old = replace(BY_HAND, customer_uid="customer-5")
    assert side(tx, old).coming, "two months after the first with another system"
    plant(tx, NOW, ["UPDATE subscriptions SET status = 'paused' WHERE id = 4"])
    assert side(tx, coming).coming
    plant(tx, NOW, ["UPDATE subscriptions SET status = 'suspended' WHERE id = 4"])
    assert not side(tx, coming).coming
    assert not side(tx, replace(INITIAL, amount=Won(1), imp_uid="imp_x",
        status="cancelled", cancelled_at=NOW)).coming  # fmt: skip


def test_a_payment_that_a_month_counts_is_of_no_month_that_is_coming(tx: Transaction) -> None:
    plant(tx, NOW, [paid(11, 21)])
    december = a_payment(amount=Won(5), paid_at=at("2026-12-18T09:00"))
    (case,) = differing(tx, december, scope=replace(SCOPE, until=at("2027-01-01T00:00")))
    assert case.book is not None
    assert (case.book.cycle_id, case.book.coming) == (11, False)
    plant(tx, NOW, ["UPDATE cycles SET paid_imp_uid = 'x' WHERE id = 11"])
    (case,) = differing(tx, december, scope=replace(SCOPE, until=at("2027-01-01T00:00")))
    assert case.book is not None
    assert (case.book.cycle_id, case.book.coming) == (None, True)


def test_a_large_ledger_may_take_its_time(tx: Transaction) -> None:
    staged(tx)
    assert tx.session.execute(text("SHOW statement_timeout")).scalar_one() == "0"


def test_whether_the_month_stands_without_it(tx: Transaction) -> None:
    gone = cancelled(imp_uid="imp_gone", merchant_uid="gone")
    plant(tx, NOW, [paid(11, 21), "UPDATE cycles SET paid_imp_uid = 'imp_gone' WHERE id = 11"])
    later = a_payment(imp_uid="imp_later", merchant_uid="b")
    assert not side(tx, gone).month_stands
    assert side(tx, gone, later).month_stands
    assert not side(tx, gone, replace(later, paid_at=FIRST_PAID)).month_stands
    assert not side(tx, gone, replace(later, customer_uid="customer-2")).month_stands
    assert not side(tx, gone, replace(later, status="cancelled", cancelled_at=NOW)).month_stands
    alone = a_payment(imp_uid="imp_gone", amount=Won(5))
    assert not side(tx, alone).month_stands
    assert side(tx, alone, later).month_stands


def test_the_first_month_is_the_first_with_a_cycle(tx: Transaction) -> None:
    """Else the next one that will be opened."""
    before = replace(BY_HAND, customer_uid="customer-5", paid_at=at("2026-10-28T09:00"))
    assert differs(tx, before) == []
    plant(tx, NOW, ["UPDATE subscriptions SET next_cycle = 2 WHERE id = 5"])
    assert differs(tx, before) == ["imp_hand"]
    plant(tx, NOW, ["UPDATE subscriptions SET next_cycle = 9 WHERE id = 1"])
    assert differs(tx, BY_HAND) == ["imp_hand"], "its cycle says so, not what comes next"
    plant(tx, NOW, ["UPDATE cycles SET subscription_id = 1, month = '2026-12-01' WHERE id = 12"])
    assert differs(tx, BY_HAND) == ["imp_hand"], "the earliest of them"
    other = replace(BY_HAND, paid_at=at("2027-01-18T09:00"))
    wide = replace(SCOPE, until=at("2027-02-01T00:00"))
    (january,) = differing(tx, other, scope=wide)
    assert january.book is not None
    assert january.book.cycle_id is None, "months have a cycle of their own"


@pytest.mark.parametrize("day", [SCOPE.since, SCOPE.until])
def test_the_span_holds_its_ends(tx: Transaction, day: datetime) -> None:
    plant(tx, NOW, [paid(11, 21), paid(12, 22)])
    inward = SECOND if day == SCOPE.since else -SECOND
    wrong = a_payment(amount=Won(5))
    for moment, seen in ((day, True), (day + inward, True), (day - inward, False)):
        assert differs(tx, replace(wrong, paid_at=moment)) == (["imp_21"] if seen else [])
        # What was given back counts by the day on which it was.
        gone = cancelled(paid_at=at("2026-07-01T00:00"), cancelled_at=moment)
        assert differs(tx, gone) == (["imp_21"] if seen else [])


def test_the_latest_word_on_a_payment_counts(tx: Transaction) -> None:
    plant(tx, NOW, [paid(11, 21)])
    for rows in ([a_payment(), cancelled()], [cancelled(), a_payment()]):
        assert [one.payment.status for one in differing(tx, *rows)] == ["cancelled"]


def test_months_are_those_of_seoul(tx: Transaction) -> None:
    last = replace(BY_HAND, customer_uid="customer-4", paid_at=at("2026-10-31T23:59:59"))
    assert differs(tx, last) == [], "it registered the key, as far as the book knows"
    assert differs(tx, replace(last, paid_at=at("2026-11-01T00:00"))) == ["imp_hand"]


def test_what_can_still_be_given_back_comes_first(tx: Transaction) -> None:
    old = a_payment(imp_uid="imp_old", merchant_uid="a", customer_uid="customer-2", paid_at=NOW)
    this_month = [replace(old, imp_uid=f"imp_{n}", merchant_uid=f"a{n}") for n in (1, 2)]
    plant(tx, NOW, [paid(13, 23), "UPDATE cycles SET paid_at = '2026-10-20T00:00Z' WHERE id = 13"])
    before = a_payment(
        imp_uid="imp_23", merchant_uid="mw-23", paid_at=at("2026-10-20T09:00"), amount=Won(7)
    )
    edge = replace(BY_HAND, paid_at=SCOPE.month_begins)
    expected = ["imp_2", "imp_hand", "imp_1", "imp_23"]
    assert differs(tx, before, *this_month[::-1], edge) == expected
    cut = differing(tx, before, *this_month, edge, most=2)
    assert [one.payment.imp_uid for one in cut] == expected[:2]


def test_what_is_paid_in_the_book_alone(tx: Transaction) -> None:
    plant(tx, NOW, [paid(11, 21), paid(12, 22, "refunded"), paid(13, 23)])
    plant(tx, NOW, ["UPDATE subscriptions SET status = 'paused' WHERE id = 2"])
    staged(tx, replace(PAYMENT, imp_uid="imp_23", merchant_uid="mw-23", customer_uid="customer-3",
        amount=Won(1003)))  # fmt: skip
    compared = ledger.compare(tx.session, SCOPE, 9)
    assert (compared.cases, compared.beyond) == ([], 0)
    first, second = compared.unseen
    assert (first.imp_uid, first.merchant_uid, first.paid_at) == ("imp_21", "mw-21", NOW)
    assert second.book == BookSide(
        subscription_id=2,
        customer_uid="customer-2",
        subscription_status="paused",
        amount=Won(1002),
        cycle_id=12,
        cycle_number=1,
        cycle_status="refunded",
        counted=True,
        counted_as="mw-22",
    )
    for moment, seen in (
        (SCOPE.since, True),
        (SCOPE.since - SECOND, False),
        (SCOPE.until, True),
        (SCOPE.until + SECOND, False),
    ):
        plant(tx, NOW, [f"UPDATE cycles SET paid_at = '{moment.isoformat()}' WHERE id = 11"])
        found = [one.imp_uid for one in ledger.compare(tx.session, SCOPE, 9).unseen]
        assert ("imp_21" in found) is seen


def test_the_earlier_comes_first_and_what_is_beyond_is_counted(tx: Transaction) -> None:
    plant(tx, NOW, [paid(11, 21), paid(12, 22), paid(13, 23)])
    plant(tx, NOW, ["UPDATE cycles SET paid_at = paid_at - interval '1 second' WHERE id = 13"])
    hands = [
        replace(BY_HAND, imp_uid=f"imp_h{n}", merchant_uid=f"h{n}", customer_uid=f"customer-{n}")
        for n in (4, 5)
    ]
    staged(tx, *hands)
    cut = ledger.compare(tx.session, SCOPE, 1)
    assert [one.imp_uid for one in cut.unseen] == ["imp_23"]
    assert (len(cut.cases), cut.beyond) == (1, 3)
    whole = ledger.compare(tx.session, SCOPE, 9)
    assert [one.imp_uid for one in whole.unseen] == ["imp_23", "imp_21", "imp_22"]
    assert (len(whole.cases), whole.beyond) == (2, 0)


def test_what_is_counted(tx: Transaction) -> None:
    inside = [
        a_payment(),
        replace(BY_HAND, paid_at=SCOPE.since, amount=Won(5)),
        cancelled(imp_uid="imp_c", merchant_uid="c", paid_at=SCOPE.until),
        a_payment(imp_uid="imp_n", customer_uid="nobody", merchant_uid="n"),
        cancelled(imp_uid="imp_m", customer_uid="nobody", merchant_uid="m"),
        cancelled(imp_uid="imp_l", customer_uid="nobody", merchant_uid="l"),
        a_payment(imp_uid="imp_f", merchant_uid="f", status="failed"),
        a_payment(imp_uid="imp_g", merchant_uid="g", status="failed"),
    ]
    outside = [
        a_payment(imp_uid="imp_o", merchant_uid="o", paid_at=SCOPE.since - SECOND),
        a_payment(imp_uid="imp_p", merchant_uid="p", paid_at=SCOPE.until + SECOND),
    ]
    staged(tx, *inside, *outside)
    assert ledger.compare(tx.session, SCOPE, 99).counts == {
        "paid": 2,
        "paid_won": 1006,
        "cancelled": 1,
        "not_ours": 3,
    }
    staged(tx)
    assert set(ledger.compare(tx.session, SCOPE, 99).counts.values()) == {0}


# -- the days of a proof --------------------------------------------------------------------------

DAY = at("2026-11-19T00:00")
NEXT_DAY = DAY + timedelta(days=1)


def rows(tx: Transaction, name: str, *, sandbox: bool = False) -> list[tuple[str, str, int]]:
    return list(ledger.side(tx.session, name, DAY, NEXT_DAY, sandbox=sandbox))


def test_what_the_ledger_took_on_a_day(tx: Transaction) -> None:
    def took(**facts: Any) -> bool:
        staged(tx, replace(BY_HAND, **facts))
        found = rows(tx, "ledger paid")
        assert found in ([], [("imp_hand", "by-hand", 1001)])
        return bool(found)

    assert took(paid_at=DAY)
    assert took(paid_at=NEXT_DAY - SECOND)
    assert not took(paid_at=DAY - SECOND)
    assert not took(paid_at=NEXT_DAY)
    assert took(status="cancelled")
    assert not took(status="failed")
    assert not took(customer_uid="somebody")
    assert not took(sandbox=True)
    assert rows(tx, "ledger paid", sandbox=True) == [("imp_hand", "by-hand", 1001)]
    # What registered a key is no charge of ours, nor is what came before our time.
    plant(tx, NOW, ["DELETE FROM cycles", "UPDATE subscriptions SET next_cycle = 2"])
    assert not took()
    plant(tx, NOW, ["UPDATE subscriptions SET next_cycle = 1"])
    assert took()


def test_what_the_ledger_gave_back_on_a_day(tx: Transaction) -> None:
    def gave(**facts: Any) -> bool:
        staged(tx, cancelled(**({"paid_at": at("2026-11-01T00:00")} | facts)))
        found = rows(tx, "ledger cancelled")
        assert found in ([], [("imp_21", "mw-21", 1001)])
        return bool(found)

    assert gave(cancelled_at=DAY)
    assert gave(cancelled_at=NEXT_DAY - SECOND)
    assert not gave(cancelled_at=DAY - SECOND)
    assert not gave(cancelled_at=NEXT_DAY)
    assert not gave(status="paid")
    assert not gave(sandbox=True)
    assert not gave(customer_uid="somebody", merchant_uid="other")


def test_what_the_book_took_and_gave_back_on_a_day(tx: Transaction) -> None:
    plant(tx, NOW, [paid(11, 21), refund(21, "done")])
    for moment, seen in (
        (DAY, True),
        (NEXT_DAY - SECOND, True),
        (DAY - SECOND, False),
        (NEXT_DAY, False),
    ):
        plant(tx, NOW, [f"UPDATE cycles SET paid_at = '{moment.isoformat()}' WHERE id = 11"])
        plant(tx, NOW, [f"UPDATE refunds SET cancelled_at = '{moment.isoformat()}'"])
        assert rows(tx, "book paid") == ([("imp_21", "mw-21", 1001)] if seen else [])
        assert rows(tx, "book cancelled") == ([("imp_21", "mw", 1)] if seen else [])
    plant(tx, NOW, [f"UPDATE refunds SET cancelled_at = '{DAY.isoformat()}', status = 'refused'"])
    assert rows(tx, "book cancelled") == []


def test_sides_are_in_the_order_of_bytes(tx: Transaction) -> None:
    ids = ["imp_B", "imp_a", "imp_b"]
    for at_, imp_uid in enumerate(reversed(ids), 11):
        plant(tx, NOW, [paid(at_, at_ + 10), refund(at_, "done")])
        plant(tx, NOW, [f"UPDATE cycles SET paid_imp_uid = '{imp_uid}' WHERE id = {at_}"])
        plant(tx, NOW, [f"UPDATE refunds SET imp_uid = '{imp_uid}' WHERE imp_uid = 'imp_{at_}'"])
    plant(tx, NOW, [f"UPDATE cycles SET paid_at = '{DAY.isoformat()}' WHERE paid_at IS NOT NULL"])
    plant(tx, NOW, [f"UPDATE refunds SET cancelled_at = '{DAY.isoformat()}'"])
    staged(tx, *(cancelled(imp_uid=one, merchant_uid=one) for one in reversed(ids)))
    for name in ledger.SIDES:
        assert [one for one, _, _ in rows(tx, name)] == ids


# -- keys to ask about ----------------------------------------------------------------------------


SOON = datetime(2026, 11, 28, tzinfo=UTC)
ALL_PARTS = range(ledger.PARTS)


def asked(tx: Transaction, parts: Sequence[int], few: int, most: int = 9, **more: int) -> list[int]:
    keys = ledger.keys_to_ask(tx.session, ledger.Share(SOON, parts, **more), few, most)
    return [key.subscription_id for key in keys]


def due(tx: Transaction, *days: int) -> None:
    """The five subscriptions are due on these days of November, at midnight in UTC."""
    for number, day in enumerate(days, 1):
        at_ = f"UPDATE subscriptions SET next_due_at = '2026-11-{day:02}Z' WHERE id = {number}"
        plant(tx, NOW, [at_])


def test_where_few_are_charged_soon_the_nearest_are_asked_about(tx: Transaction) -> None:
    due(tx, 24, 23, 30, 22, 29)
    nearest = ledger.Key(4, "customer-4")
    assert ledger.keys_to_ask(tx.session, ledger.Share(SOON, []), 5, 9)[0] == nearest
    assert ledger.keys_to_ask(tx.session, ledger.Share(SOON, [4]), 2, 9) == [nearest]
    assert asked(tx, [], 9) == [4, 2, 1, 5, 3], "later ones, too, and whatever the day"
    assert asked(tx, [], 3, most=1) == [4, 2, 1]
    plant(tx, NOW, ["UPDATE subscriptions SET status = 'paused' WHERE id = 4"])
    assert asked(tx, [], 2) == [2, 1]


def test_where_many_are_charged_soon_each_day_has_its_part_of_them(tx: Transaction) -> None:
    # Not the fifth: it is charged when that week is over, to the second.
    due(tx, 24, 23, 27, 22, 28)
    assert [asked(tx, [part], 3) for part in ALL_PARTS] == [[], [1], [2], [3], [4], [], []]
    assert asked(tx, [4, 1, 2, 6], 3) == [4, 2, 1], "several days at once, the nearest first"
    assert asked(tx, ALL_PARTS, 3, most=2) == [4, 2]
    plant(tx, NOW, ["UPDATE subscriptions SET status = 'paused' WHERE id = 2"])
    assert asked(tx, ALL_PARTS, 2) == [4, 1, 3]
    assert asked(tx, [], 3) == [4, 1, 3], "three are few: the nearest three of all"


def test_where_too_many_are_charged_each_month_has_its_share_of_them(tx: Transaction) -> None:
    # All of one part.
    plant(tx, NOW, ["ALTER TABLE subscriptions ALTER id DROP IDENTITY"])
    plant(tx, NOW, ["UPDATE subscriptions SET id = 1000 + 7 * id"])
    found = []
    for month in ("2025-11", "2025-12", "2026-01", "2026-02", "2026-11"):
        plant(tx, NOW, [f"UPDATE subscriptions SET next_due_at = '{month}-24Z'"])
        assert asked(tx, [6], 2) == asked(tx, [6], 2, many=1) == [1007, 1014, 1021, 1028, 1035]
        found.append(asked(tx, [6], 2, many=3))
    assert found == [[1021], [1014, 1035], [1007, 1028], [1021], [1021]]


def test_how_many_are_charged_at_all(tx: Transaction) -> None:
    assert ledger.active_keys(tx.session) == 5
    plant(tx, NOW, ["UPDATE subscriptions SET status = 'paused' WHERE id = 4"])
    assert ledger.active_keys(tx.session) == 4


def test_of_one_moment_the_oldest_are_asked_about_first(tx: Transaction) -> None:
    due(tx, 24, 24, 24, 24, 24)
    plant(tx, NOW, ["UPDATE subscriptions SET reference = 'x' WHERE id = 1"])
    assert asked(tx, [], 5) == [1, 2, 3, 4, 5]
    assert asked(tx, ALL_PARTS, 4, most=3) == [1, 2, 3]


def test_a_key_of_which_a_schedule_was_told_is_asked_about_each_day(tx: Transaction) -> None:
    due(tx, 24, 23, 27, 22, 28)

    def told(number: int, kind: str, resolved: str = "NULL") -> str:
        return (
            "INSERT INTO ledger_differences (key, kind, at, subscription_id, first_seen_at,"
            f" last_seen_at, resolved_at) VALUES ('{kind}-{number}', '{kind}', now(), {number},"
            f" now(), now(), {resolved})"
        )

    plant(
        tx,
        NOW,
        [
            told(1, "scheduled_at_gateway", "now()"),
            told(2, "scheduled_at_gateway"),
            told(3, "double"),
            told(5, "scheduled_at_gateway"),
            # Ended in our book: the gateway would charge it all the same.
            "UPDATE subscriptions SET status = 'cancelled' WHERE id = 5",
        ],
    )
    assert asked(tx, [4], 3) == [2, 5, 4]
    assert asked(tx, [2], 3) == [2, 5], "once, where it is in today's part as well"
    assert asked(tx, [], 1) == [2]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("an order of the store's", "nobody"),
        ("mw-21", "nobody"),
        # Its tag is asked about only where nothing else tells whose it is.
        ("mw-tag2222222222222-202611-01", "customer-1"),
    ],
)
def test_whose_a_payment_is_takes_no_reading_of_the_whole_book(
    tx: Transaction, name: str, key: str
) -> None:
    """Each webhook of a stranger's payment is laid beside a book of millions."""
    plant(
        tx,
        NOW,
        [
            "INSERT INTO subscriptions (customer_uid, status, amount, order_name, anchor_on,"
            " initial_paid_at, seal, tag, enrolled_at, next_cycle, next_due_at, next_closes_at)"
            " SELECT 'other-' || n, status, amount, order_name, anchor_on, initial_paid_at, seal,"
            " n, enrolled_at, next_cycle, next_due_at, next_closes_at"
            " FROM subscriptions, generate_series(1, 20000) n WHERE id = 1",
            "ANALYZE subscriptions",
        ],
    )
    before = rows_read(tx)
    staged(tx, a_payment(merchant_uid=name, customer_uid=key))
    assert (rows_read(tx) - before)["subscriptions"] < 100
