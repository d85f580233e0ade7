"""The demo: played for real once, and its judges, who must be able to find fault."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from billing.cli import demo
from billing.cli.demo import story
from billing.cli.demo.cast import (
    ENDS_AT,
    KINDS,
    STARTS_AT,
    Ending,
    Member,
    Trouble,
    faults,
    members,
)
from billing.cli.demo.reckoning import Reckoning, reckon
from billing.cli.demo.view import View
from billing.cli.demo.watch import Month, Snapshot
from billing.domain.calendar import SEOUL, cycle_dates, first_cycle
from billing.sandbox import mood
from billing.sandbox.world import NewCustomer
from tests import heard


@pytest.mark.timeout(300)
def test_it_ends_by_itself_with_every_month_as_it_should_be_and_nothing_left_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert demo.run(10) == 0

    told = capsys.readouterr().out
    assert "How the month ended" in told
    assert "double charges" in told
    assert told.endswith("is stopped, and its addresses answer no more.\n")
    # It took longer than the ten seconds: nobody is sent to what is about to be stopped.
    assert "runs on" not in told
    assert told.count("travel in time") == 1, "only when it was ready"
    _nothing_is_left_of(told)


@pytest.mark.timeout(200)
def test_ctrl_c_stops_everything_that_it_started() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "DEMO_SECONDS"}
    with subprocess.Popen(
        [sys.executable, "-m", "billing.cli", "demo"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            told = heard.until(process.stdout, "log: ")
            process.send_signal(signal.SIGINT)
            told += process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 1, told
    assert "It did not reach its end: it was asked to stop." in told
    assert told.endswith("is stopped, and its addresses answer no more.\n")
    assert "runs on" not in told
    _nothing_is_left_of(told)


def test_addresses_are_told_while_they_answer(capsys: pytest.CaptureFixture[str]) -> None:
    stage: Any = SimpleNamespace(
        web_port=1, flower_port=2, flower_password="x", log="log", sandbox=SimpleNamespace(url="u")
    )
    asked = threading.Event()
    with View() as view:
        demo._stay(stage, view, asked, 0.5)
        assert capsys.readouterr().out == ""
        threading.Timer(0.2, asked.set).start()
        demo._stay(stage, view, asked, 60)
        told = capsys.readouterr().out
        demo._stay(stage, view, asked, None)
        assert capsys.readouterr().out == ""
    assert "Everything runs on for another 60 s" in told
    assert "http://127.0.0.1:1/checkout" in told


def _nothing_is_left_of(told: str) -> None:
    """No process, neither a child nor a server that went its own way, and no folder."""
    found = re.search(r"log: (.+)/log", told)
    assert found, told
    folder = Path(found[1])
    deadline = time.monotonic() + 10
    while (left := _processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert not folder.exists()


def _processes_in(folder: Path) -> list[str]:
    found = []
    for one in psutil.process_iter():
        try:
            place = " ".join([*one.cmdline(), one.cwd()])
        except psutil.Error:
            continue
        if str(folder) in place:
            found.append(place)
    return found


@pytest.mark.parametrize("one", members(), ids=lambda one: one.customer_uid)
def test_the_month_of_every_member_lies_in_the_story_as_its_ending_says(one: Member) -> None:
    number = first_cycle(one.anchor_on, STARTS_AT, one.last_paid_on)
    dates = cycle_dates(one.anchor_on, number)
    first, last = STARTS_AT.astimezone(SEOUL).date(), ENDS_AT.astimezone(SEOUL).date()
    assert (first <= dates.first_attempt_on < last) == (one.kind.ending is not Ending.NOT_DUE)


def test_the_sandbox_takes_everybody_and_all_their_troubles() -> None:
    found = mood(json.loads(json.dumps(faults())))
    for one in members():
        customer = NewCustomer.model_validate(one.as_customer())
        assert customer.paid_at < STARTS_AT
        assert bool(found.scripted(one.customer_uid, 1)) == one.kind.trouble.strikes_once
        assert found.scripted(one.customer_uid, 2) is None
    assert {kind.trouble for kind in KINDS} == set(Trouble)


def test_a_clean_story_is_found_clean() -> None:
    assert _reckoned().is_clean


def test_a_double_charge_is_found() -> None:
    cast, months, payments = _a_clean_story()
    twin = {**payments[0], "merchant_uid": "another"}
    found = reckon(cast, months, [*payments, twin], [], [])
    assert found.doubles == 1
    assert not found.is_clean


def test_another_amount_is_found() -> None:
    cast, months, payments = _a_clean_story()
    payments[0]["amount"] += 1
    assert not reckon(cast, months, payments, [], []).is_clean


def test_a_payment_that_the_book_does_not_know_is_found() -> None:
    cast, months, payments = _a_clean_story()
    uid = cast[0].customer_uid
    unpaid = dataclasses.replace(months[uid], cycle="missed", merchant_uid=None)

    found = reckon(cast, {**months, uid: unpaid}, payments, [], [])

    assert found.wrong == [uid]
    assert not found.is_clean


def test_a_complaint_of_the_sandbox_is_enough() -> None:
    assert not _reckoned(complaints=["outside: asked on 2027-02-01"]).is_clean


def test_somebody_who_was_forgotten_is_found() -> None:
    cast, months, payments = _a_clean_story()
    uid = cast[0].customer_uid
    forgotten = {name: month for name, month in months.items() if name != uid}
    assert uid in reckon(cast, forgotten, payments, [], []).wrong


def test_requests_are_counted_as_the_sandbox_saw_them() -> None:
    uid = _a_clean_story()[0][0].customer_uid
    assert _reckoned(charges=[{"customer_uid": uid}] * 2).requests == {uid: 2}


CALM = Snapshot(
    at=STARTS_AT,
    cycles={},
    attempts={},
    suspended=0,
    hold=None,
    busy=False,
    stranded=False,
    next_at=None,
)


@pytest.mark.parametrize(
    ("snapshot", "quiet_for", "left", "told"),
    [
        (CALM, 0, 1, None),
        (CALM, 0, None, None),
        (CALM, 119, 1, None),
        (CALM, 121, 1, "nothing has happened for 120 s"),
        (CALM, 0, -1, "it was still not over"),
        (dataclasses.replace(CALM, hold="declines pile up"), 0, 1, "declines pile up"),
    ],
)
def test_when_the_story_is_given_up(
    snapshot: Snapshot, quiet_for: float, left: float | None, told: str | None
) -> None:
    now = 1000.0
    found = story._given_up(snapshot, now, now - quiet_for, None if left is None else now + left)
    assert found is None if told is None else told in (found or "")


def _reckoned(
    charges: Sequence[Mapping[str, Any]] = (), complaints: Sequence[str] = ()
) -> Reckoning:
    cast, months, payments = _a_clean_story()
    return reckon(cast, months, payments, charges, complaints)


def _a_clean_story() -> tuple[Sequence[Member], Mapping[str, Month], list[dict[str, Any]]]:
    cast = [one for one in members() if one.kind.ending is Ending.PAID][:3]
    months = {
        one.customer_uid: Month("active", None, "paid", f"mw-{number}", one.amount)
        for number, one in enumerate(cast)
    }
    payments = [
        {
            "customer_uid": one.customer_uid,
            "merchant_uid": f"mw-{number}",
            "amount": one.amount,
            "status": "paid",
            "origin": "again",
            "paid_at": int(STARTS_AT.timestamp()) + 60,
        }
        for number, one in enumerate(cast)
    ]
    return cast, months, payments
