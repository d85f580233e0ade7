"""The judge finds what is wrong: one bad history, made by hand, for each promise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.history import Expected, History
from tests.chaos.judge import KOREA, judge

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=KOREA)
TERMS = {
    "name": "매월 구독",
    "buyer_name": "홍길동",
    "buyer_email": "a@example.com",
    "buyer_tel": "010-0000-0000",
}


def an_expected(uid: str, ending: str) -> Expected:
    return Expected(uid, date(2026, 10, 20), ending, 5_000, **TERMS)


def a_payment(uid: str, order: str, at: datetime, origin: str = "again", **other: Any) -> Any:
    row = {"customer_uid": uid, "merchant_uid": order, "amount": 5_000, "origin": origin, **TERMS}
    return {**row, "paid_at": int(at.timestamp()), **other}


def a_request(uid: str, order: str, outcome: str, at: datetime = NOON, **other: Any) -> Any:
    row = {"customer_uid": uid, "merchant_uid": order, "amount": 5_000, "outcome": outcome}
    return {**row, "at": at.isoformat(), "differs": "", "overlaps": "", **other}


def an_attempt(order: str, status: str, planned: datetime = NOON) -> Any:
    return {"merchant_uid": order, "status": status, "planned_at": planned.isoformat()}


def a_cycle(uid: str, status: str, order: str | None, *attempts: Any) -> Any:
    row = {"customer_uid": uid, "status": status, "merchant_uid": order, "amount": 5_000}
    return {**row, "held": None, "attempts": list(attempts)}


def a_good_history() -> History:
    """One paid after a decline, one declined for today, one who had paid before."""
    october = NOON - timedelta(days=31)
    everyone = ("ann", "bob", "eve")
    initial = [a_payment(uid, f"first-{uid}", october, "window") for uid in everyone]
    tomorrow = NOON + timedelta(days=1)
    return History(
        expected=[
            an_expected("ann", "paid"),
            an_expected("bob", "unpaid"),
            an_expected("eve", "untouched"),
        ],
        payments=[
            *initial,
            a_payment("ann", "a1", NOON, paid_at=0),
            a_payment("ann", "a2", NOON),
            a_payment("eve", "by-hand", NOON, "hand"),
        ],
        requests=[
            a_request("ann", "a1", "declined:0098"),
            a_request("ann", "a2", "paid"),
            a_request("bob", "b1", "declined:0031"),
        ],
        cycles=[
            a_cycle(
                "ann", "paid", "a2", an_attempt("a1", "declined"), an_attempt("a2", "approved")
            ),
            a_cycle(
                "bob", "open", None, an_attempt("b1", "declined"), an_attempt("b2", "due", tomorrow)
            ),
        ],
        status={"won_collected": 5_000, "hold": None, "gateway": "up"},
        broken=[],
        at=NOON + timedelta(minutes=5),
        declines_per_day=2,
        margin=timedelta(minutes=3),
    )


def test_a_good_history_is_without_violation() -> None:
    assert judge(a_good_history()) == []


Change = Callable[[History], object]

BAD: dict[str, tuple[str, Change]] = {
    "charged twice in a month": (
        "I1 never twice",
        lambda h: h.payments.append(a_payment("ann", "a3", NOON)),
    ),
    "charged though paid by hand": (
        "I1 never twice",
        lambda h: h.payments.append(a_payment("eve", "e1", NOON)),
    ),
    "due and never charged": ("I1 only who is due", lambda h: h.payments.pop(4)),
    "charged though declined": (
        "I1 only who is due",
        lambda h: h.payments.append(a_payment("bob", "b1", NOON)),
    ),
    "asked though paid before": (
        "I1 only who is due",
        lambda h: h.requests.append(a_request("eve", "e1", "refused:already_paid")),
    ),
    "charged a stranger": (
        "I1 only who is due",
        lambda h: h.payments.append(a_payment("mallory", "m1", NOON)),
    ),
    "before the band": ("I2 never outside", lambda h: moved(h, days=-1)),
    "after the band": ("I2 never outside", lambda h: moved(h, days=6)),
    "in the band's last minutes": ("I2 never outside", lambda h: moved(h, days=5, hours=11.99)),
    "in the month of the initial payment": ("I2 never outside", lambda h: moved(h, days=-31)),
    "another amount asked": ("I3 never another amount", lambda h: h.requests[1].update(amount=1)),
    "another name asked": (
        "I3 never another amount",
        lambda h: h.requests[1].update(differs="name"),
    ),
    "another amount charged": ("I3 never another amount", lambda h: h.payments[4].update(amount=1)),
    "another number charged": (
        "I3 never another amount",
        lambda h: h.payments[4].update(buyer_tel=""),
    ),
    "a cycle left open": ("I4 nothing forgotten", lambda h: h.cycles[0].update(status="open")),
    "no cycle at all": ("I4 nothing forgotten", lambda h: h.cycles.pop(0)),
    "due and not asked": (
        "I4 nothing forgotten",
        lambda h: h.cycles[1]["attempts"][1].update(planned_at=NOON.isoformat()),
    ),
    "asked again after the payment": (
        "I5 nothing guessed",
        lambda h: h.requests.append(a_request("ann", "a2", "refused:already_paid")),
    ),
    "an outcome that was never learnt": (
        "I5 nothing guessed",
        lambda h: h.cycles[1]["attempts"][1].update(status="unknown"),
    ),
    "two requests at once": (
        "I6 one at a time",
        lambda h: h.requests[1].update(overlaps="customer"),
    ),
    "two live attempts": (
        "I6 one at a time",
        lambda h: h.cycles[1]["attempts"].append(an_attempt("b3", "due", NOON + timedelta(days=1))),
    ),
    "a live attempt of a paid cycle": (
        "I6 one at a time",
        lambda h: h.cycles[0]["attempts"].append(an_attempt("a3", "due", NOON + timedelta(days=1))),
    ),
    "paid in the book only": (
        "I8 the ledger agrees",
        lambda h: h.cycles[0].update(merchant_uid="a9"),
    ),
    "another sum collected": (
        "I8 the ledger agrees",
        lambda h: h.status.update(won_collected=4_999),
    ),
    "a third decline in a day": (
        "I9 retries are bounded",
        lambda h: h.requests.extend([a_request("bob", "b2", "declined:0031")] * 2),
    ),
    "a cycle that waits for a person": (
        "I12 no manual step",
        lambda h: h.cycles[0].update(held="contradiction"),
    ),
    "all charging held": ("I12 no manual step", lambda h: h.status.update(hold="declines")),
    "the circuit left open": ("I12 no manual step", lambda h: h.status.update(gateway="down")),
    "a fact of the book broken": (
        "the book's own facts",
        lambda h: h.broken.append({"name": "I7 all is written", "rows": [7]}),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_found(name: str) -> None:
    rule, change = BAD[name]
    history = copy.deepcopy(a_good_history())

    change(history)

    assert rule in {found.rule for found in judge(history)}


def test_the_band_is_clipped_to_the_month() -> None:
    """Anchor 31 in November: its band is the 26th to the 30th; 1 December lies outside."""
    history = a_good_history()
    expected = [replace(one, anchor_on=date(2026, 10, 31)) for one in history.expected]
    for day, outside in ((26, False), (30, False), (25, True), (31, True)):
        at = datetime(2026, 11, 1, 12, tzinfo=KOREA) + timedelta(days=day - 1)
        requests = [{**row, "at": at.isoformat()} for row in history.requests]
        found = judge(replace(history, expected=expected, requests=requests, at=at))
        assert ("I2 never outside" in {one.rule for one in found}) is outside, day


def moved(history: History, **by: float) -> None:
    for row in history.requests:
        row["at"] = (datetime.fromisoformat(row["at"]) + timedelta(**by)).isoformat()
