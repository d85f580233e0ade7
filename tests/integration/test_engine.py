"""The road of one charge: a real database, and a gateway that was written apart from ours."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from billing import clock as clocks
from billing.domain.errors import GatewayUnavailable
from billing.domain.outcome import Declined
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.services.answer import Answer, Result
from billing.services.charge import charge
from billing.services.close_cycles import close_cycles
from billing.services.dispatch import dispatch
from billing.services.inquire import find_unknown, inquire
from billing.services.open_cycles import open_cycles
from billing.services.record import record
from billing.store import attempts
from billing.store.session import Book
from tests.builders import (
    ForeignGateway,
    a_foreign_gateway,
    a_month_before,
    a_row,
    chargeable_now,
    enrolled,
    execute,
    query,
)
from tests.conftest import MovedClock


class Queue:
    """Keeps messages until the test delivers them: late, twice, or never."""

    def __init__(self) -> None:
        self.charges: list[list[int]] = []
        self.inquiries: list[list[int]] = []

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self.charges.append(list(attempt_ids))

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self.inquiries.append(list(attempt_ids))

    def charges_waiting(self) -> int:
        return len(self.charges)

    def dispatch_soon(self) -> None:
        """The test says when."""


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(
        charge_cron="* * * * *",
        portone_timeout_seconds=1.0,
        gateway_visibility_seconds=1,
        inquiry_settle_seconds=5,
        lease_seconds=15,
        charges_per_second=0,
        canary_charges=0,
    )


@pytest.fixture
def gateway() -> Iterator[ForeignGateway]:
    with a_foreign_gateway() as running:
        yield running


@pytest.fixture(autouse=True)
def _today(clock: MovedClock) -> None:
    """Billing time is the gateway's: real time, moved only by a few seconds."""
    clock.move_to(chargeable_now())


def due_today(clock: MovedClock, number: int) -> str:
    """A subscriber whose band is open today, whatever day the test is run on."""
    return a_row(number, a_month_before(clock.now).isoformat())


def run_charges(
    book: Book, policy: BillingPolicy, gateway: ForeignGateway, ids: Sequence[int]
) -> Counter[Result]:
    return asyncio.run(_with_client(policy, gateway, lambda c: charge(book, c, policy, ids)))


def run_inquiry(
    book: Book, policy: BillingPolicy, gateway: ForeignGateway, ids: Sequence[int]
) -> Counter[Result]:
    return asyncio.run(_with_client(policy, gateway, lambda c: inquire(book, c, policy, ids)))


async def _with_client(
    policy: BillingPolicy,
    gateway: ForeignGateway,
    use_case: Callable[[PortOneClient], Awaitable[Counter[Result]]],
) -> Counter[Result]:
    client = PortOneClient(
        gateway.url,
        "key",
        "secret",
        tokens=MemoryTokenStore(),
        now=clocks.host_time,
        monotonic=clocks.monotonic,
        charge_timeout=policy.deadline.total_seconds(),
        include_sandbox=False,
    )
    try:
        return await use_case(client)
    finally:
        await client.aclose()


def opened(book: Book, policy: BillingPolicy, clock: MovedClock, count: int = 1) -> list[int]:
    """Enrol, open and dispatch; the ids that were sent to the workers."""
    report = enrolled(book, policy, *(due_today(clock, number) for number in range(count)))
    assert report.added == count
    assert open_cycles(book, policy) == count
    queue = Queue()
    assert dispatch(book, queue, policy) == count
    return [one for message in queue.charges for one in message]


def test_each_is_charged_once_with_its_own_amount_name_and_buyer(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    ids = opened(book, policy, clock, 60)
    # Sixty connections at once may take more than half a second on a busy machine.
    patient = replace(policy, deadline=timedelta(seconds=30), lease=timedelta(minutes=2))
    assert run_charges(book, patient, gateway, ids) == {Result.APPROVED: 60}
    requests = {row["customer_uid"]: row for row in gateway.ledger()["requests"]}
    assert len(requests) == 60
    for number in range(60):
        row = requests[f"customer-{number}"]
        assert row["amount"] == 1000 + number
        assert row["name"] == f"plan {number}"
        assert row["buyer_name"] == "홍길동"
        assert row["buyer_tel"] == f"010-1234-{number:04d}"
    ours = query(book, "SELECT paid_merchant_uid, amount FROM cycles WHERE status = 'paid'")
    assert dict(ours) == gateway.paid()


def test_a_message_that_comes_twice_charges_once(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    ids = opened(book, policy, clock, 3)
    assert run_charges(book, policy, gateway, ids) == {Result.APPROVED: 3}
    assert run_charges(book, policy, gateway, ids) == {}
    assert len(gateway.ledger()["requests"]) == 3


def test_opening_and_dispatching_again_does_nothing(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    opened(book, policy, clock, 3)
    queue = Queue()
    assert open_cycles(book, policy) == 0
    assert dispatch(book, queue, policy) == 0
    clock.move(seconds=policy.dispatch_again_after.total_seconds() + 1)
    assert dispatch(book, queue, policy) == 3, "a lost message is sent again"


def test_a_broker_that_forgets_a_full_queue_does_not_stop_everything(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    policy = make_policy(charge_cron="* * * * *", max_outstanding=3)
    opened(book, policy, clock, 3)
    assert dispatch(book, Queue(), policy) == 0, "no more than three at a time"
    clock.move(seconds=policy.dispatch_again_after.total_seconds() + 1)
    assert dispatch(book, Queue(), policy) == 3, "all three were lost, and count no more"


def test_what_an_empty_queue_has_lost_goes_again_within_a_minute(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """A full queue takes a minute to drain at this rate; a flushed Redis is seen to be empty."""
    policy = make_policy(charge_cron="* * * * *", max_outstanding=2000, charges_per_second=7)
    assert policy.dispatch_again_after == timedelta(seconds=90)
    opened(book, policy, clock, 3)
    clock.move(seconds=61)
    full = Queue()
    full.charges = [[1]]
    assert dispatch(book, full, policy) == 0, "they may be in it still"
    assert dispatch(book, Queue(), policy) == 3
    assert dispatch(book, Queue(), policy) == 0, "with a worker by now"


def test_whose_window_closes_first_goes_first_however_low_the_ceiling_is(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    """What lies in the broker's queue keeps its place, so no more than a minute's work does."""
    policy = make_policy(charge_cron="* * * * *", charges_per_second=0.1, canary_charges=0)
    count = 2 * policy.outstanding
    enrolled(book, policy, *(due_today(clock, number) for number in range(count)))
    assert open_cycles(book, policy) == count
    queue = Queue()
    assert dispatch(book, queue, policy) == policy.outstanding == 6
    ((hasty,),) = query(book, "SELECT max(id) FROM attempts")
    execute(
        book,
        # By no more: on the last day of a month this day is the last of the window.
        "UPDATE attempts SET closes_at = closes_at - interval '1 second'"
        f" WHERE id = {hasty} AND dispatched_at IS NULL",
    )
    # Six went to a worker that died; they are given out anew, and the one in haste before them.
    clock.move(seconds=policy.dispatch_again_after.total_seconds() + 1)
    queue = Queue()
    assert dispatch(book, queue, policy) == 6
    assert queue.charges[0][0] == hasty


def test_a_decline_may_have_been_a_payment_so_the_next_waits_until_it_would_show(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    policy = make_policy(
        charge_cron="* * * * *", retry_cron="* * * * *", retry_soon_minutes=0, canary_charges=0
    )
    (attempt_id,) = opened(book, policy, clock, 1)
    (claim,) = book.run(
        lambda tx: attempts.claim(tx.session, [attempt_id], tx.now, tx.now + policy.lease)
    )
    clock.move(seconds=59 - clock.now.second)
    answer = Answer(claim.attempt_id, claim.fence, Declined("[0098] 잠시 후", "imp_1"))
    book.run(lambda tx: record(tx, policy, [answer]))
    ((planned_at, ready_at),) = query(
        book, "SELECT planned_at, ready_at FROM attempts WHERE status = 'due'"
    )
    assert planned_at - clock.now < timedelta(seconds=2), "the slot stands in the plan"
    assert ready_at == clock.now + policy.visibility


def test_a_lost_answer_is_found_by_asking(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    with a_foreign_gateway(fault_share=1.0) as gateway:
        ids = opened(book, policy, clock, 12)
        first = run_charges(book, policy, gateway, ids)
        assert first[Result.UNKNOWN] > 0
        for _ in range(12):
            clock.move(seconds=6)
            queue = Queue()
            find_unknown(book, queue, policy)
            for message in queue.inquiries:
                run_inquiry(book, policy, gateway, message)
        assert query(book, "SELECT count(*) FROM attempts WHERE status = 'unknown'") == [(0,)]
        ours = query(book, "SELECT paid_merchant_uid, amount FROM cycles WHERE status = 'paid'")
        assert dict(ours) == gateway.paid()
        customers = Counter(r["customer_uid"] for r in gateway.ledger()["rows"] if r["paid_at"])
        assert set(customers.values()) == {1}


def test_a_worker_that_died_after_the_claim_is_asked_about_and_charged_once(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    (attempt_id,) = opened(book, policy, clock)
    execute(
        book,
        "UPDATE attempts SET status='sending', fence=1, sent_at=:now, lease_until=:now",
        now=clock.now,
    )
    looks = 0
    while query(book, "SELECT status FROM attempts") != [("due",)]:
        clock.move(seconds=3)
        queue = Queue()
        find_unknown(book, queue, policy)
        for message in queue.inquiries:
            looks += 1
            assert run_inquiry(book, policy, gateway, message)[Result.APPROVED] == 0
        assert looks < 20
    assert query(book, "SELECT status, fence FROM attempts") == [("due", 1)]
    assert looks >= 2
    assert run_charges(book, policy, gateway, [attempt_id]) == {Result.APPROVED: 1}
    assert len(gateway.paid()) == 1


def test_a_month_that_is_paid_already_is_not_charged(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    ids = opened(book, policy, clock)
    assert run_charges(book, policy, gateway, ids) == {Result.APPROVED: 1}
    # The same book, restored from before that payment, with another key: another merchant_uid.
    execute(book, "ALTER TABLE attempts DISABLE TRIGGER attempts_end_once")
    execute(
        book,
        "UPDATE attempts SET status='due', settled_at=NULL, imp_uid=NULL,"
        " merchant_uid='mw-another-202611-01'",
    )
    execute(book, "ALTER TABLE cycles DISABLE TRIGGER cycles_end_once")
    execute(
        book,
        "UPDATE cycles SET status='open', settled_at=NULL, paid_imp_uid=NULL, paid_at=NULL,"
        " paid_merchant_uid=NULL",
    )
    assert run_charges(book, policy, gateway, ids) == {Result.ELSEWHERE: 1}
    assert query(book, "SELECT status, reason FROM cycles") == [("paid", "paid_elsewhere")]
    assert len(gateway.ledger()["requests"]) == 1


def test_a_changed_amount_is_refused_by_the_database_and_by_the_seal(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    ids = opened(book, policy, clock)
    with pytest.raises(DBAPIError, match="never changed"):
        execute(book, "UPDATE subscriptions SET order_name = 'another plan'")
    execute(book, "ALTER TABLE subscriptions DISABLE TRIGGER facts_are_fixed")
    execute(book, "UPDATE subscriptions SET order_name = 'another plan'")
    assert run_charges(book, policy, gateway, ids) == {Result.HELD: 1}
    assert query(book, "SELECT held FROM cycles") == [("facts_changed",)]
    assert gateway.ledger()["requests"] == []


def test_a_moved_anchor_puts_the_month_aside(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    """It is sealed by the moment of the initial payment, whose day it is."""
    ids = opened(book, policy, clock)
    around = "SET LOCAL session_replication_role = replica; "
    execute(book, f"{around}UPDATE subscriptions SET anchor_on = anchor_on + 1")
    assert run_charges(book, policy, gateway, ids) == {Result.HELD: 1}
    assert query(book, "SELECT held FROM cycles") == [("facts_changed",)]
    assert gateway.ledger()["requests"] == []


def test_hold_stops_everything(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    ids = opened(book, policy, clock)
    execute(book, "UPDATE installation SET hold_reason = 'a drill'")
    assert run_charges(book, policy, gateway, ids) == {}
    assert gateway.ledger()["requests"] == []


def test_a_clock_that_disagrees_with_the_gateway_stops_charging(
    book: Book, policy: BillingPolicy, clock: MovedClock, gateway: ForeignGateway
) -> None:
    ids = opened(book, policy, clock)
    clock.move(seconds=90)
    assert run_charges(book, policy, gateway, ids) == {}
    assert gateway.ledger()["requests"] == []
    assert query(book, "SELECT kind FROM events WHERE alarm") == [("clock.skewed",)]


@pytest.mark.parametrize("how", ["lost", "late"])
def test_by_a_clock_that_nobody_vouches_for_nothing_is_sent(
    book: Book,
    policy: BillingPolicy,
    clock: MovedClock,
    gateway: ForeignGateway,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """The gateway charges, but its answer about the clock is lost, or too old."""
    ids = opened(book, policy, clock)
    asked = 0

    async def moment(client: PortOneClient) -> datetime:
        nonlocal asked
        asked += 1
        if how == "lost":
            raise GatewayUnavailable("getToken: TimeoutError")
        await asyncio.sleep(0.1)
        return clock.now

    monkeypatch.setattr("billing.services.clock_guard._GOOD_FOR", timedelta(seconds=0.05))
    with monkeypatch.context() as patch:
        patch.setattr(PortOneClient, "moment", moment)
        assert run_charges(book, policy, gateway, ids) == {Result.NOT_SENT: 1}
    assert asked == 3
    assert gateway.ledger()["requests"] == []
    assert query(book, "SELECT skew_checked_at FROM gateway_health") == [(None,)]
    monkeypatch.undo()
    clock.move(seconds=10)
    assert run_charges(book, policy, gateway, ids) == {Result.APPROVED: 1}


def test_a_gateway_that_is_down_costs_no_attempt(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    ids = opened(book, policy, clock, 8)
    assert run_charges(book, policy, ForeignGateway("http://127.0.0.1:9"), ids) == {
        Result.NOT_SENT: 8
    }
    assert query(book, "SELECT DISTINCT status, number FROM attempts") == [("due", 1)]
    assert query(book, "SELECT kind FROM events WHERE alarm") == [("gateway.down",)]
    clock.move(seconds=6)
    assert dispatch(book, Queue(), policy) == 0, "the circuit is open"
    clock.move(seconds=10)
    assert dispatch(book, Queue(), policy) == 1, "one probe"


def test_a_window_that_passed_is_missed_with_its_reason(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    opened(book, policy, clock, 2)
    clock.move(days=10)
    assert close_cycles(book, policy) == 2
    assert query(book, "SELECT DISTINCT status, reason FROM cycles") == [
        ("missed", "not_attempted")
    ]
    assert query(book, "SELECT DISTINCT status, status_reason FROM subscriptions") == [
        ("suspended", "chain_broken")
    ]
    assert query(book, "SELECT DISTINCT status FROM attempts") == [("withdrawn",)]


def test_the_database_refuses_a_second_live_attempt_and_an_edited_event(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    opened(book, policy, clock)
    with pytest.raises(IntegrityError, match="uq_attempts_one_live"):
        execute(
            book,
            "INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at,"
            " ready_at) SELECT cycle_id, 2, 'mw-second', 'due', closes_at, planned_at, ready_at"
            " FROM attempts",
        )
    with pytest.raises(DBAPIError, match="only ever added"):
        execute(book, "UPDATE events SET kind = 'nothing happened'")
    with pytest.raises(DBAPIError, match="only ever added"):
        execute(book, "DELETE FROM events")
