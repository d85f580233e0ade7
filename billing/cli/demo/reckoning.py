"""The end of the story: how every month ended, and our book beside the sandbox's ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.table import Table

from billing.cli.demo.cast import KINDS, STARTS_AT, Ending, Member
from billing.cli.demo.watch import Month
from billing.domain.calendar import SEOUL
from billing.domain.cycle import CycleStatus
from billing.domain.subscription import SubscriptionStatus


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What was found. `wrong` names every month that did not end as it should."""

    months: Mapping[str, Month]
    wrong: Sequence[str]
    book: Mapping[str, int]
    ledger: Mapping[str, int]
    requests: Mapping[str, int]
    doubles: int
    complaints: Sequence[str]

    @property
    def is_clean(self) -> bool:
        same = self.book == self.ledger
        return same and not self.wrong and not self.doubles and not self.complaints


def reckon(
    cast: Sequence[Member],
    months: Mapping[str, Month],
    payments: Sequence[Mapping[str, Any]],
    charges: Sequence[Mapping[str, Any]],
    complaints: Sequence[str],
) -> Reckoning:
    """Lay the book beside the sandbox's `payments`, one by one; `charges` are the requests that it
    saw, `complaints` its verdict."""
    paid = [row for row in payments if row["status"] == "paid"]
    # Whoever subscribes at the checkout meanwhile pays in the window, not by us.
    ours = [
        row for row in paid if row["paid_at"] >= STARTS_AT.timestamp() and row["origin"] != "window"
    ]
    per_month = Counter((row["customer_uid"], _month(row["paid_at"])) for row in paid)
    return Reckoning(
        months=months,
        wrong=[one.customer_uid for one in cast if not _as_it_should(one, months)],
        book={
            month.merchant_uid: month.amount
            for month in months.values()
            if month.merchant_uid is not None
        },
        ledger={row["merchant_uid"]: row["amount"] for row in ours},
        requests=Counter(row["customer_uid"] for row in charges),
        doubles=sum(count - 1 for count in per_month.values()),
        complaints=complaints,
    )


def by_kind(cast: Sequence[Member], reckoning: Reckoning) -> Table:
    """One row for each kind of subscriber."""
    table = Table(title="How the month ended", min_width=72)
    table.add_column("kind", no_wrap=True)
    for name in ("who", "due", "paid", "retrying", "suspended", "missed", "requests", ""):
        table.add_column(name, justify="right")
    for kind in KINDS:
        people = [one for one in cast if one.kind == kind]
        table.add_row(kind.what, *_figures(people, reckoning))
    table.add_section()
    table.add_row("all", *_figures(cast, reckoning))
    return table


def _figures(people: Sequence[Member], reckoning: Reckoning) -> list[str]:
    months = [
        reckoning.months[one.customer_uid] for one in people if one.customer_uid in reckoning.months
    ]
    cycles = Counter(month.cycle for month in months if month.cycle is not None)
    wrong = {one.customer_uid for one in people} & set(reckoning.wrong)
    figures = (
        len(people),
        cycles.total(),
        cycles[CycleStatus.PAID],
        cycles[CycleStatus.OPEN],
        sum(month.subscription == SubscriptionStatus.SUSPENDED for month in months),
        cycles[CycleStatus.MISSED],
        sum(reckoning.requests.get(one.customer_uid, 0) for one in people),
    )
    return [*map(str, figures), f"{len(wrong)} wrong" if wrong else "✓"]


def comparison(reckoning: Reckoning) -> Table:
    """The two records side by side."""
    table = Table(title="Our book beside the sandbox's ledger", min_width=72)
    for name in ("", "our book", "the ledger", ""):
        table.add_column(name, justify="left" if not name else "right")
    book, ledger = reckoning.book, reckoning.ledger
    table.add_row("payments", str(len(book)), str(len(ledger)), _mark(len(book) == len(ledger)))
    won, theirs = sum(book.values()), sum(ledger.values())
    table.add_row("won", f"{won:,}", f"{theirs:,}", _mark(won == theirs))
    differ = len(book.items() ^ ledger.items())
    table.add_row("payments that differ", str(differ), "", _mark(differ == 0))
    table.add_row("double charges", "", str(reckoning.doubles), _mark(reckoning.doubles == 0))
    refused = len(reckoning.complaints)
    table.add_row("wrong by its verdict", "", str(refused), _mark(refused == 0))
    return table


def _as_it_should(one: Member, months: Mapping[str, Month]) -> bool:
    month = months.get(one.customer_uid)
    if month is None:
        return False
    match one.kind.ending:
        case Ending.PAID:
            return month.cycle == CycleStatus.PAID
        case Ending.MISSED:
            gone = month.subscription == SubscriptionStatus.SUSPENDED
            return month.cycle == CycleStatus.MISSED and gone
        case Ending.NOT_DUE:
            return month.cycle is None


def _month(unix: int) -> tuple[int, int]:
    paid = datetime.fromtimestamp(unix, SEOUL)
    return paid.year, paid.month


def _mark(good: bool) -> str:
    return "✓" if good else "✗"
