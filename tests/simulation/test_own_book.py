"""A merchant's own book, taken on for a while: what it has been through is no breach."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from billing import logs
from billing.cli import main, simulating
from billing.domain.policy import BillingPolicy
from billing.sandbox import mood
from billing.services.archive_events import archive_next, remove_archived
from billing.services.change_status import cancel, pause, resume
from billing.services.inquire import inquire
from billing.services.invariants import broken
from billing.services.refund import propose, request, work_on
from billing.services.seal_events import seal_events
from billing.settings import Settings
from billing.simulation import evidence, rescue
from billing.simulation.cast import OwnBook
from billing.simulation.run import Report, Scenario, simulate
from billing.store.session import Book, create_book_engine
from tests.builders import query
from tests.conftest import MovedClock
from tests.simulation.bugs import BUGS
from tests.town import Town, seoul, uid

Span = tuple[datetime, datetime]


@pytest.fixture
def town(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> Town:
    return Town(book, make_policy(canary_charges=0), clock)


def given_back(town: Town, merchant_uid: str) -> None:
    async def refunded(client: Any) -> None:
        proposal = await propose(town.book, client, town.policy, merchant_uid)
        refund_id = await asyncio.to_thread(request, town.book, proposal, "asked for")
        await work_on(town.book, client, town.policy, refund_id)

    town.run(refunded)


def lived(town: Town) -> None:
    """A month in which everything happened that can: by subscriber, what became of him."""
    town.at("2026-11-20 10:00").subscribe(9)
    does = {
        1: ["declined:0031"],  # waits for his next try
        2: ["declined:0031", "ok"],  # paid by the second
        3: ["declined:0011"],  # suspended
        4: ["declined:0031"] * 8,  # declined to the end
        5: ["ok"],  # given back
        6: ["ok"],
    }
    scripts = [{"customers": uid(number), "does": steps} for number, steps in does.items()]
    town.sandbox.mood = mood({"scripts": scripts})
    town.charge()
    town.move(minutes=1)
    town.close()
    pause(town.book, town.policy, uid(6))
    cancel(town.book, town.policy, uid(7))
    ((paid,),) = query(
        town.book,
        "SELECT merchant_uid FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
        " WHERE c.subscription_id = 5 AND a.status = 'approved'",
    )
    given_back(town, paid)
    town.at("2026-11-21 10:00")
    due = "SELECT id FROM attempts WHERE status = 'due'"
    assert query(town.book, due) != []
    town.charge()
    # One whose answer is still missing, and two who registered late in the month.
    town.at("2026-11-24 10:00").subscribe(2, paid="2026-10-24 14:30", first=20)
    town.wire.faults["/again"] = "lost"
    town.charge()
    town.wire.faults.clear()
    ids = [one for (one,) in query(town.book, "SELECT id FROM attempts WHERE status = 'unknown'")]
    assert ids
    town.run(lambda client: inquire(town.book, client, town.policy, ids[:1]))


def taken_on(
    town: Town, url: str, engine: Engine, months: float, outages: Sequence[Span] = ()
) -> Report:
    source = create_book_engine(url)
    scenario = Scenario(
        seed=1,
        months=months,
        chaos=False,
        start=town.clock.now,
        # Nothing else befalls those whom an outage is played for.
        trouble=0.0 if outages else None,
        outages=outages,
    )
    try:
        return simulate(scenario, engine, settings=Settings.load(), cast=OwnBook(source))
    finally:
        source.dispose()


def test_a_book_that_has_lived_breaks_nothing(
    town: Town, database_url: str, engine: Engine
) -> None:
    lived(town)
    before = query(town.book, "SELECT count(*), max(id) FROM events")
    report = taken_on(town, database_url, engine, months=1.2)
    assert report.breaches == []
    assert report.figures["charges"] > 5
    # Of those who go on, each has paid December.
    assert {row.month.isoformat()[:7] for row in report.months} >= {"2026-12"}
    assert query(town.book, "SELECT count(*), max(id) FROM events") == before, "it was only read"


def test_what_happened_a_moment_before_is_history_too(
    town: Town, database_url: str, engine: Engine
) -> None:
    """A refusal and a refund, and the run begins at once."""
    town.at("2026-11-20 10:00").subscribe(2)
    town.sandbox.mood = mood({"scripts": [{"customers": uid(1), "does": ["declined:0031"]}]})
    assert town.charge() == {"declined": 1, "approved": 1}
    ((paid,),) = query(town.book, "SELECT merchant_uid FROM attempts WHERE status = 'approved'")
    given_back(town, paid)
    assert query(town.book, "SELECT status FROM cycles ORDER BY id") == [("open",), ("refunded",)]
    assert taken_on(town, database_url, engine, months=1.2).breaches == []


def test_a_book_whose_old_events_moved_into_archives_breaks_nothing(
    town: Town, database_url: str, engine: Engine, tmp_path: Path
) -> None:
    town.at("2026-11-20 10:00").subscribe(2)
    town.sandbox.mood = mood({"scripts": [{"customers": uid(1), "does": ["declined:0031", "ok"]}]})
    town.charge()
    town.at("2026-11-21 10:00").charge()
    for number in (1, 2):
        # Of two seals one may be archived.
        pause(town.book, town.policy, uid(number))
        resume(town.book, town.policy, uid(number))
        for _ in range(2):
            town.move(minutes=2)
            seal_events(town.book)
    assert archive_next(town.book, tmp_path, town.clock.now) > 0
    assert remove_archived(town.book, tmp_path, lambda: True) > 0
    assert broken(town.book, town.policy) == []
    report = taken_on(town, database_url, engine, months=1.2)
    assert report.breaches == []
    assert report.figures["charges"] == 2


@pytest.mark.parametrize(
    ("until", "ended"), [("2026-11-28", "missed (declined)"), ("2026-11-24", "paid")]
)
def test_a_retry_that_an_outage_kept_back_is_told_of(
    town: Town, database_url: str, engine: Engine, until: str, ended: str
) -> None:
    town.at("2026-11-20 10:00").subscribe(1)
    town.sandbox.mood = mood({"scripts": [{"customers": uid(1), "does": ["declined:0031"]}]})
    assert town.charge() == {"declined": 1}
    down = [(seoul("2026-11-21 00:00"), seoul(f"{until} 00:00"))]
    report = taken_on(town, database_url, engine, months=0.4, outages=down)
    first, retry = report.evidence.attempts
    # Two tries of one month.
    again = replace(report.evidence, attempts=[first, retry, {**retry, "number": 3}])
    for evidence_of_it in (report.evidence, again):
        lost, saved = rescue.affected(evidence_of_it, down)
        told = [(one.customer_uid, f"{one.month:%Y-%m}", one.ended) for one in (*lost, *saved)]
        assert told == [(uid(1), "2026-11", ended)]
        assert (lost == []) == (ended == "paid")


def test_what_a_book_calls_declined_in_the_run_is_judged(
    town: Town, database_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge did not become blind: a decline of this run must have been refused."""
    lived(town)
    real = evidence._asked
    monkeypatch.setattr(
        evidence,
        "_asked",
        lambda *seen: _unrefused(real(*seen)),
    )
    report = taken_on(town, database_url, engine, months=1.2)
    assert {breach.rule for breach in report.breaches} >= {"I5"}


def _unrefused(asked: Any) -> Any:
    refused = asked.outcome.startswith("declined")
    return replace(asked, outcome="paid") if refused else asked


@pytest.mark.timeout(300)
def test_what_would_go_wrong_with_a_book_is_told_as_a_story(
    town: Town,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    town.at("2026-11-20 10:00").subscribe(2)
    (bug,) = [one for one in BUGS if one.name == "amount rounded"]
    wanted = ["--book", "--months", "2", "--start", "2026-11-20"]
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(simulating, "_SHRINK_SECONDS", 4)
    monkeypatch.setenv("MAEWOL_DATABASE_URL", database_url)
    monkeypatch.setattr(sys, "argv", ["maewol", "simulate", *wanted])
    with bug.plant(), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "How I3 was broken" in told
    assert "gateway  charge" in told
    # Half the months show it, too; the people of a book are all taken.
    assert "Again: maewol simulate --seed 1 --months 1 --book --start" in told
