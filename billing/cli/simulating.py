"""`maewol simulate`: what the months to come will do, or what months of faults could break."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from billing.cli.output import err, out, show
from billing.domain.calendar import SEOUL, end_of, start_of
from billing.domain.errors import InvalidInput, InvalidSetting
from billing.settings import PREFIX, Settings

if TYPE_CHECKING:
    from billing.simulation.campaign import Campaign
    from billing.simulation.rescue import Affected
    from billing.simulation.run import Report, Scenario
    from billing.simulation.story import Failure

# How long a failure may be made smaller before it is told.
_SHRINK_SECONDS: Final = 120.0
_ROWS_SHOWN: Final = 40
# Seeds between two lines of progress where nobody sees a bar move.
_TOLD_EVERY: Final = 10


def simulate(
    months: Annotated[float, typer.Option(min=0.1, max=120, help="How many months.")] = 12,
    subscriptions: Annotated[int, typer.Option(min=1, max=100_000)] = 24,
    book: Annotated[
        bool, typer.Option("--book", help="A copy of your own book; it is read.")
    ] = False,
    seed: Annotated[int, typer.Option(help="One seed is one run, bit for bit.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="So many seeds, from --seed on.")] = 1,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Crashes, losses, outages by seed.")
    ] = False,
    faults: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The sandbox's faults file.")
    ] = None,
    outage: Annotated[
        list[str] | None, typer.Option(help="FROM..TO: everything of ours is down.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of a setting.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="The first day, or moment with offset.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="For many seeds.")] = 1,
    only: Annotated[str, typer.Option(help="Subscribers by number, comma-separated.")] = "",
    without: Annotated[str, typer.Option(help="Kinds of fault to leave out.")] = "",
    twist: Annotated[int, typer.Option(help="Other dice for the faults.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run the real use cases on a moved clock against the sandbox, in a throw-away database."""
    from billing import logs
    from billing.simulation.run import Scenario

    logs.configure("console", "ERROR")
    for name, value in (("--seeds", seeds if seeds > 1 else ""), ("--only", only)):
        if book and value:
            raise InvalidSetting(
                name, value, "is for people that a seed draws", "Leave it out, or --book"
            )
    settings = _settings(set_ or [])
    scenario = Scenario(
        seed=seed,
        months=months,
        subscribers=subscriptions,
        chaos=chaos,
        start=_start(start, chaos=chaos, book=book),
        trouble=0.0 if book and not chaos else None,
        settings={} if not set_ else _changed(settings, set_),
        faults=_faults(faults),
        outages=tuple(_span(one) for one in outage or []),
        without=frozenset(filter(None, without.split(","))),
        only=tuple(int(one) for one in only.split(",") if one),
        twist=twist,
    )
    again = [f"--{name} {value}" for name, value in (("faults", faults),) if value]
    again += [f"--outage {one}" for one in outage or []] + [f"--set {one}" for one in set_ or []]
    good = (
        _one(scenario, settings, book, as_json, again)
        if seeds == 1
        else _many(scenario, settings, seeds, processes, as_json, again)
    )
    if not good:
        raise typer.Exit(1)


def _one(
    scenario: Scenario, settings: Settings, book: bool, as_json: bool, again: list[str]
) -> bool:
    from billing.bootstrap import house
    from billing.simulation import campaign, story
    from billing.simulation.cast import OwnBook
    from billing.simulation.run import simulate as run

    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(campaign.one_database(_announce))
        opened = stack.enter_context(house(Settings.load(), _announce)) if book else None
        if opened is not None:
            with opened.book.transaction() as tx:
                scenario = _replaced(scenario, start=scenario.start or tx.now)

        def run_one(one: Scenario) -> Report:
            cast = None if opened is None else OwnBook(opened.engine)
            return run(one, engine, settings=settings, cast=cast)

        report = run_one(scenario)
        if as_json:
            print(json.dumps(document(report), ensure_ascii=False, default=str))
        else:
            _print(report)
        if not report.ok:
            failure = story.made_small(report, run_one, _SHRINK_SECONDS, with_people=not book)
            _tell(failure, again, of_book=book)
    return report.ok


def _announce(text: str) -> None:
    err.print(text)


def _replaced(scenario: Scenario, **changes: Any) -> Scenario:
    return replace(scenario, **changes)


def _many(
    scenario: Scenario,
    settings: Settings,
    seeds: int,
    processes: int,
    as_json: bool,
    again: list[str],
) -> bool:
    from billing.simulation import campaign, story
    from billing.simulation.run import simulate as run

    scenarios = [_replaced(scenario, seed=scenario.seed + n) for n in range(seeds)]
    total = campaign.Campaign()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=not sys.stderr.isatty()) as bar:
        task = bar.add_task("seeds", total=seeds)
        with contextlib.suppress(KeyboardInterrupt):
            for verdict in campaign.run_seeds(
                scenarios, settings, processes=processes, announce=_announce
            ):
                total.add(verdict)
                done = (
                    f"{total.seeds} of {seeds} seeds, {total.figures['charges']:,} charges,"
                    f" {len(total.failed)} failed"
                )
                bar.update(task, description=done)
                if not err.is_terminal and total.seeds % _TOLD_EVERY == 0:
                    err.print(done)
                if verdict.breaches:
                    said = f"seed {verdict.scenario.seed}: {verdict.breaches[0]}"
                    err.print(said, markup=False)
    if stopped := total.seeds < seeds:
        err.print(f"Stopped by hand after {total.seeds} of {seeds} seeds: these are summed up.")
    never = total.never if scenario.chaos else []
    # A handful of seeds cannot meet everything; a campaign must.
    lacks = bool(never) and total.seeds >= A_CAMPAIGN
    shown = summary(total, never, ok=not total.failed and not lacks)
    if as_json:
        print(json.dumps(shown, ensure_ascii=False, default=str))
    else:
        _print_campaign(total, never)
    if total.failed:
        first = min(total.failed, key=lambda one: one.scenario.seed)
        with campaign.one_database(_announce) as engine:
            report = run(first.scenario, engine, settings=settings)
            if report.breaches:
                failure = story.made_small(
                    report, lambda small: run(small, engine, settings=settings), _SHRINK_SECONDS
                )
                _tell(failure, again)
    return not total.failed and not lacks and not stopped


# So many years of 24 subscribers meet everything that must happen sometimes.
A_CAMPAIGN: Final = 100


def document(report: Report) -> dict[str, Any]:
    """One run as the contract's JSON: the counts of `status`, months, ledger, what was broken."""
    from billing.simulation import rescue

    lost, saved = rescue.affected(report.evidence, report.scenario.outages)
    return {
        "seed": report.scenario.seed,
        "from": report.start.astimezone(SEOUL).isoformat(timespec="seconds"),
        "to": report.end.astimezone(SEOUL).isoformat(timespec="seconds"),
        **report.status,
        "months": [one.as_json() for one in report.months],
        "ledger": {
            "requests": report.figures["charges"],
            "payments": sum(one.gateway_payments for one in report.months),
            "won": sum(one.gateway_won for one in report.months),
        },
        "outages": {
            "lost": [one.as_json() for one in lost],
            "saved": [one.as_json() for one in saved],
        },
        "faults": dict(sorted(report.struck.items())),
        "sometimes": dict(sorted(report.sometimes.items())),
        "broken": [asdict(one) for one in report.breaches],
        "digest": report.digest,
        "ok": report.ok,
    }


def summary(total: Campaign, never: list[str], *, ok: bool) -> dict[str, Any]:
    """Many runs as JSON."""
    return {
        "seeds": total.seeds,
        "run_twice": total.repeated,
        "years": round(total.days / 365.25, 2),
        **{name: total.figures[name] for name in sorted(total.figures)},
        "struck": dict(sorted(total.struck.items())),
        "sometimes": dict(sorted(total.sometimes.items())),
        "never": never,
        "failed": [
            {"seed": one.scenario.seed, "broken": [asdict(two) for two in one.breaches]}
            for one in total.failed
        ],
        "ok": ok,
    }


def _print(report: Report) -> None:
    from billing.simulation import rescue

    _say(
        f"From {report.start.astimezone(SEOUL):%Y-%m-%d %H:%M} to"
        f" {report.end.astimezone(SEOUL):%Y-%m-%d %H:%M} (Seoul), seed {report.scenario.seed}"
    )
    table = Table(title="Month by month 월별 결과")
    for name in (
        "month\n월",
        "paid\n결제",
        "missed\n미결제 마감",
        "skipped\n건너뜀",
        "open\n진행 중",
        "why\n사유",
        "won\n원",
        "requests\n요청",
        "gateway's won\n결제사 원장",
    ):
        table.add_column(name, justify="left" if name.startswith(("month", "why")) else "right")
    for one in report.months:
        why = ", ".join(f"{name.partition(': ')[2]} {n}" for name, n in sorted(one.reasons.items()))
        counts = [str(one.cycles[name]) for name in ("paid", "missed", "skipped", "open")]
        style = "bold red" if one.differs else ""
        table.add_row(
            f"{one.month:%Y-%m}",
            *counts,
            why,
            f"{one.won:,}",
            f"{one.requests:,}",
            Text(f"{one.gateway_won:,}", style=style),
        )
    out.print(table)
    show(
        {
            name: report.status[name]
            for name in (
                "subscriptions",
                "cycles",
                "attempts",
                "won_collected",
                "closing_soon",
                "invariants_broken",
                "gateway",
                "hold",
            )
        },
        as_json=False,
    )
    lost, saved = rescue.affected(report.evidence, report.scenario.outages)
    if report.scenario.outages:
        _print_affected("Lost by the outage 장애로 놓친 결제", lost)
        _print_affected("Saved after it, in this order 복구 후 결제된 순서", saved)
    if report.struck:
        _say("faults: " + ", ".join(f"{kind} {n}" for kind, n in sorted(report.struck.items())))
    if report.ok:
        _say("The gateway's ledger agrees, and every promise held. 결제사 원장과 일치합니다.")
    for breach in report.breaches[:_ROWS_SHOWN]:
        out.print(Text(f"BROKEN {breach.rule} {breach.customer} {breach.what}", style="bold red"))


def _print_affected(title: str, rows: list[Affected]) -> None:
    table = Table(title=f"{title}: {len(rows)}")
    for name in ("customer_uid", "month", "planned", "window closes", "asked", "ended"):
        table.add_column(name)
    for one in rows[:_ROWS_SHOWN]:
        moments = [
            "" if at is None else f"{at.astimezone(SEOUL):%m-%d %H:%M}"
            for at in (one.planned_at, one.closes_at, one.asked_at)
        ]
        table.add_row(Text(one.customer_uid), f"{one.month:%Y-%m}", *moments, one.ended)
    out.print(table)


def _print_campaign(total: Campaign, never: list[str]) -> None:
    figures = total.figures
    show(
        {
            "seeds": f"{total.seeds} ({total.repeated} run twice, the same both times)",
            "simulated": f"{total.days / 365.25:,.1f} years",
            "charge requests": f"{figures['charges']:,}",
            "requests in all": f"{figures['requests']:,}",
            "paid": f"{figures['paid']:,}, {figures['won']:,} won",
            "faults": f"{figures['faults']:,}",
            "failed seeds": str(len(total.failed)),
        },
        as_json=False,
    )
    table = Table(title="What must happen sometimes")
    table.add_column("class")
    table.add_column("times", justify="right")
    for name, count in sorted(total.sometimes.items()):
        table.add_row(name, f"{count:,}")
    for name in never:
        table.add_row(Text(name, style="bold red"), "never")
    out.print(table)


def _tell(failure: Failure, again: list[str], *, of_book: bool = False) -> None:
    from billing.simulation import story

    rule = failure.breach.rule
    err.print(f"\nHow {rule} was broken, as small as it could be made:", markup=False)
    for line in story.told(failure):
        err.print(line, markup=False, highlight=False)
    command = story.command(failure.report.scenario, again, of_book=of_book)
    err.print(f"\nAgain: {command}", markup=False, highlight=False)


def _say(text: str) -> None:
    out.print(Text(text))


def _settings(changes: list[str]) -> Settings:
    """The merchant's settings with `--set` over them. Raises `InvalidSetting`."""
    return Settings.load(**_pairs(changes))


def _pairs(changes: list[str]) -> dict[str, str]:
    pairs = {}
    for one in changes:
        name, equals, value = one.partition("=")
        field = name.removeprefix(PREFIX).lower()
        if not equals or field not in Settings.model_fields:
            raise InvalidSetting(
                "--set", one, "names no setting", "Write --set 'RETRY_CRON=0 8,20 * * *'"
            )
        pairs[field] = value
    return pairs


def _changed(settings: Settings, changes: list[str]) -> Mapping[str, Any]:
    """What was set by hand stays as it is also where a seed would draw settings."""
    return {name: getattr(settings, name) for name in _pairs(changes)}


def _faults(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    from billing.sandbox import FaultsError, mood_from

    try:
        return mood_from(path).model_dump(mode="json", by_alias=True)
    except FaultsError as error:
        raise InvalidSetting("--faults", str(path), str(error)) from None


def _start(value: str | None, *, chaos: bool, book: bool) -> datetime | None:
    """The first moment; without one: this month's first day, the book's present, or any."""
    if value is not None:
        return _moment("--start", value, end=False)
    if chaos or book:
        return None
    from billing import clock

    today = clock.host_time().astimezone(SEOUL).date()
    return start_of(today.replace(day=1), SEOUL)


def _span(value: str) -> tuple[datetime, datetime]:
    begins, dots, ends = value.partition("..")
    if not dots:
        raise InvalidSetting("--outage", value, "is not FROM..TO", "Write 2026-12-28..2026-12-31")
    span = _moment("--outage", begins, end=False), _moment("--outage", ends, end=True)
    if span[0] >= span[1]:
        raise InvalidSetting("--outage", value, "ends before it begins", "Swap the two")
    return span


def _moment(name: str, value: str, *, end: bool) -> datetime:
    """A day in Seoul (its start, or its `end`), or a moment with an offset."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            day = date.fromisoformat(value)
            return end_of(day, SEOUL) if end else start_of(day, SEOUL)
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    except InvalidInput as error:
        raise InvalidSetting(name, value, error.problem) from None
    if moment is None or moment.utcoffset() is None:
        raise InvalidSetting(
            name, value, "is neither a day nor a moment with an offset", "Write 2026-12-28"
        )
    return moment.astimezone(UTC)
