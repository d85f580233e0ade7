"""The commands. Each unwraps its arguments, calls one use case, prints.

What a command needs is imported inside it: `maewol windows` must not wait for Celery and
SQLAlchemy, which take seconds to load on a small machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from billing import __version__
from billing.cli import noticing, pruning, reconciling, reporting, simulating
from billing.cli.given import Commands
from billing.cli.listing import listed
from billing.cli.output import err, say, show
from billing.domain.calendar import CalendarPolicy
from billing.domain.calendar import cycles as cycles_of
from billing.domain.cycle import CycleStatus
from billing.domain.errors import InvalidInput, NotFound
from billing.domain.subscription import SubscriptionStatus
from billing.settings import Settings, effective, misspelt

if TYPE_CHECKING:
    from billing.bootstrap import House
    from billing.services.change_status import Changed
    from billing.services.invariants import Checked

app = Commands(
    name="maewol",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
database = Commands(help="The book's schema.", no_args_is_help=True)
subscription = Commands(help="Standing agreements to be charged.", no_args_is_help=True)
app.add_typer(database, name="db")
app.add_typer(subscription, name="subscription")
app.add_typer(noticing.app, name="notices")
app.add_typer(reconciling.app)
app.add_typer(pruning.app, name="archive")
app.command()(pruning.prune)
app.add_typer(reporting.app)
app.command()(simulating.simulate)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Notify = Annotated[bool, typer.Option("--notify", help="Send a notice of each to your own system.")]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many; all without it.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"maewol {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Which one this is.")
    ] = False,
) -> None:
    """Charges every subscriber's phone bill once a month. Never twice, late or wrong."""


@contextlib.contextmanager
def _open_house(*, making: bool = False) -> Iterator[House]:
    """The house with a schema that fits. A private book is migrated by itself, and made where
    `making` says so: whoever acts on a book means one that is there. Raises `NotFound`."""
    from billing import logs
    from billing.bootstrap import has_a_book, house
    from billing.store import schema

    settings = Settings.load()
    logs.configure("console", "WARNING")
    if not making and not has_a_book(settings):
        raise NotFound(
            f"there is no book here: MAEWOL_DATABASE_URL is not set, and {settings.data_dir} holds "
            "no private one. Set it as your daemons have it; or `maewol db upgrade` makes a book"
        )
    with house(settings, lambda text: err.print(text)) as opened:
        if settings.database_url is None and not schema.fits(opened.engine):
            schema.upgrade(opened.engine)
        yield opened


@app.command()
def windows(
    initial_paid_on: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"])],
    months: Annotated[int, typer.Option(min=1, max=12_000)] = 12,
    as_json: Json = False,
) -> None:
    """When each month's payment may be made, and when it would be."""
    settings = Settings.load()
    policy = CalendarPolicy(settings.window_days, settings.band_retry_days)
    show(
        [
            {
                "cycle": dates.number,
                "due_on": dates.due_on.isoformat(),
                "opens_on": dates.window.opens_on.isoformat(),
                "closes_on": dates.window.closes_on.isoformat(),
                "first_attempt_on": dates.first_attempt_on.isoformat(),
                "last_attempt_on": dates.last_attempt_on.isoformat(),
            }
            for dates in islice(cycles_of(initial_paid_on.date(), policy), months)
        ],
        as_json=as_json,
    )


@database.command("upgrade")
def db_upgrade(as_json: Json = False) -> None:
    """Create or migrate the schema; safe to run again. RUN_ROLE then may do what daemons do."""
    from billing.bootstrap import house
    from billing.store import schema

    with house(Settings.load(), lambda text: err.print(text)) as opened:
        revision = schema.upgrade(opened.engine, run_role=opened.settings.run_role)
        show({"revision": revision}, as_json=as_json)


@subscription.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Take the good lines.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Ask the gateway first.")] = False,
    notify: Notify = False,
    as_json: Json = False,
) -> None:
    """Enrol every line of a CSV file, whole or not at all."""
    from billing.cli import importing

    with _open_house(making=True) as opened:
        report = importing.run(
            opened, file, dry_run=dry_run, skip_bad=skip_bad, verify=verify, notify=notify
        )
    added_as = "would be added" if dry_run and not as_json else "added"
    document: dict[str, Any] = {
        "read": report.read,
        added_as: report.added,
        "unchanged": report.unchanged,
        "rejected": [asdict(one) for one in report.rejected],
    }
    if report.rejected_beyond:
        document["rejected_beyond"] = report.rejected_beyond
    show(document, as_json=as_json)
    if report.header_refused or (report.bad and not skip_bad):
        raise typer.Exit(1)


@subscription.command("add")
def add(
    imp_uid: Annotated[str | None, typer.Option(help="Look the initial payment up.")] = None,
    previous: Annotated[str | None, typer.Option(help="customer_uid that it goes on from.")] = None,
    customer_uid: Annotated[str, typer.Option()] = "",
    amount: Annotated[str, typer.Option(help="Whole won.")] = "",
    order_name: Annotated[str, typer.Option()] = "",
    initial_paid_at: Annotated[str, typer.Option(help="e.g. 2026-10-20T14:30:00+09:00")] = "",
    last_paid_on: Annotated[str, typer.Option()] = "",
    initial_merchant_uid: Annotated[str, typer.Option()] = "",
    initial_imp_uid: Annotated[str, typer.Option()] = "",
    buyer_name: Annotated[str, typer.Option()] = "",
    buyer_email: Annotated[str, typer.Option()] = "",
    buyer_tel: Annotated[str, typer.Option()] = "",
    reference: Annotated[str, typer.Option()] = "",
    notify: Notify = False,
    as_json: Json = False,
) -> None:
    """Enrol one subscription: by its initial payment at the gateway (--imp-uid), where the other
    options say what was ordered; or by the same rules as a line of a file."""
    given = {name: value for name, value in locals().items() if isinstance(value, str)}
    fields = {name: given[name] for name in given.keys() - {"imp_uid", "previous"}}
    from billing.cli import registering
    from billing.services.enrol import enrol

    with _open_house(making=True) as opened:
        if imp_uid:
            found = registering.add_by_payment(opened, imp_uid, previous or "", fields)
        elif previous:
            raise InvalidInput("previous", previous, "needs --imp-uid", "Name the new payment")
        else:
            enrol(opened.book, opened.policy, opened.installation_key, fields, notify=notify)
            found = _one(opened, customer_uid)
        show(found, as_json=as_json)


@subscription.command("list")
def list_(
    status: SubscriptionStatus | None = None, limit: Limit = None, as_json: Json = False
) -> None:
    """Subscriptions, newest first."""
    from billing.store import views

    with contextlib.ExitStack() as kept:
        with _open_house(making=True) as opened, opened.book.transaction() as tx:
            rows = views.all_subscriptions(tx.session, opened.settings.zone, status=status)
            found = kept.enter_context(listed(rows, limit))
        found.show(
            as_json=as_json,
            leave_out=(
                *("initial_paid_at", "enrolled_at", "next_cycle", "reference"),
                *("previous", "next", "forgotten_at"),
            ),
        )


@subscription.command("show")
def show_(customer_uid: str, as_json: Json = False) -> None:
    """One subscription."""
    with _open_house() as opened:
        show(_one(opened, customer_uid), as_json=as_json)


def _change(name: str, customer_uid: str, as_json: bool, *, warned: bool = False) -> None:
    from billing.services import change_status

    use_cases = {
        "pause": change_status.pause,
        "resume": change_status.resume,
        "cancel": change_status.cancel,
    }
    with _open_house() as opened:
        if name == "pause":
            # A month without a payment ends the billing key: that is said before it is done.
            before = change_status.before_pause(opened.book, opened.policy, customer_uid)
            if before.status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAUSED):
                _warn(before)
        changed = use_cases[name](opened.book, opened.policy, customer_uid)
        if name != "pause" and not warned:
            _warn(changed)
        show(_one(opened, customer_uid), as_json=as_json)


def _warn(changed: Changed) -> None:
    for warning in filter(None, (changed.warning_en, changed.warning_ko)):
        err.print(warning, markup=False)


@subscription.command()
def pause(customer_uid: str, as_json: Json = False) -> None:
    """Stop charging until it is resumed; a month without a payment ends the billing key."""
    _change("pause", customer_uid, as_json)


@subscription.command()
def resume(customer_uid: str, as_json: Json = False) -> None:
    """Charge again."""
    _change("resume", customer_uid, as_json)


@subscription.command()
def cancel(
    customer_uid: str,
    refund: Annotated[bool, typer.Option("--refund", help="Give this month back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """End the subscription for good."""
    if refund:
        reconciling.cancel_with_refund(customer_uid, yes, as_json)
        return
    from billing.cli import refunding
    from billing.services.change_status import FINAL

    asked = refunding.is_asked(yes=yes, as_json=as_json)
    if asked:
        for line in FINAL:
            err.print(line, markup=False)
        if not typer.confirm("Cancel for good? 해지할까요?", err=True):
            raise typer.Exit(1)
    _change("cancel", customer_uid, as_json, warned=asked)


@subscription.command("correct")
def correct_(
    customer_uid: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Put the book right by the initial payment at the gateway, seal it anew, and charge what was
    put aside for it."""
    from billing.cli import correcting

    with _open_house() as opened:
        document, code = correcting.run(opened, customer_uid, yes=yes, as_json=as_json)
    show(document, as_json=as_json)
    if code:
        raise typer.Exit(code)


@subscription.command("forget")
def forget_(
    customer_uid: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Erase the buyer data of an ended subscription; its payments stay in the book."""
    from billing.cli import registering

    with _open_house() as opened:
        erased = registering.erase(opened, customer_uid, yes=yes, as_json=as_json)
    show(erased, as_json=as_json)


def _one(opened: House, customer_uid: str) -> dict[str, Any]:
    from billing.store import views

    with opened.book.transaction() as tx:
        found = views.subscriptions(tx.session, opened.settings.zone, customer_uid=customer_uid)
    if not found:
        raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
    return found[0]


@app.command()
def cycles(
    status: CycleStatus | None = None,
    customer_uid: str | None = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Cycles with their attempts, newest first."""
    from billing.store import views

    with contextlib.ExitStack() as kept:
        with _open_house(making=True) as opened, opened.book.transaction() as tx:
            rows = views.all_cycles(
                tx.session, opened.settings.zone, status=status, customer_uid=customer_uid
            )
            found = kept.enter_context(listed(rows, limit))
        found.show(
            as_json=as_json,
            leave_out=(
                *("opens_on", "merchant_uid", "imp_uid"),
                *("attempts.planned_at", "attempts.settled_at"),
            ),
        )


@app.command()
def status(as_json: Json = False) -> None:
    """Counts, money collected, and what needs a person."""
    from billing.services import invariants
    from billing.store import views

    with _open_house(making=True) as opened, opened.book.transaction() as tx:
        policy = opened.policy
        found = views.status(tx.session, tx.now, policy.closing_soon, policy.plan.zone)
        seen = invariants.glance(opened.book, policy)
    document = {**found, "invariants_broken": len(seen.broken), "book": opened.where}
    if seen.unchecked:
        # Too large a book for a quick look; `maewol invariants` takes the time it needs.
        document["invariants_unchecked"] = seen.unchecked
    show(document, as_json=as_json)


@app.command("invariants")
def invariants_(as_json: Json = False) -> None:
    """Every fact that must hold, and the rows that break it."""
    from billing.services import invariants

    with _open_house(making=True) as opened:
        facts = invariants.every(opened.book, opened.policy)
    if as_json:
        show([asdict(one) for one in facts], as_json=True)
    else:
        show([_told(one) for one in facts], as_json=False)
    if any(one.rows for one in facts):
        raise typer.Exit(1)


def _told(fact: Checked) -> dict[str, Any]:
    """A fact for people: a line where it holds, and where it does not, which rows break it."""
    rows = ", ".join(str(row) for row in fact.rows)
    return {
        "fact": fact.name,
        "": "broken 깨짐" if rows else "ok 정상",
        "statement": f"{fact.statement}\nrows: {rows}\n{fact.remedy}".rstrip()
        if rows
        else fact.statement,
    }


@app.command()
def why(
    customer_uid: str,
    cycle: Annotated[int | None, typer.Option(min=1, max=120_000)] = None,
    as_json: Json = False,
) -> None:
    """One answer: the rule, the attempts, what happens next, and what a person can do."""
    from billing.services import explain

    with _open_house() as opened:
        found = explain.why(opened.book, opened.policy, customer_uid, cycle)
    if not as_json:
        for name in ("window", "band"):
            found[name] = dict(zip(("from", "to"), found[name], strict=True))
    show(found, as_json=as_json)


@app.command()
def due(
    at: Annotated[str | None, typer.Option(help="A moment with offset; default now.")] = None,
    days: Annotated[int, typer.Option(min=1, max=366)] = 1,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """What would be charged when, and how much."""
    from billing.services import forecast
    from billing.store import health

    with contextlib.ExitStack() as kept:
        with _open_house(making=True) as opened:
            since = forecast.moment_of(at)
            rows = forecast.due(opened.book, opened.policy, since, days)
            found = kept.enter_context(listed(rows, limit))
            held = opened.book.run(lambda tx: health.hold_reason(tx.session))
        found.show(as_json=as_json)
        if held is not None:
            warning = f"All charging is held ({held}): nothing goes out before `maewol release`."
            err.print(warning, markup=False, soft_wrap=True)
        if not as_json:
            say(f"{found.count:,} charges, {found.total('amount'):,} won")


@app.command()
def hold(
    why: Annotated[str, typer.Option(help="held by hand, if none.")] = "", as_json: Json = False
) -> None:
    """Stop all charging."""
    from billing.services import hold as use_case

    with _open_house() as opened:
        reason = use_case.hold(opened.book, why)
        unwatched = use_case.is_unwatched(opened.book)
    show({"hold": reason, "book": opened.where}, as_json=as_json)
    if unwatched:
        # Held in another book than the daemons work on, and nothing would have been stopped.
        err.print(
            f"No scheduler has worked on this book lately ({opened.where}). If yours runs, it has "
            "another MAEWOL_DATABASE_URL, and goes on charging.\n"
            "최근 이 장부에서 일한 스케줄러가 없습니다. 실행 중인 스케줄러가 있다면 다른 장부를 "
            "쓰고 있으며, 결제는 멈추지 않았습니다.",
            markup=False,
            soft_wrap=True,
        )


@app.command()
def release(
    customer_uid: Annotated[
        str | None, typer.Argument(help="Only the held month of this one, once you have looked.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start charging again: all of it, or one customer's held month."""
    from billing.cli import releasing

    with _open_house() as opened:
        if customer_uid is None:
            shown = releasing.everything(opened)
        else:
            shown = releasing.one(opened, customer_uid)
    show(shown, as_json=as_json)


@app.command("doctor")
def doctor_(as_json: Json = False) -> None:
    """Is everything there that charging needs?"""
    from billing.bootstrap import house
    from billing.cli import checks
    from billing.presenting import told
    from billing.presenting.texts import Texts
    from billing.services import doctor

    with house(Settings.load(), lambda text: err.print(text)) as opened:
        wanted = opened.settings.notice_url is not None
        found = doctor.examine(opened.book, opened.engine, notices_wanted=wanted)
        inside = checks.with_outside(opened, [told.check(one, Texts("en")) for one in found])
        settings = dict(effective(opened.settings))
        every = checks.worst_first([*inside, checks.settings(settings.items(), misspelt())])
    ok = all(check["ok"] for check in every)
    if as_json:
        show({"ok": ok, "checks": every}, as_json=True)
    else:
        checks.tell(every, settings)
    if not ok:
        raise typer.Exit(1)


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=1, max=64)] = 1,
    flower_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Default 5555 or a free one; 0: none.")
    ] = None,
    web_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Default 8000 or a free one; 0: none.")
    ] = None,
) -> None:
    """Every daemon in one terminal, for one machine."""
    from billing.cli import up as daemons

    raise typer.Exit(daemons.run(workers=workers, flower_port=flower_port, web_port=web_port))


@app.command()
def web(
    host: Annotated[str, typer.Option(help="Beyond loopback only with credentials.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
) -> None:
    """The HTTP edge: webhooks, enrolment API, checkout sample, operations console."""
    # In place of this process: the edges never import each other.
    os.execv(  # noqa: S606 - this interpreter, with arguments that were checked
        sys.executable,
        [sys.executable, "-m", "billing.web", "--host", host, "--port", str(port)],
    )


def _moment(text: str) -> datetime:
    from billing.sandbox import moment_of

    try:
        return moment_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


class NoticeFormat(StrEnum):
    """How the sandbox's webhooks are written, as a merchant chooses in the gateway's console."""

    JSON = "json"
    FORM = "form"


@app.command()
def sandbox(
    host: Annotated[str, typer.Option(help="Its control endpoints ask for no key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 0,
    seed: Annotated[
        int | None, typer.Option(help="Decides all chance, and ids as well.", show_default=False)
    ] = None,
    faults: Annotated[Path | None, typer.Option(help="TOML or JSON: what goes wrong.")] = None,
    data: Annotated[Path | None, typer.Option(help="Ledger file; default in memory.")] = None,
    at: Annotated[
        datetime | None, typer.Option(parser=_moment, help="Where its clock starts, with offset.")
    ] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Of every answer.")] = None,
    imp_key: Annotated[str | None, typer.Option(help="Accept only this key.")] = None,
    imp_secret: Annotated[str | None, typer.Option(help="Accept only this secret.")] = None,
    notice_url: Annotated[str, typer.Option(help="Where webhooks go.")] = "",
    notice_format: Annotated[NoticeFormat, typer.Option()] = NoticeFormat.JSON,
) -> None:
    """A PortOne for phone billing on this machine, with its own ledger, rules and faults."""
    from billing import sandbox as gateway

    def announce(line: str) -> None:
        print(line, flush=True)
        err.print("Sandbox gateway: no real money. Ctrl-C ends it. docs/sandbox.md", markup=False)

    try:
        gateway.serve(
            host=host,
            port=port,
            seed=seed,
            faults=faults,
            data=data,
            at=at,
            latency_ms=latency_ms,
            imp_key=imp_key,
            imp_secret=imp_secret,
            notice_url=notice_url,
            notice_format=notice_format.value,
            announce=announce,
        )
    except (gateway.FaultsError, gateway.LedgerFileError, gateway.CallError) as error:
        err.print(f"maewol: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


@app.command()
def demo(
    seconds: Annotated[float | None, typer.Option(envvar="DEMO_SECONDS", min=1)] = None,
) -> None:
    """The whole system on this machine: subscribers of all kinds, the sandbox, every daemon."""
    from billing.cli import demo as story

    raise typer.Exit(story.run(seconds))
