"""The simulation itself: seeds that must hold, the same twice, and what the command line says."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from billing import logs
from billing.cli import main
from billing.domain.calendar import SEOUL
from billing.settings import Settings
from billing.simulation import campaign, story
from billing.simulation.ledger_judge import Breach
from billing.simulation.run import Scenario, simulate
from billing.simulation.swarm import KINDS, drawn, mood_of
from tests import heard
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.planted import hunt

SMALL = Scenario(seed=0, months=1.2, subscribers=6)
# A few: `make simulate` runs a thousand, each of a whole year.
SEEDS = range(1, 9)


@pytest.mark.timeout(300)
def test_a_few_seeds_hold(engine: Engine) -> None:
    broken: dict[int, list[Breach]] = {}
    charges = faults = 0
    for seed in SEEDS:
        report = simulate(replace(SMALL, seed=seed), engine, settings=Settings.load())
        charges += report.figures["charges"]
        faults += report.figures["faults"]
        if report.breaches:
            broken[seed] = report.breaches[:3]
    assert broken == {}
    # More than one for each subscriber, so that something was at stake, and much went wrong.
    assert charges > SMALL.subscribers * len(SEEDS)
    assert faults > 300


@pytest.mark.timeout(300)
def test_processes_share_no_server_and_nothing_else_happens_on_one() -> None:
    """Where equal rows lie would depend on what another process has open, or on the vacuum."""
    told: list[str] = []
    short = replace(SMALL, months=0.2)
    scenarios = [replace(short, seed=seed) for seed in (1, 2, 3)]
    verdicts = list(
        campaign.run_seeds(scenarios, Settings.load(), processes=2, announce=told.append)
    )
    assert sorted(verdict.scenario.seed for verdict in verdicts) == [1, 2, 3]
    assert not any(verdict.breaches for verdict in verdicts)
    assert len({line for line in told if line.startswith("Making a private PostgreSQL")}) == 2
    with campaign.one_database(told.append) as engine, engine.connect() as connection:
        assert connection.execute(text("SHOW autovacuum")).scalar_one() == "off"


@pytest.mark.timeout(300)
def test_a_seed_is_one_run_bit_for_bit(engine: Engine) -> None:
    scenario = replace(SMALL, seed=21)
    first, second = (simulate(scenario, engine, settings=Settings.load()) for _ in range(2))
    other = simulate(replace(scenario, twist=1), engine, settings=Settings.load())
    assert first.digest == second.digest
    assert first.digest != other.digest


def test_a_store_in_test_mode_has_a_sandbox_in_test_mode(engine: Engine) -> None:
    scenario = replace(SMALL, seed=3, settings={"include_sandbox": True})
    report = simulate(scenario, engine, settings=Settings.load())
    assert report.breaches == []
    assert report.figures["charges"] > 3


@contextmanager
def housekeeping(engine: Engine) -> Iterator[None]:
    """What PostgreSQL does at moments of its own, and more: old snapshots that keep dead rows where
    they are, and vacuums that make room for new ones."""
    over = threading.Event()

    def work() -> None:
        turn = random.Random(1)
        free = create_engine(engine.url, isolation_level="AUTOCOMMIT")
        with free.connect() as sweeping, engine.connect() as reading:
            while not over.is_set():
                with reading.begin():
                    reading.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
                    reading.execute(text("SELECT count(*) FROM attempts"))
                    over.wait(turn.uniform(0, 0.3))
                sweeping.execute(text("VACUUM (TRUNCATE false) subscriptions, cycles, attempts"))
                over.wait(turn.uniform(0, 0.1))
        free.dispose()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


@pytest.mark.timeout(300)
def test_where_the_database_keeps_its_rows_does_not_matter(engine: Engine) -> None:
    scenario = replace(SMALL, seed=22, subscribers=12, months=0.4)
    quiet = simulate(scenario, engine, settings=Settings.load())
    with housekeeping(engine):
        disturbed = simulate(scenario, engine, settings=Settings.load())
    assert quiet.digest == disturbed.digest


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        "claim after the request was sent",
        "record without the fence",
        "one early 404 believed",
        "new merchant_uid after a time-out",
        "amount rounded",
        "UTC days for Korean days",
    ],
)
def test_a_planted_bug_is_found(engine: Engine, name: str) -> None:
    """Some of them here; all of them by `make planted`."""
    (bug,) = [one for one in BUGS if one.name == name]
    found = hunt(bug, engine)
    assert found.breach is not None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_still_be_planted(bug: Bug) -> None:
    """Whatever it changes is still there to be changed; whether it is found, others tell."""
    with bug.plant():
        pass


def test_planted_bugs_are_enough_and_named_once() -> None:
    names = [bug.name for bug in BUGS]
    assert len(names) >= 30
    assert len(set(names)) == len(names)


@pytest.mark.timeout(300)
def test_a_failure_is_made_small_and_told(engine: Engine) -> None:
    (bug,) = [one for one in BUGS if one.name == "amount rounded"]
    with bug.plant():
        report = simulate(replace(SMALL, seed=3), engine, settings=Settings.load())
        assert report.breaches
        failure = story.made_small(
            report, lambda small: simulate(small, engine, settings=Settings.load()), seconds=6
        )
    told = "\n".join(story.told(failure))
    assert failure.breach.rule == report.breaches[0].rule
    assert "attempt.sending" in told
    assert len(failure.report.evidence.anchors) <= 6
    assert f"--seed {report.scenario.seed}" in story.command(failure.report.scenario)


def test_every_kind_of_fault_is_drawn_and_can_be_left_out() -> None:
    dice = random.Random(1)
    swarms = [drawn(dice) for _ in range(200)]
    seen = {kind for swarm in swarms for kind in swarm.rates}
    assert seen == set(KINDS)
    for swarm in swarms:
        assert all(rate > 0 for rate in swarm.rates.values())
        some = frozenset(list(swarm.rates)[:3])
        assert not some & set(swarm.without(some).rates)
        assert sum(mood_of(swarm, dice)["chances"]["charge"].values()) <= 1


@pytest.mark.timeout(120)
def test_an_outage_over_the_close_loses_months_and_says_which(engine: Engine) -> None:
    begins = datetime(2026, 11, 4, tzinfo=SEOUL)
    scenario = Scenario(
        seed=5,
        months=1,
        subscribers=8,
        chaos=False,
        trouble=0.0,
        start=datetime(2026, 11, 1, tzinfo=SEOUL),
        outages=((begins, begins + timedelta(days=20)),),
    )
    report = simulate(scenario, engine, settings=Settings.load())
    assert report.breaches == []
    with engine.connect() as connection:
        lost = connection.execute(
            text("SELECT count(*) FROM cycles WHERE reason = 'not_attempted'")
        ).scalar_one()
    ends = {month.status for month in report.evidence.months}
    assert ends <= {"paid", "missed", "open"}
    assert report.sometimes["missed: not_attempted"] == lost


@pytest.mark.timeout(300)
def test_the_command_line(tmp_path: Path) -> None:
    arguments = ["--months", "1", "--subscriptions", "5", "--start", "2026-11-01", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "billing.cli", "simulate", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is True
    assert document["cycles"]["paid"] == document["ledger"]["payments"]
    assert document["won_collected"] == document["ledger"]["won"]
    assert next(one["month"] for one in document["months"]) == "2026-11"


@pytest.mark.parametrize("wrong", [("--set", "NO_SUCH=1"), ("--outage", "tomorrow"),
                                   ("--start", "soon")], ids=lambda wrong: wrong[0])  # fmt: skip
def test_a_wrong_call(
    wrong: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["maewol", "simulate", *wrong])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert wrong[1] in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--seeds", "3"), ("--only", "1,2")], ids=lambda wrong: wrong[0])
def test_what_is_for_drawn_people_is_refused_beside_a_book(
    wrong: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would run for people that the seed draws, or for all of the book, without a word."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(campaign, "run_seeds", lambda *_, **__: iter(()))
    monkeypatch.setattr(sys, "argv", ["maewol", "simulate", "--book", *wrong])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


# Tests that run in a shell's background are started with Ctrl-C ignored, and hand that on to
# whatever they start.
AT_A_TERMINAL = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "runpy.run_module('billing.cli', run_name='__main__')"
)


@pytest.mark.timeout(300)
def test_many_seeds_are_summed_up_when_they_are_stopped_by_hand(tmp_path: Path) -> None:
    arguments = ["--chaos", "--seeds", "500", "--months", "0.3", "--subscriptions", "2", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, "simulate", *arguments, "--processes", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # Ctrl-C reaches all processes of a group.
        start_new_session=True,
    ) as running:
        try:
            heard.until(running.stderr, "10 of 500 seeds")
            os.killpg(running.pid, signal.SIGINT)
            printed, rest = running.communicate(timeout=60)
        finally:
            running.kill()
    summary = json.loads(printed)
    assert 10 <= summary["seeds"] < 500
    assert summary["failed"] == []
    assert f"Stopped by hand after {summary['seeds']} of 500 seeds" in rest
    assert "Traceback" not in rest
    # Not everything that was asked for was run.
    assert running.returncode == 1
