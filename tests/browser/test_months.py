"""The acceptance of the front door: subscribe in a browser, travel a month, and be charged.

Every process is a real one: the edge, beat, ticks, a charging worker, the sandbox and its window.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from billing.domain.calendar import SEOUL
from billing.embedded import Servers
from billing.store import views
from tests.browser.conftest import NewContext
from tests.browser.stage import Stage, staged, wait_for
from tests.browser.visitor import Visitor


@pytest.fixture
def stage(servers: Servers, database_url: str) -> Iterator[Stage]:
    assert servers.broker_url is not None
    with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as folder:
        at = "2027-01-12T17:59:00+09:00"
        with staged(database_url, servers.broker_url, Path(folder), at=at, billing=True) as made:
            yield made


@pytest.mark.timeout(180)
def test_a_month_later_one_is_charged_and_one_is_declined_with_the_reason(
    stage: Stage, new_context: NewContext
) -> None:
    uids = []
    for name, later in (("Kim Good", ""), ("Kim Limit", "0031")):
        visitor = Visitor(new_context(), stage.url)
        visitor.order(name)
        visitor.pay(later=later)
        visitor.page.wait_for_url("**/checkout/done**")
        assert "12 February 2027" in visitor.page.inner_text("main")
        assert visitor.errors == []
        uids.append(stage.ledger()[-1]["customer_uid"])
    good, limit = uids
    # The third closes the tab before the way back: the gateway's webhook is all there is of it.
    gone = Visitor(new_context(), stage.url)
    gone.order("Kim Gone")
    gone.identify(gone.frame)
    gone.confirm(gone.frame)
    gone.frame.locator(".sign.good").wait_for()
    gone.page.close()
    wait_for(lambda: len(_subscriptions(stage)) == 3, stage.log)
    assert {one["status"] for one in _subscriptions(stage)} == {"active"}
    assert {good, limit} < {one["customer_uid"] for one in _subscriptions(stage)}

    # Nobody is due before the day itself: a shorter way to it.
    stage.control("clock", {"set": "2027-02-11T12:00:00+09:00"})
    room = new_context().new_page()
    room.goto(stage.sandbox)
    room.get_by_role("button", name="Travel a month").click()
    room.get_by_text("Travelling to").wait_for()

    wait_for(lambda: _cycle(stage, good).get("status") == "paid", stage.log)
    wait_for(lambda: _cycle(stage, limit).get("attempts"), stage.log)
    wait_for(lambda: "0031" in str(_cycle(stage, limit)["attempts"][0]["message"]), stage.log)
    # The page renews itself as it travels; opening it again would race with that.
    room.get_by_role("button", name="Stay here").click()
    room.get_by_role("button", name="Travel a month").wait_for()

    (paid,) = [one for one in stage.ledger(customer_uid=good) if one["origin"] == "again"]
    cycle = _cycle(stage, good)
    assert (paid["status"], paid["amount"]) == ("paid", 9900)
    assert (cycle["merchant_uid"], cycle["due_on"]) == (paid["merchant_uid"], "2027-02-12")
    assert _day(paid["paid_at"]) == "2027-02-12"
    declined = [one for one in stage.ledger(customer_uid=limit) if one["origin"] == "again"]
    assert declined[0]["status"] == "failed"
    assert "0031" in declined[0]["fail_reason"]
    assert stage.verdict()["ok"], stage.verdict()


def _subscriptions(stage: Stage) -> list[dict[str, Any]]:
    return stage.book.run(lambda tx: views.subscriptions(tx.session, SEOUL))


def _cycle(stage: Stage, customer_uid: str) -> dict[str, Any]:
    found = stage.book.run(
        lambda tx: views.cycles(tx.session, SEOUL, customer_uid=customer_uid, limit=1)
    )
    return found[0] if found else {}


def _day(unix: int) -> str:
    return datetime.fromtimestamp(unix, SEOUL).date().isoformat()
