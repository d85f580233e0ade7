"""Each invariant is a check that can fail: a violation is planted, and it is named."""

from __future__ import annotations

import re

import pytest

from billing.domain.policy import BillingPolicy
from billing.presenting.texts import Texts
from billing.services import invariants
from billing.services.close_cycles import close_cycles
from billing.services.invariants import broken, every, glance
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock

# The name of the fact, and what somebody with too many rights did to the book.
PLANTED = [
    ("I2 inside the band", "UPDATE attempts SET sent_at = '2026-11-01T00:00:00Z'"),
    (
        "I4 nothing forgotten",
        "UPDATE cycles SET closes_at = '2026-11-10T00:00:00Z'",
    ),
    (
        "I4 opened in time",
        "UPDATE subscriptions SET next_closes_at = '2026-11-10T00:00:00Z' WHERE id NOT IN"
        " (SELECT subscription_id FROM cycles)",
    ),
    (
        "I5 nothing guessed",
        "UPDATE attempts SET status = 'unknown'",
    ),
    (
        "I6 one at a time",
        "UPDATE cycles SET status = 'skipped', reason = 'paused', settled_at = now()",
    ),
    (
        "I7 all is written",
        "UPDATE attempts SET status = 'withdrawn', settled_at = now()",
    ),
    (
        "I1 approved is paid",
        "UPDATE attempts SET status = 'approved', settled_at = now(), imp_uid = 'imp_1'",
    ),
    ("I7 the events rebuild the attempts", "UPDATE attempts SET status = 'unknown'"),
    (
        "I7 the events rebuild the cycles",
        "UPDATE cycles SET status = 'skipped', reason = 'paused', settled_at = now()",
    ),
    (
        "I7 the events rebuild the subscriptions",
        "UPDATE subscriptions SET status = 'paused'",
    ),
    (
        "I7 refunds are written",
        "UPDATE cycles SET status = 'paid', settled_at = now(), paid_imp_uid = 'imp_1',"
        " paid_merchant_uid = 'mw-1', paid_at = now();"
        " UPDATE cycles SET status = 'refunded'",
    ),
    (
        "I9 bounded retries",
        "INSERT INTO attempts (cycle_id, number, merchant_uid, status, closes_at, planned_at,"
        " ready_at, sent_at, settled_at, decline_class) SELECT c.id, n, 'mw-planted-' || n,"
        " 'declined', c.closes_at, now(), now(), now(), now(), 'not_today'"
        " FROM cycles c, generate_series(2, 4) n;"
        " INSERT INTO events (at, kind, attempt_id, data) SELECT now(), 'attempt.planned', id,"
        ' \'{"declines_allowed": 2, "declines_allowed_a_day": 9}\' FROM attempts WHERE number > 1',
    ),
    (
        "I3 never another amount",
        "ALTER TABLE buyers DISABLE TRIGGER buyer_data_is_fixed;"
        " UPDATE buyers SET tel = '010-9999-9999'",
    ),
]


@pytest.fixture
def _a_month(book: Book, policy: BillingPolicy, clock: MovedClock) -> None:
    """Two subscribers; one has an open cycle, the other is due tomorrow."""
    tomorrow = a_row(2, "2026-10-21T14:30:00+09:00")
    enrolled(book, policy, a_row(1), tomorrow)
    assert open_cycles(book, policy) == 1


@pytest.mark.usefixtures("_a_month")
def test_an_ordinary_book_breaks_nothing(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    assert broken(book, policy) == []
    clock.move(days=30)
    close_cycles(book, policy)
    open_cycles(book, policy)
    close_cycles(book, policy)
    assert query(book, "SELECT DISTINCT status FROM cycles") == [("missed",)]
    assert broken(book, policy) == []


@pytest.mark.usefixtures("_a_month")
@pytest.mark.parametrize(("name", "statement"), PLANTED, ids=[name for name, _ in PLANTED])
def test_a_planted_violation_is_named(
    book: Book, policy: BillingPolicy, name: str, statement: str
) -> None:
    for part in statement.split(";"):
        execute(book, part)
    found = {one.name: one for one in broken(book, policy)}
    assert name in found
    assert found[name].rows


@pytest.mark.usefixtures("_a_month")
def test_facts_that_hold_are_named_too(book: Book, policy: BillingPolicy) -> None:
    facts = every(book, policy)
    assert {name for name, _ in PLANTED} <= {one.name for one in facts}
    assert [one.rows for one in facts] == [[]] * len(facts)
    assert all(one.statement for one in facts)
    english, korean = Texts("en"), Texts("ko")
    for one in facts:
        for text in (one.name, one.statement):
            assert english.sentence(text) == text
            assert re.search("[가-힣]", korean.sentence(text)), f"not in texts.toml: {text}"


def test_a_glance_at_the_seals_comes_round_to_every_one(
    book: Book, policy: BillingPolicy, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` must answer at once; still no changed row stays unseen for long."""
    monkeypatch.setattr(invariants, "_SEALS_AT_A_GLANCE", 3)
    enrolled(book, policy, *(a_row(number) for number in range(3, 12)))
    assert query(book, "SELECT max(id) FROM subscriptions") == [(9,)]
    execute(book, "ALTER TABLE buyers DISABLE TRIGGER buyer_data_is_fixed")
    execute(book, "UPDATE buyers SET tel = '010-9999-9999' WHERE subscription_id = 5")
    clock.move(hours=-1)
    seen = []
    for _ in range(9):
        clock.move(minutes=1)
        found = glance(book, policy)
        assert found.unchecked == 0
        seen += [one.rows for one in found.broken]
    assert seen == [[5]] * 3
    assert [one.rows for one in broken(book, policy)] == [[5]]


@pytest.mark.usefixtures("_a_month")
def test_a_glance_tells_what_it_had_no_time_for(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = invariants._Fact("slow", "", "SELECT 1 FROM pg_sleep(30)")
    wrong = invariants._Fact("wrong", "", "SELECT id FROM cycles")
    monkeypatch.setattr(invariants, "_FACTS", (slow, wrong, slow))
    found = glance(book, policy)
    assert ([one.name for one in found.broken], found.unchecked) == (["wrong"], 2)
