"""The commands that compare and give back: `reconcile`, `refund`, `proof verify`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from billing.cli.given import Commands
from billing.cli.output import show

app = Commands()
proof = Commands(help="Daily proofs of what both sides hold.", no_args_is_help=True)
app.add_typer(proof, name="proof")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("reconcile")
def reconcile_(
    from_: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"])],
    to: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"])],
    apply: Annotated[bool, typer.Option("--apply", help="Let the book follow.")] = False,
    proofs: Annotated[Path | None, typer.Option("--proof", file_okay=False)] = None,
    as_json: Json = False,
) -> None:
    """Every difference between the gateway's payments and the book, each with its remedy."""
    from billing.cli import comparing
    from billing.cli.commands import _open_house

    with _open_house() as opened:
        report = comparing.run(opened, from_.date(), to.date(), apply=apply, proofs=proofs)
        comparing.show_report(opened, report, as_json=as_json)
    if not report.clean:
        raise typer.Exit(1)


@app.command("refund")
def refund_(
    merchant_uid: str,
    imp_uid: Annotated[str | None, typer.Option(help="Which, of several.")] = None,
    reason: Annotated[str, typer.Option()] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Give one payment back: whole, within its month. Next month's payment will be refused."""
    from billing.cli import refunding
    from billing.cli.commands import _open_house

    with _open_house() as opened:
        asks = refunding.is_asked(yes=yes, as_json=as_json)
        found = refunding.give_back(opened, merchant_uid, imp_uid=imp_uid, reason=reason, asks=asks)
    _show_refund(found, as_json)


def cancel_with_refund(customer_uid: str, yes: bool, as_json: bool) -> None:
    """`maewol subscription cancel … --refund`: both at once."""
    from billing.cli import refunding
    from billing.cli.commands import _open_house

    with _open_house() as opened:
        asks = refunding.is_asked(yes=yes, as_json=as_json)
        found = refunding.cancel_and_give_back(opened, customer_uid, asks=asks)
    _show_refund(found, as_json)


def _show_refund(found: dict[str, Any], as_json: bool) -> None:
    show(found, as_json=as_json)
    if found["status"] != "done":
        raise typer.Exit(1)


@proof.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False)], as_json: Json = False
) -> None:
    """Check the chain of proofs in a folder: no day missing, changed or signed by another."""
    from billing.cli.commands import _open_house
    from billing.services import prove

    with _open_house() as opened:
        problems = prove.verify(opened.book, folder)
    show([{"file": name, "problem": problem} for name, problem in problems], as_json=as_json)
    if problems:
        raise typer.Exit(1)
