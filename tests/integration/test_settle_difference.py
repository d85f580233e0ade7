"""What becomes of a difference: followed where the design says how, else told of, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.money import Won
from billing.domain.policy import BillingPolicy
from billing.domain.reconciliation import Difference, DifferenceKind
from billing.services.invariants import broken
from billing.services.settle_difference import (
    MOST_ALARMS,
    Settled,
    conclude,
    settle,
    tell,
    tell_one,
)
from billing.store import differences
from billing.store.ledger import Scope
from billing.store.session import Book
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.town import Town, seoul, uid


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """One subscriber, charged at 10:00 on 20 November 2026 in Seoul."""
    made = Town(book, policy, clock)
    made.subscribe()
    assert made.charge() == {"approved": 1}
    return made


def a_difference(kind: DifferenceKind = DifferenceKind.DOUBLE, number: int = 1) -> Difference:
    return Difference(
        kind=kind,
        at=seoul("2026-11-20 09:00"),
        imp_uid=f"imp_{number:012}",
        merchant_uid=f"theirs-{number}",
        customer_uid=uid(1),
        subscription_id=1,
        cycle_id=1,
        paid_at=seoul("2026-11-20 09:00"),
        ledger_amount=Won(1001),
        book_amount=Won(9900),
        keep="imp_kept",
        refund_by=seoul("2026-12-01 00:00"),
    )


def many(count: int) -> list[Difference]:
    return [a_difference(number=number) for number in range(count)]


def told(town: Town) -> list[Any]:
    """What the merchant's own system hears of payments that the book cannot count."""
    found = query(town.book, "SELECT data FROM notices WHERE kind = 'payment.unknown' ORDER BY id")
    return [row[0] for row in found]


def alarms(town: Town) -> list[str]:
    return [row[0] for row in query(town.book, "SELECT kind FROM events WHERE alarm ORDER BY id")]


def lines(town: Town) -> list[tuple[Any, ...]]:
    return query(
        town.book,
        "SELECT subscription_id, cycle_id, data FROM events WHERE kind = 'reconcile.difference'",
    )


def still_open(town: Town) -> int:
    return town.book.run(lambda tx: differences.count_open(tx.session))


def concluded(
    town: Town, seen: Iterable[Difference], asked: Iterable[int] = (), *, all_seen: bool = True
) -> int:
    """A whole run of this month ends; how many differences still wait for a person then."""
    first = seoul("2026-11-01 00:00")
    scope = Scope(first, seoul("2026-12-01 00:00"), first, SEOUL, prefix="mw", sandbox=False)
    conclude(town.book, scope, [*seen], [*asked], all_seen=all_seen)
    return still_open(town)


# -- told of ------------------------------------------------------------------------------------


def test_money_that_has_no_place_is_told_to_the_merchant_too(town: Town) -> None:
    """The customer paid it, and somebody must give it back or explain it. What else is wrong is
    the operator's matter."""
    assert tell(town.book, [a_difference(kind) for kind in DifferenceKind]) == len(DifferenceKind)
    assert [one["reason"] for one in told(town)] == [
        "double",
        "late_paid",
        "paid_elsewhere",
        "not_in_book",
        "paid_not_due",
        "not_enrolled",
        "stranger",
        "amount_differs",
    ]
    assert alarms(town) == ["reconcile.difference"] * len(DifferenceKind)


def test_the_line_says_what_a_person_needs_to_act(town: Town) -> None:
    tell(town.book, [a_difference()])
    payment = {"imp_uid": "imp_000000000001", "merchant_uid": "theirs-1", "keep": "imp_kept"}
    assert lines(town) == [
        (
            1,
            1,
            {
                "kind": "double",
                **payment,
                "ledger_amount": 1001,
                "book_amount": 9900,
                "refund_by": "2026-12-01T00:00:00+09:00",
            },
        )
    ]
    (notice,) = told(town)
    assert notice.items() >= {**payment, "amount": 1001, "customer_uid": uid(1)}.items()


def test_of_a_stranger_less_is_known_and_the_name_is_cut(town: Town) -> None:
    """A stranger's order number may be as long as it likes, a line of the book may not."""
    stranger = replace(
        a_difference(DifferenceKind.STRANGER),
        merchant_uid="x" * 150,
        subscription_id=None,
        cycle_id=None,
        ledger_amount=None,
        book_amount=None,
        keep=None,
        refund_by=None,
    )
    tell(town.book, [stranger])
    ((subscription, cycle, data),) = lines(town)
    assert (subscription, cycle, data["merchant_uid"]) == (None, None, "x" * 100)
    for name in ("ledger_amount", "book_amount", "keep", "refund_by"):
        assert data[name] is None, name


def test_each_is_told_once(town: Town) -> None:
    found = a_difference()
    assert tell(town.book, [found]) == 1
    assert tell(town.book, [found]) == 0
    town.book.run(lambda tx: tell_one(tx, found))
    assert (alarms(town), len(told(town))) == (["reconcile.difference"], 1)


def test_one_that_a_webhook_led_to_is_told_at_once(town: Town) -> None:
    town.book.run(lambda tx: tell_one(tx, a_difference()))
    assert alarms(town) == ["reconcile.difference"]
    assert [one["reason"] for one in told(town)] == ["double"]
    assert tell(town.book, [a_difference()]) == 0, "and not by the daily run again"


def test_as_many_as_a_person_can_look_at_alarm_one_by_one(town: Town) -> None:
    assert tell(town.book, many(MOST_ALARMS)) == MOST_ALARMS
    assert alarms(town) == ["reconcile.difference"] * MOST_ALARMS
    assert len(told(town)) == MOST_ALARMS


def test_more_have_one_cause_and_one_alarm(town: Town) -> None:
    assert tell(town.book, many(MOST_ALARMS + 1)) == MOST_ALARMS + 1
    assert alarms(town) == ["reconcile.many"]
    ((data,),) = query(town.book, "SELECT data FROM events WHERE kind = 'reconcile.many'")
    assert data == {"differences": MOST_ALARMS + 1}
    assert len(lines(town)) == MOST_ALARMS + 1, "each has its line all the same"
    assert [(one["reason"], one["payments"]) for one in told(town)] == [("many", MOST_ALARMS + 1)]


# -- gone ---------------------------------------------------------------------------------------


def test_what_is_not_found_again_is_over(town: Town) -> None:
    """Also of a stranger whose name alone is longer than what is kept of it."""
    long = replace(a_difference(), imp_uid=None, merchant_uid="x" * 300)
    tell(town.book, [a_difference(), long])
    assert concluded(town, [a_difference(), long]) == 2
    assert concluded(town, [long], all_seen=False) == 2, "it may be among those left out"
    assert concluded(town, [long]) == 1
    assert concluded(town, []) == 0


def test_a_schedule_is_over_when_its_key_was_asked_about(town: Town) -> None:
    tell(town.book, [a_difference(DifferenceKind.SCHEDULED)])
    assert concluded(town, [], asked=[]) == 1
    assert concluded(town, [a_difference(DifferenceKind.SCHEDULED)], asked=[1]) == 1
    assert concluded(town, [], asked=[1]) == 0


# -- followed -----------------------------------------------------------------------------------


def cancelled(town: Town) -> Difference:
    """The month's payment is cancelled in the gateway's console, and the daily run finds it."""
    town.cancel_outside(town.paid_imp_uid())
    town.move(minutes=5)
    (found,) = town.reconcile().differences
    return found


def settled(town: Town, found: Difference) -> Settled:
    return settle(town.book, town.policy, found)


def month(town: Town) -> tuple[str, str | None]:
    ((status, reason),) = query(
        town.book,
        "SELECT c.status, s.status_reason FROM cycles c"
        " JOIN subscriptions s ON s.id = c.subscription_id",
    )
    return status, reason


def refunds(town: Town) -> list[tuple[Any, ...]]:
    return query(town.book, "SELECT status FROM refunds ORDER BY id")


def refund_notices(town: Town) -> list[Any]:
    found = query(town.book, "SELECT data FROM notices WHERE kind = 'payment.refunded'")
    return [row[0] for row in found]


def asked_for(town: Town, status: str, **more: str) -> None:
    """A refund of the month's payment that somebody here asked for."""
    columns = {"status": f"'{status}'", **more}
    execute(
        town.book,
        "INSERT INTO refunds (subscription_id, cycle_id, imp_uid, merchant_uid, amount,"
        f" breaks_chain, refund_by, reason, requested_at, {', '.join(columns)})"
        " SELECT subscription_id, id, paid_imp_uid, paid_merchant_uid, amount, true,"
        f" '2026-12-01T00:00+09:00', 'asked for', now(), {', '.join(columns.values())} FROM cycles",
    )


def test_a_cancellation_that_nobody_asked_for_has_its_refund_all_the_same(town: Town) -> None:
    found = cancelled(town)
    assert settled(town, found) is Settled.APPLIED
    ((attempt,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    columns = (
        "subscription_id, cycle_id, imp_uid, merchant_uid, amount, breaks_chain, refund_by,"
        " requested_at, cancelled_at, fence"
    )
    assert query(town.book, f"SELECT {columns} FROM refunds") == [
        (
            1,
            1,
            town.paid_imp_uid(),
            attempt,
            1001,
            True,
            seoul("2026-12-01 00:00"),
            town.clock.now,
            found.at,
            0,
        )
    ]
    assert month(town) == ("refunded", "chain_at_risk")
    assert alarms(town) == ["refund.done", "subscription.chain_at_risk"]
    (notice,) = refund_notices(town)
    assert datetime.fromisoformat(notice["refunded_at"]) == found.at
    assert broken(town.book, town.policy) == []


def test_where_another_payment_keeps_the_month_the_chain_holds(town: Town) -> None:
    found = replace(cancelled(town), month_stands=True)
    assert settled(town, found) is Settled.APPLIED
    assert query(town.book, "SELECT breaks_chain FROM refunds") == [(False,)]
    assert month(town) == ("refunded", None)
    assert alarms(town) == ["refund.done"]


def test_a_cancellation_is_followed_once(town: Town) -> None:
    """A webhook and the daily run find the same one."""
    found = cancelled(town)
    assert settled(town, found) is Settled.APPLIED
    assert settled(town, found) is Settled.GONE
    assert len(refund_notices(town)) == len(refunds(town)) == 1


def test_a_month_that_counts_another_payment_by_now_stays_paid(town: Town) -> None:
    found = cancelled(town)
    assert settled(town, replace(found, imp_uid="imp_another")) is Settled.GONE
    assert (month(town), refunds(town)) == (("paid", None), [])


def test_a_request_of_ours_that_is_on_its_way_settles_it_itself(town: Town) -> None:
    found = cancelled(town)
    asked_for(town, "sending", lease_until="now()", sent_at="now()")
    assert settled(town, found) is Settled.GONE
    assert (month(town), refunds(town)) == (("paid", None), [("sending",)])


@pytest.mark.parametrize(
    ("status", "more", "elsewhere"),
    [
        ("requested", {}, ["refund.done"]),
        ("unknown", {"provable_at": "now()", "ask_at": "now()"}, []),
    ],
)
def test_a_refund_that_still_waits_is_ended_by_what_was_found(
    town: Town, status: str, more: dict[str, str], elsewhere: list[str]
) -> None:
    """The alarm sends a person to find out who cancelled it outside of Maewol. Where a request of
    ours was not answered, it was that one."""
    found = cancelled(town)
    asked_for(town, status, **more)
    assert settled(town, found) is Settled.APPLIED
    assert (month(town), refunds(town)) == (("refunded", "chain_at_risk"), [("done",)])
    assert alarms(town) == [*elsewhere, "subscription.chain_at_risk"]


def test_a_month_counted_after_its_refund_was_done_follows_it(town: Town) -> None:
    found = cancelled(town)
    asked_for(town, "done", settled_at="now()", cancelled_at="'2026-11-20T10:01+09:00'")
    assert settled(town, found) is Settled.APPLIED
    assert month(town) == ("refunded", "chain_at_risk")
    (notice,) = refund_notices(town)
    assert notice["refunded_at"] == "2026-11-20T10:01:00+09:00", "when it was, not when it was seen"


@pytest.mark.parametrize("changed", [{"confirmed": False}, {"kind": DifferenceKind.MISSING}])
def test_what_may_not_be_changed_by_itself_is_left_to_a_person(
    town: Town, changed: dict[str, Any]
) -> None:
    assert settled(town, replace(cancelled(town), **changed)) is Settled.LEFT
    assert (month(town), refunds(town)) == (("paid", None), [])
