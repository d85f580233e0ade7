"""What is found when much has happened since: paused, refunded, refused again, replaced, over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from billing.cli import refunding
from billing.domain.cycle import CycleReason
from billing.domain.errors import Conflict
from billing.domain.finding import FailedThis, PaidByThis
from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.sandbox import mood
from billing.services.answer import Answer
from billing.services.change_status import cancel, pause
from billing.services.enrol_payment import enrol_payment
from billing.services.hold import release, stop
from billing.services.inquire import inquire
from billing.services.invariants import broken
from billing.services.record import adopt, record
from billing.services.refund import propose, request, work_on, work_on_open
from billing.services.report import report
from billing.services.settle_difference import Settled, settle
from billing.store.session import Book
from tests.builders import KEY, execute, query
from tests.conftest import MovedClock
from tests.town import Town, seoul, uid


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    return Town(book, policy, clock)


def subscription(town: Town) -> list[Any]:
    return query(town.book, "SELECT status, status_reason FROM subscriptions ORDER BY id")


def notices(town: Town) -> list[str]:
    return [kind for (kind,) in query(town.book, "SELECT kind FROM notices ORDER BY id")]


def alarms(town: Town) -> list[str]:
    return [kind for (kind,) in query(town.book, "SELECT kind FROM events WHERE alarm ORDER BY id")]


def unanswered(town: Town) -> None:
    """One subscriber whose charge was made, and whose answer was lost."""
    town.subscribe()
    town.wire.faults["/again"] = "unanswered"
    assert town.charge() == {"unknown": 1}
    town.wire.faults.clear()


def given_back(town: Town) -> tuple[int, int, int]:
    """The won of November for people who keep books: collected, given back, and given back besides
    of what no month counts."""
    figures = report(town.book, town.policy, date(2026, 11, 1)).figures
    return figures.collected.won, figures.refunded.won, figures.besides.won


def refused(town: Town, *codes: str) -> str:
    """One subscriber whose attempts are refused so; the first one's name."""
    town.subscribe()
    does = [f"declined:{code}" for code in codes]
    town.sandbox.mood = mood({"scripts": [{"customers": "*", "does": does}]})
    assert town.charge() == {"declined": 1}
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts WHERE status = 'declined'")
    return str(name)


def asked(town: Town, attempt: int = 1) -> None:
    town.run(lambda client: inquire(town.book, client, town.policy, [attempt]))


def wish(town: Town, merchant_uid: str) -> int:
    """Ask for a refund; its id."""

    async def asks(client: Any) -> int:
        proposal = await propose(town.book, client, town.policy, merchant_uid)
        return await asyncio.to_thread(request, town.book, proposal, "asked for")

    return town.run(asks)


def as_seen(town: Town, row: Any) -> Payment:
    """A payment as a look-up shows it."""
    return Payment(
        imp_uid=row.imp_uid,
        merchant_uid=row.merchant_uid,
        status="paid",
        amount=Won(row.amount),
        customer_uid=uid(1),
        paid_at=town.clock.now,
        currency="KRW",
    )


def worked_on(town: Town, refund_id: int) -> str:
    standing = town.run(lambda client: work_on(town.book, client, town.policy, refund_id))
    return str(standing.status)


# -- a suspension that is taken back ------------------------------------------------------------


def test_who_was_paused_is_paused_again(town: Town) -> None:
    unanswered(town)
    pause(town.book, town.policy, uid(1))
    town.at("2026-11-28 10:00").close()
    assert subscription(town) == [("suspended", "chain_broken")]
    execute(town.book, "DELETE FROM notices")
    asked(town)
    assert subscription(town) == [("paused", None)]
    assert notices(town) == ["payment.paid", "subscription.paused"]
    assert town.at("2026-12-20 10:30").charge() == {}, "a paused customer is not charged"
    assert broken(town.book, town.policy) == []


def test_who_was_paused_before_a_refusal_for_good_is_paused_again(town: Town) -> None:
    town.subscribe()
    town.sandbox.mood = mood({"scripts": [{"customers": "*", "does": ["declined:0011"]}]})

    def meanwhile() -> None:
        pause(town.book, town.policy, uid(1))

    town.wire.faults["/again"] = meanwhile
    assert town.charge() == {"declined": 1}
    town.move(minutes=1)
    town.close()
    assert subscription(town) == [("suspended", "key_invalid")]
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    town.pay_by_hand(merchant_uid=name)
    town.move(minutes=5)
    town.reconcile(apply=True)
    assert subscription(town) == [("paused", None)]


def test_a_payment_from_before_a_refusal_for_good_does_not_disprove_it(town: Town) -> None:
    name = refused(town, "0031", "0011")
    town.at("2026-11-25 12:00")
    assert town.charge() == {"declined": 1}
    town.move(minutes=1)
    town.close()
    assert subscription(town) == [("suspended", "key_invalid")]
    town.pay_by_hand(merchant_uid=name)
    town.move(minutes=5)
    assert [str(one.kind) for one in town.reconcile(apply=True).applied] == ["late_paid"]
    assert subscription(town) == [("suspended", "key_invalid")]


def test_what_the_next_month_has_broken_is_not_mended(town: Town) -> None:
    name = refused(town, "0031")
    town.pay_by_hand(merchant_uid=name)
    town.at("2026-11-26 10:00").close()
    execute(town.book, "DELETE FROM notices")
    town.at("2026-12-28 10:00")
    assert [str(one.kind) for one in town.reconcile(apply=True).applied] == ["late_paid"]
    assert subscription(town) == [("suspended", "chain_broken")]
    assert notices(town) == ["payment.paid"]
    assert (town.charge(), town.close()) == ({}, 0)


# -- refunded meanwhile -------------------------------------------------------------------------


def test_what_was_given_back_since_it_was_looked_up_is_not_counted(town: Town) -> None:
    name = refused(town, "0011")
    town.move(minutes=1)
    town.close()
    town.pay_by_hand(merchant_uid=name)
    town.move(minutes=5)
    (found,) = town.reconcile().differences
    assert worked_on(town, wish(town, name)) == "done"
    assert settle(town.book, town.policy, found) is Settled.GONE
    assert subscription(town) == [("suspended", "key_invalid")]
    assert query(town.book, "SELECT status FROM cycles") == [("open",)]


def test_a_month_that_counted_what_was_given_back_follows(town: Town) -> None:
    """The refund was done while the charge was still in question."""
    unanswered(town)
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    (charged,) = [one for one in town.sandbox.ledger.payments if one.merchant_uid == name]
    assert worked_on(town, wish(town, name)) == "done"
    paid = as_seen(town, charged)

    town.move(minutes=5)
    seen_before = Answer(1, 1, PaidByThis(paid), town.clock.now)
    town.book.run(lambda tx: record(tx, town.policy, [seen_before]))
    assert query(town.book, "SELECT status FROM cycles") == [("paid",)]
    assert [str(one.kind) for one in town.reconcile(apply=True).applied] == ["cancelled_at_gateway"]
    assert query(town.book, "SELECT status FROM cycles") == [("refunded",)]
    assert subscription(town) == [("active", "chain_at_risk")]
    assert town.reconcile(apply=True).clean
    assert broken(town.book, town.policy) == []
    assert given_back(town) == (1001, 1001, 0)


def test_asked_back_before_its_month_counted_it(town: Town) -> None:
    """The answer to the charge was lost, and found between the wish and the refund."""
    unanswered(town)
    ((attempt_id, name),) = query(town.book, "SELECT id, merchant_uid FROM attempts")
    town.move(minutes=5)
    refund_id = wish(town, name)
    town.run(lambda client: inquire(town.book, client, town.policy, [attempt_id]))
    assert query(town.book, "SELECT status FROM cycles") == [("paid",)]
    assert worked_on(town, refund_id) == "done"
    assert query(town.book, "SELECT status FROM cycles") == [("refunded",)]
    assert given_back(town) == (1001, 1001, 0)


def paid_twice(town: Town) -> tuple[str, str]:
    """The orders of a month's charge, and of a payment by hand beside it."""
    town.subscribe()
    town.charge()
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    by_hand = town.pay_by_hand()
    town.move(minutes=5)
    return str(name), by_hand.merchant_uid


def test_two_payments_of_a_month_that_are_both_given_back_break_the_chain(town: Town) -> None:
    name, by_hand = paid_twice(town)

    async def both(client: Any) -> list[bool]:
        proposals = [await propose(town.book, client, town.policy, one) for one in (name, by_hand)]
        for one in proposals:
            refund_id = await asyncio.to_thread(request, town.book, one, "asked for")
            await work_on(town.book, client, town.policy, refund_id)
        return [one.breaks_chain for one in proposals]

    assert town.run(both) == [False, False], "each was proposed while the other stood"
    assert query(town.book, "SELECT breaks_chain FROM refunds ORDER BY id") == [(False,), (True,)]
    assert subscription(town) == [("active", "chain_at_risk")]


def test_the_second_is_proposed_as_what_it_is(town: Town) -> None:
    name, by_hand = paid_twice(town)
    wish(town, name)

    proposal = town.run(lambda client: propose(town.book, client, town.policy, by_hand))
    assert proposal.breaks_chain
    assert "broken" in proposal.warning_en


def test_a_payment_that_stands_after_all_keeps_the_chain(town: Town) -> None:
    """The second was the last when it was asked back. Then the first was not given back."""
    name, by_hand = paid_twice(town)
    first, second = wish(town, name), wish(town, by_hand)
    assert query(town.book, "SELECT breaks_chain FROM refunds ORDER BY id") == [(False,), (True,)]
    execute(
        town.book,
        "UPDATE refunds SET status = 'refused', settled_at = requested_at WHERE id = :id",
        id=first,
    )
    assert worked_on(town, second) == "done"
    assert query(town.book, "SELECT status FROM cycles") == [("paid",)]
    assert subscription(town) == [("active", None)]
    told = "SELECT data ->> 'chain_at_risk' FROM notices WHERE kind = 'payment.refunded'"
    assert query(town.book, told) == [("false",)]


def test_two_questions_of_one_moment_are_one_look(town: Town) -> None:
    town.subscribe()
    town.charge()
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    refund_id = wish(town, name)
    town.wire.faults["/payments/cancel"] = "lost"
    assert worked_on(town, refund_id) == "unknown"
    town.wire.faults.clear()
    town.move(minutes=10)

    async def both(client: Any) -> None:
        await asyncio.gather(
            *(work_on(town.book, client, town.policy, refund_id) for _ in range(2))
        )

    town.run(both)
    looks = "SELECT status, still_paid FROM refunds"
    assert query(town.book, looks) == [("unknown", 1)]
    town.move(seconds=31)
    assert worked_on(town, refund_id) == "requested"
    assert worked_on(town, refund_id) == "done"


def test_nothing_is_given_back_from_a_copy_of_the_book(town: Town) -> None:
    town.subscribe()
    town.charge()
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    refund_id = wish(town, name)
    execute(town.book, "UPDATE installation SET system_identifier = 'another/1'")
    town.run(lambda client: work_on_open(town.book, client, town.policy))
    assert "/payments/cancel" not in town.wire.asked
    assert "charging.held" in alarms(town)
    release(town.book, town.policy)
    town.move(minutes=2)
    assert worked_on(town, refund_id) == "done", "once a person has looked"


@pytest.mark.parametrize("ended", [False, True])
def test_a_charge_that_was_given_back_before_its_answer_was_known_is_no_endless_question(
    town: Town, ended: bool
) -> None:
    """It was asked about for ever, hourly and with an alarm each time."""
    unanswered(town)
    (payment,) = [one for one in town.sandbox.ledger.payments if one.merchant_uid[:3] == "mw-"]
    town.move(minutes=10)
    town.cancel_outside(payment.imp_uid)
    if ended:
        town.at("2026-11-28 10:00").close()
        assert query(town.book, "SELECT status, reason FROM cycles") == [("missed", "unproven")]
    asked(town)
    assert query(town.book, "SELECT status, ask_at FROM attempts") == [("approved", None)]
    assert query(town.book, "SELECT status FROM cycles") == [("paid",)]
    # The gateway has it otherwise by now, as of any payment that was given back elsewhere.
    assert town.kinds() == ["cancelled_at_gateway"]
    town.reconcile(apply=True)
    assert query(town.book, "SELECT status FROM cycles") == [("refunded",)]
    assert given_back(town) == (1001, 1001, 0)
    assert town.kinds() == []
    assert broken(town.book, town.policy) == []


# -- cancelled, replaced ------------------------------------------------------------------------


def test_a_charge_that_ends_after_the_cancellation_is_told_with_its_deadline(town: Town) -> None:
    town.subscribe()

    def meanwhile() -> None:
        cancel(town.book, town.policy, uid(1))

    town.wire.faults["/again"] = meanwhile
    assert town.charge() == {"approved": 1}
    assert "payment.after_cancel" in alarms(town)
    ((told,),) = query(town.book, "SELECT data FROM notices WHERE kind = 'payment.unknown'")
    assert (told["reason"], told["imp_uid"]) == ("paid_not_due", town.paid_imp_uid())
    assert told["refund_by"] == "2026-12-01T00:00:00+09:00"


def test_a_charge_of_the_old_one_that_is_found_beside_the_new_one_is_told(town: Town) -> None:
    unanswered(town)
    town.at("2026-11-28 10:00").close()
    new = town.register_only(2, "2026-11-28 09:00")
    town.run(
        lambda client: enrol_payment(
            town.book, town.policy, lambda: KEY, client, new.imp_uid, previous=uid(1)
        )
    )
    asked(town)
    assert "payment.after_cancel" in alarms(town)
    assert "payment.unknown" in notices(town)


def at_the_terminal(town: Town, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(refunding, "ask", lambda _, use: town.run(use))
    return SimpleNamespace(book=town.book, policy=town.policy)


def test_cancel_and_refund_are_one_step(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked in the last minute of the month, confirmed in the next one: neither is done."""
    town.subscribe()
    town.charge()
    town.at("2026-11-30 23:59:30")
    house = at_the_terminal(town, monkeypatch)

    def slowly(*_: object, **__: object) -> bool:
        town.at("2026-12-01 00:00:10")
        return True

    monkeypatch.setattr("billing.cli.refunding.typer.confirm", slowly)
    with pytest.raises(Conflict, match="nothing was sent"):
        refunding.cancel_and_give_back(house, uid(1), asks=True)
    assert subscription(town) == [("active", None)]
    assert query(town.book, "SELECT count(*) FROM refunds") == [(0,)]


# -- moments that fall together -----------------------------------------------------------------


def test_a_payment_of_another_month_is_a_persons_matter_at_once(town: Town) -> None:
    """Charged for November when that had just ended: November counts it, and December sees it."""
    town.at("2026-11-30 10:00").subscribe(paid="2026-10-31 14:30")
    town.at("2026-11-30 23:25")
    town.wire.faults["/again"] = "unanswered"
    assert town.charge() == {"unknown": 1}
    town.wire.faults.clear()
    (late,) = [one for one in town.sandbox.ledger.payments if one.merchant_uid.startswith("mw-")]
    town.at("2026-12-01 01:00")
    town.changed(late.imp_uid, paid_at=int(seoul("2026-12-01 00:00:03").timestamp()))
    asked(town)
    assert query(town.book, "SELECT status FROM cycles") == [("paid",)]
    town.at("2026-12-28 10:30")
    assert town.charge() == {"held": 1}
    held = "SELECT status, held FROM cycles ORDER BY number DESC LIMIT 1"
    assert query(town.book, held) == [("open", "contradiction")]
    assert "cycle.held" in alarms(town)


def test_adoption_sees_the_retry_that_was_planned_meanwhile(town: Town) -> None:
    town.subscribe()
    town.wire.faults["/again"] = "unanswered"
    assert town.charge() == {"unknown": 1}
    ((attempt, fence, provable_at),) = query(
        town.book, "SELECT id, fence, provable_at FROM attempts"
    )
    town.move(minutes=10)
    assert provable_at < town.clock.now
    by_hand = town.pay_by_hand()
    payment = as_seen(town, by_hand)
    ((cycle,),) = query(town.book, "SELECT id FROM cycles")
    adopted: list[str] = []
    waiting = threading.Event()

    def meanwhile() -> None:
        def step(tx: Any) -> str:
            waiting.set()
            return str(adopt(tx, town.policy, cycle, payment, CycleReason.PAID_ELSEWHERE))

        adopted.append(town.book.run(step))

    with town.book.transaction() as tx:
        failed = Answer(attempt, fence, FailedThis("[0031] 한도초과", "imp_9"), town.clock.now)
        record(tx, town.policy, [failed])
        tx.session.flush()
        other = threading.Thread(target=meanwhile)
        other.start()
        waiting.wait(10)
        # Until it waits for the rows that this transaction holds.
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        for _ in range(200):
            if query(town.book, blocked) != [(0,)]:
                break
            other.join(0.05)
        else:
            raise AssertionError("it never waited")
    other.join(30)
    assert adopted == ["paid_elsewhere"]
    ended = "SELECT number, status FROM attempts ORDER BY number"
    assert query(town.book, ended) == [(1, "declined"), (2, "withdrawn")]
    assert broken(town.book, town.policy) == []


def test_the_turn_of_a_month_on_two_clocks(town: Town) -> None:
    """The gateway's clock is ahead of ours by three seconds, and it is midnight there."""
    town.at("2026-11-30 23:59:58")
    town.sandbox.clock.set(town.clock.now + timedelta(seconds=3))
    paid = town.register_only(7, "2026-12-01 00:00:00")
    enrolled = town.run(
        lambda client: enrol_payment(town.book, town.policy, lambda: KEY, client, paid.imp_uid)
    )
    assert enrolled.added
    assert query(town.book, "SELECT next_cycle FROM subscriptions") == [(1,)]


def test_one_month_without_a_number_left_does_not_keep_the_others(town: Town) -> None:
    town.subscribe(2)
    town.sandbox.mood = mood({"scripts": [{"customers": "*", "does": ["declined:0011"]}]})
    town.charge()
    execute(town.book, "UPDATE attempts SET number = 99 WHERE id = 1")
    town.book.run(lambda tx: stop(tx, "the brake", by_brake=True))
    assert release(town.book, town.policy).tried_again == 1
    assert query(town.book, "SELECT cycle_id, number FROM attempts WHERE status = 'due'") == [
        (2, 2)
    ]
    told = "SELECT cycle_id, data FROM events WHERE kind = 'cycle.no_more_attempts'"
    assert query(town.book, told) == [(1, {"why": "attempts_used_up"})]


def test_an_amount_that_is_none_costs_that_question_alone(town: Town) -> None:
    town.subscribe(2)
    town.charge()
    odd = town.pay_by_hand(2)
    town.changed(odd.imp_uid, amount=10**20)
    town.move(minutes=5)

    report = town.reconcile(apply=True)
    assert (report.whole, report.clean, report.counts["paid"]) == (False, False, 2)
