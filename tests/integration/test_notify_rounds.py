"""Rounds of notices without a network: what each answer, and each thing that breaks, does."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from billing.domain.delivery import Delivered, Delivery, Refused, Unreachable
from billing.domain.notice import Outgoing, Resumed
from billing.domain.policy import BillingPolicy
from billing.services import notify as service
from billing.services.notify import LEASE, deliver, find_due, try_out
from billing.store import events, receiver
from billing.store.session import Book
from tests.builders import execute, query
from tests.conftest import MovedClock

OK, NO, AWAY = Delivered(204), Refused(500), Unreachable("answered 503")


class Receiver:
    """Answers by the number of a notice, and takes what it has no answer for. It is the queue,
    too."""

    def __init__(self, answers: dict[int, Delivery | BaseException] | None = None) -> None:
        self.answers = answers or {}
        self.sent: list[int] = []
        self.asked: list[list[int]] = []

    async def send(self, notice: Outgoing) -> Delivery:
        number = int(notice.webhook_id.split("_")[1])
        self.sent.append(number)
        answer = self.answers.get(number, OK)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def aclose(self) -> None:
        """Holds nothing."""

    def notify(self, notice_ids: Sequence[int]) -> None:
        self.asked.append(list(notice_ids))

    def notify_soon(self) -> None:
        """The test says when."""


def written(book: Book, count: int) -> None:
    """So many notices of nobody, from number 1 on."""
    with book.transaction() as tx:
        for _ in range(count):
            told = Resumed(before="paused")
            events.notify(tx.session, at=tx.now, subscription_id=None, news=told)


def delivered(
    book: Book, policy: BillingPolicy, to: Receiver, ids: Sequence[int] = range(1, 99)
) -> Counter[str]:
    return asyncio.run(deliver(book, to, policy, ids))


def rows(book: Book, columns: str) -> list[tuple[Any, ...]]:
    return query(book, f"SELECT {columns} FROM notices ORDER BY id")


def alarms(book: Book) -> list[tuple[str, dict[str, Any], bool]]:
    found = query(book, "SELECT kind, data, alarm FROM events ORDER BY id")
    return [(kind, data, alarm) for kind, data, alarm in found]


# -- finding --------------------------------------------------------------------------------------


def test_what_is_due_is_handed_on_and_counted(book: Book, policy: BillingPolicy) -> None:
    queue = Receiver()
    assert find_due(book, queue, policy, wanted=True) == 0
    assert queue.asked == [], "of nothing nobody is told"
    written(book, 3)
    assert find_due(book, queue, policy, wanted=True) == 3
    assert queue.asked == [[1, 2, 3]]
    assert find_due(book, queue, policy, wanted=False) == 0
    assert queue.asked == [[1, 2, 3]]


def test_nothing_is_found_or_sent_in_a_book_that_moved(book: Book, policy: BillingPolicy) -> None:
    written(book, 1)
    to = Receiver()
    assert find_due(book, to, policy, wanted=True) == 1
    execute(book, "UPDATE installation SET system_identifier = '1/2'")
    assert find_due(book, to, policy, wanted=True) == 0
    assert delivered(book, policy, to) == {}
    assert (len(to.asked), to.sent) == (1, [])


def test_what_is_old_goes_in_batches_and_not_without_end(
    book: Book, policy: BillingPolicy, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", 2)
    monkeypatch.setattr(service, "_MOST_BATCHES", 2)
    written(book, 7)
    clock.move(days=3)
    for left in (3, 0):
        find_due(book, Receiver(), policy, wanted=False)
        assert query(book, "SELECT count(*) FROM notices") == [(left,)]


def test_what_ended_is_kept_for_ninety_days(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    written(book, 1)
    delivered(book, policy, Receiver())
    clock.move(days=90)
    find_due(book, Receiver(), policy, wanted=True)
    assert rows(book, "id") == [(1,)]
    clock.move_to(clock.now + timedelta(microseconds=1))
    find_due(book, Receiver(), policy, wanted=True)
    assert rows(book, "id") == []


def test_while_the_receiver_is_down_what_is_too_old_dies(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    written(book, 12)
    clock.move(days=3)
    find_due(book, Receiver(), policy, wanted=True)
    assert alarms(book) == [], "it may be taken yet"
    execute(book, "UPDATE receiver SET unanswered = 5, unanswered_since = :at", at=clock.now)
    find_due(book, Receiver(), policy, wanted=True)
    why = "the receiver did not answer for three days"
    data = {"notices": 12, "first": list(range(1, 11)), "why": why}
    assert alarms(book) == [("notice.dead", data, True)]
    assert rows(book, "dead_at") == [(clock.now,)] * 12


# -- a round --------------------------------------------------------------------------------------


def test_a_round_goes_on_until_nothing_is_left(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WIDTH", 2)
    written(book, 5)
    to = Receiver({2: NO, 3: AWAY})
    assert delivered(book, policy, to) == {"delivered": 3, "refused": 1, "unreachable": 1}
    assert sorted(to.sent) == [1, 2, 3, 4, 5]
    assert query(book, "SELECT round_until FROM receiver") == [(None,)], "the round is over"
    assert delivered(book, policy, to) == {}


def test_a_round_ends_when_its_time_is_over(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ROUND_SECONDS", 0.0)
    written(book, 1)
    to = Receiver()
    assert (delivered(book, policy, to), to.sent) == ({}, [])


def test_while_another_has_the_round_nothing_is_sent(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    written(book, 1)
    execute(book, "UPDATE receiver SET round_until = :at", at=clock.now + LEASE)
    to = Receiver()
    assert (delivered(book, policy, to), to.sent) == ({}, [])
    held = query(book, "SELECT round_until FROM receiver")
    assert held == [(clock.now + LEASE,)], "and it keeps it"


def test_a_round_ends_with_the_receiver(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WIDTH", 5)
    written(book, 7)
    to = Receiver(dict.fromkeys(range(1, 8), AWAY))
    assert delivered(book, policy, to) == {"unreachable": 5}
    with book.transaction() as tx:
        assert receiver.is_down(receiver.read(tx.session))
    assert query(book, "SELECT unanswered, problem FROM receiver") == [(5, "answered 503")]


def test_what_tells_nothing_dies_and_the_others_go(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    written(book, 3)
    execute(book, "UPDATE notices SET data = '[]' WHERE id = 2")
    to = Receiver()
    assert delivered(book, policy, to) == {"delivered": 2}
    assert to.sent == [1, 3]
    data = {"notices": 1, "first": [2], "why": "what it tells is no message"}
    assert alarms(book) == [("notice.dead", data, True)]


def test_what_breaks_in_one_is_a_try_of_its_own(book: Book, policy: BillingPolicy) -> None:
    written(book, 3)
    broken = ValueError("https://hooks.example.com/secret")
    with pytest.raises(ValueError, match="hooks"):
        delivered(book, policy, Receiver({1: broken, 2: NO}))
    assert rows(book, "tries, problem, delivered_at IS NOT NULL") == [
        (1, "could not be sent (ValueError)", False),
        (1, "answered 500", False),
        (1, None, True),
    ]
    assert query(book, "SELECT round_until, unanswered FROM receiver") == [(None, 0)]


def test_who_is_stopped_in_the_middle_writes_what_it_knows(
    book: Book, policy: BillingPolicy
) -> None:
    written(book, 2)
    with pytest.raises(asyncio.CancelledError):
        delivered(book, policy, Receiver({1: asyncio.CancelledError()}))
    assert rows(book, "problem, delivered_at IS NOT NULL") == [(None, False), (None, True)]


# -- what is learnt -------------------------------------------------------------------------------


def test_what_a_batch_says_of_the_receiver(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    written(book, 3)
    patience = [Unreachable("answered 429", timedelta(seconds=at)) for at in (30, 60)]
    told = {1: patience[0], 2: patience[1], 3: AWAY}
    assert delivered(book, policy, Receiver(dict(told))) == {"unreachable": 3}
    state = "unanswered, pause_until, problem, delivered_at"
    held = (3, clock.now + timedelta(seconds=60), "answered 429", None)
    assert query(book, f"SELECT {state} FROM receiver") == [held]
    clock.move(minutes=2)
    delivered(book, policy, Receiver({1: OK, 2: NO, 3: NO}))
    held = (0, None, "answered 500", clock.now)
    assert query(book, f"SELECT {state} FROM receiver") == [held]


def test_an_outage_of_hours_is_told(book: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    written(book, 1)
    began = clock.now - timedelta(minutes=95)
    execute(book, "UPDATE receiver SET unanswered = 5, unanswered_since = :at", at=began)
    delivered(book, policy, Receiver({1: AWAY}))
    assert alarms(book) == [("receiver.down", {"hours": 1.6}, True)]


def test_what_is_refused_for_three_days_is_dead(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    written(book, 2)
    clock.move(days=3)
    written(book, 1)
    delivered(book, policy, Receiver({1: NO, 3: NO}))
    assert rows(book, "dead_at, delivered_at") == [
        (clock.now, None),
        (None, clock.now),
        (None, None),
    ]
    data = {"notices": 1, "first": [1], "why": "refused for three days"}
    assert alarms(book) == [("notice.dead", data, True)]


def test_what_another_sender_has_by_now_is_not_dead(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    class Slow(Receiver):
        async def send(self, notice: Outgoing) -> Delivery:
            execute(book, "UPDATE notices SET lease_until = lease_until - interval '1 second'")
            return NO

    written(book, 1)
    clock.move(days=3)
    delivered(book, policy, Slow())
    assert (rows(book, "dead_at"), alarms(book)) == ([(None,)], [])


def test_a_trial_says_nothing_and_is_told_from_another(clock: MovedClock) -> None:
    seen: list[Outgoing] = []

    class Trial(Receiver):
        async def send(self, notice: Outgoing) -> Delivery:
            seen.append(notice)
            return NO

    assert asyncio.run(try_out(Trial(), "once", clock.now)) == NO
    ((notice,),) = [seen]
    assert notice.webhook_id == "mw_test_once"
    assert json.loads(notice.body)["type"] == "maewol.test"
