"""Reconciliation: every kind of difference is planted, found and named; a clean book has none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from billing.domain.errors import GatewayError, InvalidInput
from billing.domain.money import Won
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import BookSide, Case, Difference
from billing.domain.remedies import remedy
from billing.portone.client import PortOneClient
from billing.portone.lookups import TRIES
from billing.sandbox import mood
from billing.sandbox.model import Status
from billing.services import questions
from billing.services.change_status import pause, resume
from billing.services.confirm_difference import by_name
from billing.services.enrol import enrol as enrol_one
from billing.services.inquire import inquire
from billing.services.invariants import broken
from billing.services.open_cycles import open_cycles
from billing.services.reconcile import Report, Span, days_of_keys, reconcile, span_of_today
from billing.store import differences
from billing.store.session import Book
from tests.builders import KEY, a_refund, execute, once_before, query
from tests.conftest import MovedClock
from tests.town import Town, seoul, uid

AGAIN = "/payments/again"
LIST = "/payments/status/paid"


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """10:00 on 20 November 2026 in Seoul."""
    return Town(book, policy, clock)


@pytest.fixture
def paid(town: Town) -> Town:
    """Three subscribers, charged."""
    town.subscribe(3)
    assert town.charge() == {"approved": 3}
    return town


def declined(town: Town, code: str = "0031") -> str:
    """One subscriber whose first attempt was declined; that attempt's merchant_uid."""
    town.subscribe()
    town.sandbox.mood = mood({"scripts": [{"customers": "*", "does": [f"declined:{code}"]}]})
    assert town.charge() == {"declined": 1}
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts WHERE status = 'declined'")
    return str(name)


def open_only(town: Town) -> None:
    """Open what is due, and charge nothing yet."""
    assert open_cycles(town.book, town.policy) == 1


def enrol(town: Town, number: int, paid: str, last_paid_on: str) -> None:
    """Enrol a key that has been charged for some time."""
    fields = {
        "customer_uid": uid(number),
        "amount": "5000",
        "order_name": "another",
        "initial_paid_at": seoul(paid).isoformat(),
        "last_paid_on": last_paid_on,
    }
    assert enrol_one(town.book, town.policy, lambda: KEY, fields)


def alarms(town: Town) -> list[str]:
    return [row[0] for row in query(town.book, "SELECT kind FROM events WHERE alarm ORDER BY id")]


def cycle(town: Town) -> tuple[str, str | None]:
    ((status, reason),) = query(town.book, "SELECT status, reason FROM cycles")
    return status, reason


def open_differences(town: Town) -> int:
    return town.book.run(lambda tx: differences.count_open(tx.session))


def applied(town: Town) -> list[str]:
    town.move(minutes=5)
    return [str(one.kind) for one in town.reconcile(apply=True).applied]


# -- nothing false ------------------------------------------------------------------------------


def test_a_clean_book_of_hundreds_has_no_difference(town: Town) -> None:
    """Several months, small pages, a span over 90 days."""
    town.at("2026-09-20 10:00").subscribe(120, paid="2026-08-20 14:30")
    months = ["2026-09", "2026-10", "2026-11", "2026-12"]
    for month in months:
        town.at(f"{month}-20 10:00")
        assert town.charge() == {"approved": 120}
    town.subscribe(7, paid="2026-12-05 12:00", first=300)
    town.page_limit = 9
    town.move(minutes=5)
    report = town.reconcile("2026-08-01", "2026-12-20")
    assert report.differences == []
    assert report.clean
    assert report.counts["paid"] == 120 * 5 + 7
    assert report.counts["not_ours"] == 0
    assert broken(town.book, town.policy) == []


def test_charges_on_their_way_are_not_differences(town: Town) -> None:
    town.subscribe(2)
    town.wire.faults[AGAIN] = "unanswered"
    assert town.charge() == {"unknown": 2}
    town.wire.faults.clear()
    assert town.kinds(apply=True) == []
    assert query(town.book, "SELECT DISTINCT status FROM cycles") == [("open",)]
    ids = [row[0] for row in query(town.book, "SELECT id FROM attempts")]
    town.run(lambda client: inquire(town.book, client, town.policy, ids))
    assert query(town.book, "SELECT DISTINCT status, reason FROM cycles") == [("paid", None)]
    assert town.kinds() == []


def test_what_is_newer_than_the_gateway_must_show_is_left_for_tomorrow(paid: Town) -> None:
    paid.pay_by_hand()
    assert paid.reconcile().differences == []
    assert paid.kinds() == ["double"]


def test_payments_before_our_time_are_none_of_ours(town: Town) -> None:
    """Months that another system charged, before the key was enrolled."""
    town.register_only(1, paid="2026-06-20 14:30", last_paid_at=seoul("2026-10-20 11:00"))
    enrol(town, 1, "2026-06-20 14:30", last_paid_on="2026-10-20")
    assert town.kinds(first="2026-06-01") == []


def test_other_things_that_the_store_sells_are_only_counted(paid: Town) -> None:
    stranger = paid.register_only(9)
    paid.changed(stranger.imp_uid, paid_at=stranger.paid_at, customer_uid="")
    assert paid.kinds(first="2026-10-01") == ["not_enrolled"], "usage says that it made a key"


# -- paid at the gateway, not in our book -------------------------------------------------------


def test_double(paid: Town) -> None:
    second = paid.pay_by_hand(2)
    paid.move(minutes=5)
    (found,) = paid.reconcile().differences
    assert (found.kind, found.imp_uid, found.keep) == (
        "double",
        second.imp_uid,
        paid.paid_imp_uid(2),
    )
    assert found.refund_by == seoul("2026-12-01 00:00")
    advice = remedy(found, paid.clock.now, paid.policy.plan.zone)
    for text in (advice.en, advice.ko):
        assert f"maewol refund {second.merchant_uid} --imp-uid {second.imp_uid}" in text
        assert "2026-12-01 00:00" in text
        assert str(found.keep) in text
    late = remedy(found, seoul("2026-12-01 00:00"), paid.policy.plan.zone)
    assert "transfer" in late.en
    assert "계좌" in late.ko


def test_double_where_ours_came_second(town: Town) -> None:
    """Our own is kept, whichever was first: it is the one that the book counts."""
    town.subscribe()
    assert town.charge() == {"approved": 1}
    by_hand = town.pay_by_hand(at=town.clock.now - timedelta(hours=1))
    town.move(minutes=5)
    (found,) = town.reconcile().differences
    assert (found.kind, found.imp_uid) == ("double", by_hand.imp_uid)


def test_double_in_the_month_of_the_initial_payment(town: Town) -> None:
    town.subscribe(paid="2026-11-10 14:30")
    second = town.pay_by_hand()
    town.move(minutes=5)
    (found,) = town.reconcile().differences
    assert (found.kind, found.imp_uid) == ("double", second.imp_uid)


def test_double_of_one_on_the_first_of_the_month_before_the_days_asked_about(town: Town) -> None:
    """Whole months are read: the payment that the second one doubles is none of these days."""
    town.at("2026-11-05 10:00").subscribe(paid="2026-10-05 14:30")
    open_only(town)
    first = town.pay_by_hand(at=seoul("2026-11-01 00:00:00"))
    town.at("2026-11-20 10:00")
    second = town.pay_by_hand()
    town.move(minutes=5)
    found = town.reconcile("2026-11-20", "2026-11-20").differences
    assert [(one.kind, one.imp_uid, one.keep) for one in found] == [
        ("double", second.imp_uid, first.imp_uid)
    ]


def test_double_of_one_after_the_days_asked_about(town: Town) -> None:
    """The one that is kept was made later, and is none of these days: it keeps the month, too."""
    town.at("2026-11-10 10:00").subscribe()
    first = town.pay_by_hand()
    town.at("2026-11-20 10:00")
    kept = town.pay_by_hand()
    assert town.charge() == {"paid_elsewhere": 1}
    town.at("2026-11-25 10:00")
    (found,) = town.reconcile("2026-11-01", "2026-11-15").differences
    assert (found.kind, found.imp_uid, found.keep) == ("double", first.imp_uid, kept.imp_uid)
    assert found.refund_by == seoul("2026-12-01 00:00")


def test_no_more_than_the_months_of_a_span_are_read(town: Town) -> None:
    asked: list[tuple[str, datetime, datetime]] = []

    async def compared(client: PortOneClient) -> Report:
        as_ever = client.payments_between

        def between(status: str, since: datetime, until: datetime) -> Any:
            asked.append((status, since, until))
            return as_ever(status, since, until)

        client.payments_between = between  # type: ignore[method-assign]
        span = Span(date(2026, 9, 10), date(2026, 10, 31))
        return await reconcile(town.book, client, town.policy, span)

    town.run(compared)
    assert asked == [
        ("paid", seoul("2026-09-01 00:00"), seoul("2026-11-01 00:00")),
        ("cancelled", seoul("2026-09-01 00:00"), town.clock.now),
    ]


def test_a_second_payment_is_one_only_while_the_first_still_stands(town: Town) -> None:
    """Asked about by name after the list was read: meanwhile somebody may have given one back."""
    town.subscribe()
    first, second = town.pay_by_hand(), town.pay_by_hand()
    town.move(minutes=5)
    book = BookSide(1, uid(1), "active", Won(1001), cycle_id=1, cycle_status="open")

    def judged(book: BookSide) -> tuple[str, bool] | None:
        async def asked(client: PortOneClient) -> Difference | None:
            case = Case(listed, book, double_of=first.imp_uid)
            return await by_name(client, town.policy, case)

        found = town.run(asked)
        return None if found is None else (str(found.kind), found.confirmed)

    listed = town.run(lambda client: client.payment(second.imp_uid))
    assert listed is not None
    assert judged(book) == ("double", True)
    town.changed(first.imp_uid, visible_at=9e9)
    assert judged(book) == ("paid_elsewhere", True)
    town.changed(first.imp_uid, visible_at=0)
    town.cancel_outside(first.imp_uid)
    assert judged(book) == ("paid_elsewhere", True)
    # What only the list shows is told as the list shows it, where there is anything to tell.
    town.changed(second.imp_uid, visible_at=9e9)
    assert judged(book) == ("double", False)
    agreeing = replace(book, cycle_status="paid", counted=True, counted_as=listed.merchant_uid)
    assert judged(agreeing) is None


def test_late_paid_in_an_open_month(town: Town) -> None:
    name = declined(town)
    town.pay_by_hand(merchant_uid=name)
    assert town.kinds() == ["late_paid"]
    assert applied(town) == ["late_paid"]
    assert cycle(town) == ("paid", "paid_late")
    assert query(town.book, "SELECT status FROM attempts ORDER BY number") == [
        ("declined",),
        ("withdrawn",),
    ]
    assert town.kinds() == []
    assert broken(town.book, town.policy) == []


def test_late_proof_mends_the_chain(town: Town) -> None:
    name = declined(town)
    town.pay_by_hand(merchant_uid=name)
    town.at("2026-11-26 10:00")
    assert town.close() == 1
    assert cycle(town)[0] == "missed"
    assert query(town.book, "SELECT status FROM subscriptions") == [("suspended",)]
    assert applied(town) == ["late_paid"]
    assert cycle(town) == ("paid", "paid_late")
    assert query(town.book, "SELECT status, status_reason FROM subscriptions") == [("active", None)]
    assert "subscription.mended" in alarms(town)
    assert broken(town.book, town.policy) == []


def test_paid_though_refused_for_good(town: Town) -> None:
    """The answer said that the number is unknown; the payment was made all the same."""
    name = declined(town, "0011")
    assert cycle(town) == ("open", None)
    town.move(minutes=1)
    town.close()
    assert query(town.book, "SELECT status, status_reason FROM subscriptions") == [
        ("suspended", "key_invalid")
    ]
    town.pay_by_hand(merchant_uid=name)
    assert applied(town) == ["late_paid"]
    assert cycle(town) == ("paid", "paid_late")
    assert query(town.book, "SELECT status, status_reason FROM subscriptions") == [("active", None)]
    assert "subscription.mended" in alarms(town)
    assert broken(town.book, town.policy) == []
    town.at("2026-12-20 10:00")
    town.sandbox.mood = mood({})
    assert town.charge() == {"approved": 1}, "and the next month is charged again"


def test_paid_elsewhere(town: Town) -> None:
    town.subscribe()
    open_only(town)
    by_hand = town.pay_by_hand()
    assert town.kinds() == ["paid_elsewhere"]
    assert cycle(town)[0] == "open"
    assert applied(town) == ["paid_elsewhere"]
    assert cycle(town) == ("paid", "paid_elsewhere")
    assert town.paid_imp_uid() == by_hand.imp_uid
    assert alarms(town) == ["payment.found_elsewhere"]
    assert town.charge() == {}, "the month is not charged a second time"
    assert town.kinds() == []


def test_an_attempt_of_ours_that_is_due_and_paid_already(town: Town) -> None:
    """A database that went back in time: the attempt is due, the gateway has its payment."""
    town.subscribe()
    open_only(town)
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    town.pay_by_hand(merchant_uid=name)
    assert applied(town) == ["late_paid"]
    assert query(town.book, "SELECT status, imp_uid FROM attempts") == [
        ("approved", town.paid_imp_uid())
    ]
    assert cycle(town)[0] == "paid"
    assert broken(town.book, town.policy) == []


def test_before_its_month_opens_it_opens_the_month_and_counts(town: Town) -> None:
    town.at("2026-11-18 10:00").subscribe()
    by_hand = town.pay_by_hand()
    assert town.kinds() == ["paid_elsewhere"]
    assert query(town.book, "SELECT 1 FROM cycles") == []
    assert applied(town) == ["paid_elsewhere"]
    assert cycle(town) == ("paid", "paid_elsewhere")
    assert town.paid_imp_uid() == by_hand.imp_uid
    assert query(town.book, "SELECT number, status FROM attempts") == [(1, "withdrawn")]
    assert town.at("2026-11-20 10:00").charge() == {}
    assert town.kinds(apply=True) == []
    assert open_differences(town) == 0
    assert broken(town.book, town.policy) == []
    assert town.at("2026-12-20 10:00").charge() == {"approved": 1}


def test_a_paused_month_that_is_paid_by_hand_is_paid(town: Town) -> None:
    """The chain is whole: nothing is given back, nobody is suspended."""
    town.at("2026-11-18 10:00").subscribe()
    pause(town.book, town.policy, uid(1))
    by_hand = town.pay_by_hand()
    town.move(minutes=5)
    (found,) = town.reconcile().differences
    assert (found.kind, found.refund_by) == ("paid_elsewhere", None)
    assert "It counts" in remedy(found, town.clock.now, town.policy.plan.zone).en
    assert applied(town) == ["paid_elsewhere"]
    assert cycle(town) == ("paid", "paid_elsewhere")
    assert town.paid_imp_uid() == by_hand.imp_uid
    town.at("2026-12-02 10:00").close()
    assert query(town.book, "SELECT status FROM subscriptions") == [("paused",)]
    resume(town.book, town.policy, uid(1))
    assert town.at("2026-12-20 10:00").charge() == {"approved": 1}
    assert broken(town.book, town.policy) == []


def test_a_month_is_not_opened_for_it_while_the_one_before_is_open(town: Town) -> None:
    """Its charge is still in question two days after the close."""
    town.at("2026-10-31 09:00").subscribe(paid="2026-09-30 14:30")
    town.wire.faults[AGAIN] = "unanswered"
    assert town.charge() == {"unknown": 1}
    town.at("2026-11-01 10:00").close()
    by_hand = town.pay_by_hand()
    assert applied(town) == []
    assert [row[0] for row in query(town.book, "SELECT status FROM cycles")] == ["open"]
    town.wire.faults.clear()
    (attempt,) = query(town.book, "SELECT id FROM attempts")
    for _ in range(2):
        town.move(minutes=5)
        town.run(lambda client: inquire(town.book, client, town.policy, list(attempt)))
    assert applied(town) == ["paid_elsewhere"]
    assert town.paid_imp_uid() == by_hand.imp_uid


def test_what_was_given_back_meanwhile_opens_no_month(town: Town) -> None:
    town.at("2026-11-03 10:00").subscribe()
    by_hand = town.pay_by_hand()
    a_refund(town.book, by_hand.imp_uid, town.clock.now)
    assert applied(town) == []
    assert query(town.book, "SELECT 1 FROM cycles") == []
    assert query(town.book, "SELECT next_cycle FROM subscriptions") == [(1,)]


def test_ours_by_name_and_not_in_the_book(town: Town) -> None:
    town.subscribe()
    open_only(town)
    ((tag,),) = query(town.book, "SELECT tag FROM subscriptions")
    town.pay_by_hand(merchant_uid=f"mw-{tag}-202611-07")
    assert town.kinds() == ["not_in_book"]
    assert applied(town) == ["not_in_book"]
    assert cycle(town) == ("paid", "paid_elsewhere")


def test_ours_by_form_and_nobodys_tag(paid: Town) -> None:
    paid.register_only(9)
    paid.pay_by_hand(9, merchant_uid="mw-aaaabbbbccccdddd-202611-01")
    assert paid.kinds() == ["not_in_book"]


def test_paid_though_nothing_was_due(town: Town) -> None:
    town.subscribe(2)
    execute(town.book, "UPDATE subscriptions SET status = 'cancelled' WHERE id = 1")
    town.charge()
    town.pay_by_hand(1)
    town.move(minutes=5)
    (found,) = town.reconcile().differences
    assert (found.kind, found.refund_by) == ("paid_not_due", seoul("2026-12-01 00:00"))


def test_strangers(paid: Town) -> None:
    paid.register_only(8)
    paid.pay_by_hand(8)
    paid.register_only(9, paid="2026-11-19 11:00")
    assert sorted(paid.kinds()) == ["not_enrolled", "stranger"]


# -- paid in our book, not at the gateway -------------------------------------------------------


def test_cancelled_at_the_gateway(paid: Town) -> None:
    paid.cancel_outside(paid.paid_imp_uid(2))
    assert paid.kinds() == ["cancelled_at_gateway"]
    assert applied(paid) == ["cancelled_at_gateway"]
    rows = query(
        paid.book,
        "SELECT s.status_reason, c.status FROM subscriptions s JOIN cycles c"
        " ON c.subscription_id = s.id ORDER BY s.id",
    )
    assert rows == [(None, "paid"), ("chain_at_risk", "refunded"), (None, "paid")]
    assert query(paid.book, "SELECT status, reason FROM refunds") == [
        ("done", "found cancelled by reconciliation")
    ]
    assert alarms(paid) == ["refund.done", "subscription.chain_at_risk"]
    assert query(paid.book, "SELECT count(*) FROM notices WHERE kind = 'payment.refunded'") == [
        (1,)
    ]
    assert paid.kinds(apply=True) == []
    assert broken(paid.book, paid.policy) == []


def test_cancelled_long_after_the_days_asked_about(paid: Town) -> None:
    paid.at("2026-11-29 23:00")
    paid.cancel_outside(paid.paid_imp_uid(2))
    assert paid.kinds(last="2026-11-20") == [], "it was cancelled on another day"
    assert paid.kinds(first="2026-11-29") == ["cancelled_at_gateway"]


@pytest.mark.parametrize("paused", [False, True])
def test_the_initial_payment_was_cancelled(town: Town, paused: bool) -> None:
    """Told also of who is paused just now: resumed, the next month is charged, and nobody looks at
    the days of the cancellation again."""
    town.subscribe(paid="2026-11-10 14:30")
    if paused:
        pause(town.book, town.policy, uid(1))
    ((name,),) = query(town.book, "SELECT initial_merchant_uid FROM subscriptions")
    (initial,) = town.sandbox.ledger.of_order(name)
    town.cancel_outside(initial.imp_uid)
    town.move(minutes=5)
    (found,) = town.reconcile(apply=True).differences
    assert found.kind == "cancelled_at_gateway"
    assert "registered" in remedy(found, town.clock.now, town.policy.plan.zone).en


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"status": Status.FAILED, "paid_at": 0, "failed_at": 1}, "failed_at_gateway"),
        ({"status": Status.READY, "paid_at": 0}, "not_final_at_gateway"),
        # A row without any moment of its own stands at the one that the book has.
        ({"status": Status.READY, "paid_at": 0, "started_at": 0}, "not_final_at_gateway"),
        ({"status": Status.FAILED, "paid_at": 0, "started_at": 0}, "failed_at_gateway"),
        ({"visible_at": 9e9}, "missing_at_gateway"),
        ({"amount": 1}, "amount_differs"),
        ({"customer_uid": "somebody-else"}, "customer_differs"),
        ({"merchant_uid": "another-name"}, "customer_differs"),
    ],
)
def test_the_gateways_row_says_something_else(
    paid: Town, change: dict[str, object], kind: str
) -> None:
    paid.changed(paid.paid_imp_uid(2), **change)
    assert paid.kinds(apply=True) == [kind]
    assert query(paid.book, "SELECT DISTINCT status FROM cycles") == [("paid",)]
    assert alarms(paid) == ["reconcile.difference"]


def test_refunded_in_our_book_and_paid_at_the_gateway(paid: Town) -> None:
    imp_uid = paid.paid_imp_uid(2)
    paid.cancel_outside(imp_uid)
    assert applied(paid) == ["cancelled_at_gateway"]
    paid.changed(imp_uid, status=Status.PAID, cancelled_at=0)
    assert paid.kinds() == ["refund_not_at_gateway"]


def test_an_amount_that_differs_is_never_counted(town: Town) -> None:
    town.subscribe()
    open_only(town)
    town.pay_by_hand(amount=5000)
    assert town.kinds(apply=True) == ["amount_differs"]
    assert cycle(town)[0] == "open"


def test_a_charge_of_ours_that_took_another_amount_is_told_while_it_can_be_given_back(
    town: Town,
) -> None:
    """No inquiry settles that: the month is held, and the attempt stays unknown."""
    town.subscribe()
    town.sandbox.mood = mood({"scripts": [{"customers": "*", "does": ["wrong_amount"]}]})
    assert town.charge() == {"unknown": 1}
    town.move(minutes=1)
    assert town.kinds() == [], "the answer alone was wrong; the inquiry counts what was taken"
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    (taken,) = (one for one in town.sandbox.ledger.payments if one.merchant_uid == name)
    town.changed(taken.imp_uid, amount=5000)
    (told,) = town.reconcile(apply=True).differences
    assert (told.kind, told.imp_uid) == ("amount_differs", taken.imp_uid)
    assert told.refund_by == seoul("2026-12-01")
    assert cycle(town)[0] == "open"


def test_test_payments_among_live_ones(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    policy = make_policy(charge_cron="* * * * *", charges_per_second=0, include_sandbox=True)
    town = Town(book, policy, clock)
    town.subscribe(2)
    for payment in [*town.sandbox.ledger.payments]:
        town.changed(payment.imp_uid, sandbox=True)
    town.sandbox.mood = town.sandbox.mood.model_copy(update={"test_mode": True})
    assert town.charge() == {"approved": 2}
    assert town.kinds() == []
    town.changed(town.paid_imp_uid(1), sandbox=False)
    assert town.kinds() == ["sandbox_mixed"]


def test_the_gateways_own_schedule(paid: Town) -> None:
    at = int(seoul("2026-12-18 10:00").timestamp())
    wish = {"merchant_uid": "theirs-1", "schedule_at": at, "amount": 1002, "name": "plan 2"}
    answer = paid.post(
        "/subscribe/payments/schedule", {"customer_uid": uid(2), "schedules": [wish]}
    )
    assert answer["code"] == 0
    paid.move(minutes=5)
    report = paid.reconcile(apply=True)
    assert [str(one.kind) for one in report.differences] == ["scheduled_at_gateway"]
    assert report.news == 1
    assert open_differences(paid) == 1
    paid.post("/subscribe/payments/unschedule", {"customer_uid": uid(2)})
    assert paid.kinds(apply=True) == []
    assert open_differences(paid) == 0


# -- the report, and what is remembered ---------------------------------------------------------


def test_what_can_still_be_given_back_comes_first(paid: Town) -> None:
    paid.changed(paid.paid_imp_uid(1), visible_at=9e9)
    paid.register_only(9)
    paid.pay_by_hand(9)
    paid.pay_by_hand(3)
    kinds = paid.kinds()
    assert kinds[0] == "double"
    assert sorted(kinds[1:]) == ["missing_at_gateway", "stranger"]


def test_a_report_changes_nothing(town: Town) -> None:
    town.subscribe()
    open_only(town)
    town.pay_by_hand()
    before = query(town.book, "SELECT count(*), max(id) FROM events")
    assert town.kinds() == ["paid_elsewhere"]
    assert query(town.book, "SELECT count(*), max(id) FROM events") == before
    assert cycle(town)[0] == "open"
    assert open_differences(town) == 0


def test_told_once_until_it_is_gone_and_back(paid: Town) -> None:
    second = paid.pay_by_hand(2)
    for day in (21, 22, 23):
        paid.at(f"2026-11-{day} 05:30")
        assert paid.kinds(apply=True) == ["double"]
    assert alarms(paid) == ["reconcile.difference"]
    assert open_differences(paid) == 1
    paid.cancel_outside(second.imp_uid)
    assert paid.kinds(apply=True) == []
    assert open_differences(paid) == 0
    paid.changed(second.imp_uid, status=Status.PAID, cancelled_at=0)
    assert paid.kinds(apply=True) == ["double"]
    assert alarms(paid) == ["reconcile.difference"] * 2


def test_a_part_of_the_month_resolves_nothing_outside_it(paid: Town) -> None:
    paid.changed(paid.paid_imp_uid(2), amount=1)
    assert paid.kinds(apply=True) == ["amount_differs"]
    paid.at("2026-11-25 10:00")
    assert paid.kinds(first="2026-11-22", apply=True) == []
    assert open_differences(paid) == 1


def test_many_differences_are_one_loud_alarm(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.subscribe(30)
    town.charge()
    for number in range(1, 31):
        town.changed(town.paid_imp_uid(number), visible_at=9e9)
    town.move(minutes=5)
    assert len(town.reconcile(apply=True).differences) == 30
    assert alarms(town) == ["reconcile.many"]
    monkeypatch.setattr("billing.services.reconcile.MOST_DIFFERENCES", 25)
    report = town.reconcile(apply=True)
    assert (len(report.differences), report.beyond) == (25, 5)
    assert not report.clean
    assert open_differences(town) == 30, "what was left out is not gone"


def test_with_too_many_those_of_this_month_are_looked_at_first(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first moment on, and there the oldest first."""
    monkeypatch.setattr("billing.services.reconcile.MOST_DIFFERENCES", 2)
    days = ("2026-10-31 23:59:59", "2026-11-01 00:00:00", "2026-11-15 09:00", "2026-11-16 09:00")
    for number, day in enumerate(days):
        town.register_only(number, paid=day)
    report = town.reconcile("2026-10-01")
    assert [one.customer_uid for one in report.differences] == [uid(1), uid(2)]
    assert report.beyond == 2


def test_the_daily_run_doubled(town: Town) -> None:
    """Two at the same moment: one adoption, one alarm, one refund."""
    town.subscribe(3)
    assert town.charge() == {"approved": 3}
    town.subscribe(1, first=4)
    open_only(town)
    town.pay_by_hand(4)
    town.pay_by_hand(3)
    town.cancel_outside(town.paid_imp_uid(1))
    town.move(minutes=5)
    span = Span(seoul("2026-11-01").date(), seoul("2026-11-30").date())

    async def twice(client: PortOneClient) -> list[Report]:
        runs = (reconcile(town.book, client, town.policy, span, apply=True) for _ in range(2))
        return list(await asyncio.gather(*runs))

    reports = town.run(twice)
    assert sum(len(report.applied) for report in reports) == 2
    assert sum(report.news for report in reports) == 1
    told = query(town.book, "SELECT kind, count(*) FROM events WHERE alarm GROUP BY 1 ORDER BY 1")
    assert told == [
        ("payment.found_elsewhere", 1),
        ("reconcile.difference", 1),
        ("refund.done", 1),
        ("subscription.chain_at_risk", 1),
    ]
    assert broken(town.book, town.policy) == []


@pytest.mark.parametrize("statement", ["TABLE ledger", "TABLE beside", "SELECT b.*"])
def test_a_payment_counted_while_it_is_compared_is_no_second_one(
    town: Town, statement: str
) -> None:
    """Between two statements of a comparison another run counts the payment: seen by the one and
    not by the other, it would be told of as a payment that the month has no place for."""
    town.subscribe()
    open_only(town)
    town.pay_by_hand()
    town.move(minutes=5)
    others: list[Report] = []
    with once_before(town.book, statement, lambda: others.append(town.reconcile(apply=True))):
        report = town.reconcile(apply=True)
    assert [str(one.kind) for one in others[0].applied] == ["paid_elsewhere"]
    assert report.differences == []
    assert alarms(town) == ["payment.found_elsewhere"]
    assert cycle(town) == ("paid", "paid_elsewhere")


def test_a_charge_that_begins_while_the_payment_is_counted(town: Town) -> None:
    """Found by the list, then claimed by a worker before it is applied: nothing is written."""
    town.subscribe()
    open_only(town)
    by_hand = town.pay_by_hand()
    town.move(minutes=5)

    def claimed() -> None:
        execute(
            town.book,
            "UPDATE attempts SET status = 'sending', fence = 1, sent_at = now(),"
            " lease_until = now() + interval '1 hour'",
        )

    town.wire.faults[by_hand.imp_uid] = claimed
    report = town.reconcile(apply=True)
    assert report.clean, "that charge's own look-up finds the payment"
    assert open_differences(town) == 0
    assert query(town.book, "SELECT c.status, a.status FROM cycles c, attempts a") == [
        ("open", "sending")
    ]


# -- a list that cannot be believed -------------------------------------------------------------


def test_a_list_that_is_not_to_be_had_proves_nothing(town: Town) -> None:
    town.subscribe(2)
    assert town.charge() == {"approved": 2}
    town.wire.faults[LIST] = "lost"
    before = query(town.book, "SELECT count(*) FROM events")
    with pytest.raises(GatewayError):
        town.kinds(apply=True)
    assert query(town.book, "SELECT count(*) FROM events") == before
    assert query(town.book, "SELECT DISTINCT status FROM cycles") == [("paid",)]


def test_a_look_up_that_fails_proves_nothing(paid: Town) -> None:
    imp_uid = paid.paid_imp_uid(2)
    paid.changed(imp_uid, visible_at=9e9)
    paid.wire.faults[imp_uid] = "lost"
    paid.move(minutes=5)
    report = paid.reconcile(apply=True)
    assert (report.differences, report.failed, report.whole) == ([], 1, False)
    assert not report.clean
    assert open_differences(paid) == 0


# -- questions without an answer ----------------------------------------------------------------


def unanswered(town: Town) -> list[dict[str, object]]:
    told = query(town.book, "SELECT data FROM events WHERE kind = 'reconcile.unanswered'")
    return [row[0] for row in told]


def late_paid(town: Town, count: int) -> None:
    """So many subscribers whose declined attempts turned paid."""
    town.subscribe(count)
    town.sandbox.mood = mood({"scripts": [{"customers": "*", "does": ["declined:0031"]}]})
    assert town.charge() == {"declined": count}
    names = query(
        town.book,
        "SELECT s.customer_uid, a.merchant_uid FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
        " JOIN subscriptions s ON s.id = c.subscription_id WHERE a.status = 'declined'",
    )
    for who, name in names:
        town.pay_by_hand(int(who.rpartition("-")[2]), merchant_uid=name)
    town.move(minutes=5)


def test_one_schedule_that_is_not_told_keeps_nobody_from_being_counted(town: Town) -> None:
    """30 paid late; one key's schedule answers 503, again and again."""
    late_paid(town, 30)
    town.wire.faults[f"/{uid(17)}/schedules"] = "http:503"
    report = town.reconcile(apply=True)
    assert [str(one.kind) for one in report.applied] == ["late_paid"] * 30
    assert query(town.book, "SELECT status, count(*) FROM cycles GROUP BY 1") == [("paid", 30)]
    assert (report.failed, report.whole, report.clean) == (1, True, False)
    assert unanswered(town) == [{"questions": 1, "whole": True}]
    assert broken(town.book, town.policy) == []


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_question_is_asked_again_before_it_is_left(paid: Town, status: int) -> None:
    # A question that the gateway cannot answer is looked up at once again; "too many" is not.
    each = TRIES if status >= 500 else 1
    answers = iter([*(httpx.Response(status) for _ in range(2 * each)), None])
    paid.wire.faults[f"/{uid(2)}/schedules"] = lambda: next(answers)
    paid.move(minutes=5)
    before = paid.clock.now
    report = paid.reconcile(apply=True)
    assert report.clean
    assert (paid.clock.now - before).total_seconds() == sum(questions.PAUSES)
    assert unanswered(paid) == []


def test_a_refusal_is_not_asked_again(paid: Town) -> None:
    paid.wire.faults[f"/{uid(2)}/schedules"] = "http:403"
    paid.move(minutes=5)
    before = paid.clock.now
    report = paid.reconcile()
    assert (report.failed, report.whole) == (1, True)
    assert paid.clock.now == before


def test_a_gateway_that_is_down_is_left_in_peace(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down after the lists: what they showed stands, and not every key is asked about."""
    monkeypatch.setattr(questions, "IN_VAIN", 12)
    late_paid(town, 1)
    town.subscribe(60, first=2)
    town.wire.faults["/schedules"] = "lost"
    report = town.reconcile(apply=True)
    assert [str(one.kind) for one in report.applied] == ["late_paid"]
    assert (report.failed, report.whole) == (61, False)
    asked = {path for path in town.wire.asked if path.endswith("/schedules")}
    assert len(asked) == 2 * questions.WIDTH
    assert unanswered(town) == [{"questions": 61, "whole": False}]


def test_some_failures_among_answers_are_no_outage(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "IN_VAIN", 2)
    town.subscribe(40)
    assert town.charge() == {"approved": 40}
    for number in range(1, 40, 4):
        town.wire.faults[f"/{uid(number)}/schedules"] = "lost"
    town.move(minutes=5)
    report = town.reconcile(apply=True)
    assert (report.failed, report.whole) == (10, True)


def test_answers_that_cannot_be_read_are_no_outage_and_not_asked_for_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "IN_VAIN", 2)
    town.subscribe(12)
    assert town.charge() == {"approved": 12}
    for number in range(1, 12):
        row = {"merchant_uid": "theirs", "schedule_status": "scheduled", "amount": 10.5}
        answer = partial(town.says, {"total": 1, "next": 0, "list": [row]})
        town.wire.faults[f"/{uid(number)}/schedules"] = answer
    town.move(minutes=5)
    report = town.reconcile(apply=True)
    assert (report.failed, report.whole) == (11, True)
    asked = [path for path in town.wire.asked if path.endswith("/schedules")]
    assert len(asked) == len(set(asked)) == 12


def test_about_a_key_that_was_not_told_nothing_is_concluded(paid: Town) -> None:
    """Two keys have a schedule of their own; both are gone, one of them cannot be asked about."""
    at = int(seoul("2026-12-18 10:00").timestamp())
    for number in (1, 2):
        wish = {"merchant_uid": f"theirs-{number}", "schedule_at": at, "amount": 1002, "name": "x"}
        body = {"customer_uid": uid(number), "schedules": [wish]}
        assert paid.post("/subscribe/payments/schedule", body)["code"] == 0
    assert paid.kinds(apply=True) == ["scheduled_at_gateway"] * 2
    for number in (1, 2):
        paid.post("/subscribe/payments/unschedule", {"customer_uid": uid(number)})
    paid.wire.faults[f"/{uid(2)}/schedules"] = "http:503"
    assert paid.kinds(apply=True) == []
    assert open_differences(paid) == 1
    paid.wire.faults.clear()
    assert paid.kinds(apply=True) == []
    assert open_differences(paid) == 0


def test_a_run_that_is_not_whole_tells_and_ends_nothing(paid: Town) -> None:
    """A second payment is told of though another look-up fails; what is gone stays open."""
    gone = paid.paid_imp_uid(1)
    paid.changed(gone, amount=1)
    assert paid.kinds(apply=True) == ["amount_differs"]
    paid.changed(gone, amount=1001)
    hidden = paid.paid_imp_uid(2)
    paid.changed(hidden, visible_at=9e9)
    paid.wire.faults[hidden] = "http:503"
    paid.pay_by_hand(3)
    assert paid.kinds(apply=True) == ["double"]
    assert alarms(paid) == ["reconcile.difference"] * 2
    assert open_differences(paid) == 2, "the amount that is right again is not ended yet"
    paid.wire.faults.clear()
    paid.changed(hidden, visible_at=0.0)
    assert paid.kinds(apply=True) == ["double"]
    assert open_differences(paid) == 1


# -- lists that change or hide ------------------------------------------------------------------


def test_what_only_the_list_shows_is_told_and_never_counted(town: Town) -> None:
    town.subscribe()
    open_only(town)
    by_hand = town.pay_by_hand()

    def hide() -> None:
        town.changed(by_hand.imp_uid, visible_at=9e9)

    town.wire.faults["/payments/status/cancelled"] = hide
    assert town.kinds(apply=True) == ["paid_elsewhere"]
    assert cycle(town)[0] == "open"


@pytest.mark.parametrize(
    "other", [{"paid_at": 0}, {"paid_at": 1_790_000_000}, {"merchant_uid": "another-name"}]
)
def test_a_look_up_that_contradicts_the_list_counts_nothing(
    town: Town, other: dict[str, object]
) -> None:
    """Whose month it pays was found by what the list says: told as it is there, and what else the
    run found is counted all the same."""
    town.subscribe(2)
    assert open_cycles(town.book, town.policy) == 2
    in_two_ways, clear = town.pay_by_hand(1), town.pay_by_hand(2)
    town.move(minutes=5)
    by_name = f"/payments/{in_two_ways.imp_uid}"
    town.wire.faults[by_name] = lambda: town.says(town.row(in_two_ways.imp_uid, **other))
    report = town.reconcile(apply=True)
    assert [(one.kind, one.imp_uid, one.confirmed) for one in report.differences] == [
        ("paid_elsewhere", in_two_ways.imp_uid, False)
    ]
    assert [one.imp_uid for one in report.applied] == [clear.imp_uid]


def test_what_is_listed_as_paid_and_looked_up_as_failed_is_judged_as_failed(paid: Town) -> None:
    """It has no moment of payment then, and contradicts the list by nothing else."""
    imp_uid = paid.paid_imp_uid(2)
    listed = paid.run(lambda client: client.payment(imp_uid))
    assert listed is not None
    book = BookSide(2, uid(2), "active", listed.amount, cycle_status="paid", counted=True)
    case = Case(listed, book)
    paid.changed(imp_uid, status=Status.FAILED, paid_at=0, failed_at=1)
    found = paid.run(lambda client: by_name(client, paid.policy, case))
    assert found is not None
    assert (found.kind, found.confirmed) == ("failed_at_gateway", True)


def test_a_list_that_changes_is_read_again(town: Town) -> None:
    """A payment is cancelled between two pages: the rows behind it move up, past the next page."""
    town.subscribe(12)
    assert town.charge() == {"approved": 12}
    town.page_limit = 4
    imp_uid = town.paid_imp_uid(1)
    pages = 0

    def cancel_after_the_first_page() -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            at = int(town.clock.now.timestamp()) - 60
            town.changed(imp_uid, status=Status.CANCELLED, cancelled_at=at)

    town.wire.faults[LIST] = cancel_after_the_first_page
    assert town.kinds() == ["cancelled_at_gateway"]


def test_a_row_that_slipped_through_the_list_is_asked_for_by_name(paid: Town) -> None:
    """The list says two payments and means it; the third exists all the same."""
    imp_uid = paid.paid_imp_uid(2)

    def hide() -> None:
        paid.changed(imp_uid, visible_at=9e9)

    def show() -> None:
        paid.changed(imp_uid, visible_at=0.0)

    paid.wire.faults = {LIST: hide, "/payments/status/cancelled": show}
    assert paid.kinds() == []


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        ("2026-11-20", "2026-11-19", "^from='2026-11-20': lies after --to"),
        ("2026-12-24", "2026-12-25", "^from='2026-12-24': lies in the future"),
        ("2026-11-21", "2026-11-21", "^from='2026-11-21': lies in the future"),
    ],
)
def test_a_span_that_makes_no_sense(town: Town, first: str, last: str, why: str) -> None:
    town.at("2026-11-21 00:00")
    with pytest.raises(InvalidInput, match=why):
        town.reconcile(first, last)


def test_the_span_of_the_daily_run(policy: BillingPolicy) -> None:
    def span(moment: str, last: str | None = None, proved: str | None = None) -> list[str]:
        found = span_of_today(
            seoul(moment),
            policy,
            seoul(last) if last else None,
            seoul(proved).date() if proved else None,
        )
        return [found.first.isoformat(), found.last.isoformat()]

    assert span("2026-11-20 05:30") == ["2026-11-01", "2026-11-20"]
    assert span("2026-12-02 05:30") == ["2026-11-25", "2026-12-02"]
    assert span("2026-11-20 05:30", "2026-10-20 05:30") == ["2026-10-19", "2026-11-20"]
    assert span("2026-11-20 05:30", "2025-10-20 05:30") == ["2026-08-20", "2026-11-20"]
    assert span("2026-11-20 05:30", proved="2026-10-28") == ["2026-10-28", "2026-11-20"]


@pytest.mark.parametrize(
    ("last", "days"),
    [
        (None, 7),
        ("2026-11-20 05:30", 1),
        ("2026-11-20 00:00", 1),
        ("2026-11-19 23:59", 1),
        ("2026-11-18 00:00", 2),
        ("2026-11-14 05:30", 6),
        ("2026-11-13 05:30", 7),
        ("2026-11-12 05:30", 7),
        ("2026-01-01 05:30", 7),
    ],
)
def test_keys_are_asked_about_for_each_day_since_the_last_run(
    policy: BillingPolicy, last: str | None, days: int
) -> None:
    run = seoul(last) if last else None
    assert days_of_keys(seoul("2026-11-20 06:30"), policy, run) == days


def test_the_last_second_of_a_month_belongs_to_it(town: Town) -> None:
    town.at("2026-11-30 12:00").subscribe(paid="2026-10-31 14:30")
    open_only(town)
    town.at("2026-12-02 10:00").close()
    assert cycle(town) == ("missed", "not_attempted")
    town.pay_by_hand(at=seoul("2026-11-30 23:59:59"))
    town.move(minutes=5)
    report = town.reconcile("2026-11-30", "2026-11-30", apply=True)
    assert [str(one.kind) for one in report.applied] == ["paid_elsewhere"]
    assert cycle(town)[0] == "paid"
