"""Open questions: which are asked, what of, and what one that fails costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from billing.domain.errors import BrokerUnavailable
from billing.domain.policy import BillingPolicy
from billing.services import desk
from billing.services import inquire as module
from billing.services.answer import Answer, Result
from billing.services.inquire import find_unknown, inquire
from billing.services.open_cycles import open_cycles
from billing.store import attempts
from billing.store.session import Book, Transaction
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.town import Town, Wiretap, uid


class Queue:
    """Keeps the questions; `down` when there is no broker."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down
        self.asked: list[list[int]] = []

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        if self.down:
            raise BrokerUnavailable("away")
        self.asked.append(list(attempt_ids))

    def charge(self, attempt_ids: Sequence[int]) -> None:
        raise AssertionError("a question is no charge")

    def charges_waiting(self) -> int:
        raise AssertionError("questions do not wait for charges")

    def dispatch_soon(self) -> None:
        raise AssertionError("questions call for no dispatch")


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(canary_charges=0, charge_batch=2)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    made = Town(book, policy, clock)
    made.at("2026-11-20 10:00")
    return made


def claimed(town: Town, count: int) -> list[int]:
    """Attempts of so many subscribers, with a worker that will never say what became of them."""
    town.subscribe(count)
    assert open_cycles(town.book, town.policy) == count
    ids = [one for (one,) in query(town.book, "SELECT id FROM attempts ORDER BY id")]
    execute(town.book, "UPDATE attempts SET dispatched_at = :now", now=town.clock.now)
    with town.book.transaction() as tx:
        lease_until = tx.now + town.policy.lease
        assert len(attempts.claim(tx.session, ids, tx.now, lease_until)) == count
    return ids


def lost(town: Town, count: int) -> list[int]:
    """Attempts whose request was lost on its way, and which may be asked about now."""
    town.subscribe(count)
    town.wire.faults["/subscribe/payments/again"] = "lost"
    assert town.charge() == {"unknown": count}
    town.wire.faults.clear()
    town.move(minutes=10)
    return [one for (one,) in query(town.book, "SELECT id FROM attempts ORDER BY id")]


def asked(town: Town, ids: Sequence[int]) -> Counter[str]:
    tally = town.run(lambda client: inquire(town.book, client, town.policy, ids))
    return Counter({str(result): count for result, count in tally.items()})


# -- finding them -------------------------------------------------------------------------------


def test_a_lease_that_ran_out_becomes_a_question(town: Town) -> None:
    (attempt,) = claimed(town, 1)
    queue = Queue()
    town.move(seconds=town.policy.lease.total_seconds() - 1)
    assert find_unknown(town.book, queue, town.policy) == 0
    assert query(town.book, "SELECT status FROM attempts") == [("sending",)]
    town.move(seconds=2)
    assert find_unknown(town.book, queue, town.policy) == 1
    assert queue.asked == [[attempt]]
    ((status, dispatched, provable_at, ask_at),) = query(
        town.book, "SELECT status, dispatched_at, provable_at, ask_at FROM attempts"
    )
    assert (status, dispatched) == ("unknown", None)
    # From the end of the lease: until then its worker could still have sent.
    assert provable_at - town.clock.now == town.policy.settle - timedelta(seconds=1)
    assert ask_at - town.clock.now == town.policy.ask_again_after
    told = (
        "SELECT kind, data, alarm, subscription_id, cycle_id FROM events ORDER BY id DESC LIMIT 1"
    )
    assert query(town.book, told) == [
        ("attempt.unknown", {"why": "the lease ran out"}, False, 1, 1)
    ]


def test_questions_go_out_in_batches_and_not_again_at_once(town: Town) -> None:
    ids = claimed(town, 5)
    town.move(minutes=10)
    queue = Queue()
    assert find_unknown(town.book, queue, town.policy) == 5
    assert queue.asked == [ids[:2], ids[2:4], ids[4:]]
    assert find_unknown(town.book, queue, town.policy) == 0
    town.move(seconds=town.policy.ask_again_after.total_seconds())
    assert find_unknown(town.book, queue, town.policy) == 5


def test_a_run_takes_no_more_than_a_batch(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.BATCH == 500
    monkeypatch.setattr(module, "BATCH", 2)
    ids = claimed(town, 3)
    town.move(minutes=10)
    queue = Queue()
    assert [find_unknown(town.book, queue, town.policy) for _ in range(3)] == [2, 1, 0]
    assert queue.asked == [ids[:2], ids[2:]]


def test_without_a_broker_they_are_asked_later(town: Town) -> None:
    claimed(town, 1)
    town.move(minutes=10)
    with pytest.raises(BrokerUnavailable):
        find_unknown(town.book, Queue(down=True), town.policy)
    town.move(seconds=town.policy.ask_again_after.total_seconds())
    assert find_unknown(town.book, Queue(), town.policy) == 1


# -- asking -------------------------------------------------------------------------------------


def test_what_is_asked_of_whom(town: Town) -> None:
    """The order's own payments, every earlier attempt's, and the key's."""
    ids = lost(town, 1)
    ((first,),) = query(town.book, "SELECT merchant_uid FROM attempts")
    key = f"/subscribe/customers/{uid(1)}/payments"

    def looks() -> list[str]:
        found = [
            path.removeprefix("/payments/findAll/").rstrip("/")
            for path in town.wire.asked
            if path.startswith(("/payments/findAll", "/subscribe/customers"))
        ]
        town.wire.asked.clear()
        return found

    assert looks() == [key], "before the first request of a month there is no order to ask of"
    assert asked(town, ids) == {"unknown": 1}
    assert looks() == [first, key]
    town.move(minutes=1)
    assert asked(town, ids) == {"not_sent": 1}
    town.wire.asked.clear()
    town.wire.faults["/subscribe/payments/again"] = "http:503"
    assert town.charge() == {"unknown": 1}
    assert looks() == [first, key], "what was sent once is asked of before it goes again"


def test_many_are_asked_at_once_and_each_has_its_own_end(town: Town) -> None:
    ids = lost(town, 3)
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts WHERE id = :id", id=ids[1])
    town.pay_by_hand(2, merchant_uid=name)
    town.move(minutes=5)
    with capture_logs() as lines:
        assert asked(town, ids) == {"unknown": 2, "approved": 1}
    assert [(one["event"], one.get("attempts"), one.get("counts")) for one in lines] == [
        ("asking", ids, None),
        ("recorded", None, {"unknown": 2, "approved": 1}),
    ]
    assert query(town.book, "SELECT status FROM attempts ORDER BY id") == [
        ("unknown",),
        ("approved",),
        ("unknown",),
    ]


def test_a_gateway_that_cannot_be_asked_leaves_the_question_open(town: Town) -> None:
    ids = lost(town, 1)
    before = query(town.book, "SELECT status, asked, nothing_found, ask_at FROM attempts")
    town.wire.faults[f"{uid(1)}/payments"] = "http:503"
    with capture_logs() as lines:
        assert asked(town, ids) == {"unknown": 1}
    (told,) = (one for one in lines if one["log_level"] == "warning")
    assert (told["event"], told["why"]) == ("not answered", {"look-up: HTTP 503": 1})
    assert query(town.book, "SELECT status, asked, nothing_found, ask_at FROM attempts") == before


def test_what_is_no_question_is_not_asked(town: Town) -> None:
    town.subscribe(2)
    town.charge()
    town.wire.asked.clear()
    assert asked(town, [1, 2, 77]) == {}
    assert town.wire.asked == []


def test_one_that_cannot_be_recorded_costs_the_others_nothing(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = lost(town, 3)
    real = desk.record

    def broken(tx: Transaction, policy: BillingPolicy, answers: Sequence[Answer]) -> list[Result]:
        if any(one.attempt_id == ids[1] for one in answers):
            raise RuntimeError("cannot be recorded")
        return real(tx, policy, answers)

    monkeypatch.setattr(desk, "record", broken)
    assert asked(town, ids) == {"unknown": 2, "unrecorded": 1}
    found = query(town.book, "SELECT id FROM attempts WHERE nothing_found = 1 ORDER BY id")
    assert [one for (one,) in found] == [ids[0], ids[2]]


def test_answers_of_many_questions_share_a_transaction(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = lost(town, 12)
    groups, real = list[int](), desk.record

    def counted(tx: Transaction, policy: BillingPolicy, answers: Sequence[Answer]) -> list[Result]:
        groups.append(len(answers))
        return real(tx, policy, answers)

    monkeypatch.setattr(desk, "record", counted)
    assert asked(town, ids) == {"unknown": 12}
    assert groups == [12]


def test_an_answer_is_written_down_when_the_database_is_back(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No longer than until it would be asked about again."""
    ids = lost(town, 1)
    away, real = iter([True, False]), desk.record

    def broken(tx: Transaction, policy: BillingPolicy, answers: Sequence[Answer]) -> list[Result]:
        if next(away):
            raise OperationalError("SELECT", {}, Exception("away"))
        return real(tx, policy, answers)

    monkeypatch.setattr(desk, "record", broken)
    assert asked(town, ids) == {"unknown": 1}
    assert query(town.book, "SELECT nothing_found FROM attempts") == [(1,)]
    away = iter([True, False])
    town.move(minutes=5)
    monkeypatch.setattr(BillingPolicy, "ask_again_after", timedelta(0))
    assert asked(town, ids) == {"unrecorded": 1}
    assert query(town.book, "SELECT nothing_found FROM attempts") == [(1,)]


class BusyWire(Wiretap):
    """Each request is on its way for a moment; counts how many are at once."""

    under_way = most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.01)
        try:
            return await super().handle_async_request(request)
        finally:
            self.under_way -= 1


def test_no_more_than_ten_are_asked_side_by_side(town: Town) -> None:
    ids = lost(town, 12)
    town.wire = wire = BusyWire(town.sandbox)
    assert asked(town, ids) == {"unknown": 12}
    assert wire.most == 10
