"""The verdict on histories made by hand: every rule is broken once and found once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from billing.sandbox.model import BillingKey, Origin, Payment, Seen, Status
from billing.sandbox.verdict import Verdict, judge
from tests.unit.sandbox.kit import ADA, Shop, a_customer, seoul

KEY = BillingKey(
    customer_uid=ADA,
    amount=9_900,
    name="월간 구독",
    issued_at=int(seoul("2027-01-20 11:00").timestamp()),
)


def paid(number: int, when: str, origin: Origin = Origin.AGAIN, **more: Any) -> Payment:
    moment = int(seoul(when).timestamp())
    payment = Payment(
        number=number,
        imp_uid=f"imp_{number}",
        merchant_uid=f"m-{number}",
        customer_uid=ADA,
        amount=9_900,
        origin=origin,
        started_at=moment,
        paid_at=moment,
    )
    return replace(payment, **more)


def asked(number: int, when: str, outcome: str = "paid", **more: Any) -> Seen:
    seen = Seen(
        number=number,
        at=seoul(when).timestamp(),
        kind="again",
        customer_uid=ADA,
        merchant_uid=f"m-{number}",
        amount=9_900,
        nth=number,
        differs="",
        overlaps="",
        fault="",
        outcome=outcome,
        imp_uid="",
    )
    return replace(seen, **more)


INITIAL = paid(1, "2027-01-20 11:00", Origin.WINDOW)


def verdict(
    payments: list[Payment], requests: list[Seen], now: str = "2027-02-28 10:00"
) -> Verdict:
    return judge([INITIAL, *payments], {ADA: KEY}, requests, seoul(now).timestamp())


def rules(found: Verdict) -> tuple[list[str], list[str]]:
    return [one.rule for one in found.problems], [one.rule for one in found.notes]


def test_a_good_month() -> None:
    found = verdict([paid(2, "2027-02-20 10:00")], [asked(2, "2027-02-20 10:00")])
    assert found.ok
    assert rules(found) == ([], [])
    assert found.counts == {
        "requests": 1,
        "requests_paid": 1,
        "payments": 2,
        "charged": 1,
        "won_charged": 9_900,
    }


@pytest.mark.parametrize("status", [Status.PAID, Status.CANCELLED])
def test_double(status: Status) -> None:
    twice = [paid(2, "2027-02-16 10:00"), paid(3, "2027-02-25 10:00", status=status)]
    found = verdict(twice, [asked(2, "2027-02-16 10:00"), asked(3, "2027-02-25 10:00")])
    assert rules(found) == (["double"], [])
    assert found.problems[0].merchant_uid == "m-3"
    assert not found.ok


def test_double_by_korean_months() -> None:
    """1 March 00:30 in Korea is still February in UTC."""
    payments = [paid(2, "2027-02-20 10:00"), paid(3, "2027-03-01 00:30")]
    assert verdict(payments, [], "2027-03-31 10:00").ok


def test_our_charge_after_somebody_elses_is_a_double() -> None:
    payments = [paid(2, "2027-02-18 10:00", Origin.HAND), paid(3, "2027-02-20 10:00")]
    assert rules(verdict(payments, [])) == (["double"], [])


def test_somebody_elses_after_ours_is_not_our_fault() -> None:
    payments = [paid(2, "2027-02-18 10:00"), paid(3, "2027-02-20 10:00", Origin.SCHEDULE)]
    assert rules(verdict(payments, [])) == ([], ["second_charger"])


@pytest.mark.parametrize(
    ("when", "outside"),
    [
        ("2027-02-14 23:59", True),
        ("2027-02-15 00:00", False),
        ("2027-02-25 23:59", False),
        ("2027-02-26 00:00", True),
        ("2027-01-25 10:00", True),
    ],
)
@pytest.mark.parametrize("outcome", ["paid", "declined:0060", "lost"])
def test_outside_whatever_came_of_it(when: str, outside: bool, outcome: str) -> None:
    found = verdict([paid(2, "2027-02-20 10:00")], [asked(2, when, outcome)])
    assert rules(found)[0] == (["outside"] if outside else [])


def test_outside_as_counted_from_last_month() -> None:
    payments = [paid(2, "2027-02-15 10:00"), paid(3, "2027-03-25 10:00")]
    found = verdict(payments, [asked(3, "2027-03-25 10:00")], "2027-03-31 10:00")
    assert rules(found)[0] == ["outside"]


def test_turned_away_requests_did_nothing() -> None:
    assert verdict([paid(2, "2027-02-20 10:00")], [asked(2, "2027-02-01 10:00", "turned_away")]).ok


def test_other_terms() -> None:
    wrong = asked(2, "2027-02-20 10:00", "declined:0060", differs="amount,buyer_tel")
    found = verdict([paid(2, "2027-02-20 10:00")], [wrong])
    assert rules(found)[0] == ["other_terms"]
    assert "amount,buyer_tel" in found.problems[0].what


@pytest.mark.parametrize("same", ["order", "customer"])
def test_at_once(same: str) -> None:
    requests = [asked(2, "2027-02-20 10:00"), asked(3, "2027-02-20 10:00", overlaps=same)]
    found = verdict([paid(2, "2027-02-20 10:00")], requests)
    assert rules(found)[0] == ["at_once"]


def test_too_often_in_a_day() -> None:
    def declined(*moments: str) -> list[Seen]:
        return [asked(number, when, "declined:0016") for number, when in enumerate(moments, 2)]

    calm = declined("2027-02-20 10:00", "2027-02-20 18:00", "2027-02-21 10:00")
    hasty = declined("2027-02-20 10:00", "2027-02-20 18:00", "2027-02-20 23:59")
    month = [paid(9, "2027-02-22 10:00")]
    assert verdict(month, calm).ok
    assert rules(verdict(month, hasty))[0] == ["too_often"]
    assert verdict(month, hasty).problems[0].what == "3 declines on 2027-02-20"


LOST = ["timeout_before_charge", "http_after_charge:502", "ready", "wrong_amount"]


def looked_up(kind: str, outcome: str = "404", **about: str) -> Seen:
    about = {"merchant_uid": "", "customer_uid": "", **about}
    return asked(3, "2027-02-20 10:01", outcome, kind=kind, nth=0, **about)


@pytest.mark.parametrize("fault", LOST)
def test_blind(fault: str) -> None:
    lost = asked(2, "2027-02-20 10:00", "lost", fault=fault)
    again = asked(4, "2027-02-20 10:02", merchant_uid="m-2")
    assert rules(verdict([], [lost, again]))[0] == ["blind"]
    assert rules(verdict([], [lost]))[0] == []


@pytest.mark.parametrize(
    "look_up",
    [
        looked_up("findAll", merchant_uid="m-2"),
        looked_up("find", "200", merchant_uid="m-2"),
        looked_up("customer_payments", "200", customer_uid=ADA),
        looked_up("status", "200"),
        looked_up("payments", "207"),
    ],
    ids=lambda one: one.kind,
)
def test_not_blind_after_a_look_up(look_up: Seen) -> None:
    lost = asked(2, "2027-02-20 10:00", "lost", fault=LOST[0])
    again = asked(4, "2027-02-20 10:02", merchant_uid="m-2")
    assert verdict([paid(4, "2027-02-20 10:02")], [lost, look_up, again]).ok


@pytest.mark.parametrize(
    "look_up",
    [
        looked_up("findAll", merchant_uid="m-9"),
        looked_up("customer_payments", "200", customer_uid="bob"),
        looked_up("findAll", "lost", merchant_uid="m-2"),
        looked_up("findAll", "turned_away", merchant_uid="m-2"),
        looked_up("customer", "200", customer_uid=ADA),
    ],
    ids=str,
)
def test_blind_after_a_look_up_of_something_else(look_up: Seen) -> None:
    lost = asked(2, "2027-02-20 10:00", "lost", fault=LOST[0])
    again = asked(4, "2027-02-20 10:02", merchant_uid="m-2")
    found = verdict([paid(4, "2027-02-20 10:02")], [lost, look_up, again])
    assert rules(found)[0] == ["blind"]


@pytest.mark.parametrize("fault", ["declined:0098", "slow:10", "late_paid:60"])
def test_a_clear_answer_needs_no_look_up(fault: str) -> None:
    first = asked(2, "2027-02-20 10:00", "declined:0098", fault=fault)
    assert verdict([], [first, asked(4, "2027-02-20 18:00")]).ok


def test_broken_chain_is_a_note() -> None:
    assert rules(verdict([], [], "2027-02-28 23:59")) == ([], [])
    found = verdict([], [], "2027-03-01 00:00")
    assert rules(found) == ([], ["chain_broken"])
    assert found.notes[0].what == "no payment in 2027-02: the chain is broken"


def test_cancelled_month_breaks_the_chain() -> None:
    payments = [paid(2, "2027-02-20 10:00", status=Status.CANCELLED)]
    assert rules(verdict(payments, [], "2027-03-01 00:00"))[1] == ["chain_broken"]


def test_deleted_key_has_no_chain_to_break() -> None:
    key = replace(KEY, deleted_at=int(seoul("2027-02-10 10:00").timestamp()))
    assert not judge([INITIAL], {ADA: key}, [], seoul("2027-06-01 10:00").timestamp()).notes


def test_from_the_wire() -> None:
    shop = Shop(faults={"carrier": {"once_a_month": False, "window": "off"}}).register()
    shop.payment("m-1")
    shop.payment("m-2")
    shop.at("2027-03-12 10:00").charge("m-3", amount=1)
    found = shop.control("GET", "verdict")
    assert found["ok"] is False
    assert [one["rule"] for one in found["problems"]] == ["double", "outside", "other_terms"]
    assert found["counts"]["requests"] == 3


def test_a_year_without_fault() -> None:
    shop = Shop("2027-01-31 12:00").register(a_customer("2027-01-31 11:00"))
    for number, day in enumerate(last_days(), 1):
        assert shop.at(f"{day} 10:00").said(f"m-{number}") == "paid"
    assert shop.control("GET", "verdict") == {
        "ok": True,
        "counts": {
            "requests": 11,
            "requests_paid": 11,
            "payments": 12,
            "charged": 11,
            "won_charged": 108_900,
        },
        "problems": [],
        "notes": [],
    }


def last_days() -> Iterator[str]:
    for month, day in enumerate((28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), 2):
        yield f"2027-{month:02}-{day}"
