"""Cells that came from outside, in the files of a month."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.money import Sum
from billing.presenting import month_files
from billing.services.report import Day


def a_charge(customer_uid: str) -> SimpleNamespace:
    return SimpleNamespace(
        customer_uid=customer_uid,
        paid_merchant_uid="mw-abc-202611-01",
        paid_imp_uid="imp_1",
        amount=9900,
        paid_at=datetime(2026, 11, 30, 14, 59, tzinfo=UTC),
        attempts=1,
        number=1,
        status="paid",
        reason=None,
    )


@pytest.mark.parametrize(
    "uid", ["=1+1", "+82101234", "-cmd", "@SUM(A1)", "＝1", " =1", "\t=1", '=HYPERLINK("x")']
)
def test_no_cell_is_a_formula(uid: str) -> None:
    text = "".join(month_files.charges([[a_charge(uid)]], SEOUL)).removeprefix("\ufeff")
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["customer_uid"].startswith("'")


def test_a_charge_as_a_line() -> None:
    text = "".join(month_files.charges([[a_charge('a,"b"')]], SEOUL))
    assert text.splitlines()[1] == (
        '"a,""b""","mw-abc-202611-01","imp_1",9900,"2026-11-30T23:59:00+09:00",1,1,"paid",""'
    )
    assert text.startswith("\ufeff"), "by which Excel knows the encoding"


def test_a_net_loss_is_a_number() -> None:
    day = Day(date(2026, 11, 3), Sum(), Sum(1, 9900), Sum())
    assert "".join(month_files.days([day])).splitlines()[1] == '"2026-11-03",0,0,1,9900,-9900,0,0'


def test_names_of_files() -> None:
    assert month_files.name(date(2026, 11, 1), "-days.csv") == "maewol-report-2026-11-days.csv"
