"""The judge: what the gateway's ledger and the book say happened, against what had to happen.

It reads rows (JSON) and imports nothing of the engine or of the sandbox: bands and months are
worked out here once more. Every check is a promise of docs/reliability.md.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from tests.chaos.history import Expected, History, Row, Violation

KOREA = timezone(timedelta(hours=9))
TERMS = ("amount", "name", "buyer_name", "buyer_email", "buyer_tel")


def judge(history: History) -> list[Violation]:
    """Everything that is not as it must be; empty when all is well."""
    known = {one.customer_uid for one in history.expected}
    rows = (history.payments, history.requests, history.cycles)
    found = [
        Violation("I1 only who is due", row["customer_uid"], "nobody enrolled them")
        for kind in rows
        for row in kind
        if row["customer_uid"] not in known
    ]
    for one in history.expected:
        mine = [[row for row in kind if row["customer_uid"] == one.customer_uid] for kind in rows]
        for rule, what in _about(one, history, *mine):
            found.append(Violation(rule, one.customer_uid, what))
    return found + [Violation(rule, "", what) for rule, what in _agrees(history)]


Found = Iterator[tuple[str, str]]


def _about(
    one: Expected, history: History, payments: list[Row], requests: list[Row], cycles: list[Row]
) -> Found:
    yield from _once(one, payments, requests)
    yield from _inside(one, requests, history.margin)
    yield from _same_terms(one, payments, requests)
    yield from _ended(one, cycles, history.at)
    declined = Counter(_at(row).date() for row in requests if row["outcome"][:8] == "declined")
    for day, times in declined.items():
        if times > history.declines_per_day:
            yield "I9 retries are bounded", f"{times} declines on {day}"


def _once(one: Expected, payments: list[Row], requests: list[Row]) -> Found:
    paid = [row for row in payments if row["paid_at"]]
    months = Counter(
        datetime.fromtimestamp(row["paid_at"], KOREA).strftime("%Y-%m") for row in paid
    )
    for month, times in months.items():
        if times > 1:
            yield "I1 never twice", f"{times} payments in {month}"
    ours = sum(row["origin"] == "again" for row in paid)
    if ours != int(one.ending == "paid"):
        yield "I1 only who is due", f"charged {ours} times, must end {one.ending}"
    if one.ending == "untouched" and requests:
        yield "I1 only who is due", f"asked {len(requests)} times, though paid already"
    if any(row["outcome"] == "paid" for row in requests[:-1]):
        yield "I5 nothing guessed", "asked again after it was paid"
    if any(row["overlaps"] for row in requests):
        yield "I6 one at a time", "asked while another request was in hand"


def _inside(one: Expected, requests: list[Row], margin: timedelta) -> Found:
    for at in map(_at, requests):
        low = min(one.anchor_on.day, 26)
        high = min(low + 5, calendar.monthrange(at.year, at.month)[1])
        too_late = at.day == high and (at + margin).date() != at.date()
        first_month = (at.year, at.month) <= (one.anchor_on.year, one.anchor_on.month)
        if not low <= at.day <= high or too_late or first_month:
            yield "I2 never outside", f"asked at {at}, band {low} to {high}"


def _same_terms(one: Expected, payments: list[Row], requests: list[Row]) -> Found:
    for row in payments:
        for name in TERMS:
            if row[name] != getattr(one, name):
                yield "I3 never another amount", f"{row['merchant_uid']}: {name} {row[name]!r}"
    for row in requests:
        if row["differs"] or row["amount"] != one.amount:
            yield "I3 never another amount", f"{row['merchant_uid']}: {row['differs'] or 'amount'}"


def _ended(one: Expected, cycles: list[Row], at: datetime) -> Found:
    states = [row["status"] for row in cycles]
    if states != {"paid": ["paid"], "unpaid": ["open"], "untouched": []}[one.ending]:
        yield "I4 nothing forgotten", f"cycles {states}, must end {one.ending}"
    for cycle in cycles:
        if cycle["held"]:
            yield "I12 no manual step", f"held: {cycle['held']}"
        live = [row for row in cycle["attempts"] if row["status"] in ("due", "sending", "unknown")]
        if len(live) != int(cycle["status"] == "open"):
            yield "I6 one at a time", f"{len(live)} live attempts of a cycle {cycle['status']}"
        for row in live:
            if row["status"] != "due":
                yield "I5 nothing guessed", f"{row['merchant_uid']} is still {row['status']}"
            elif datetime.fromisoformat(row["planned_at"]) <= at:
                yield "I4 nothing forgotten", f"{row['merchant_uid']} was due {row['planned_at']}"


def _agrees(history: History) -> Found:
    """The book and the ledger hold the same payments, and the book's own facts hold."""
    ours = [row for row in history.payments if row["paid_at"] and row["origin"] == "again"]
    ledger = Counter((row["merchant_uid"], row["amount"]) for row in ours)
    paid = (row for row in history.cycles if row["status"] == "paid")
    book = Counter((row["merchant_uid"], row["amount"]) for row in paid)
    for uid, amount in (ledger - book) + (book - ledger):
        yield "I8 the ledger agrees", f"{uid} over {amount} won is not the same in both"
    charged, collected = sum(row["amount"] for row in ours), history.status["won_collected"]
    if charged != collected:
        yield "I8 the ledger agrees", f"the ledger has {charged} won, the book {collected}"
    for fact in history.broken:
        yield "the book's own facts", f"{fact['name']}: rows {fact['rows']}"
    if history.status["hold"] is not None or history.status["gateway"] != "up":
        yield "I12 no manual step", f"hold {history.status['hold']!r}, {history.status['gateway']}"


def _at(request: Row) -> datetime:
    return datetime.fromisoformat(request["at"]).astimezone(KOREA)
