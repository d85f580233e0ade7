"""The month's report as one HTML file: no script, nothing loaded from anywhere, made for paper."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import accumulate
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import billing
from billing.domain.month_figures import share
from billing.presenting import charts
from billing.presenting.formats import Formats
from billing.presenting.texts import Texts
from billing.services.report import MonthFigures, MonthReport

# As wide as a page of A4 between its margins.
_WIDTH, _HEIGHT = 720, 240


def page(report: MonthReport, t: Texts, zone: ZoneInfo) -> str:
    """The file's text."""
    f = Formats(t, zone)
    return (
        _environment()
        .get_template("month_report.html")
        .render(
            t=t,
            f=f,
            report=report,
            now=report.figures,
            before=report.before,
            share=share,
            style=Markup(_style()),  # noqa: S704 - a file of ours
            pictures={name: Markup(svg) for name, svg in _pictures(report, f)},  # noqa: S704
            version=billing.__version__,
        )
    )


def _pictures(report: MonthReport, f: Formats) -> Iterator[tuple[str, str]]:
    t, now, before = f.t, report.figures, report.before
    days = charts.bars(f, _WIDTH, _HEIGHT)
    charts.label(days, [str(day.on.day) for day in now.days], every=5)
    days.add(t("money.collected"), [day.collected.won for day in now.days])
    days.add(t("money.given_back"), [day.refunded.won for day in now.days])
    yield "days", charts.draw(days, "days")
    months = charts.lines(f, _WIDTH, _HEIGHT)
    longest = max(len(now.days), len(before.days))
    charts.label(months, [str(day) for day in range(1, longest + 1)], every=5)
    for month in (now, before):
        months.add(f.month(month.first_day), _so_far(report, month, f))
    yield "so_far", charts.draw(months, "so-far")


def _so_far(report: MonthReport, month: MonthFigures, f: Formats) -> list[int]:
    """Won from the first of the month on, to the day of the report."""
    ends = report.made_at.astimezone(f.zone).date()
    return list(accumulate(day.collected.won for day in month.days if day.on <= ends))


@cache
def _style() -> str:
    name = "month_report.css"
    return files("billing.presenting").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("billing.presenting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
