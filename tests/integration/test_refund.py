"""Refunds: whole, within the month, once; whatever is lost, repeated or crashes on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest
from sqlalchemy.exc import DBAPIError, TimeoutError

from billing.domain.errors import Conflict, GatewayUnavailable, NotFound
from billing.domain.policy import BillingPolicy
from billing.domain.refund import RefundStatus
from billing.portone.client import PortOneClient
from billing.services import refund as refund_service
from billing.services.change_status import cancel, pause, resume
from billing.services.invariants import broken
from billing.services.refund import (
    Named,
    Standing,
    payment_of_month,
    propose,
    request,
    work_on,
    work_on_open,
)
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock
from tests.town import Crash, Town, seoul, uid

CANCEL = "/payments/cancel"


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """One subscriber, charged at 10:00 on 20 November 2026 in Seoul."""
    return Town(book, policy, clock).charged()


def merchant_uid(town: Town) -> str:
    ((found,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    return str(found)


def requested(town: Town, name: str | None = None, imp_uid: str | None = None) -> int:
    """Propose and request; the refund's id."""

    async def both(client: PortOneClient) -> int:
        wanted = name or merchant_uid(town)
        proposal = await propose(town.book, client, town.policy, wanted, imp_uid)
        return request(town.book, proposal, "the customer asked")

    return town.run(both)


def step(town: Town, refund_id: int) -> Standing:
    return town.run(lambda client: work_on(town.book, client, town.policy, refund_id))


def tick(town: Town) -> dict[RefundStatus, int]:
    return dict(town.run(lambda client: work_on_open(town.book, client, town.policy)))


def cancels(town: Town) -> int:
    """Requests that left for the gateway's cancel."""
    return town.wire.asked.count(CANCEL)


def given_back(town: Town) -> int:
    """What the gateway's own ledger says."""
    return sum(one.status == "cancelled" for one in town.sandbox.ledger.payments)


def settled(town: Town) -> tuple[str, str]:
    """How the refund and its cycle stand."""
    ((found,),) = query(town.book, "SELECT status FROM refunds ORDER BY id DESC LIMIT 1")
    ((cycle,),) = query(town.book, "SELECT status FROM cycles")
    return str(found), str(cycle)


def test_a_payment_is_given_back_and_the_chain_is_at_risk(town: Town) -> None:
    assert step(town, requested(town)).status is RefundStatus.DONE
    assert settled(town) == ("done", "refunded")
    assert given_back(town) == 1
    assert query(town.book, "SELECT status, status_reason FROM subscriptions") == [
        ("active", "chain_at_risk")
    ]
    assert query(town.book, "SELECT kind FROM notices ORDER BY id") == [
        ("payment.paid",),
        ("payment.refunded",),
    ]
    kinds = [row[0] for row in query(town.book, "SELECT kind FROM events ORDER BY id")]
    assert kinds[-5:] == [
        "refund.requested",
        "refund.sending",
        "refund.done",
        "cycle.refunded",
        "subscription.chain_at_risk",
    ]
    assert query(town.book, "SELECT kind FROM events WHERE alarm") == [
        ("subscription.chain_at_risk",)
    ]
    assert broken(town.book, town.policy) == []


def test_a_pause_does_not_mend_a_chain_at_risk(town: Town) -> None:
    step(town, requested(town))
    reasons = []
    for change in (pause, resume, pause, cancel):
        change(town.book, town.policy, uid(1))
        ((reason,),) = query(town.book, "SELECT status_reason FROM subscriptions")
        reasons.append(reason)
    assert reasons == ["chain_at_risk", "chain_at_risk", "chain_at_risk", None]


def test_every_line_says_which_payment_and_which_try(town: Town) -> None:
    step(town, requested(town))
    ((imp_uid, name, fence),) = query(town.book, "SELECT imp_uid, merchant_uid, fence FROM refunds")
    payment = {"imp_uid": imp_uid, "merchant_uid": name, "amount": 1001}
    lines = dict(query(town.book, "SELECT kind, data FROM events ORDER BY id"))
    for kind, tried in (
        ("refund.requested", 0),
        ("refund.sending", fence),
        ("refund.done", fence),
        ("subscription.chain_at_risk", fence),
    ):
        assert lines[kind].items() >= {**payment, "fence": tried}.items(), kind
    assert lines["cycle.refunded"] == {**payment, "cycle": 1}
    assert fence == 1


def test_the_request_carries_the_checksum_and_no_amount(town: Town) -> None:
    step(town, requested(town))
    (body,) = town.wire.bodies
    assert b'"checksum":1001' in body
    assert b'"amount"' not in body


def test_a_refund_does_not_hide_why_a_subscription_ended(town: Town) -> None:
    execute(
        town.book, "UPDATE subscriptions SET status = 'suspended', status_reason = 'key_invalid'"
    )
    step(town, requested(town))
    assert query(town.book, "SELECT status, status_reason FROM subscriptions") == [
        ("suspended", "key_invalid")
    ]


def test_next_month_tells_and_a_decline_suspends(town: Town) -> None:
    step(town, requested(town))
    town.subscribe(9, first=2)
    assert town.charge() == {"approved": 9}
    town.at("2026-12-20 10:00")
    assert town.charge() == {"approved": 9, "declined": 1}
    town.move(minutes=1)
    town.close()
    assert query(town.book, "SELECT status, status_reason FROM subscriptions WHERE id = 1") == [
        ("suspended", "chain_broken")
    ]


def test_next_month_tells_and_an_approval_mends(town: Town) -> None:
    step(town, requested(town))
    town.at("2026-11-21 10:00")
    # Somebody paid the month again at the counter: the carrier is content.
    town.pay_by_hand()
    town.at("2026-12-20 10:00")
    assert town.charge() == {"approved": 1}
    assert query(town.book, "SELECT status, status_reason FROM subscriptions") == [("active", None)]


def test_twice_is_once(town: Town) -> None:
    first = requested(town)
    assert requested(town) == first
    assert step(town, first).status is RefundStatus.DONE
    assert step(town, first).status is RefundStatus.DONE
    assert cancels(town) == 1
    assert requested(town) == first
    assert query(town.book, "SELECT count(*) FROM refunds") == [(1,)]
    assert query(town.book, "SELECT count(*) FROM events WHERE kind = 'cycle.refunded'") == [(1,)]


def test_two_at_once_send_one_request(town: Town) -> None:
    refund_id = requested(town)

    async def both(client: PortOneClient) -> list[Standing]:
        return list(
            await asyncio.gather(
                *(work_on(town.book, client, town.policy, refund_id) for _ in range(4))
            )
        )

    town.run(both)
    assert cancels(town) == 1
    assert settled(town) == ("done", "refunded")


def test_cancelled_outside_already(town: Town) -> None:
    town.cancel_outside(town.paid_imp_uid())
    refund_id = requested(town)
    assert step(town, refund_id).status is RefundStatus.DONE
    assert cancels(town) == 0
    assert settled(town) == ("done", "refunded")


def test_the_last_second_of_the_month_in_seoul(town: Town) -> None:
    town.at("2026-11-30 23:59:59")
    assert step(town, requested(town)).status is RefundStatus.DONE
    assert given_back(town) == 1


def test_the_first_second_of_the_next_month(town: Town) -> None:
    town.at("2026-12-01 00:00:00")
    with pytest.raises(Conflict, match="calendar month"):
        requested(town)
    assert query(town.book, "SELECT count(*) FROM refunds") == [(0,)]
    assert cancels(town) == 0


def test_a_month_that_ends_between_the_wish_and_the_request(town: Town) -> None:
    town.at("2026-11-30 23:59:59")
    refund_id = requested(town)
    town.move(seconds=1)
    standing = step(town, refund_id)
    assert standing.status is RefundStatus.REFUSED
    assert "ended" in (standing.message or "")
    assert cancels(town) == 0
    assert settled(town) == ("refused", "paid")


@contextlib.contextmanager
def a_leap(town: Town, days: int = 40) -> Iterator[None]:
    """The database's clock is forty days ahead; the gateway's is not."""
    right = town.clock.now
    town.clock.move(days=days)
    yield
    town.clock.move_to(right)
    town.move(minutes=1)


def test_a_leap_of_the_clock_refuses_nobody(town: Town) -> None:
    """By it the payment's month was over, and that cannot be taken back."""
    refund_id = requested(town)
    with a_leap(town):
        assert step(town, refund_id).status is RefundStatus.REQUESTED
        # Not at once again, over and over.
        ((ask_at,),) = query(town.book, "SELECT ask_at FROM refunds")
        assert ask_at == town.clock.now + timedelta(minutes=1)
    assert tick(town) == {RefundStatus.DONE: 1}
    assert settled(town) == ("done", "refunded")


@pytest.mark.parametrize("days", [40, -40])
def test_by_a_leap_of_the_clock_nobody_is_told_that_there_is_nothing_to_give_back(
    town: Town, days: int
) -> None:
    """Whoever believed it would pay it back by transfer, or cancel and keep it."""
    with a_leap(town, days):
        with pytest.raises(GatewayUnavailable, match="clock"):
            requested(town)
        with pytest.raises(GatewayUnavailable, match="clock"):
            payment_of_month(town.book, town.policy, uid(1))
    assert payment_of_month(town.book, town.policy, uid(1)).imp_uid == town.paid_imp_uid()
    assert step(town, requested(town)).status is RefundStatus.DONE


@pytest.mark.parametrize("lost", ["lost", "unanswered"])
def test_a_leap_of_the_clock_neither_proves_nor_puts_off(town: Town, lost: str) -> None:
    town.wire.faults[CANCEL] = lost
    refund_id = requested(town)
    step(town, refund_id)
    # The question has no answer.
    town.wire.faults[town.paid_imp_uid()] = "http:503"
    with a_leap(town):
        step(town, refund_id)
    town.wire.faults.clear()
    with a_leap(town):
        step(town, refund_id)
        town.clock.move(minutes=1)
        step(town, refund_id)
    assert cancels(town) == 1, "nothing is sent before the proof"
    for _ in range(8):
        town.move(minutes=1)
        tick(town)
    assert settled(town) == ("done", "refunded")
    assert cancels(town) == (2 if lost == "lost" else 1)


def lost_in_a_leap(town: Town, days: int) -> None:
    """The request's answer is lost, and the clock leaps before that is written down."""

    def leaps() -> None:
        town.clock.move(days=days)
        raise httpx.ReadTimeout("lost")

    refund_id, right = requested(town), town.clock.now
    town.wire.faults[CANCEL] = leaps
    step(town, refund_id)
    town.clock.move_to(right)
    town.wire.faults.clear()


def test_what_a_leap_back_says_of_a_lost_answer_proves_nothing_sooner(town: Town) -> None:
    late_enough = town.clock.now + town.policy.settle
    lost_in_a_leap(town, -40)
    while town.clock.now < late_enough:
        tick(town)
        assert cancels(town) == 1
        town.move(seconds=20)
    for _ in range(12):
        town.move(seconds=20)
        tick(town)
    assert settled(town) == ("done", "refunded")


def test_a_look_that_is_made_in_a_leap_back_proves_nothing_sooner_after_it(town: Town) -> None:
    late_enough = town.clock.now + town.policy.settle
    town.wire.faults[CANCEL] = "lost"
    refund_id = requested(town)
    step(town, refund_id)
    with a_leap(town, days=-40):
        step(town, refund_id)
    while town.clock.now < late_enough:
        tick(town)
        assert settled(town) == ("unknown", "paid")
        town.move(seconds=20)
    town.wire.faults.clear()
    for _ in range(12):
        town.move(seconds=20)
        tick(town)
    assert settled(town) == ("done", "refunded")


def test_what_a_leap_says_of_a_lost_answer_is_forgotten_after_two_hours(town: Town) -> None:
    lost_in_a_leap(town, 40)
    tick(town)
    town.move(minutes=1)
    tick(town)
    assert settled(town) == ("unknown", "paid")
    town.move(hours=2)
    for _ in range(4):
        town.move(minutes=1)
        tick(town)
    assert settled(town) == ("done", "refunded")


def test_an_answer_that_was_lost_is_asked_about(town: Town) -> None:
    town.wire.faults[CANCEL] = "unanswered"
    refund_id = requested(town)
    assert step(town, refund_id).status is RefundStatus.UNKNOWN
    assert settled(town) == ("unknown", "paid")
    town.move(seconds=6)
    assert tick(town) == {RefundStatus.DONE: 1}
    assert settled(town) == ("done", "refunded")
    assert cancels(town) == 1


def test_a_request_that_never_arrived_goes_again_after_proof(town: Town) -> None:
    town.wire.faults[CANCEL] = "lost"
    refund_id = requested(town)
    assert step(town, refund_id).status is RefundStatus.UNKNOWN
    looks = 0
    while settled(town)[0] == "unknown":
        town.move(seconds=10)
        tick(town)
        looks += 1
        assert cancels(town) == 1, "nothing is sent before the proof"
        assert looks < 60
    assert settled(town)[0] == "requested"
    elapsed = town.clock.now - query(town.book, "SELECT sent_at FROM refunds")[0][0]
    assert elapsed >= town.policy.settle
    town.wire.faults.clear()
    assert tick(town) == {RefundStatus.DONE: 1}
    assert cancels(town) == 2
    assert given_back(town) == 1


def test_still_paid_is_proof_only_when_seen_twice_and_late_enough(town: Town) -> None:
    town.wire.faults[CANCEL] = "lost"
    refund_id = requested(town)
    step(town, refund_id)
    town.move(seconds=town.policy.settle.total_seconds() + 1)
    assert step(town, refund_id).status is RefundStatus.UNKNOWN, "seen once"
    assert step(town, refund_id).status is RefundStatus.UNKNOWN, "too soon after the first look"
    town.move(seconds=town.policy.visibility.total_seconds() + 1)
    assert step(town, refund_id).status is RefundStatus.REQUESTED


def test_the_proof_counts_from_the_end_of_a_dead_senders_lease(town: Town) -> None:
    town.wire.faults[CANCEL] = "crash before"
    refund_id = requested(town)
    with pytest.raises(Crash):
        step(town, refund_id)
    ((lease_until,),) = query(town.book, "SELECT lease_until FROM refunds")
    town.move(seconds=200)
    assert step(town, refund_id).status is RefundStatus.UNKNOWN
    assert query(town.book, "SELECT provable_at FROM refunds") == [
        (lease_until + town.policy.settle,)
    ]


def test_a_refusal_is_believed_only_after_a_look(town: Town) -> None:
    refund_id = requested(town)
    # The gateway's balance is another one than ours: it refuses by the checksum.
    town.changed(town.paid_imp_uid(), amount=999)
    assert step(town, refund_id).status is RefundStatus.UNKNOWN
    town.move(seconds=6)
    assert step(town, refund_id).status is RefundStatus.UNKNOWN
    town.move(seconds=30)
    standing = step(town, refund_id)
    assert standing.status is RefundStatus.REFUSED
    assert "checksum" in (standing.message or "")
    assert settled(town) == ("refused", "paid")
    alarms = query(town.book, "SELECT kind, data ->> 'why' FROM events WHERE alarm")
    assert alarms == [("refund.refused", standing.message)]
    town.changed(town.paid_imp_uid(), amount=1001)
    assert step(town, requested(town)).status is RefundStatus.DONE


def test_a_line_that_says_why_says_which_payment_too(town: Town) -> None:
    refund_id = requested(town)
    town.changed(town.paid_imp_uid(), amount=999)
    step(town, refund_id)
    town.move(seconds=36)
    assert step(town, refund_id).status is RefundStatus.REFUSED
    ((imp_uid, name, message),) = query(
        town.book, "SELECT imp_uid, merchant_uid, message FROM refunds"
    )
    wanted = {"imp_uid": imp_uid, "merchant_uid": name, "amount": 1001, "fence": 1, "why": message}
    lines = dict(query(town.book, "SELECT kind, data FROM events ORDER BY id"))
    assert lines["refund.refused"] == wanted
    assert lines["refund.unknown"] == wanted


@pytest.mark.parametrize("when", ["crash before", "crash after"])
def test_a_crash_while_sending(town: Town, when: str) -> None:
    town.wire.faults[CANCEL] = when
    refund_id = requested(town)
    with pytest.raises(Crash):
        step(town, refund_id)
    town.wire.faults.clear()
    assert settled(town)[0] == "sending"
    assert step(town, refund_id).status is RefundStatus.SENDING, "the lease still holds"
    for _ in range(60):
        town.move(seconds=10)
        tick(town)
        if settled(town)[0] == "done":
            break
    assert settled(town) == ("done", "refunded")
    assert given_back(town) == 1
    assert cancels(town) == (2 if when == "crash before" else 1)


def test_a_crash_before_the_claim_and_between_request_and_work(town: Town) -> None:
    requested(town)
    assert settled(town)[0] == "requested"
    assert tick(town) == {RefundStatus.DONE: 1}
    assert given_back(town) == 1


def test_a_crash_while_recording_leaves_all_or_nothing(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise Crash

    refund_id = requested(town)
    with monkeypatch.context() as patch:
        patch.setattr("billing.services.take_back._refund_cycle", crash)
        with pytest.raises(Crash):
            step(town, refund_id)
    assert settled(town) == ("sending", "paid")
    town.move(seconds=130)
    tick(town)
    assert settled(town) == ("done", "refunded")
    assert cancels(town) == 1


def test_an_answer_to_an_older_claim_changes_nothing(town: Town) -> None:
    """The first sender wakes up long after its lease; a newer claim is there."""
    refund_id = requested(town)

    def newer_claim() -> None:
        execute(town.book, "UPDATE refunds SET fence = fence + 1")

    town.wire.faults[CANCEL] = newer_claim
    assert step(town, refund_id).status is RefundStatus.SENDING
    assert settled(town) == ("sending", "paid")
    town.wire.faults.clear()
    town.move(seconds=130)
    assert tick(town) == {RefundStatus.DONE: 1}


def test_a_gateway_that_is_away(town: Town) -> None:
    town.wire.faults[f"/findAll/{merchant_uid(town)}"] = "lost"
    with pytest.raises(GatewayUnavailable):
        requested(town)
    town.wire.faults.clear()
    refund_id = requested(town)
    town.wire.faults = {CANCEL: "unanswered", town.paid_imp_uid(): "lost"}
    step(town, refund_id)
    town.move(seconds=6)
    assert step(town, refund_id).status is RefundStatus.UNKNOWN, "nobody could be asked"


def test_a_tick_waits_once_for_a_gateway_that_is_away(town: Town) -> None:
    """And not for each refund, while the ticks that open, close and dispatch wait for it."""
    second = town.pay_by_hand()
    requested(town)
    requested(town, second.merchant_uid)
    town.move(minutes=6)
    town.wire.faults["/users/getToken"] = "lost"
    asked = len(town.wire.asked)
    assert tick(town) == {}
    assert len(town.wire.asked) - asked <= 2, "a token is asked for twice at most"
    town.wire.faults.clear()
    assert tick(town) == {RefundStatus.DONE: 2}


def test_a_database_that_is_away_is_no_refunds_own_fault(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise TimeoutError("every connection is in use")

    requested(town)
    monkeypatch.setattr(refund_service, "_work_on", away)
    with pytest.raises(TimeoutError):
        tick(town)
    assert query(town.book, "SELECT count(*) FROM events WHERE kind = 'refund.stuck'") == [(0,)]


def test_the_second_payment_of_a_month_leaves_the_chain_alone(town: Town) -> None:
    second = town.pay_by_hand()
    refund_id = requested(town, second.merchant_uid)
    assert step(town, refund_id).status is RefundStatus.DONE
    assert settled(town) == ("done", "paid")
    assert query(town.book, "SELECT status_reason, cycle_id FROM subscriptions, refunds") == [
        (None, None)
    ]
    assert broken(town.book, town.policy) == []


def test_two_payments_under_one_name_must_be_told_apart(town: Town) -> None:
    name = merchant_uid(town)
    second = town.pay_by_hand(merchant_uid=name)
    with pytest.raises(Conflict, match="--imp-uid"):
        requested(town)
    assert step(town, requested(town, name, second.imp_uid)).status is RefundStatus.DONE
    assert settled(town) == ("done", "paid")


def test_a_stranger_is_not_refunded(town: Town) -> None:
    with pytest.raises(NotFound, match=r"was paid under '[^']+'$"):
        requested(town, "nobody-knows")
    town.register_only(9)
    stranger = town.pay_by_hand(9)
    with pytest.raises(NotFound, match="not a payment of any subscription"):
        requested(town, stranger.merchant_uid)
    assert cancels(town) == 0


def test_another_payments_id_is_named_as_what_does_not_fit(town: Town) -> None:
    with pytest.raises(NotFound, match="with the imp_uid 'imp_of_another'"):
        requested(town, imp_uid="imp_of_another")


def test_the_payment_of_this_month(town: Town) -> None:
    found = payment_of_month(town.book, town.policy, uid(1))
    assert found == Named(merchant_uid(town), town.paid_imp_uid())
    town.at("2026-12-01 00:00")
    with pytest.raises(NotFound):
        payment_of_month(town.book, town.policy, uid(1))


@pytest.mark.parametrize("fault", ["unanswered", "crash after"])
def test_a_charge_without_an_outcome_is_not_said_to_be_no_payment(
    book: Book, policy: BillingPolicy, clock: MovedClock, fault: str
) -> None:
    """Money may have moved: whoever is told that there is none would end the subscription and keep
    it."""
    town = Town(book, policy, clock)
    town.subscribe()
    town.wire.faults["/payments/again"] = fault
    with contextlib.suppress(Crash):
        town.charge()
    with pytest.raises(Conflict, match="maewol why CUSTOMER_UID"):
        payment_of_month(book, policy, uid(1))


def test_the_payment_of_the_month_of_the_registration(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    """No cycle has it: it is the initial payment, until that month is over in Seoul."""
    town = Town(book, policy, clock).at("2026-11-02 10:00")
    town.subscribe(paid="2026-11-01 00:00")
    (initial,) = town.sandbox.ledger.payments
    named = payment_of_month(book, policy, uid(1))
    assert named == Named(initial.merchant_uid, None)
    assert step(town, requested(town, named.merchant_uid)).status is RefundStatus.DONE
    assert given_back(town) == 1
    town.at("2026-12-01 00:00")
    with pytest.raises(NotFound, match="this calendar month"):
        payment_of_month(book, policy, uid(1))
    with pytest.raises(NotFound, match="customer_uid"):
        payment_of_month(book, policy, "nobody")


def test_an_initial_payment_without_a_name_says_what_to_do(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    clock.move_to(seoul("2026-11-02 10:00"))
    enrolled(book, policy, a_row(1, "2026-11-01T10:00:00+09:00"))
    with pytest.raises(NotFound, match="maewol refund MERCHANT_UID"):
        payment_of_month(book, policy, uid(1))


def test_the_database_refuses_a_second_refund_and_a_changed_end(town: Town) -> None:
    step(town, requested(town))
    again = (
        "INSERT INTO refunds (subscription_id, imp_uid, merchant_uid, amount, breaks_chain,"
        " refund_by, reason, status, requested_at) SELECT subscription_id, imp_uid, merchant_uid,"
        " amount, false, refund_by, '', 'requested', now() FROM refunds"
    )
    with pytest.raises(DBAPIError, match="uq_refunds_one_standing"):
        execute(town.book, again)
    for change in (
        "UPDATE refunds SET status = 'requested', settled_at = NULL, cancelled_at = NULL",
        "UPDATE refunds SET amount = 1",
        "DELETE FROM refunds",
    ):
        with pytest.raises(DBAPIError, match="never changed"):
            execute(town.book, change)
