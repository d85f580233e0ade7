"""What people and programs are shown of the book, to the row, in the contract's shapes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.notice import NoticeStatus, Resumed
from billing.domain.policy import BillingPolicy
from billing.store import events, views
from billing.store.session import Book
from tests.builders import execute
from tests.conftest import MovedClock
from tests.plant import numbered_apart, one_more, paid, plant, refund, settled

MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)
NOON = "2026-11-20T10:00:00+09:00"


@pytest.fixture
def kept(book: Book, make_policy: Callable[..., BillingPolicy]) -> Book:
    """Subscribers 1 to 3 with November's cycles 11 to 13 and due attempts 21 to 23; 4 is due later.
    They pay 1,001 to 1,004 won. Nothing guards the book any more; by its clock it is 10:00."""
    numbered_apart(book, make_policy(), "2026-10-18", "2026-10-19", "2026-10-20", "2026-10-28")
    return book


def planted(book: Book, *statements: str) -> None:
    with book.transaction() as tx:
        plant(tx, tx.now, statements)


def status(book: Book, soon: timedelta = DAY) -> dict[str, Any]:
    with book.transaction() as tx:
        return views.status(tx.session, tx.now, soon, SEOUL)


def cycles(book: Book, **which: Any) -> list[int]:
    """What is paid for the cycles that are shown."""
    with book.transaction() as tx:
        return [row["amount"] for row in views.cycles(tx.session, SEOUL, **which)]


def people(book: Book, **which: Any) -> list[str]:
    with book.transaction() as tx:
        return [row["customer_uid"] for row in views.subscriptions(tx.session, SEOUL, **which)]


def test_the_status_counts_every_status(kept: Book) -> None:
    found = status(kept)
    assert found["at"] == NOON
    assert found["subscriptions"] == {"active": 4, "paused": 0, "suspended": 0, "cancelled": 0}
    assert found["cycles"] == {"open": 3, "paid": 0, "missed": 0, "skipped": 0, "refunded": 0}
    assert found["attempts"]["due"] == 3
    assert sum(found["attempts"].values()) == 3
    assert (found["won_collected"], found["closing_soon"]) == (0, 0)
    assert (found["gateway"], found["hold"]) == ("up", None)
    assert (found["differences"], found["refunds_open"]) == (0, 0)
    planted(
        kept,
        paid(11, 21),
        paid(12, 22),
        paid(13, 23, "refunded"),
        "UPDATE subscriptions SET status = 'paused' WHERE id > 2",
        refund(21, "requested"),
        "UPDATE gateway_health SET failures = 1000",
        "UPDATE installation SET hold_reason = 'by hand', held_at = :now",
    )
    with kept.transaction() as tx:
        for _ in range(3):
            events.notify(
                tx.session, at=tx.now, subscription_id=None, news=Resumed(before="paused")
            )
    execute(kept, "UPDATE notices SET dead_at = now() WHERE id = 1")
    found = status(kept)
    assert found["subscriptions"] == {"active": 2, "paused": 2, "suspended": 0, "cancelled": 0}
    assert found["cycles"] == {"open": 0, "paid": 2, "missed": 0, "skipped": 0, "refunded": 1}
    assert found["won_collected"] == 2003
    assert (found["gateway"], found["hold"]) == ("down", "by hand")
    assert found["refunds_open"] == 1
    assert (found["notices_waiting"], found["notices_dead"]) == (2, 1)


def test_what_closes_soon(kept: Book, clock: MovedClock) -> None:
    closing = {11: clock.now, 12: clock.now + MOMENT, 13: clock.now + DAY}
    for cycle, at in closing.items():
        execute(kept, "UPDATE cycles SET closes_at = :at WHERE id = :id", at=at, id=cycle)
    assert status(kept)["closing_soon"] == 2
    assert status(kept, soon=DAY - MOMENT)["closing_soon"] == 1
    planted(kept, paid(12, 22))
    assert status(kept)["closing_soon"] == 1


def test_cycles_are_found_by_what_they_are(kept: Book) -> None:
    assert cycles(kept) == [1003, 1002, 1001]
    assert cycles(kept, limit=2) == [1003, 1002]
    assert cycles(kept, customer_uid="customer-2") == [1002]
    planted(kept, paid(12, 22), "UPDATE cycles SET number = 2 WHERE id = 13")
    assert cycles(kept, status="open") == [1003, 1001]
    assert cycles(kept, status="paid") == [1002]
    assert cycles(kept, number=2) == [1003]
    assert cycles(kept, number=1, status="open") == [1001]


def test_a_hundred_are_shown_unless_more_are_asked_for(kept: Book) -> None:
    copies = (
        "INSERT INTO {0} OVERRIDING SYSTEM VALUE SELECT (jsonb_populate_record(t,"
        " jsonb_build_object('id', n, 'customer_uid', 'more-' || n))).*"
        " FROM {0} t, generate_series(100, 300) n"
        " WHERE t.id = {1}"
    )
    planted(kept, copies.format("subscriptions", 4), copies.format("cycles", 11))
    with kept.transaction() as tx:
        assert len(views.cycle_page(tx.session, SEOUL).items) == 100
        assert len(views.subscription_page(tx.session, SEOUL).items) == 100
    assert len(cycles(kept)) == 100
    assert len(people(kept)) == 100


def test_a_page_goes_on_below_the_last(kept: Book) -> None:
    with kept.transaction() as tx:
        for page, first in ((views.cycle_page, 13), (views.subscription_page, 4)):
            found = page(tx.session, SEOUL, limit=2)
            assert (len(found.items), found.last_id) == (2, first - 1)
            assert page(tx.session, SEOUL, limit=1).last_id == first
            count = first - 2 if first == 4 else 1
            rest = page(tx.session, SEOUL, limit=count, before=found.last_id)
            assert (len(rest.items), rest.last_id) == (count, None), "no page is empty"
        with patch.object(views, "_ROWS_OF_A_PAGE", 2):
            every = [row["amount"] for row in views.all_cycles(tx.session, SEOUL)]
            some = list(views.all_cycles(tx.session, SEOUL, status="paid"))
            one = list(views.all_cycles(tx.session, SEOUL, customer_uid="customer-1"))
            whole = [row["amount"] for row in views.all_subscriptions(tx.session, SEOUL)]
            none = list(views.all_subscriptions(tx.session, SEOUL, status="paused"))
    assert every == [1003, 1002, 1001]
    assert (some, [row["amount"] for row in one]) == ([], [1001])
    assert (whole, none) == ([1004, 1003, 1002, 1001], [])


def test_a_cycle_in_full(kept: Book) -> None:
    planted(
        kept,
        settled(21, "declined"),
        "UPDATE attempts SET message = 'no', planned_at = :now WHERE id = 21",
        one_more(9, 11, "approved"),
        "UPDATE attempts SET number = 2 WHERE id = 9",
        paid(11, 9),
        "UPDATE cycles SET reason = 'paid_late', held = 'contradiction' WHERE id = 11",
    )
    with kept.transaction() as tx:
        (found,) = views.cycles(tx.session, SEOUL, customer_uid="customer-1")
    tried = found.pop("attempts")
    assert found == {
        "customer_uid": "customer-1",
        "cycle": 1,
        "due_on": "2026-11-18",
        "opens_on": "2026-11-13",
        "closes_on": "2026-11-23",
        "status": "paid",
        "reason": "paid_late",
        "held": "contradiction",
        "amount": 1001,
        "merchant_uid": "mw-9",
        "imp_uid": "imp_9",
        "paid_at": NOON,
    }
    first, second = tried
    assert first == {
        "number": 1,
        "merchant_uid": first["merchant_uid"],
        "status": "declined",
        "planned_at": NOON,
        "sent_at": NOON,
        "settled_at": NOON,
        "decline_class": "not_today",
        "message": "no",
    }
    assert (second["number"], second["merchant_uid"]) == (2, "mw-9")


def test_subscriptions_are_found_by_what_they_are(kept: Book) -> None:
    everybody = [f"customer-{number}" for number in (4, 3, 2, 1)]
    assert people(kept) == everybody
    assert people(kept, limit=3) == everybody[:3]
    assert people(kept, customer_uid="customer-2") == ["customer-2"]
    planted(kept, "UPDATE subscriptions SET status = 'paused' WHERE id = 3")
    assert people(kept, status="paused") == ["customer-3"]
    assert people(kept, status="active") == ["customer-4", "customer-2", "customer-1"]


def test_a_subscription_in_full(kept: Book) -> None:
    def shown(uid: str) -> dict[str, Any]:
        with kept.transaction() as tx:
            (found,) = views.subscriptions(tx.session, SEOUL, customer_uid=uid)
        return found

    assert shown("customer-4") == {
        "customer_uid": "customer-4",
        "status": "active",
        "reason": None,
        "amount": 1004,
        "order_name": "plan 4",
        "anchor_on": "2026-10-28",
        "initial_paid_at": "2026-10-28T09:00:00+09:00",
        "enrolled_at": NOON,
        "next_cycle": 1,
        "next_due_at": shown("customer-4")["next_due_at"],
        "reference": None,
        "previous": None,
        "next": None,
        "forgotten_at": None,
    }
    assert shown("customer-4")["next_due_at"].startswith("2026-11-2")
    planted(
        kept,
        "UPDATE subscriptions SET previous_id = 1, status_reason = 'chain_broken',"
        " reference = 'member 2', forgotten_at = :now WHERE id = 2",
        "UPDATE subscriptions SET previous_id = 2 WHERE id = 3",
    )
    found = shown("customer-2")
    assert (found["previous"], found["next"]) == ("customer-1", "customer-3")
    assert (found["reason"], found["reference"]) == ("chain_broken", "member 2")
    assert found["forgotten_at"] == NOON


@pytest.mark.parametrize("already", [False, True])
def test_a_refund_in_full(kept: Book, *, already: bool) -> None:
    planted(
        kept,
        refund(21, "done"),
        "UPDATE refunds SET cancelled_at = :now, message = 'asked for'",
        "UPDATE subscriptions SET status = 'suspended', status_reason = 'chain_broken'"
        " WHERE id = 1",
    )
    with kept.transaction() as tx:
        assert views.refund(tx.session, SEOUL, 1, already=already) == {
            "customer_uid": "customer-1",
            "merchant_uid": "mw",
            "imp_uid": "imp_21",
            "amount": 1,
            "status": "done",
            "already": already,
            "requested_at": NOON,
            "cancelled_at": NOON,
            "refund_by": NOON,
            "subscription": "suspended",
            "subscription_reason": "chain_broken",
            "message": "asked for",
        }


def test_the_outbox_in_full(kept: Book, clock: MovedClock) -> None:
    def shown(**which: Any) -> list[dict[str, Any]]:
        with kept.transaction() as tx:
            return views.outbox(tx.session, SEOUL, **which)

    def ids(**which: Any) -> list[int]:
        return [row["id"] for row in shown(**which)]

    with kept.transaction() as tx:
        for number in (1, None, 3):
            told = Resumed(before="paused")
            events.notify(tx.session, at=tx.now, subscription_id=number, news=told)
    put = "UPDATE notices SET {} WHERE id = :id"
    execute(kept, put.format("delivered_at = :now, tries = 2"), now=clock.now, id=1)
    execute(kept, put.format('data = \'{"customer_uid": "stranger"}\''), id=2)
    execute(kept, put.format("data = '[]', dead_at = :now, problem = 'x'"), now=clock.now, id=3)
    third, second, first = shown()
    assert first["webhook_id"].startswith("mw_1_")
    assert first == {
        "id": 1,
        "webhook_id": first["webhook_id"],
        "type": "subscription.resumed",
        "customer_uid": "customer-1",
        "status": "delivered",
        "created_at": NOON,
        "tries": 2,
        "next_try_at": None,
        "delivered_at": NOON,
        "dead_at": None,
        "problem": None,
        "data": {"before": "paused"},
    }
    assert (second["customer_uid"], second["next_try_at"]) == ("stranger", NOON)
    assert (third["webhook_id"], third["customer_uid"]) == (None, "customer-3")
    assert (third["dead_at"], third["problem"], third["data"]) == (NOON, "x", [])
    assert ids(limit=2) == [3, 2]
    assert ids(before=3) == [2, 1]
    assert ids(status=NoticeStatus.WAITING) == [2]
    execute(kept, put.format("subscription_id = NULL"), id=3)
    assert shown()[0]["customer_uid"] is None, "what is no message names nobody"


def test_a_moment_is_seouls_to_the_second() -> None:
    late = datetime.fromisoformat("2026-11-20T23:59:59.999999+00:00")
    assert views.moment(late, SEOUL) == "2026-11-21T08:59:59+09:00"
    assert views.moment(None, SEOUL) is None
