"""Pictures of figures as SVG: no script, and text in any language by the reader's own fonts.

Pygal draws them. Every picture stands beside a table with the same numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

# Pygal ships no annotations.
import pygal  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

from billing.presenting.formats import Formats

# It hooks itself into every import, for maps that we do not draw; Python 3.11 then warns of each
# module that is not there.
sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, pygal.PluginImportFixer)]

_FONTS = "system-ui, 'Apple SD Gothic Neo', 'Malgun Gothic', 'Noto Sans KR', sans-serif"


def bars(f: Formats, width: int, height: int, *, dark: bool = False) -> Any:
    """An empty canvas for bars that are stacked upon each other."""
    return _canvas(pygal.StackedBar, f, width, height, dark)


def lines(f: Formats, width: int, height: int) -> Any:
    """An empty canvas for lines."""
    canvas = _canvas(pygal.Line, f, width, height, dark=False)
    canvas.config.show_dots = False
    canvas.config.stroke_style = {"width": 3}
    return canvas


def label(canvas: Any, labels: Sequence[str], every: int) -> None:
    """What stands below; only each `every`th is written out."""
    canvas.x_labels = labels
    canvas.x_labels_major = labels[::every]


def draw(canvas: Any, name: str | None = None) -> str:
    """The SVG element. By a `name` of its own it is the same each time it is drawn."""
    if name is not None:
        canvas.uuid = name
    svg: str = canvas.render(disable_xml_declaration=True, is_unicode=True)
    return svg


def _canvas(kind: Any, f: Formats, width: int, height: int, dark: bool) -> Any:
    canvas = kind(
        style=_style(dark),
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
    canvas.add_xml_filter(_only_drawn)
    return canvas


def _only_drawn(root: Any) -> Any:
    """Without what Pygal leaves for a script that we do not use: settings, and names of series that
    would come twice on a page with two pictures."""
    for parent in list(root.iter()):
        if parent.get("id", "").startswith("activate-serie") or parent.get("id") == "":
            del parent.attrib["id"]
        for child in list(parent):
            if str(child.tag).endswith("script"):
                parent.remove(child)
    return root


def _style(dark: bool) -> Style:
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
