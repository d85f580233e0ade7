"""`maewol prune` and `maewol archive`: what is old leaves the book, and stays provable."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from billing.cli.given import Commands
from billing.cli.output import show

app = Commands(help="Events that were moved into files.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Move events older than RETENTION_MONTHS into ARCHIVE_DIR, and forget hosts that are gone."""
    from billing.cli.commands import _open_house
    from billing.services import prune as use_case

    with _open_house() as opened:
        months, folder = opened.settings.retention_months, opened.settings.archive_dir
        if dry_run:
            events = use_case.would_prune(opened.book, opened.policy, months)
            show({"events": events, "folder": folder and str(folder)}, as_json=as_json)
            return
        show(asdict(use_case.prune(opened.book, opened.policy, months, folder)), as_json=as_json)


@app.command("verify")
def verify_(folder: Path, as_json: Json = False) -> None:
    """Is every archive there, whole, and made of what this book has sealed?"""
    from billing.cli.commands import _open_house
    from billing.services.archive_events import verify

    with _open_house() as opened:
        problems = [
            {"file": name, "problem": problem} for name, problem in verify(opened.book, folder)
        ]
    show(problems, as_json=as_json)
    if problems:
        raise typer.Exit(1)
