"""Approvals that are settled by one statement end as those that are settled one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import text

from billing.domain.money import Won
from billing.domain.outcome import Approved, Declined, Outcome
from billing.domain.policy import BillingPolicy
from billing.services import record as module
from billing.services.answer import Answer, Result
from billing.services.open_cycles import open_cycles
from billing.services.record import record
from billing.store import attempts, events, settled
from billing.store.session import Book, Transaction
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock

COUNT = 4
TABLES = ("attempts", "cycles", "subscriptions", "gateway_health", "events", "notices")


@pytest.fixture
def claimed(
    book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> tuple[BillingPolicy, list[int]]:
    """Attempts of a few customers, claimed by this worker."""
    policy = make_policy()
    enrolled(book, policy, *(a_row(number) for number in range(1, COUNT + 1)))
    assert open_cycles(book, policy) == COUNT
    ids = [one for (one,) in query(book, "SELECT id FROM attempts ORDER BY id")]
    execute(book, "UPDATE attempts SET dispatched_at = :now", now=clock.now)
    with book.transaction() as tx:
        assert len(attempts.claim(tx.session, ids, tx.now, tx.now + policy.lease)) == COUNT
    return policy, ids


Seen = tuple[list[Result], Mapping[str, list[dict[str, Any]]], bool]


def _seen(book: Book, policy: BillingPolicy, answers: list[Answer], *, at_once: bool) -> Seen:
    """What recording does to every row, then undone; and whether any was settled plainly."""
    plainly: list[bool] = []
    real = module._plain_approvals

    def plain(tx: Transaction, given: Any) -> Any:
        done = real(tx, given) if at_once else {}
        plainly.append(bool(done))
        return done

    with patch.object(module, "_plain_approvals", plain), book.transaction() as tx:
        newest = {table: _newest(tx, table) for table in ("attempts", "events", "notices")}
        results = record(tx, policy, answers)
        tx.session.flush()
        events.write(tx.session)
        found = {table: _rows(tx, table, newest) for table in TABLES}
        tx.session.rollback()
    return results, found, plainly[0]


def _newest(tx: Transaction, table: str) -> int:
    query_ = text(f"SELECT coalesce(max(id), 0) FROM {table}")
    return int(tx.session.execute(query_).scalar_one())


def _rows(tx: Transaction, table: str, newest: Mapping[str, int]) -> list[dict[str, Any]]:
    """New lines of events and notices, all rows of the others; a number made meanwhile is "new"."""
    since = newest[table] if table in ("events", "notices") else 0
    rows = tx.session.execute(
        text(f"SELECT * FROM {table} WHERE id > :since ORDER BY id"), {"since": since}
    )
    kinds = {"id": table, "attempt_id": "attempts"}
    return [
        {
            name: "new" if name in kinds and value > newest.get(kinds[name], value) else value
            for name, value in row.items()
        }
        for row in rows.mappings()
    ]


STATES = {
    "as claimed": "SELECT 1",
    "paused": "UPDATE subscriptions SET status = 'paused'",
    "cancelled": "UPDATE subscriptions SET status = 'cancelled'",
    "suspended": "UPDATE subscriptions SET status = 'suspended', status_reason = 'chain_broken'",
    "chain at risk": "UPDATE subscriptions SET status_reason = 'chain_at_risk'",
    "held": "UPDATE cycles SET held = 'contradiction'",
    "with a reason left over": "UPDATE cycles SET reason = 'paid_late'",
    "to be asked about": "UPDATE attempts SET ask_at = now()",
    "missed": "UPDATE cycles SET status = 'missed', reason = 'unresolved', settled_at = now()",
    "unknown": "UPDATE attempts SET status = 'unknown', ask_at = now(), provable_at = now()",
    "claimed anew": "UPDATE attempts SET fence = fence + 1",
    "settled": "UPDATE attempts SET status = 'withdrawn', settled_at = now()",
}
PLAIN = {"as claimed", "paused", "held", "with a reason left over", "to be asked about"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("everybody", [True, False], ids=["all", "one of them"])
def test_both_ways_end_the_same(
    book: Book,
    claimed: tuple[BillingPolicy, list[int]],
    clock: MovedClock,
    state: str,
    everybody: bool,
) -> None:
    policy, ids = claimed
    change = STATES[state]
    if not everybody and "UPDATE" in change:
        change += f" WHERE id = (SELECT min(id) FROM {change.split()[1]})"
    execute(book, change)
    paid_at = clock.now.replace(microsecond=0) - timedelta(seconds=1)
    learnt: list[Outcome] = [Approved(f"imp_{one}", Won(1000 + one), paid_at) for one in ids]
    if not everybody:
        learnt[-1] = Declined("[0031] 한도초과", "imp_9")
    answers = [Answer(one, 1, told) for one, told in zip(ids, learnt, strict=True)]
    at_once = _seen(book, policy, answers, at_once=True)
    one_by_one = _seen(book, policy, answers, at_once=False)
    assert at_once[:2] == one_by_one[:2]
    assert at_once[2] is (not everybody or state in PLAIN)
    assert not one_by_one[2]


@pytest.mark.parametrize(("count", "patience"), [(1, "20s"), (2, "1s")])
def test_a_group_does_not_wait_long_for_a_row_that_somebody_has(
    book: Book,
    claimed: tuple[BillingPolicy, list[int]],
    clock: MovedClock,
    count: int,
    patience: str,
) -> None:
    """Many answers wait with it; one alone waits as long as any statement does."""
    policy, ids = claimed
    answers = [Answer(one, 1, Approved(f"imp_{one}", Won(1000), clock.now)) for one in ids[:count]]
    with book.transaction() as tx:
        record(tx, policy, answers)
        assert tx.session.execute(text("SHOW lock_timeout")).scalar_one() == patience
        assert tx.session.execute(text("SHOW enable_seqscan")).scalar_one() == "off"


@pytest.mark.parametrize("table", ["attempts", "cycles", "subscriptions"])
def test_nobody_else_can_change_what_is_being_settled(
    book: Book, claimed: tuple[BillingPolicy, list[int]], clock: MovedClock, table: str
) -> None:
    _, (first, *_) = claimed
    free = f"SELECT id FROM {table} FOR UPDATE SKIP LOCKED"
    with book.transaction() as tx:
        # Of another's claim: what it only looked at stays as it was, too.
        told = settled.Told(first, 2, "imp_1", clock.now)
        assert settled.approve(tx.session, tx.now, [told]) == {}
        assert len(query(book, free)) == COUNT - 1
    assert len(query(book, free)) == COUNT


def test_one_payment_for_two_claims_is_not_plain(
    book: Book, claimed: tuple[BillingPolicy, list[int]], clock: MovedClock
) -> None:
    """A gateway that gives one id to two of them: the first keeps it, the second is asked about."""
    policy, ids = claimed
    learnt = [Approved("imp_1", Won(1000 + one), clock.now) for one in ids[:2]]
    learnt += [Approved(f"imp_{one}", Won(1000 + one), clock.now) for one in ids[2:]]
    answers = [Answer(one, 1, told) for one, told in zip(ids, learnt, strict=True)]
    results, found, plainly = _seen(book, policy, answers, at_once=True)
    assert results == [Result.APPROVED, Result.UNKNOWN, Result.APPROVED, Result.APPROVED]
    assert plainly, "its neighbours go the quick way"
    assert [row["held"] for row in found["cycles"]] == [None, "contradiction", None, None]


def test_two_answers_for_one_claim_are_not_plain(
    book: Book, claimed: tuple[BillingPolicy, list[int]], clock: MovedClock
) -> None:
    policy, (first, *_) = claimed
    told = Answer(first, 1, Approved("imp_1", Won(1001), clock.now))
    another = Answer(first, 1, Approved("imp_2", Won(1001), clock.now))
    # The same once more changes nothing; another payment is worth an alarm.
    results, found, plainly = _seen(book, policy, [told, told, another], at_once=True)
    assert results == [Result.APPROVED, Result.TOO_LATE, Result.TOO_LATE]
    assert not plainly
    assert [row["kind"] for row in found["events"]] == [
        "attempt.approved",
        "cycle.paid",
        "answer.too_late",
    ]
