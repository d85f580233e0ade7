"""Pictures of the figures, drawn on the server; each page has the same numbers as a table beneath.

Pygal draws them: no script, no build step, and text in any language by the reader's own fonts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum, auto
from typing import Annotated, Any, Final, Literal

# Pygal ships no annotations.
import pygal  # type: ignore[import-untyped]
from fastapi import APIRouter, Query, Request
from pygal.style import Style  # type: ignore[import-untyped]
from starlette.responses import Response

from billing.services.outlook import outlook
from billing.web.console import money
from billing.web.console.door import Room
from billing.web.console.forecast import Weeks
from billing.web.console.formats import Formats
from billing.web.edge import Edge, TheEdge
from billing.web.texts import Texts, texts_for

# It hooks itself into every import, for maps that we do not draw; Python 3.11 then warns of each
# module that is not there.
sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, pygal.PluginImportFixer)]

router = APIRouter(route_class=Room, include_in_schema=False)

# Opened by itself, a picture may use its own style and nothing else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_FONTS = "system-ui, 'Apple SD Gothic Neo', 'Malgun Gothic', 'Noto Sans KR', sans-serif"
_SIZES: Final = {"wide": (1040, 300), "narrow": (360, 260)}


class Chart(StrEnum):
    DAYS = auto()
    MONTHS = auto()
    HOURS = auto()
    AHEAD = auto()


Theme = Annotated[Literal["light", "dark"], Query()]
Size = Annotated[Literal["wide", "narrow"], Query()]


@router.get("/charts/{chart}.svg")
def chart(
    request: Request,
    edge: TheEdge,
    chart: Chart,
    theme: Theme = "light",
    size: Size = "wide",
    weeks: Weeks = 4,
) -> Response:
    t = texts_for(request)
    canvas = _canvas(theme, size, Formats(t, edge.settings.zone))
    match chart:
        case Chart.DAYS:
            _days(canvas, request, edge, t)
        case Chart.MONTHS:
            _months(canvas, request, edge, t, every=1 if size == "wide" else 2)
        case Chart.HOURS:
            _hours(canvas, request, edge, t)
        case Chart.AHEAD:
            _ahead(canvas, edge, t, weeks)
    return Response(
        canvas.render(disable_xml_declaration=True),
        media_type="image/svg+xml",
        headers={"Content-Security-Policy": _POLICY},
    )


def _days(canvas: Any, request: Request, edge: Edge, t: Texts) -> None:
    days = money.figures_of(edge, money.span_asked(request, edge)).days
    _label(canvas, [str(day.on.day) for day in days], every=5)
    canvas.add(t("money.collected"), [day.won for day in days])
    canvas.add(t("money.given_back"), [day.refunded_won for day in days])


def _months(canvas: Any, request: Request, edge: Edge, t: Texts, every: int) -> None:
    months = money.by_month(edge, money.span_asked(request, edge))
    _label(canvas, [f"{month.on:%Y-%m}" for month in months], every)
    canvas.add(t("money.collected"), [month.won for month in months])
    canvas.add(t("money.given_back"), [month.refunded_won for month in months])


def _hours(canvas: Any, request: Request, edge: Edge, t: Texts) -> None:
    hours = money.figures_of(edge, money.span_asked(request, edge)).hours
    _label(canvas, [f"{one.hour:02d}" for one in hours], every=3)
    canvas.add(t("money.approved"), [one.approved for one in hours])
    canvas.add(t("money.declined"), [one.declined for one in hours])


def _ahead(canvas: Any, edge: Edge, t: Texts, weeks: int) -> None:
    days = outlook(edge.book, edge.policy, weeks * 7)
    _label(canvas, [f"{day.on:%m-%d}" for day in days], every=7)
    canvas.add(t("forecast.won"), [day.charges.won for day in days])


def _label(canvas: Any, labels: Sequence[str], every: int) -> None:
    canvas.x_labels = labels
    canvas.x_labels_major = labels[::every]


def _canvas(theme: str, size: str, f: Formats) -> Any:
    width, height = _SIZES[size]
    canvas = pygal.StackedBar(
        style=_style(theme),
        js=[],
        width=width,
        height=height,
        margin=6,
        spacing=14,
        explicit_size=True,
        no_prefix=True,
        legend_at_bottom=True,
        legend_box_size=12,
        show_minor_x_labels=False,
        truncate_label=-1,
        truncate_legend=-1,
        max_scale=6,
        min_scale=2,
        include_x_axis=True,
        no_data_text=f.t("common.nothing"),
        value_formatter=lambda value: f.number(round(value)),
    )
    canvas.add_xml_filter(_without_scripts)
    return canvas


def _without_scripts(root: Any) -> Any:
    """Pygal leaves its settings for a script that we do not use."""
    for parent in list(root.iter()):
        for child in list(parent):
            if str(child.tag).endswith("script"):
                parent.remove(child)
    return root


def _style(theme: str) -> Style:
    dark = theme == "dark"
    text, line = ("#e4e7eb", "#4a5058") if dark else ("#22272e", "#c9ced6")
    return Style(
        background="transparent",
        plot_background="transparent",
        foreground=text,
        foreground_strong=text,
        foreground_subtle=line,
        guide_stroke_color=line,
        major_guide_stroke_color=line,
        guide_stroke_dasharray="2,3",
        major_guide_stroke_dasharray="2,3",
        colors=("#5aa9e6", "#f0a35e") if dark else ("#1f6fb2", "#c2600c"),
        opacity="1",
        opacity_hover="1",
        transition="none",
        font_family=_FONTS,
        label_font_size=13,
        major_label_font_size=13,
        legend_font_size=13,
        no_data_font_size=16,
    )
