"""Invariants over a whole book: when they hold, at a glance, and by the seals over facts. What each
of them names is held to the row by `test_invariant_rows.py`."""

from __future__ import annotations

import re

import pytest
from sqlalchemy.exc import DBAPIError

from billing.domain.policy import BillingPolicy
from billing.presenting.texts import Texts
from billing.services import invariants
from billing.services.close_cycles import close_cycles
from billing.services.invariants import Glance, at_once, broken, every, glance
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_row, enrolled, execute, query
from tests.conftest import MovedClock


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
def test_facts_that_hold_are_named_too(book: Book, policy: BillingPolicy) -> None:
    facts = every(book, policy)
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
    execute(book, "UPDATE buyers SET tel = '010-9999-9999' WHERE subscription_id = 6")
    clock.move(hours=-1)
    for _ in range(9):
        clock.move(minutes=1)
        found = glance(book, policy)
        assert found.unchecked == 0
        # Three a minute, from where the minutes since 1970 lead to.
        after = int(clock.now.timestamp()) // 60 * 3 % 9
        assert [one.rows for one in found.broken] == ([[6]] if after == 3 else [])
    assert [one.rows for one in broken(book, policy)] == [[6]]


def test_a_glance_at_a_book_of_none_or_one(
    book: Book, policy: BillingPolicy, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "_SEALS_AT_A_GLANCE", 1)
    assert glance(book, policy) == Glance([], 0)
    enrolled(book, policy, a_row(1))
    execute(book, "ALTER TABLE buyers DISABLE TRIGGER buyer_data_is_fixed")
    execute(book, "UPDATE buyers SET tel = '010-9999-9999'")
    for _ in range(2):
        clock.move(minutes=1)
        assert [one.rows for one in glance(book, policy).broken] == [[1]]


@pytest.mark.usefixtures("_a_month")
def test_a_glance_tells_what_it_had_no_time_for(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = invariants._Fact("slow", "", "SELECT 1 FROM pg_sleep(30)")
    wrong = invariants._Fact("wrong", "", "SELECT id FROM cycles")
    monkeypatch.setattr(invariants, "_FACTS", (slow, wrong, slow))
    found = glance(book, policy)
    assert ([one.name for one in found.broken], found.unchecked) == (["wrong"], 2)


def test_a_glance_does_not_take_another_fault_for_want_of_time(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fact = invariants._Fact("of no book", "", "SELECT id FROM nowhere")
    monkeypatch.setattr(invariants, "_FACTS", (fact,))
    with pytest.raises(DBAPIError, match="nowhere"):
        glance(book, policy)


@pytest.mark.usefixtures("_a_month")
def test_the_facts_at_once_are_the_facts_one_by_one(book: Book, policy: BillingPolicy) -> None:
    assert at_once(book, policy) == []
    execute(book, "UPDATE cycles SET status = 'skipped', reason = 'paused', settled_at = now()")
    others = broken(book, policy)
    assert {one.name[:2] for one in others} == {"I6", "I7"}
    assert at_once(book, policy) == others
    left = at_once(book, policy, but=("I7",))
    assert {one.name[:2] for one in left} == {"I6"}


def test_the_whole_check_is_held_to_no_limit_of_time(
    book: Book, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A book of many millions of months takes longer than any other statement may."""
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    limited = " OR ".join(f"current_setting('{name}') <> '0'" for name in limits)
    fact = invariants._Fact("a limit", "There is none.", f"SELECT 1 AS id WHERE {limited}")
    monkeypatch.setattr(invariants, "_FACTS", (fact,))
    assert [one.rows for one in invariants.every(book, policy) if one.name == "a limit"] == [[]]
    assert invariants.at_once(book, policy) == []
    with book.transaction() as tx:
        found = invariants.as_seen(tx, policy)
    assert [one.rows for one in found if one.name == "a limit"] == [[1]], "it can be seen"
