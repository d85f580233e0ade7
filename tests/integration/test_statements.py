"""What many charges cost the database: statements are counted, not seconds, so a machine that is
busy makes no difference. A change that goes back to one statement for each row shows here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import event

from billing.domain.policy import BillingPolicy
from billing.sandbox import LineChange, change
from billing.services.dispatch import dispatch
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.conftest import MovedClock
from tests.world import World

MANY = 50


@dataclass
class Counted:
    statements: int = 0


@contextmanager
def counting(world: World) -> Iterator[Counted]:
    """Statements sent meanwhile; one with many sets of values counts as many."""
    counted, engine = Counted(), world.book._engine

    def count(*arguments: Any) -> None:
        *_, parameters, _context, executemany = arguments
        # An INSERT of many rows is one statement, whose values SQLAlchemy gives by their names.
        each = executemany and isinstance(parameters, list)
        counted.statements += len(parameters) if each else 1

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield counted
    finally:
        event.remove(engine, "before_cursor_execute", count)


@pytest.fixture
def many(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    world = World(book, make_policy(charges_per_second=0, canary_charges=0), clock)
    world.enrol(*(f"customer-{number}" for number in range(MANY)))
    return world


def test_a_batch_costs_a_few_statements_however_large_it_is(many: World) -> None:
    with counting(many) as opening:
        assert open_cycles(many.book, many.policy) == MANY
    assert opening.statements <= 10
    with counting(many) as handing_out:
        assert dispatch(many.book, many, many.policy) == MANY
    # Where the database is, asked within a savepoint the first time, is three of them.
    assert handing_out.statements <= 13
    with counting(many) as charging:
        many.work()
    assert many.statuses("cycles") == {"paid": MANY}
    # One claim; answers may come in a few groups.
    assert charging.statements <= 40


def test_a_tick_that_finds_nothing_due_only_asks(many: World) -> None:
    """It comes every few seconds, all month long."""
    assert open_cycles(many.book, many.policy) == MANY
    with counting(many) as opening:
        assert open_cycles(many.book, many.policy) == 0
    # By which settings months are planned; to go by index; and what is due.
    assert opening.statements == 3


def test_declines_cost_a_few_statements_too(many: World) -> None:
    """On a day of retries nearly every answer is one."""
    for number in range(MANY):
        line = LineChange(script=["declined:0098"])
        change(many.sandbox, f"customer-{number}", line)
    open_cycles(many.book, many.policy)
    dispatch(many.book, many, many.policy)
    with counting(many) as charging:
        many.work()
    assert many.statuses("attempts") == {"declined": MANY, "due": MANY}
    # One line of an UPDATE for each; the retries are planned by one INSERT.
    assert charging.statements <= MANY + 40
