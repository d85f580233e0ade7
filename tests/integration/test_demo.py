"""The demo: played for real once, and its judges, who must be able to find fault."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from billing.cli import demo
from billing.cli.demo import gateway
from billing.cli.demo.cast import ENDS_AT, STARTS_AT, Ending, Member, members
from billing.cli.demo.reckoning import reckon
from billing.cli.demo.watch import Month
from billing.domain.calendar import SEOUL, cycle_dates, first_cycle


@pytest.mark.timeout(300)
def test_it_ends_by_itself_with_every_month_as_it_should_be_and_nothing_left_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {one.pid for one in psutil.Process().children(recursive=True)}

    assert demo.run(10) == 0

    told = capsys.readouterr().out
    assert "How the month ended" in told
    assert "double charges" in told
    left = {one.pid for one in psutil.Process().children(recursive=True)} - before
    assert not left


def test_the_gateway_that_judges_us_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(gateway.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert imported == {
        "__future__",
        "aiohttp",
        "asyncio",
        "calendar",
        "datetime",
        "json",
        "typing",
    }


@pytest.mark.parametrize("one", members(), ids=lambda one: one.customer_uid)
def test_the_month_of_every_member_lies_in_the_story_as_its_ending_says(one: Member) -> None:
    number = first_cycle(one.anchor_on, STARTS_AT, one.last_paid_on)
    dates = cycle_dates(one.anchor_on, number)
    first, last = STARTS_AT.astimezone(SEOUL).date(), ENDS_AT.astimezone(SEOUL).date()
    assert (first <= dates.first_attempt_on < last) == (one.kind.ending is not Ending.NOT_DUE)


def test_a_clean_story_is_found_clean() -> None:
    cast, months, ledger = _a_clean_story()
    assert reckon(cast, months, ledger).is_clean


def test_a_double_charge_is_found() -> None:
    cast, months, ledger = _a_clean_story()
    twin = {**ledger["rows"][0], "merchant_uid": "another"}

    found = reckon(cast, months, {**ledger, "rows": [*ledger["rows"], twin]})

    assert found.doubles == 1
    assert not found.is_clean


def test_another_amount_is_found() -> None:
    cast, months, ledger = _a_clean_story()
    ledger["rows"][0]["amount"] += 1
    assert not reckon(cast, months, ledger).is_clean


def test_a_payment_that_the_book_does_not_know_is_found() -> None:
    cast, months, ledger = _a_clean_story()
    uid = cast[0].customer_uid
    unpaid = dataclasses.replace(months[uid], cycle="missed", merchant_uid=None)

    found = reckon(cast, {**months, uid: unpaid}, ledger)

    assert found.wrong == [uid]
    assert not found.is_clean


def test_a_complaint_of_the_gateway_is_enough() -> None:
    cast, months, ledger = _a_clean_story()
    assert not reckon(cast, months, {**ledger, "complaints": ["outside the window"]}).is_clean


def test_somebody_who_was_forgotten_is_found() -> None:
    cast, months, ledger = _a_clean_story()
    uid = cast[0].customer_uid
    forgotten = {name: month for name, month in months.items() if name != uid}
    assert uid in reckon(cast, forgotten, ledger).wrong


def _a_clean_story() -> tuple[Sequence[Member], Mapping[str, Month], dict[str, Any]]:
    cast = [one for one in members() if one.kind.ending is Ending.PAID][:3]
    months = {
        one.customer_uid: Month("active", None, "paid", 1, f"mw-{number}", one.amount)
        for number, one in enumerate(cast)
    }
    rows = [
        {
            "customer_uid": one.customer_uid,
            "merchant_uid": f"mw-{number}",
            "amount": one.amount,
            "status": "paid",
            "paid_at": int(STARTS_AT.timestamp()) + 60,
        }
        for number, one in enumerate(cast)
    ]
    return cast, months, {"rows": rows, "complaints": []}
