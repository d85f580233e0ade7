"""What the merchant's own system is told: enough to act on, and nothing of the buyer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from billing.domain.notice import NoticeKind
from billing.domain.policy import BillingPolicy
from billing.sandbox import LineChange, change
from billing.services import change_status
from billing.services.enrol import enrol
from billing.services.open_cycles import open_cycles
from billing.store import notices
from billing.store.session import Book
from tests.builders import KEY, a_row, enrolled, query
from tests.conftest import MovedClock
from tests.town import Town, uid

PAYMENT = {"merchant_uid", "imp_uid", "amount", "currency"}


class Told:
    """A town, and what it told so far."""

    def __init__(self, town: Town) -> None:
        self.town = town

    def bodies(self) -> list[dict[str, Any]]:
        with self.town.book.transaction() as tx:
            found = notices.listed(tx.session, None, 100, None)
            whole = [notices.as_outgoing(*row).body.decode() for row in reversed(found)]
        for one in whole:
            assert "홍길동" not in one
            assert "010-1234" not in one
        return [json.loads(one) for one in whole]

    def kinds(self) -> list[str]:
        return [one["type"] for one in self.bodies()]

    def only(self, kind: str) -> dict[str, Any]:
        (found,) = [one["data"] for one in self.bodies() if one["type"] == kind]
        assert isinstance(found, dict)
        return found


@pytest.fixture
def town(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> Town:
    return Town(book, make_policy(charge_cron="0 10 * * *", canary_charges=0), clock)


@pytest.fixture
def told(town: Town) -> Told:
    """One customer of 1001 won a month on the 20th, whose charge of November is due."""
    town.at("2026-11-20 10:00").subscribe()
    return Told(town)


def test_a_payment(told: Told) -> None:
    told.town.charge()
    (whole,) = told.bodies()
    assert whole["type"] == "payment.paid"
    assert whole["timestamp"] == "2026-11-20T10:00:00+09:00"
    data = whole["data"]
    assert data.keys() == {"customer_uid", "cycle", "month", "paid_at", "reason", *PAYMENT}
    assert (data["customer_uid"], data["cycle"], data["month"]) == (uid(1), 1, "2026-11")
    assert (data["amount"], data["currency"], data["reason"]) == (1001, "KRW", None)
    assert data["imp_uid"] == told.town.paid_imp_uid()
    assert data["paid_at"].endswith("+09:00")


def test_a_refusal_with_what_can_be_done_until_the_end(told: Told) -> None:
    change(told.town.sandbox, uid(1), LineChange(script=["declined:0031"]))
    told.town.charge()
    data = told.only("payment.declined")
    assert (data["attempt"], data["month"], data["decline_class"]) == (
        1,
        "2026-11",
        "not_this_month",
    )
    assert data["code"] == "0031"
    assert "0031" in data["message"]
    assert data["next_attempt_at"] == "2026-11-21T10:00:00+09:00"
    assert data["last_chance_at"] == "2026-11-25T23:30:00+09:00"
    assert "한도" in data["advice"]["ko"]
    assert "limit" in data["advice"]["en"]
    assert "2026-11-25 23:30" in data["for_customer"]["ko"]
    assert "2026-11-25 23:30" in data["for_customer"]["en"]

    told.town.at("2026-11-25 00:30").close()
    soon = told.only("payment.closing_soon")
    assert soon["next_attempt_at"] == "2026-11-21T10:00:00+09:00", "it is due, and overdue"
    assert soon["closes_at"] == "2026-11-26T00:00:00+09:00"
    for name in ("decline_class", "code", "message", "last_chance_at", "advice", "for_customer"):
        assert soon[name] == data[name]

    told.town.at("2026-11-26 00:30").close()
    missed, suspended = told.only("payment.missed"), told.only("subscription.suspended")
    assert (missed["reason"], missed["month"], missed["amount"]) == ("declined", "2026-11", 1001)
    assert suspended["reason"] == "chain_broken"
    assert "다시 등록" in suspended["for_customer"]["ko"]
    assert told.kinds() == [
        "payment.declined",
        "payment.closing_soon",
        "payment.missed",
        "subscription.suspended",
    ]


def test_a_month_that_was_never_tried_says_so(told: Told) -> None:
    open_cycles(told.town.book, told.town.policy)
    told.town.at("2026-11-25 12:00").close()
    data = told.only("payment.closing_soon")
    assert data["decline_class"] is None
    assert data["message"] is None
    assert "maewol why" in data["advice"]["en"]


def test_a_refund_and_the_risk_for_the_next_month(told: Told) -> None:
    told.town.charge()
    told.town.cancel_outside(told.town.paid_imp_uid())
    told.town.move(minutes=5)
    told.town.reconcile(apply=True)
    data = told.only("payment.refunded")
    assert data.keys() == {
        "customer_uid", "cycle", "month", "refunded_at", "chain_at_risk", *PAYMENT
    }  # fmt: skip
    assert data["chain_at_risk"] is True
    assert data["imp_uid"] == told.town.paid_imp_uid()


def test_a_second_payment_names_the_one_to_keep(told: Told) -> None:
    first, second = told.town.pay_by_hand(), told.town.pay_by_hand()
    told.town.charge()
    data = told.only("payment.unknown")
    assert {data["imp_uid"], data["keep"]} == {first.imp_uid, second.imp_uid}
    assert (data["reason"], data["customer_uid"], data["amount"]) == ("double", uid(1), 1001)
    assert data["refund_by"] == "2026-12-01T00:00:00+09:00"
    assert "maewol refund" in data["advice"]["ko"]
    assert told.only("payment.paid")["reason"] == "paid_elsewhere"


def test_a_registration_that_nobody_enrolled(told: Told) -> None:
    payment = told.town.register_only(7, paid="2026-11-19 09:00")
    told.town.move(minutes=5)
    told.town.reconcile(apply=True)
    told.town.reconcile(apply=True)
    data = told.only("payment.unknown")
    assert (data["reason"], data["customer_uid"]) == ("not_enrolled", uid(7))
    assert (data["imp_uid"], data["amount"]) == (payment.imp_uid, 5000)


def test_many_unknown_payments_are_one_notice(told: Told) -> None:
    for number in range(100, 121):
        told.town.register_only(number, paid="2026-11-19 09:00")
    told.town.move(minutes=5)
    told.town.reconcile(apply=True)
    assert told.only("payment.unknown") == {"customer_uid": None, "reason": "many", "payments": 21}


def test_a_pause_names_the_last_moment_and_every_change_what_was_before(told: Told) -> None:
    book, policy = told.town.book, told.town.policy
    change_status.pause(book, policy, uid(1))
    change_status.pause(book, policy, uid(1))
    change_status.resume(book, policy, uid(1))
    change_status.cancel(book, policy, uid(1))
    paused = told.only("subscription.paused")
    assert paused["before"] == "active"
    assert paused["last_chance_at"] == "2026-11-25T23:30:00+09:00"
    assert told.only("subscription.resumed") == {"customer_uid": uid(1), "before": "paused"}
    assert told.only("subscription.cancelled") == {"customer_uid": uid(1), "before": "active"}


def test_an_enrolment_is_told_when_it_is_wanted(told: Told) -> None:
    book, policy = told.town.book, told.town.policy
    assert enrolled(book, policy, a_row(2)).added == 1
    assert told.kinds() == [], "a first import of a million rows sends nothing"
    fields = {
        "customer_uid": "by-api",
        "amount": "9900",
        "order_name": "plan",
        "initial_paid_at": "2026-10-31T14:30:00+09:00",
        "buyer_name": "홍길동",
    }
    assert enrol(book, policy, lambda: KEY, fields, notify=True)
    assert not enrol(book, policy, lambda: KEY, fields, notify=True)
    assert told.only("subscription.enrolled") == {
        "customer_uid": "by-api",
        "amount": 9900,
        "currency": "KRW",
        "anchor_on": "2026-10-31",
        "first_cycle": 1,
        "first_due_at": "2026-11-27T10:00:00+09:00",
    }
    assert query(book, "SELECT give_up_at - created_at = interval '3 days' FROM notices") == [
        (True,)
    ]


def test_a_kind_is_never_renamed() -> None:
    assert sorted(NoticeKind) == [
        "maewol.test",
        "payment.closing_soon",
        "payment.declined",
        "payment.missed",
        "payment.paid",
        "payment.refunded",
        "payment.skipped",
        "payment.unknown",
        "subscription.cancelled",
        "subscription.enrolled",
        "subscription.paused",
        "subscription.resumed",
        "subscription.suspended",
    ]
