"""One odd row keeps nobody else waiting: it is put aside, or left, and told of; the others go on.

Such rows are made behind the book's back, by hand or by other versions of this code. Nothing here
is refused by the schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from billing.domain.errors import InvalidInput
from billing.domain.finding import PaidByThis
from billing.domain.outcome import Approved
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.refund import RefundStatus
from billing.domain.webhook import LOOK_AGAIN, announced
from billing.portone.client import PortOneClient
from billing.services.answer import Answer, Result
from billing.services.change_status import pause
from billing.services.close_cycles import close_cycles
from billing.services.desk import Desk
from billing.services.invariants import broken
from billing.services.look_at_webhooks import look_at_webhooks
from billing.services.notify import deliver, find_due
from billing.services.open_cycles import open_cycles
from billing.services.receive_webhook import receive_webhook
from billing.services.reconcile import Report
from billing.services.record import record
from billing.services.refund import propose, request, work_on_open
from billing.store import attempts
from billing.store.attempts import Claim
from billing.store.session import Book
from tests.builders import execute, query, subscribed
from tests.conftest import MovedClock
from tests.post import Post
from tests.town import Town
from tests.world import World

ODD = "customer_uid = 'customer-1'"
AROUND = "SET LOCAL session_replication_role = replica; "


def of_others(book: Book, what: str) -> list[tuple[Any, ...]]:
    """That of each month, of all but the first subscriber."""
    return query(book, f"SELECT {what} FROM cycles WHERE subscription_id > 1 ORDER BY id")


def alarms(book: Book, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """Whom each alarm of a kind is about, and what it says."""
    told = "SELECT subscription_id, data FROM events WHERE alarm AND kind = :kind ORDER BY id"
    return [(row[0], row[1]) for row in query(book, told, kind=kind)]


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    return World(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)


# -- what Python cannot read --------------------------------------------------------------------


def test_moments_beyond_the_calendar_are_read_as_its_ends(book: Book) -> None:
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    for text, read in {
        "infinity": last,
        "20000-01-01": last,
        # Read by the driver, and on no day in Seoul.
        "9999-12-31 23:59:59+00": last,
        "-infinity": first,
        "0044-03-15 BC": first,
        "2026-11-20 10:00+09": datetime(2026, 11, 20, 1, tzinfo=UTC),
    }.items():
        ((moment, day, none),) = query(
            book, f"SELECT '{text}'::timestamptz, '{text}'::date, NULL::date"
        )
        assert (moment, day, none) == (read, read.date(), None)


def test_who_is_never_due_keeps_nobody_from_being_planned_anew(
    book: Book, policy: BillingPolicy, make_policy: Callable[..., BillingPolicy]
) -> None:
    """Whoever wants a customer left alone may write that into the row."""
    assert open_cycles(book, policy) == 0, "planned by these settings"
    subscribed(book, policy, 3)
    execute(book, f"UPDATE subscriptions SET next_due_at = 'infinity' WHERE {ODD}")
    assert open_cycles(book, policy) == 2
    other = make_policy(charge_cron="0 9 * * *")
    execute(book, f"UPDATE subscriptions SET next_closes_at = '-infinity' WHERE {ODD}")
    assert open_cycles(book, other) == 1, "planned anew, and due"


@pytest.mark.parametrize("moment", ["infinity", "9999-12-31 23:59:59+00"])
def test_an_attempt_that_is_never_ready_keeps_nobody_from_being_warned_and_closed(
    book: Book, policy: BillingPolicy, clock: MovedClock, moment: str
) -> None:
    subscribed(book, policy, 3)
    assert open_cycles(book, policy) == 3
    execute(book, f"UPDATE attempts SET ready_at = '{moment}' WHERE id = 1")
    clock.move_to(datetime(2026, 11, 25, 12, tzinfo=UTC))
    close_cycles(book, policy)
    assert len(alarms(book, "cycle.closing_soon")) == 3
    clock.move(days=1)
    assert close_cycles(book, policy) == 3


def test_facts_of_no_time_keep_nobody_from_being_charged(world: World) -> None:
    """They are claimed together; the odd one's month is held, since its seal is broken."""
    world.enrol("customer-1", "customer-2", "customer-3")
    execute(
        world.book, f"{AROUND}UPDATE subscriptions SET initial_paid_at = 'infinity' WHERE {ODD}"
    )
    world.run(times=3)
    assert of_others(world.book, "status") == [("paid",), ("paid",)]
    assert query(world.book, "SELECT held FROM cycles WHERE subscription_id = 1") == [
        ("facts_changed",)
    ]


# -- months that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize("facts", ["next_cycle = 100000", "anchor_on = 'infinity'"])
def test_a_month_of_no_calendar_keeps_nobody_from_being_opened(
    book: Book,
    policy: BillingPolicy,
    make_policy: Callable[..., BillingPolicy],
    clock: MovedClock,
    facts: str,
) -> None:
    subscribed(book, policy, 3)
    execute(book, f"{AROUND}UPDATE subscriptions SET {facts} WHERE {ODD}")
    assert open_cycles(book, make_policy(charge_cron="0 9 * * *")) == 2
    ((whose, told),) = alarms(book, "cycle.not_opened")
    assert (whose, "beyond the year 9999" in told["why"]) == (1, True)
    assert query(book, "SELECT next_due_at FROM subscriptions WHERE id = 1") == [
        (clock.now + timedelta(hours=1),)
    ]
    # Looked at hourly, told of daily; and put right, it is opened.
    clock.move(hours=2)
    assert open_cycles(book, policy) == 0
    assert len(alarms(book, "cycle.not_opened")) == 1
    clock.move(days=1)
    assert open_cycles(book, policy) == 0
    assert len(alarms(book, "cycle.not_opened")) == 2
    right = "next_cycle = 1, anchor_on = '2026-10-20'"
    execute(book, f"{AROUND}UPDATE subscriptions SET {right} WHERE {ODD}")
    clock.move(hours=2)
    assert open_cycles(book, policy) == 1


def test_a_paused_month_of_no_calendar_keeps_nobody_from_being_skipped(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    subscribed(book, policy, 3)
    for number in (1, 2, 3):
        pause(book, policy, f"customer-{number}")
    execute(book, f"UPDATE subscriptions SET next_cycle = 100000 WHERE {ODD}")
    clock.move(days=10)
    assert close_cycles(book, policy) == 2
    assert of_others(book, "status") == [("skipped",), ("skipped",)]
    clock.move(hours=2)
    assert close_cycles(book, policy) == 0
    ((whose, told),) = alarms(book, "cycle.not_opened")
    assert (whose, told["cycle"]) == (1, 100000)


@pytest.mark.parametrize("tag", ["(SELECT tag FROM subscriptions WHERE id = 2)", "'한 글자'"])
def test_an_attempt_that_cannot_have_its_name_keeps_nobody_from_being_opened(
    book: Book, policy: BillingPolicy, clock: MovedClock, tag: str
) -> None:
    """The tag is no fact. Of two with one name neither is tried: the gateway would take the second
    charge for the first, or both for one customer's."""
    subscribed(book, policy, 3)
    ((own,),) = query(book, "SELECT tag FROM subscriptions WHERE id = 1")
    execute(book, f"UPDATE subscriptions SET tag = {tag} WHERE id = 1")
    twins = "SELECT" in tag
    assert open_cycles(book, policy) == (1 if twins else 2)
    assert query(book, "SELECT count(*) FROM attempts") == query(
        book, "SELECT count(*) FROM cycles"
    )
    assert len(alarms(book, "cycle.not_opened")) == (2 if twins else 1)
    execute(book, "UPDATE subscriptions SET tag = :own WHERE id = 1", own=own)
    clock.move(hours=2)
    assert open_cycles(book, policy) == (2 if twins else 1)
    assert query(book, "SELECT month, number FROM cycles WHERE subscription_id = 1") == [
        (date(2026, 11, 1), 1)
    ]


def test_a_name_that_another_month_has_is_not_given_again(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    assert open_cycles(book, policy) == 0, "planned by these settings"
    subscribed(book, policy, 2)
    execute(book, "UPDATE subscriptions SET next_due_at = 'infinity' WHERE id = 1")
    assert open_cycles(book, policy) == 1
    of_another = "tag = (SELECT tag FROM subscriptions WHERE id = 2), next_due_at = '2026-11-20'"
    execute(book, f"UPDATE subscriptions SET {of_another} WHERE id = 1")
    assert open_cycles(book, policy) == 0
    assert query(book, "SELECT next_cycle, next_closes_at FROM subscriptions WHERE id = 1") == [
        (1, datetime(2026, 11, 25, 15, tzinfo=UTC))
    ]
    ((whose, told),) = alarms(book, "cycle.not_opened")
    assert (whose, "cannot be its attempt's name" in told["why"]) == (1, True)


# -- reconciliation -----------------------------------------------------------------------------


@pytest.fixture
def town(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> Town:
    """Three subscribers whose months are open, two of them paid by hand."""
    made = Town(book, make_policy(charge_cron="* * * * *", charges_per_second=0), clock)
    made.subscribe(3)
    assert open_cycles(book, made.policy) == 3
    return made


def kinds(report: Report) -> list[tuple[str, str | None]]:
    return [(str(one.kind), one.imp_uid) for one in report.differences]


def test_a_payment_that_shows_no_moment_is_told_and_the_others_are_counted(town: Town) -> None:
    """Listed as paid, or paid in our book; asked about by its name it has no moment at all."""
    assert town.charge() == {"approved": 3}
    bare: dict[str, Any] = dict.fromkeys(("paid_at", "failed_at", "cancelled_at", "started_at"), 0)
    listed, hidden = town.paid_imp_uid(1), town.paid_imp_uid(2)
    for imp_uid in (listed, hidden):
        answer = town.row(imp_uid, status="ready", **bare)
        town.wire.faults[f"/payments/{imp_uid}"] = lambda row=answer: town.says(row)  # type: ignore[misc]
    town.changed(listed, amount=999)
    town.changed(hidden, visible_at=9e9)
    town.cancel_outside(town.paid_imp_uid(3))
    town.move(minutes=5)
    report = town.reconcile(apply=True)
    assert sorted(kinds(report)) == sorted(
        [("not_final_at_gateway", listed), ("not_final_at_gateway", hidden)]
    )
    assert [one.imp_uid for one in report.applied] == [town.paid_imp_uid(3)]


@pytest.mark.parametrize(
    "odd",
    [
        # Longer than the book can hold; and of no form that can be asked about.
        "imp_" + "9" * 70,
        "imp_" + "9" * 200,
        "..",
    ],
)
def test_a_payment_whose_id_cannot_be_kept_is_told_and_the_others_are_counted(
    town: Town, odd: str
) -> None:
    by_hand, clear = town.pay_by_hand(1), town.pay_by_hand(2)
    town.move(minutes=5)
    renamed(town, by_hand.imp_uid, odd)
    report = town.reconcile(apply=True)
    assert kinds(report) == [("paid_elsewhere", odd)]
    assert [one.imp_uid for one in report.applied] == [clear.imp_uid]
    assert len(alarms(town.book, "reconcile.difference")) == 1
    assert query(town.book, "SELECT status FROM cycles ORDER BY id") == [
        ("open",),
        ("paid",),
        ("open",),
    ]


def renamed(town: Town, imp_uid: str, other: str) -> None:
    """The gateway gives this payment out under another id."""
    old = next(one for one in town.sandbox.ledger.payments if one.imp_uid == imp_uid)
    row = town.row(imp_uid, imp_uid=other)
    town.changed(imp_uid, visible_at=9e9)
    town.sandbox.ledger.put(replace(old, imp_uid=other))
    town.wire.faults[f"/payments/{other}"] = lambda: town.says(row)


@pytest.mark.parametrize("odd", ["", ".."])
def test_a_paid_month_without_an_id_is_told_and_the_others_are_compared(
    town: Town, odd: str
) -> None:
    assert town.charge() == {"approved": 3}
    execute(town.book, "UPDATE cycles SET paid_imp_uid = :odd WHERE id = 1", odd=odd)
    town.cancel_outside(town.paid_imp_uid(2))
    town.move(minutes=5)
    report = town.reconcile(apply=True)
    assert ("missing_at_gateway", odd) in kinds(report)
    assert [one.cycle_id for one in report.applied] == [2]


def test_a_key_that_cannot_be_asked_about_leaves_the_run_whole(town: Town) -> None:
    execute(town.book, f"{AROUND}UPDATE subscriptions SET customer_uid = '..' WHERE id = 1")
    report = town.reconcile(apply=True)
    assert (report.failed, report.whole) == (1, True)


def test_an_unlikely_number_of_the_next_month_keeps_nothing_from_being_compared(
    town: Town,
) -> None:
    assert town.charge() == {"approved": 3}
    execute(town.book, "UPDATE subscriptions SET next_cycle = 9000000000000000000 WHERE id = 1")
    town.cancel_outside(town.paid_imp_uid(2))
    town.move(minutes=5)
    assert [one.cycle_id for one in town.reconcile(apply=True).applied] == [2]


def test_of_two_with_one_tag_a_payment_is_nobodys_and_is_seen_once(town: Town) -> None:
    """By its name alone it may be either's."""
    town.register_only(9)
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts WHERE id = 1")
    by_hand = town.pay_by_hand(9, merchant_uid=f"{name[:-2]}07")
    town.changed(by_hand.imp_uid, customer_uid=None)
    execute(
        town.book, "UPDATE subscriptions SET tag = (SELECT tag FROM subscriptions WHERE id = 1)"
    )
    clear = town.pay_by_hand(2)
    town.move(minutes=5)
    report = town.reconcile(apply=True)
    assert ("not_in_book", by_hand.imp_uid) in kinds(report)
    assert [one.imp_uid for one in report.applied] == [clear.imp_uid]
    assert report.counts["not_ours"] >= 1
    assert receive_webhook(town.book, announced(by_hand.imp_uid, None, "paid"))
    assert town.run(lambda one: look_at_webhooks(town.book, one, town.policy)) == {
        "unknown_payment": 1
    }


def test_a_row_of_the_list_that_cannot_be_read_leaves_the_others_counted(town: Town) -> None:
    """Nothing is concluded or proved by such a list."""
    odd, clear = town.pay_by_hand(1), town.pay_by_hand(2)
    town.changed(odd.imp_uid, amount=-1)
    town.move(minutes=5)
    report = town.reconcile(apply=True)
    assert [one.imp_uid for one in report.applied] == [clear.imp_uid]
    assert (report.differences, report.failed, report.whole) == ([], 1, False)


# -- records, webhooks, refunds, notices, facts -------------------------------------------------


def test_an_announced_payment_that_nothing_can_be_made_of_keeps_no_other_waiting(
    town: Town,
) -> None:
    """By an edit of the table its id is none; the others are looked at all the same."""
    clear = town.pay_by_hand(2)
    for imp_uid in ("imp_000000000000", clear.imp_uid):
        assert receive_webhook(town.book, announced(imp_uid, None, "paid"))
    execute(town.book, "UPDATE webhooks SET imp_uid = '..' WHERE id = 1")
    ends = "SELECT outcome FROM webhooks ORDER BY id"
    for wait in (*LOOK_AGAIN, None):
        with pytest.raises(InvalidInput):
            town.run(lambda one: look_at_webhooks(town.book, one, town.policy))
        ended = "failed" if wait is None else None
        assert query(town.book, ends) == [(ended,), ("counted",)]
        town.move(seconds=1 if wait is None else wait.total_seconds() + 1)


def test_a_refund_that_cannot_be_worked_on_keeps_no_other_waiting(town: Town) -> None:
    assert town.charge() == {"approved": 3}
    names = [row[0] for row in query(town.book, "SELECT merchant_uid FROM attempts ORDER BY id")]

    def asked_for(name: str) -> int:
        async def both(client: PortOneClient) -> int:
            proposal = await propose(town.book, client, town.policy, name)
            return request(town.book, proposal, "the customer asked")

        return town.run(both)

    odd, clear = asked_for(names[0]), asked_for(names[1])
    unknown = "status = 'unknown', provable_at = now(), ask_at = '2026-11-20'"
    execute(town.book, f"{AROUND}UPDATE refunds SET {unknown}, imp_uid = '..' WHERE id = {odd}")

    def tick() -> dict[RefundStatus, int]:
        return dict(town.run(lambda one: work_on_open(town.book, one, town.policy)))

    with capture_logs() as logged:
        assert tick() == {"done": 1}
    (line,) = (one for one in logged if one["event"] == "refund not worked on")
    assert (line["refund"], line["error"]) == (odd, "InvalidInput")
    assert query(town.book, f"SELECT status FROM refunds WHERE id = {clear}") == [("done",)]
    town.move(minutes=5)
    assert tick() == {}
    ((whose, told),) = alarms(town.book, "refund.stuck")
    assert (whose, told["why"]) == (1, "InvalidInput")
    town.move(days=1)
    tick()
    assert len(alarms(town.book, "refund.stuck")) == 2


def test_a_notice_that_says_nothing_is_dead_and_the_others_are_sent(world: World) -> None:
    world.enrol("customer-1", "customer-2", "customer-3")
    world.run(times=2)
    assert query(world.book, "SELECT count(*) FROM notices") == [(3,)]
    execute(world.book, "UPDATE notices SET data = '[1]' WHERE subscription_id = 1")
    post = Post()
    find_due(world.book, post, world.policy, wanted=True)
    assert asyncio.run(deliver(world.book, post, world.policy, post.due)) == {"delivered": 2}
    dead = "SELECT subscription_id, problem FROM notices WHERE dead_at IS NOT NULL"
    assert query(world.book, dead) == [(1, "what it tells is no message")]
    assert len(alarms(world.book, "notice.dead")) == 1


def test_an_event_that_was_edited_leaves_every_fact_examined(world: World) -> None:
    world.enrol("customer-1", script=["declined:D"] * 3)
    world.run(times=2)
    world.clock.move(days=1)
    world.run(times=2)
    edited = """data = '{"declines_allowed": "many", "declines_allowed_a_day": 9e99}'"""
    execute(world.book, f"{AROUND}UPDATE events SET {edited} WHERE kind = 'attempt.planned'")
    # The seal over it shows that, where it was sealed by then.
    found = {one.name for one in broken(world.book, world.policy)}
    assert found <= {"I7 nothing was edited"}


def claimed(world: World) -> Claim:
    """The one attempt of the only subscriber, on its way."""
    world.enrol("customer-1")
    world.open()
    now = world.clock.now
    with world.book.transaction() as tx:
        (claim,) = attempts.claim(tx.session, [1], now, now + world.policy.lease)
    return claim


def test_a_second_payment_without_a_moment_hides_no_first_one(world: World) -> None:
    claim, now = claimed(world), world.clock.now
    request = claim.request
    name, amount = request.merchant_uid, request.amount
    first = Payment("imp_1", name, "paid", amount, "customer-1", paid_at=now)
    second = replace(first, imp_uid="imp_2", paid_at=None)
    answer = Answer(1, claim.fence, PaidByThis(first, (second,)), now)
    with world.book.transaction() as tx:
        assert record(tx, world.policy, [answer]) == ["approved"]
    assert of_everybody(world.book) == [("paid", "imp_1")]
    told = "SELECT data->>'imp_uid', data->>'paid_at', data->>'refund_by' FROM notices"
    assert ("imp_2", None, None) in query(world.book, told)


def of_everybody(book: Book) -> list[tuple[Any, ...]]:
    return query(book, "SELECT status, paid_imp_uid FROM cycles ORDER BY id")


def test_what_the_database_cannot_hold_is_not_tried_until_the_lease_ends(world: World) -> None:
    """It refuses that again. The worker goes on; the attempt is asked about later."""
    claim, now = claimed(world), world.clock.now
    answer = Answer(1, claim.fence, Approved("imp_" + "9" * 70, claim.request.amount, now))

    async def hand_in() -> Result:
        desk = Desk(world.book, world.policy)
        desk.expect(1)
        return await desk.hand_in(answer, asyncio.get_running_loop().time() + 30)

    assert asyncio.run(asyncio.wait_for(hand_in(), 20)) == "unrecorded"
