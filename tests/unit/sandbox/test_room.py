"""The control room's buttons, and a journey through time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing.sandbox.clock import SEOUL
from billing.sandbox.room import MOODS
from billing.sandbox.travel import Journey, a_month_later, next_stop
from tests.unit.sandbox.kit import Shop, a_customer, seoul


def press(shop: Shop, button: str, headers: dict[str, str] | None = None, **form: str) -> Any:
    return shop.call("POST", f"/room/{button}", data=form, headers=headers or {})


def test_a_payment_is_cancelled_as_in_the_console() -> None:
    shop = Shop().register(a_customer("2027-02-20 09:00"))
    page = shop.call("GET", "/", headers={}).text
    assert 'value="imp_000000000001"' in page
    assert (
        press(shop, "cancel", imp_uid="imp_000000000001")
        .headers["location"]
        .endswith("told_cancelled")
    )
    assert (
        press(shop, "cancel", imp_uid="imp_000000000001")
        .headers["location"]
        .endswith("told_not_cancelled")
    )
    assert shop.found("/payments/imp_000000000001")["status"] == "cancelled"
    assert 'value="imp_000000000001"' not in shop.call("GET", "/", headers={}).text


def test_an_hour_on() -> None:
    shop = Shop("2027-02-20 10:00")
    press(shop, "clock", by="hour")
    assert shop.sandbox.clock.now() == seoul("2027-02-20 11:00")


@pytest.mark.parametrize("name", MOODS)
def test_its_moods(name: str) -> None:
    shop = Shop()
    assert press(shop, "mood", mood=name).status_code == 303
    page = shop.call("GET", "/", headers={}).text
    assert f'<option value="{name}" selected>' in page


def test_an_own_mood_is_shown_as_such() -> None:
    shop = Shop(faults={"racy": True})
    assert "as set by its faults file" in shop.call("GET", "/", headers={}).text
    press(shop, "mood", mood="no such")
    assert shop.sandbox.mood.racy


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        # A name that leads here, and is not this machine's.
        {"Sec-Fetch-Site": "same-origin", "Host": "rebound.example"},
    ],
)
@pytest.mark.parametrize("path", ["/room/clock", "/sandbox/clock", "/sandbox/reset"])
def test_a_page_of_another_site_does_nothing(path: str, headers: dict[str, str]) -> None:
    shop = Shop().register()
    answer = shop.call("POST", path, content=b'{"advance_seconds": 1}', headers=headers)
    assert answer.status_code == 403
    assert len(shop.sandbox.ledger.payments) == 1
    assert shop.sandbox.clock.now() == seoul("2027-02-20 10:00")


def test_its_own_page_does() -> None:
    shop = Shop()
    headers = {"Sec-Fetch-Site": "same-origin", "Host": "127.0.0.1:8888"}
    assert press(shop, "clock", headers, by="hour").status_code == 303


def test_both_languages_and_the_choice_is_kept() -> None:
    shop = Shop()
    answer = shop.call("GET", "/?lang=ko", headers={})
    assert "한 달 뒤로" in answer.text
    kept = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
    assert "한 달 뒤로" in shop.call("GET", "/", headers=kept).text


def test_a_journey_stops_where_somebody_may_be_charged() -> None:
    shop = Shop("2027-02-01 12:00").register(a_customer("2027-01-20 11:00"))
    stops = []
    now, until = seoul("2027-02-01 12:00"), seoul("2027-03-01 12:00")
    while now < until:
        now = next_stop(shop.sandbox, now, until)
        stops.append(now.astimezone(SEOUL).strftime("%m-%d %H:%M"))
    assert stops[:3] == ["02-15 10:00", "02-15 18:00", "02-16 10:00"]
    assert stops[-2:] == ["02-25 18:00", "03-01 12:00"]


def test_it_passes_over_days_of_those_who_have_paid_or_cannot_pay_any_more() -> None:
    shop = Shop("2027-02-20 12:00").register(
        a_customer("2027-01-20 11:00", last="2027-02-20 11:00"),
        a_customer("2026-11-22 11:00", uid="broken"),
    )
    until = seoul("2027-03-10 12:00")
    assert next_stop(shop.sandbox, seoul("2027-02-20 12:00"), until) == until


def test_it_moves_the_clock_stop_by_stop_and_waits_while_charges_come() -> None:
    shop = Shop("2027-02-01 12:00").register(a_customer("2027-01-20 11:00"))
    seen: list[str] = []

    async def nap(seconds: float) -> None:
        here = shop.sandbox.clock.now().astimezone(SEOUL).strftime("%m-%d %H:%M")
        seen.append(here)
        if here == "02-20 10:00" and seen.count(here) == 1:
            body = {"customer_uid": "ada", "merchant_uid": "m-1", "amount": 9_900}
            more = {"name": "월간 구독", "buyer_tel": "010-0000-0000"}
            await shop.send("POST", "/subscribe/payments/again", json={**body, **more})
        await asyncio.sleep(0)

    async def travel() -> None:
        shop.sandbox.sleep = nap
        journey = Journey(shop.sandbox)
        journey.start(seoul("2027-03-01 12:00"), pause=0.5)
        while journey.until is not None:
            await asyncio.sleep(0)

    asyncio.run(travel())
    # Paid at its first stop of the 20th, it has nothing to stop for until the end.
    assert seen[-1] == "03-01 12:00"
    assert seen.count("02-20 10:00") > 1
    assert "02-20 18:00" not in seen
    assert shop.sandbox.ledger.of_order("m-1")[0].status == "paid"
    assert shop.sandbox.clock.now() == seoul("2027-03-01 12:00")


def test_it_waits_for_a_slow_biller_on_the_day_but_not_for_ever() -> None:
    shop = Shop("2027-02-01 12:00").register(a_customer("2027-01-20 11:00"))
    seen: list[str] = []

    async def nap(seconds: float) -> None:
        seen.append(shop.sandbox.clock.now().astimezone(SEOUL).strftime("%m-%d %H:%M"))
        await asyncio.sleep(0)

    async def travel() -> None:
        shop.sandbox.sleep = nap
        journey = Journey(shop.sandbox)
        journey.start(seoul("2027-02-22 12:00"), pause=1)
        while journey.until is not None:
            await asyncio.sleep(0)

    asyncio.run(travel())
    assert seen.count("02-19 18:00") == 1
    assert seen.count("02-20 10:00") > 10
    assert seen.count("02-20 18:00") > 10
    assert seen.count("02-21 10:00") == 1


def test_a_journey_by_control_ends_where_it_is_stopped() -> None:
    shop = Shop("2027-02-01 12:00").register(a_customer("2027-01-20 11:00"))

    async def run() -> tuple[Any, Any]:
        begun = await shop.send("POST", "/sandbox/travel", json={"days": 28}, headers={})
        stayed = await shop.send("POST", "/sandbox/travel", json={}, headers={})
        return begun.json(), stayed.json()

    begun, stayed = shop.run(run)
    assert begun["travelling_until"] == "2027-03-01T03:00:00+00:00"
    assert stayed["travelling_until"] is None


@pytest.mark.parametrize(
    "document",
    [
        {"days": 0},
        {"days": 1e9},
        {"days": 1, "until": "2027-03-01T00:00:00Z"},
        {"until": "2099-01-01T00:00:00Z"},
        {"pause_seconds": 0},
        {"miles": 3},
    ],
)
def test_journeys_that_are_wrong(document: object) -> None:
    answer = Shop().call("POST", "/sandbox/travel", json=document, headers={})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("2027-01-20 11:00", "2027-02-20 19:00"),
        ("2027-01-31 00:01", "2027-02-28 19:00"),
        ("2027-12-31 21:30", "2028-01-31 21:30"),
    ],
)
def test_a_month_later(now: str, then: str) -> None:
    assert a_month_later(seoul(now)) == seoul(then)
