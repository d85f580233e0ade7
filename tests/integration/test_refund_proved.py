"""What a refund learns, and when it believes it: sent again, asked again, ended, or left to a
person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest

from billing.domain.errors import NotFound
from billing.domain.policy import BillingPolicy
from billing.domain.refund import RefundStatus
from billing.portone.client import PortOneClient
from billing.sandbox.model import Status
from billing.services.recorder import FIRST_BACKOFF, FIRST_LOOK, LONGEST_BACKOFF
from billing.services.refund import (
    ASK_AGAIN,
    Standing,
    open_now,
    propose,
    request,
    see_through,
    work_on,
)
from billing.store.session import Book
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.town import Town, seoul

CANCEL = "/payments/cancel"


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """One subscriber, charged at 10:00 on 20 November 2026, who is to have the money back."""
    town = Town(book, policy, clock).charged()
    ((name,),) = query(book, "SELECT merchant_uid FROM attempts")

    async def both(client: PortOneClient) -> int:
        return request(book, await propose(book, client, policy, name), "the customer asked")

    assert town.run(both) == 1
    return town


def step(town: Town) -> RefundStatus:
    return town.run(lambda client: work_on(town.book, client, town.policy, 1)).status


def step_beside(town: Town) -> RefundStatus:
    """The same while another one is at work, in an event loop of its own."""
    with ThreadPoolExecutor(1) as another:
        return another.submit(step, town).result()


def refund(town: Town, column: str) -> Any:
    ((found,),) = query(town.book, f"SELECT {column} FROM refunds")
    return found


def cancels(town: Town) -> int:
    return town.wire.asked.count(CANCEL)


def alarms(town: Town) -> list[str]:
    return [row[0] for row in query(town.book, "SELECT kind FROM events WHERE alarm ORDER BY id")]


def why(town: Town, kind: str) -> str:
    """What the newest line of a kind gives as its reason."""
    found = query(
        town.book,
        "SELECT data ->> 'why' FROM events WHERE kind = :kind ORDER BY id DESC LIMIT 1",
        kind=kind,
    )
    return str(found[0][0])


def refused_connection() -> None:
    raise httpx.ConnectError("nobody listens")


def in_question(town: Town) -> None:
    """The request is lost on its way; then the proof may begin."""
    town.wire.faults[CANCEL] = "lost"
    assert step(town) is RefundStatus.UNKNOWN
    town.wire.faults.clear()
    town.move(seconds=town.policy.settle.total_seconds())


def shown(town: Town, **facts: Any) -> None:
    """The gateway's own row of the payment says so."""
    imp_uid = town.paid_imp_uid()
    row = town.row(imp_uid, **facts)
    town.wire.faults[imp_uid] = lambda: town.says(row)


# -- not sent -----------------------------------------------------------------------------------


def test_what_provably_did_not_leave_goes_again_later_and_later(town: Town) -> None:
    town.wire.faults[CANCEL] = refused_connection
    waits = []
    for _ in range(4):
        assert step(town) is RefundStatus.REQUESTED
        waits.append(refund(town, "ask_at") - town.clock.now)
        assert step(town) is RefundStatus.REQUESTED, "not before"
        town.move(seconds=waits[-1].total_seconds())
    assert waits == [FIRST_BACKOFF * 2**times for times in range(4)]
    assert cancels(town) == 4
    assert (refund(town, "lease_until"), refund(town, "provable_at")) == (None, None)
    execute(town.book, "UPDATE refunds SET fence = 500")
    step(town)
    assert refund(town, "ask_at") - town.clock.now == LONGEST_BACKOFF
    town.wire.faults.clear()
    town.move(seconds=LONGEST_BACKOFF.total_seconds())
    assert step(town) is RefundStatus.DONE
    assert alarms(town) == ["subscription.chain_at_risk"]


def test_not_sent_after_the_lease_leaves_the_question_open(town: Town) -> None:
    """Somebody asked meanwhile; what they see decides, and not the first sender's memory."""

    def meanwhile() -> None:
        execute(
            town.book,
            "UPDATE refunds SET status = 'unknown', lease_until = NULL, provable_at = now(),"
            " ask_at = now()",
        )
        refused_connection()

    town.wire.faults[CANCEL] = meanwhile
    assert step(town) is RefundStatus.UNKNOWN


def test_an_answer_that_is_lost_after_the_lease_begins_the_proof_anew(town: Town) -> None:
    """Its sender stood still: the request may have left later than was reckoned with."""

    def meanwhile() -> None:
        town.move(seconds=town.policy.lease.total_seconds() + 1)
        assert step_beside(town) is RefundStatus.UNKNOWN
        town.move(seconds=town.policy.settle.total_seconds())
        raise httpx.ReadTimeout("lost")

    town.wire.faults[CANCEL] = meanwhile
    assert step(town) is RefundStatus.UNKNOWN
    assert refund(town, "provable_at") == town.clock.now + town.policy.settle


def test_a_refusal_after_the_lease_proves_nothing_sooner(town: Town) -> None:
    """What was reckoned with when the lease ran out stands."""

    def meanwhile() -> httpx.Response:
        town.move(seconds=town.policy.lease.total_seconds() + 1)
        assert step_beside(town) is RefundStatus.UNKNOWN
        return httpx.Response(200, json={"code": 1, "message": "no", "response": None})

    town.wire.faults[CANCEL] = meanwhile
    assert step(town) is RefundStatus.UNKNOWN
    lease_ended = town.clock.now - timedelta(seconds=1)
    assert refund(town, "provable_at") == lease_ended + town.policy.settle
    assert town.policy.settle > town.policy.visibility + timedelta(seconds=1)


def test_an_answer_to_an_older_claim_changes_nothing_either_way(town: Town) -> None:
    """It took until another one had claimed, and then it says not sent, or nothing at all."""

    def newer() -> None:
        execute(town.book, "UPDATE refunds SET fence = fence + 1")
        refused_connection()

    town.wire.faults[CANCEL] = newer
    assert step(town) is RefundStatus.SENDING


@pytest.mark.parametrize(
    "ended",
    [
        "status = 'done', settled_at = now(), cancelled_at = now()",
        "status = 'requested'",
    ],
    ids=["done", "proved not sent"],
)
@pytest.mark.parametrize("path", [CANCEL, "look"])
def test_what_is_heard_after_the_end_changes_nothing(town: Town, ended: str, path: str) -> None:
    """Somebody else asked meanwhile, and wrote down what the gateway's own row says."""
    if path == "look":
        in_question(town)

    def meanwhile() -> httpx.Response:
        execute(town.book, f"UPDATE refunds SET {ended}, ask_at = NULL, lease_until = NULL")
        return httpx.Response(500) if path == CANCEL else town.says(town.row(town.paid_imp_uid()))

    town.wire.faults[CANCEL if path == CANCEL else town.paid_imp_uid()] = meanwhile
    lines = query(town.book, "SELECT count(*) FROM events WHERE kind <> 'refund.sending'")
    status = step(town)
    assert ended.startswith(f"status = '{status}'")
    assert (refund(town, "still_paid"), refund(town, "ask_at")) == (0, None)
    after = query(town.book, "SELECT count(*) FROM events WHERE kind <> 'refund.sending'")
    assert after == lines


def test_a_look_that_was_overtaken_changes_nothing(town: Town) -> None:
    """The first look hangs; meanwhile the refund was sent once more, and that is in question."""
    in_question(town)
    imp_uid = town.paid_imp_uid()
    later = town.clock.now + timedelta(hours=1)

    def overtaken(fault: str | httpx.Response | None) -> Callable[[], httpx.Response | None]:
        def answer() -> httpx.Response | None:
            execute(town.book, "UPDATE refunds SET fence = fence + 1, ask_at = :at", at=later)
            return town.says(None) if fault else None

        return answer

    for fault in (None, "nothing"):
        execute(town.book, "UPDATE refunds SET ask_at = :at", at=town.clock.now)
        town.wire.faults[imp_uid] = overtaken(fault)
        assert step(town) is RefundStatus.UNKNOWN
        assert (refund(town, "ask_at"), refund(town, "still_paid")) == (later, 0)


# -- the lease ----------------------------------------------------------------------------------


def test_a_dead_senders_claim_is_a_question_once_its_lease_is_over(town: Town) -> None:
    execute(
        town.book,
        "UPDATE refunds SET status = 'sending', fence = 1, sent_at = :now, lease_until = :now",
        now=town.clock.now,
    )
    assert step(town) is RefundStatus.SENDING, "at its last moment it still holds"
    town.move(seconds=1)
    town.wire.faults[town.paid_imp_uid()] = "lost"
    assert step(town) is RefundStatus.UNKNOWN
    assert refund(town, "provable_at") == town.clock.now - timedelta(seconds=1) + town.policy.settle
    assert refund(town, "lease_until") is None
    assert why(town, "refund.unknown") == "the lease ran out"
    assert cancels(town) == 0


def test_what_ended_is_worked_on_no_more(town: Town) -> None:
    assert step(town) is RefundStatus.DONE
    assert step(town) is RefundStatus.DONE
    assert cancels(town) == 1
    with pytest.raises(NotFound, match="no refund"):
        town.run(lambda client: work_on(town.book, client, town.policy, 2))


# -- asked --------------------------------------------------------------------------------------


def test_an_answer_without_proof_is_looked_at_soon_and_believed_late(town: Town) -> None:
    town.wire.faults[CANCEL] = "http:500"
    assert step(town) is RefundStatus.UNKNOWN
    assert refund(town, "ask_at") - town.clock.now == FIRST_LOOK
    assert refund(town, "provable_at") - town.clock.now == town.policy.settle
    assert why(town, "refund.unknown") == "HTTP 500"
    town.move(seconds=FIRST_LOOK.total_seconds())
    assert step(town) is RefundStatus.UNKNOWN
    assert refund(town, "still_paid") == 0, "too early to prove anything"
    assert refund(town, "ask_at") == refund(town, "provable_at")
    assert alarms(town) == []


def test_a_refusal_needs_one_look_once_the_gateway_must_show_it(town: Town) -> None:
    """Its text says "already cancelled" as it says anything else."""
    town.wire.faults[CANCEL] = lambda: httpx.Response(
        200, json={"code": 1, "message": "취소\u202e할 수 없음", "response": None}
    )
    assert step(town) is RefundStatus.UNKNOWN
    assert refund(town, "refusal") == "취소 할 수 없음"
    assert refund(town, "provable_at") - town.clock.now == town.policy.visibility
    assert why(town, "refund.unknown") == "취소 할 수 없음"
    town.move(seconds=town.policy.visibility.total_seconds())
    assert step(town) is RefundStatus.REFUSED
    assert refund(town, "message") == "취소 할 수 없음"
    assert (refund(town, "ask_at"), refund(town, "settled_at")) == (None, town.clock.now)


def test_an_answer_about_another_payment_is_an_alarm(town: Town) -> None:
    """Money may have moved that nobody meant."""
    row = town.row(town.paid_imp_uid(), imp_uid="imp_999999999999", status="cancelled")
    town.wire.faults[CANCEL] = lambda: town.says(row)
    assert step(town) is RefundStatus.UNKNOWN
    assert alarms(town) == ["refund.unknown"]


def test_two_looks_prove_and_each_waits_for_its_moment(town: Town) -> None:
    in_question(town)
    assert step(town) is RefundStatus.UNKNOWN
    first = town.clock.now
    again = first + max(town.policy.visibility, FIRST_LOOK)
    assert refund(town, "still_paid") == 1
    assert (refund(town, "provable_at"), refund(town, "ask_at")) == (again, again)
    town.clock.move_to(again)
    assert step(town) is RefundStatus.REQUESTED
    assert refund(town, "ask_at") == again, "and it goes again at once"
    assert (refund(town, "lease_until"), refund(town, "provable_at")) == (None, None)
    assert "look-ups" in why(town, "refund.not_sent")
    assert (step(town), cancels(town)) == (RefundStatus.DONE, 2)


def test_a_lost_answer_begins_the_proof_anew(town: Town) -> None:
    """What was seen before the second request says nothing about the second request."""
    in_question(town)
    step(town)
    town.move(seconds=30)
    assert step(town) is RefundStatus.REQUESTED
    in_question(town)
    assert refund(town, "still_paid") == 0
    assert step(town) is RefundStatus.UNKNOWN, "seen once since"


@pytest.mark.parametrize(
    "facts", [{"status": "ready"}, {"status": "failed"}], ids=["ready", "failed"]
)
def test_a_row_that_says_neither_is_asked_for_again(town: Town, facts: dict[str, Any]) -> None:
    in_question(town)
    shown(town, **facts)
    assert step(town) is RefundStatus.UNKNOWN
    assert refund(town, "ask_at") - town.clock.now == ASK_AGAIN
    assert refund(town, "still_paid") == 0


def test_a_payment_that_is_not_shown_proves_nothing(town: Town) -> None:
    in_question(town)
    town.changed(town.paid_imp_uid(), visible_at=9e9)
    for _ in range(3):
        assert step(town) is RefundStatus.UNKNOWN
        assert refund(town, "ask_at") - town.clock.now == ASK_AGAIN
        town.move(seconds=ASK_AGAIN.total_seconds())
    assert refund(town, "still_paid") == 0


def test_a_gateway_that_does_not_answer_is_asked_again_later(town: Town) -> None:
    in_question(town)
    town.wire.faults[town.paid_imp_uid()] = "lost"
    assert step(town) is RefundStatus.UNKNOWN
    assert refund(town, "ask_at") - town.clock.now == ASK_AGAIN
    assert open_now(town.book) == []
    town.move(seconds=ASK_AGAIN.total_seconds())
    assert open_now(town.book) == [1]


@pytest.mark.parametrize(
    "facts",
    [
        {"status": "cancelled", "cancel_amount": 1},
        {"status": "paid", "cancel_amount": 1},
    ],
    ids=["cancelled", "still paid"],
)
def test_a_part_given_back_is_no_refund_and_an_alarm(town: Town, facts: dict[str, Any]) -> None:
    """Phone billing knows no parts: a person asks the gateway what that is."""
    in_question(town)
    shown(town, **facts)
    assert step(town) is RefundStatus.REFUSED
    assert "in part" in refund(town, "message")
    assert alarms(town) == ["refund.refused"]
    assert query(town.book, "SELECT status FROM cycles") == [("paid",)]


@pytest.mark.parametrize("amount", [0, 1001], ids=["not said", "all of it"])
def test_a_row_that_is_cancelled_is_proof_at_any_moment(town: Town, amount: int) -> None:
    town.wire.faults[CANCEL] = "lost"
    assert step(town) is RefundStatus.UNKNOWN
    town.move(seconds=FIRST_LOOK.total_seconds())
    at = int(town.clock.now.timestamp()) - 2
    shown(town, status="cancelled", cancel_amount=amount, cancelled_at=at)
    assert step(town) is RefundStatus.DONE
    assert refund(town, "cancelled_at") == town.clock.now - timedelta(seconds=2)
    assert query(town.book, "SELECT status FROM cycles") == [("refunded",)]


def test_a_row_that_was_cancelled_without_a_moment_was_now_at_the_latest(town: Town) -> None:
    in_question(town)
    town.changed(town.paid_imp_uid(), status=Status.CANCELLED, cancelled_at=0)
    assert step(town) is RefundStatus.DONE
    assert refund(town, "cancelled_at") == town.clock.now


# -- a copy of the book -------------------------------------------------------------------------


@pytest.mark.parametrize("moved", ["system_identifier = 'another/1'", "timeline = '00000009'"])
def test_a_refund_from_a_copy_waits_until_somebody_has_looked(town: Town, moved: str) -> None:
    execute(town.book, f"UPDATE installation SET {moved}")
    assert step(town) is RefundStatus.REQUESTED
    assert refund(town, "ask_at") - town.clock.now == ASK_AGAIN
    assert (cancels(town), alarms(town)) == (0, ["charging.held"])


def test_what_is_too_late_is_refused_before_anything_is_sent(town: Town) -> None:
    town.at("2026-12-01 00:00:00")
    assert step(town) is RefundStatus.REFUSED
    assert (cancels(town), refund(town, "settled_at")) == (0, seoul("2026-12-01 00:00"))


# -- seen through -------------------------------------------------------------------------------


def seen_through(town: Town, seconds: float, *beside: Callable[[], Any]) -> Standing:
    """See it through, while something else happens a moment later."""

    async def whole(client: PortOneClient) -> Standing:
        asyncio.get_running_loop().call_later(0.3, lambda: [one() for one in beside])
        return await asyncio.wait_for(
            see_through(town.book, client, town.policy, 1, seconds), timeout=20
        )

    return town.run(whole)


def test_somebody_who_waits_sees_the_end_of_it(town: Town) -> None:
    """The answer is lost; seconds later the look-up shows it given back."""
    town.wire.faults[CANCEL] = "unanswered"
    standing = seen_through(town, 60, lambda: town.move(seconds=FIRST_LOOK.total_seconds()))
    assert standing.status is RefundStatus.DONE
    assert standing.cancelled_at == town.clock.now - FIRST_LOOK


def test_nobody_waits_for_longer_than_they_said(town: Town) -> None:
    town.wire.faults[CANCEL] = "lost"
    standing = seen_through(town, 0.1)
    assert standing.status is RefundStatus.UNKNOWN
    assert standing.ask_at == town.clock.now + FIRST_LOOK, "the tick goes on from there"


def test_the_gateway_is_not_pressed_while_somebody_waits(town: Town) -> None:
    town.wire.faults[CANCEL] = "lost"
    looks = []

    def neither_way() -> httpx.Response:
        looks.append(town.clock.now)
        town.move(seconds=ASK_AGAIN.total_seconds())
        return town.says(None)

    assert step(town) is RefundStatus.UNKNOWN
    town.wire.faults[town.paid_imp_uid()] = neither_way
    town.move(seconds=FIRST_LOOK.total_seconds())
    assert seen_through(town, 0.5).status is RefundStatus.UNKNOWN
    assert len(looks) == 2, "at the beginning and at the end"
