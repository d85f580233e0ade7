"""Was the day reconciled, whole? Due until it was; told of when late; seen by doctor and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from billing.broker import TICK_RECONCILE
from billing.domain.errors import GatewayError
from billing.domain.plan import Cron
from billing.domain.policy import BillingPolicy
from billing.presenting import told
from billing.presenting.texts import Texts
from billing.services import reconciled
from billing.services.check import check
from billing.services.doctor import examine
from billing.services.measure import measure
from billing.services.reconcile import Report
from billing.store import heartbeats
from billing.store.session import Book, create_book_engine
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.town import Town

SLOTS = Cron.parse("30 5 * * *", field="RECONCILE_CRON", for_each_day=True)


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0)


@pytest.fixture
def town(book: Book, policy: BillingPolicy, clock: MovedClock) -> Town:
    """10:00 on 20 November 2026 in Seoul: three subscribers, charged."""
    made = Town(book, policy, clock)
    made.subscribe(3)
    assert made.charge() == {"approved": 3}
    made.move(minutes=5)
    return made


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_book_engine(database_url)
    yield made
    made.dispose()


def due(town: Town) -> bool:
    return town.book.run(lambda tx: reconciled.is_due(tx, town.policy, SLOTS))


def make(town: Town, proofs: Path | None = None) -> Report:
    async def no_sleep(seconds: float) -> None:
        town.move(seconds=seconds)

    return town.run(
        lambda client: reconciled.make(town.book, client, town.policy, proofs, sleep=no_sleep)
    )


def late(town: Town) -> list[int]:
    told = query(
        town.book, "SELECT data FROM events WHERE kind = 'reconcile.late' AND alarm ORDER BY id"
    )
    return [row[0]["hours"] for row in told]


def diagnosis(town: Town, engine: Engine) -> tuple[bool, str]:
    (found,) = (one for one in examine(town.book, engine) if one.name == "reconciliation")
    return found.ok, told.check(found, Texts("en"))["detail"]


def test_once_a_day_and_at_the_slot(town: Town) -> None:
    assert due(town), "never made"
    assert make(town).whole
    assert not due(town)
    assert not due(town.at("2026-11-21 05:29"))
    assert due(town.at("2026-11-21 05:30"))
    assert make(town).whole
    assert not due(town)
    assert due(town.at("2026-11-25 12:00")), "missed for days, due once"


def test_what_failed_or_was_not_whole_is_due_again(town: Town, tmp_path: Path) -> None:
    """A list that cannot be read; then a payment that cannot be looked up; then all is well."""
    town.wire.faults["/payments/status/paid"] = "lost"
    with pytest.raises(GatewayError):
        make(town)
    assert due(town)
    hidden = town.paid_imp_uid(2)
    town.changed(hidden, visible_at=9e9)
    town.wire.faults = {hidden: "http:503"}
    assert not make(town, tmp_path).whole
    assert due(town.at("2026-11-20 10:50"))
    town.wire.faults.clear()
    town.changed(hidden, visible_at=0.0)
    assert make(town, tmp_path).whole
    assert not due(town)


def test_a_run_that_is_not_whole_is_looked_back_over(town: Town) -> None:
    """The span begins at the last whole run, not at the last try."""
    assert make(town).whole
    town.at("2027-01-10 12:00").wire.faults[town.paid_imp_uid(1)] = "http:503"
    town.changed(town.paid_imp_uid(1), amount=1)
    report = make(town)
    assert (report.whole, report.span.first.isoformat()) == (False, "2026-11-19")
    assert make(town).span.first.isoformat() == "2026-11-19"


def test_a_run_of_a_clock_that_was_ahead_counts_for_nothing(town: Town) -> None:
    assert make(town).whole
    execute(
        town.book,
        "UPDATE heartbeats SET at = at + interval '40 days' WHERE name = :name",
        name=TICK_RECONCILE,
    )
    assert due(town)


def test_a_day_without_a_whole_run_is_told_once_a_day(town: Town) -> None:
    town.at("2026-11-21 11:00")
    check(town.book, town.policy)
    assert late(town) == [], "25 hours after the first enrolment"
    for _ in range(30):
        town.move(hours=1)
        check(town.book, town.policy)
    assert late(town) == [27, 52]
    assert make(town).whole
    for _ in range(26):
        town.move(hours=1)
        check(town.book, town.policy)
    assert late(town) == [27, 52]
    town.move(hours=1)
    check(town.book, town.policy)
    assert late(town) == [27, 52, 27]


def test_the_doctor_and_the_metric_say_how_long_ago(town: Town, engine: Engine) -> None:
    def seconds() -> float | None:
        return measure(town.book, town.policy, 0, 0).reconciled_seconds_ago

    assert diagnosis(town, engine) == (True, "none was made yet")
    assert seconds() == 300
    assert make(town).whole
    assert seconds() == 0
    # Any other tick is seen all the time.
    town.move(hours=27)
    town.book.run(lambda tx: heartbeats.beat(tx.session, "maewol.tick.open", tx.now))
    assert diagnosis(town, engine) == (False, "the last whole one 27 h ago")
    assert seconds() == 27 * 3600


def test_a_book_without_subscribers_has_nothing_to_reconcile(
    book: Book, policy: BillingPolicy, clock: MovedClock
) -> None:
    clock.move(days=100)
    assert book.run(reconciled.age) is None
    check(book, policy)
    assert query(book, "SELECT count(*) FROM events") == [(0,)]
    assert measure(book, policy, 0, 0).reconciled_seconds_ago is None


def test_the_row_of_the_last_whole_run_is_the_ticks_own() -> None:
    """It meant the same before: an upgrade goes on from it."""
    assert heartbeats.RECONCILED == TICK_RECONCILE
    assert timedelta(hours=24) < reconciled.LATE_AFTER
