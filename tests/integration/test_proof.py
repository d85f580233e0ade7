"""When "no such payment" proves that nothing was charged: counted from when it was asked.

Each of these was found by the model (tests/model, docs/protocol.md) before it was mended.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from billing.domain.finding import FailedThis, Nothing
from billing.domain.outcome import Unknown
from billing.domain.policy import BillingPolicy
from billing.services.answer import Answer, Result
from billing.services.inquire import find_unknown
from billing.services.open_cycles import open_cycles
from billing.services.record import record
from billing.store import attempts
from billing.store.session import Book
from tests.builders import a_row, enrolled, query
from tests.conftest import MovedClock
from tests.integration.test_engine import Queue

SECONDS = timedelta(seconds=1)


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *")


@pytest.fixture
def attempt_id(book: Book, policy: BillingPolicy, clock: MovedClock) -> int:
    """An attempt that a worker has claimed just now."""
    enrolled(book, policy, a_row(1))
    assert open_cycles(book, policy) == 1
    ((found,),) = query(book, "SELECT id FROM attempts")
    with book.transaction() as tx:
        assert attempts.claim(tx.session, [found], tx.now, tx.now + policy.lease)
    return int(found)


def recorded(book: Book, policy: BillingPolicy, answer: Answer) -> Result:
    return book.run(lambda tx: record(tx, policy, [answer]))[0]


def status(book: Book) -> str:
    return str(query(book, "SELECT status FROM attempts")[0][0])


def test_a_look_proves_what_was_so_when_it_was_asked(
    book: Book, policy: BillingPolicy, clock: MovedClock, attempt_id: int
) -> None:
    recorded(book, policy, Answer(attempt_id, 1, Unknown("no answer")))
    asked_early = clock.now + policy.settle - 1 * SECONDS
    clock.move_to(clock.now + policy.settle + 60 * SECONDS)
    for _ in range(3):
        # Three workers asked a moment too early and were slow to write it down.
        assert recorded(book, policy, Answer(attempt_id, 1, Nothing(), asked_early)) == "unknown"
    assert status(book) == "unknown"


def test_two_looks_at_one_moment_are_one(
    book: Book, policy: BillingPolicy, clock: MovedClock, attempt_id: int
) -> None:
    recorded(book, policy, Answer(attempt_id, 1, Unknown("no answer")))
    clock.move_to(clock.now + policy.settle)
    look = Answer(attempt_id, 1, Nothing(), clock.now)
    assert recorded(book, policy, look) == "unknown"
    assert recorded(book, policy, look) == "unknown", "the same message, twice"
    clock.move_to(clock.now + policy.visibility - 1 * SECONDS)
    assert recorded(book, policy, Answer(attempt_id, 1, Nothing(), clock.now)) == "unknown"
    clock.move_to(clock.now + 1 * SECONDS)
    assert recorded(book, policy, Answer(attempt_id, 1, Nothing(), clock.now)) == "not_sent"
    assert status(book) == "due"


def test_a_sender_that_reports_after_its_lease_puts_the_proof_off(
    book: Book, policy: BillingPolicy, clock: MovedClock, attempt_id: int
) -> None:
    clock.move_to(clock.now + policy.lease + policy.settle - 1 * SECONDS)
    find_unknown(book, Queue(), policy)
    # It was asleep, has sent only now, and got no answer: the request may still be on its way.
    assert recorded(book, policy, Answer(attempt_id, 1, Unknown("no answer"))) == "unknown"
    sent_at = clock.now
    for seconds in (60, 119):
        clock.move_to(sent_at + seconds * SECONDS)
        for _ in range(2):
            look = Answer(attempt_id, 1, Nothing(), clock.now)
            assert recorded(book, policy, look) == "unknown"
    clock.move_to(sent_at + policy.settle)
    recorded(book, policy, Answer(attempt_id, 1, Nothing(), clock.now))
    clock.move_to(clock.now + policy.visibility)
    assert recorded(book, policy, Answer(attempt_id, 1, Nothing(), clock.now)) == "not_sent"


def test_a_failed_row_may_be_the_first_to_show_of_two(
    book: Book, policy: BillingPolicy, clock: MovedClock, attempt_id: int
) -> None:
    """The gateway's console tried a paid order again, and the payment is not seen yet (found by the
    simulation, seed 700035)."""
    failed = FailedThis("[0098] 잠시 후", "imp_2")
    recorded(book, policy, Answer(attempt_id, 1, Unknown("no answer")))
    clock.move(seconds=1)
    assert recorded(book, policy, Answer(attempt_id, 1, failed, clock.now)) == "unknown"
    assert status(book) == "unknown"
    clock.move_to(clock.now - SECONDS + policy.settle)
    assert recorded(book, policy, Answer(attempt_id, 1, failed, clock.now)) == "declined"


def test_a_failure_that_says_already_paid_is_asked_about_for_a_while_only(
    book: Book, policy: BillingPolicy, clock: MovedClock, attempt_id: int
) -> None:
    found = FailedThis("이미 결제가 이루어진 거래건입니다.", "imp_1")
    recorded(book, policy, Answer(attempt_id, 1, Unknown("no answer")))
    began = clock.now
    while recorded(book, policy, Answer(attempt_id, 1, found, clock.now)) == "unknown":
        clock.move(seconds=5)
        assert clock.now - began <= policy.settle
    assert clock.now - began == policy.settle
    assert status(book) == "declined"
