"""One month for people who keep books: money, what became of every cycle, and the proof of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from billing.domain import proof
from billing.domain.calendar import day_of, start_of
from billing.domain.declines import DeclineTable
from billing.domain.money import Sum
from billing.domain.month_figures import DayProof, Outcomes, Proven, Unknowns, Verdict, verdict
from billing.domain.policy import BillingPolicy
from billing.domain.refund import month_after, month_before
from billing.services.month import paid_by_day
from billing.store import figures, installation
from billing.store import report as rows
from billing.store.figures import DeclinedBy
from billing.store.report import Gained, GivenBack, Lost, Place, Refusal
from billing.store.session import Book, Transaction

# A carrier has some dozens of texts. Should somebody put an order number into each, the rest is
# counted together.
MOST_TEXTS: Final = 2_000
PAGE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Day:
    """The money of one day. `refunded` was given back on it, whenever it was paid; `besides` are
    refunds of payments that no cycle counts, and so are not in `collected` either."""

    on: date
    collected: Sum
    refunded: Sum
    besides: Sum

    @property
    def net_won(self) -> int:
        return self.collected.won - self.refunded.won


@dataclass(frozen=True, slots=True)
class MonthFigures:
    """The figures that two months are compared by."""

    first_day: date
    days: Sequence[Day]
    outcomes: Outcomes
    unknowns: Unknowns
    gained: Gained
    lost: Sequence[Lost]

    @property
    def collected(self) -> Sum:
        return sum((day.collected for day in self.days), Sum())

    @property
    def refunded(self) -> Sum:
        return sum((day.refunded for day in self.days), Sum())

    @property
    def besides(self) -> Sum:
        return sum((day.besides for day in self.days), Sum())

    @property
    def net_won(self) -> int:
        return self.collected.won - self.refunded.won

    @property
    def lost_in_all(self) -> Sum:
        return sum((one.sum for one in self.lost), Sum())


@dataclass(frozen=True, slots=True)
class CodeCount:
    """How often one code came, in one class; no code where the text has none."""

    decline_class: str
    code: str | None
    declines: int


@dataclass(frozen=True, slots=True)
class MonthReport:
    """`over` says that the month is; `other_texts` are declines beyond those that were read."""

    made_at: datetime
    over: bool
    figures: MonthFigures
    before: MonthFigures
    declines: Sequence[DeclinedBy]
    codes: Sequence[CodeCount]
    other_texts: int
    differences: Mapping[str, int]
    proofs: Sequence[DayProof]

    @property
    def verdict(self) -> Verdict:
        return verdict(self.proofs)


def report(
    book: Book, policy: BillingPolicy, first_day: date, proofs: Path | None = None
) -> MonthReport:
    """The month that begins on `first_day`, as the book holds it now, beside the daily proofs in a
    folder. Raises `OSError` for one that cannot be read."""
    zone = policy.plan.zone
    begins, ends = _span(first_day, zone)
    with book.snapshot() as tx:
        now, key = tx.now, installation.stored_key(tx.session)
        found = _figures(tx, policy, first_day)
        before = _figures(tx, policy, month_before(first_day))
        texts = rows.refusals(tx.session, begins, ends, MOST_TEXTS)
        declines = figures.declines(tx.session, begins, ends)
        differences = rows.open_differences(tx.session, begins, ends)
    # The proofs of a large month take longer to read than a transaction may stand idle.
    return MonthReport(
        made_at=now,
        over=now >= ends,
        figures=found,
        before=before,
        declines=declines,
        codes=by_code(policy.declines, texts),
        other_texts=sum(one.declines for one in declines) - sum(one.count for one in texts),
        differences=differences,
        proofs=covered(found.days, proofs, key, today=day_of(now, zone)),
    )


def days(book: Book, policy: BillingPolicy, first_day: date) -> list[Day]:
    """The days of a month alone."""
    with book.snapshot() as tx:
        return _days(tx, policy, first_day)


def charges(book: Book, policy: BillingPolicy, first_day: date) -> Iterator[Sequence[Any]]:
    """Every payment of the month in the order in which they were made, a page at a time: a month
    of a million needs the memory of five thousand."""
    begins, ends = _span(first_day, policy.plan.zone)
    place = Place(begins, 0)
    while True:
        with book.transaction() as tx:
            page = rows.charges(tx.session, place, ends, PAGE)
        if page:
            yield page
        if len(page) < PAGE:
            return
        place = Place(page[-1].paid_at, page[-1].id)


def _span(first_day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The first moment of a month, and of the next."""
    return start_of(first_day, zone), start_of(month_after(first_day), zone)


def _figures(tx: Transaction, policy: BillingPolicy, first_day: date) -> MonthFigures:
    zone = policy.plan.zone
    begins, ends = _span(first_day, zone)
    within = rows.ids(tx.session, first_day)
    to_come = figures.to_come(tx.session, ends, zone) if ends > tx.now else []
    # Whoever has a month before this one still to come has this one, too.
    coming = (Sum(one.count, one.won) for one in to_come)
    return MonthFigures(
        first_day=first_day,
        days=_days(tx, policy, first_day),
        outcomes=Outcomes(rows.outcomes(tx.session, first_day, within), sum(coming, Sum())),
        unknowns=rows.unknowns(tx.session, first_day, within),
        gained=rows.gained(tx.session, begins, ends),
        lost=rows.lost(tx.session, begins, ends),
    )


def _days(tx: Transaction, policy: BillingPolicy, first_day: date) -> list[Day]:
    zone = policy.plan.zone
    begins, ends = _span(first_day, zone)
    paid = paid_by_day(figures.by_hour(tx.session, begins, ends, zone))
    given = {one.on: one for one in rows.given_back(tx.session, begins, ends, zone)}
    days = []
    for ahead in range((month_after(first_day) - first_day).days):
        on = first_day + timedelta(days=ahead)
        took = paid.get(on, figures.Collected(on, 0, 0, 0, 0))
        gave = given.get(on, GivenBack(on, Sum(), Sum()))
        collected = Sum(took.count + took.refunded_count, took.won + took.refunded_won)
        days.append(Day(on, collected, gave.of_cycles, gave.besides))
    return days


def by_code(table: DeclineTable, texts: Sequence[Refusal]) -> list[CodeCount]:
    """The carrier's texts counted by the code in them, under the class that each was given then."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for one in texts:
        counts[(one.decline_class, table.classify(one.message).code)] += one.count
    found = [CodeCount(kind, code, count) for (kind, code), count in counts.items()]
    return sorted(found, key=lambda one: (-one.declines, one.decline_class, one.code or ""))


def covered(days: Sequence[Day], folder: Path | None, key: bytes, *, today: date) -> list[DayProof]:
    """What the proofs in a folder say of each of these days, beside what the book says now."""
    # Earlier proofs may be kept elsewhere; a day without one is told of as missing.
    damaged = {
        name
        for chain in _chains(folder, days)
        for name, problem in proof.problems(chain, key)
        if problem != proof.NOT_THERE
    }
    return [
        DayProof(
            day.on,
            proof.file_name(day.on),
            _says(day, folder, proof.file_name(day.on) in damaged, over=day.on < today),
        )
        for day in days
    ]


def _chains(folder: Path | None, days: Sequence[Day]) -> Iterator[Iterator[tuple[str, str]]]:
    """The proofs of these days, one at a time, after the one that the first follows; those behind a
    day that has none are a chain of their own: nothing is wrong with them."""
    if folder is None:
        return
    every = (days[0].on - timedelta(days=1), *(day.on for day in days))
    read = ((proof.file_name(on), _text(folder, on)) for on in every)
    for is_there, chain in groupby(read, key=lambda one: one[1] is not None):
        if is_there:
            yield ((name, text) for name, text in chain if text is not None)


def _text(folder: Path, on: date) -> str | None:
    try:
        return (folder / proof.file_name(on)).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _says(day: Day, folder: Path | None, damaged: bool, *, over: bool) -> Proven:
    text = None if folder is None else _text(folder, day.on)
    if text is None:
        return Proven.MISSING if over else Proven.TO_COME
    signed = proof.read(text)
    if damaged or signed is None:
        return Proven.DAMAGED
    if not signed.agrees:
        return Proven.DIFFERED
    same = signed.total("book paid") == day.collected
    return (
        Proven.AGREES
        if same and signed.total("book cancelled") == day.refunded + day.besides
        else Proven.CHANGED
    )
