"""The judge: what the gateway's ledger and the book say happened, against what had to happen.

It reads rows (JSON) and imports nothing of the engine or of the sandbox: bands and months are
worked out here once more. Every line of `judge` is a promise of faults.md.
"""

from __future__ import annotations

import calendar
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

KOREA = timezone(timedelta(hours=9))
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Expected:
    """What one customer agreed to, and how the run must end for them: paid, unpaid, untouched."""

    customer_uid: str
    anchor_on: date
    ending: str
    amount: int
    name: str
    buyer_name: str = ""
    buyer_email: str = ""
    buyer_tel: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """The gateway's payments and charge requests; the book's cycles, counts and broken facts."""

    expected: Sequence[Expected]
    payments: Sequence[Row]
    requests: Sequence[Row]
    cycles: Sequence[Row]
    status: Row
    broken: Sequence[Row]
    at: datetime
    declines_per_day: int
    margin: timedelta


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    customer_uid: str
    what: str


def judge(history: History) -> list[Violation]:
    """Everything that is not as it must be; empty when all is well."""
    known = {one.customer_uid: one for one in history.expected}
    of = _grouped(history)
    found = [Violation(*one) for one in _strangers(history, known)]
    for uid, one in known.items():
        payments, requests, cycles = of["payments"][uid], of["requests"][uid], of["cycles"][uid]
        for check in (
            _once(one, payments, requests, history.at),
            _inside(one, requests, history.margin),
            _same_terms(one, payments, requests),
            _ended(one, cycles, history.at),
            _bounded(requests, history.declines_per_day),
        ):
            found += [Violation(rule, uid, what) for rule, what in check]
    return found + [Violation(*one) for one in _agrees(history)]


def _once(one: Expected, payments: list[Row], requests: list[Row], at: datetime) -> Iterator[Any]:
    ours = [row for row in payments if row["paid_at"] and row["origin"] == "again"]
    months = Counter(_day(row["paid_at"]).strftime("%Y-%m") for row in payments if row["paid_at"])
    for month, times in months.items():
        if times > 1:
            yield "I1 never twice", f"{times} payments in {month}"
    wanted = int(one.ending == "paid")
    if len(ours) != wanted:
        yield "I1 charged exactly as due", f"{len(ours)} payments by us, not {wanted}"
    if one.ending == "untouched" and requests:
        yield "I1 charged exactly as due", f"asked {len(requests)} times, though paid already"
    paid = [place for place, row in enumerate(requests) if row["outcome"] == "paid"]
    if paid and paid[0] + 1 < len(requests):
        yield "I5 nothing guessed", "asked again after it was paid"
    for row in requests:
        if row["overlaps"]:
            yield "I6 one at a time", f"{row['merchant_uid']} while another was in hand"


def _inside(one: Expected, requests: list[Row], margin: timedelta) -> Iterator[Any]:
    for row in requests:
        at = datetime.fromisoformat(row["at"]).astimezone(KOREA)
        low = min(one.anchor_on.day, 26)
        high = min(low + 5, calendar.monthrange(at.year, at.month)[1])
        late = (at + margin).date() != at.date() and at.day == high
        if not low <= at.day <= high or late or (at.year, at.month) <= _month(one.anchor_on):
            yield "I2 never outside", f"asked at {at}, band {low} to {high}"


def _same_terms(one: Expected, payments: list[Row], requests: list[Row]) -> Iterator[Any]:
    names = ("amount", "name", "buyer_name", "buyer_email", "buyer_tel")
    for row in payments:
        for name in names:
            if row[name] != getattr(one, name):
                yield "I3 never another amount", f"{row['merchant_uid']}: {name} {row[name]!r}"
    for row in requests:
        if row["differs"] or row["amount"] != one.amount:
            yield "I3 never another amount", f"{row['merchant_uid']}: {row['differs'] or 'amount'}"


def _ended(one: Expected, cycles: list[Row], at: datetime) -> Iterator[Any]:
    states = [row["status"] for row in cycles]
    wanted = {"paid": ["paid"], "unpaid": ["open"], "untouched": []}[one.ending]
    if states != wanted:
        yield "I4 nothing forgotten", f"cycles {states}, not {wanted}"
    for cycle in cycles:
        if cycle["held"]:
            yield "I12 no manual step", f"held: {cycle['held']}"
        live = [row for row in cycle["attempts"] if row["status"] in ("due", "sending", "unknown")]
        if len(live) != int(cycle["status"] == "open"):
            yield "I6 one at a time", f"{len(live)} live attempts of a cycle {cycle['status']}"
        for row in live:
            planned = datetime.fromisoformat(row["planned_at"]).astimezone(KOREA)
            if row["status"] != "due":
                yield "I5 nothing guessed", f"{row['merchant_uid']} is still {row['status']}"
            elif planned <= at:
                yield "I4 nothing forgotten", f"{row['merchant_uid']} was planned for {planned}"


def _bounded(requests: list[Row], most: int) -> Iterator[Any]:
    declined = [row for row in requests if row["outcome"].startswith("declined")]
    days = Counter(datetime.fromisoformat(row["at"]).astimezone(KOREA).date() for row in declined)
    for day, times in days.items():
        if times > most:
            yield "I9 retries are bounded", f"{times} declines on {day}"


def _agrees(history: History) -> Iterator[tuple[str, str, str]]:
    """The book and the ledger hold the same payments, and the book's own facts hold."""
    ours = [row for row in history.payments if row["paid_at"] and row["origin"] == "again"]
    ledger = Counter((row["merchant_uid"], row["amount"]) for row in ours)
    paid = [row for row in history.cycles if row["status"] == "paid"]
    book = Counter((row["merchant_uid"], row["amount"]) for row in paid)
    for uid, amount in (ledger - book) + (book - ledger):
        where = "ledger" if (uid, amount) in ledger else "book"
        yield "I8 the ledger agrees", "", f"{uid} over {amount} is only in the {where}"
    sums = sum(row["amount"] for row in ours), history.status["won_collected"]
    if sums[0] != sums[1]:
        yield "I8 the ledger agrees", "", f"ledger {sums[0]} won, book {sums[1]}"
    for fact in history.broken:
        yield "the book's own facts", "", f"{fact['name']}: rows {fact['rows']}"
    if history.status["hold"] is not None or history.status["gateway"] != "up":
        yield "I12 no manual step", "", f"hold {history.status['hold']!r}, gateway down"


def _strangers(history: History, known: dict[str, Expected]) -> Iterator[tuple[str, str, str]]:
    for row in (*history.payments, *history.requests, *history.cycles):
        if row["customer_uid"] not in known:
            yield "I1 charged exactly as due", row["customer_uid"], "nobody enrolled them"


def _grouped(history: History) -> dict[str, dict[str, list[Row]]]:
    kinds = ("payments", "requests", "cycles")
    groups: dict[str, dict[str, list[Row]]] = {name: defaultdict(list) for name in kinds}
    for name in kinds:
        for row in getattr(history, name):
            groups[name][row["customer_uid"]].append(row)
    return groups


def _month(day: date) -> tuple[int, int]:
    return day.year, day.month


def _day(unix: int) -> date:
    return datetime.fromtimestamp(unix, KOREA).date()
