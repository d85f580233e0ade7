"""`maewol notices`: the outbox, its dead letters, and whether the receiver works."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from billing.cli.given import Commands
from billing.cli.output import say, show
from billing.domain.notice import NoticeStatus

if TYPE_CHECKING:
    from billing.domain.delivery import Delivery

app = Commands(help="News for your own system, until it has taken them.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    status: Annotated[NoticeStatus | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
    as_json: Json = False,
) -> None:
    """Notices, newest first; or, with a command, what to do about them."""
    if context.invoked_subcommand is not None:
        return
    from billing.cli.commands import _open_house
    from billing.store import views

    with _open_house() as opened, opened.book.transaction() as tx:
        found = views.outbox(tx.session, opened.settings.zone, status=status, limit=limit)
    show(found, as_json=as_json, leave_out=("webhook_id", "dead_at", "delivered_at", "data"))


@app.command("resend")
def resend(
    notice: Annotated[
        str | None, typer.Argument(metavar="ID", help="Its number or webhook-id.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Every dead letter.")] = False,
    as_json: Json = False,
) -> None:
    """Send again, with the next tick, what was given up or what your system has lost."""
    if (notice is None) is not dead:
        raise typer.BadParameter("give the ID of one, or --dead for all dead letters")
    from billing.cli.commands import _open_house
    from billing.services import resend as use_case

    with _open_house() as opened:
        book = opened.book
        count = use_case.resend_dead(book) if notice is None else use_case.resend(book, notice)
    show({"sent_again": count}, as_json=as_json)


@app.command("test")
def try_out_(as_json: Json = False) -> None:
    """Send a signed notice that says nothing, and tell what the receiver answered."""
    from billing import clock
    from billing.bootstrap import notifier
    from billing.domain.delivery import Delivered, Refused, Unreachable
    from billing.services.notify import try_out
    from billing.settings import Settings

    settings = Settings.load()

    async def send() -> Delivery:
        async with notifier(settings) as receiver:
            return await try_out(receiver, secrets.token_hex(8), clock.host_time())

    import anyio

    answer = anyio.run(send)
    match answer:
        case Delivered(status=status):
            taken, told = True, f"answered {status}"
        case Refused() | Unreachable():
            taken, told = False, answer.problem
    show({"delivered": taken, "answer": told}, as_json=as_json)
    if not taken:
        if not as_json:
            say("See docs/notices.md: how to verify, what to answer.")
        raise typer.Exit(1)
