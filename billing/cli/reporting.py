"""`maewol report`: a month on paper, in spreadsheets, as a document for programs."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from billing.cli.given import Commands
from billing.cli.output import err, say, show

if TYPE_CHECKING:
    from billing.bootstrap import House
    from billing.services.report import MonthReport

app = Commands()


class Tongue(StrEnum):
    """The languages of the report."""

    KO = "ko"
    EN = "en"


@app.command("report")
def report_(
    month: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m"], help="Default: the last that is over.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write HTML and CSV files into it.")
    ] = None,
    lang: Annotated[Tongue, typer.Option(help="Of the HTML file.")] = Tongue.EN,
    proofs: Annotated[
        Path | None,
        typer.Option("--proof", exists=True, file_okay=False, help="Default: PROOF_DIR."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """A month for people who keep books: money, outcomes, losses, and the proofs that cover it."""
    from billing.cli.commands import _open_house
    from billing.domain.month_figures import Verdict
    from billing.presenting.month_document import document
    from billing.services import report as use_case

    with _open_house() as opened:
        first_day = month.date() if month else _last_month(opened)
        folder = proofs or opened.settings.proof_dir
        made = use_case.report(opened.book, opened.policy, first_day, folder)
        found = document(made, opened.policy.plan.zone)
        written = _write(opened, made, out, lang) if out is not None else []
    if as_json:
        show(found | {"files": [str(path) for path in written]}, as_json=True)
    else:
        show(_shown(found), as_json=False)
        for path in written:
            say(str(path))
    if made.verdict is Verdict.DISAGREE:
        err.print("maewol: book and proofs do not agree; see the report", markup=False)
        raise typer.Exit(1)


def _last_month(house: House) -> date:
    from billing.domain.refund import month_before, month_of

    return house.book.run(lambda tx: month_before(month_of(tx.now, house.policy.plan.zone)))


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    """What fits a terminal; everything is in the files and in `--json`."""
    return {
        "month": found["month"] + ("" if found["over"] else " (not over)"),
        **{name: found[name] for name in ("collected", "refunded", "net_won")},
        **{name: part for name, part in found["cycles"].items() if part["count"]},
        "unknowns": found["unknowns"],
        "gained": found["subscribers"]["gained"],
        "lost": found["subscribers"]["lost"],
        "proofs": found["proofs"]["verdict"],
    }


def _write(house: House, made: MonthReport, out: Path, lang: Tongue) -> list[Path]:
    from billing.presenting import month_files, month_page
    from billing.presenting.texts import Texts
    from billing.services import report as use_case

    zone, first_day = house.policy.plan.zone, made.figures.first_day
    charges = use_case.charges(house.book, house.policy, first_day)
    parts: dict[str, Iterable[str]] = {
        ".html": [month_page.page(made, Texts(lang.value), zone)],
        "-days.csv": month_files.days(made.figures.days),
        "-declines.csv": month_files.declines(made.codes, made.other_texts),
        "-lost.csv": month_files.lost(made.figures.outcomes.lost),
        "-charges.csv": month_files.charges(charges, zone),
    }
    out.mkdir(parents=True, exist_ok=True)
    return [_whole(out / month_files.name(first_day, what), text) for what, text in parts.items()]


def _whole(path: Path, text: Iterable[str]) -> Path:
    """Write a file whole or not at all; only its owner may read it, until somebody else should."""
    handle, rough = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.writelines(text)
        Path(rough).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(rough).unlink()
        raise
    return path
