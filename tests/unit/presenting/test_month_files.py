"""Cells that came from outside, in the files of a month."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest

from billing.domain.calendar import SEOUL
from billing.domain.money import Sum
from billing.domain.month_figures import Unpaid
from billing.presenting import month_files
from billing.services.report import CodeCount, Day


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


def test_declines_add_up_also_beyond_what_was_read() -> None:
    codes = [CodeCount("not_today", "0098", 7), CodeCount("unknown", None, 2)]
    lines = "".join(month_files.declines(codes, 3)).splitlines()[1:]
    assert lines == ['"not_today","0098",7', '"unknown","",2', '"","",3']
    assert len("".join(month_files.declines(codes, 0)).splitlines()) == 3


def test_what_was_lost_by_its_reason() -> None:
    parts = [Unpaid("declined", "act", Sum(2, 19800)), Unpaid("not_attempted", None, Sum(1, 9900))]
    lines = "".join(month_files.lost(parts)).splitlines()
    assert lines[0].removeprefix("\ufeff") == '"reason","last_decline","count","won"'
    assert lines[1:] == ['"declined","act",2,19800', '"not_attempted","",1,9900']


def test_no_code_of_a_carrier_is_a_formula() -> None:
    (line,) = "".join(month_files.declines([CodeCount("x", "=1+1", 1)], 0)).splitlines()[1:]
    assert line == '"x","\'=1+1",1'


def test_names_of_files() -> None:
    assert month_files.name(date(2026, 11, 1), "-days.csv") == "maewol-report-2026-11-days.csv"
