"""The judge of what was written: the event lines alone must tell a lawful story that ends in the
state of the book (docs/reliability.md, I4 to I7, I10 to I12).

Like the judge of money it knows only names and order of lines, none of the engine's code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from billing.simulation.ledger_judge import Asked, Breach, band

_ATTEMPT = {
    # what is told → (the states it may follow, the state it makes)
    "attempt.sending": ({"due"}, "sending"),
    "attempt.not_sent": ({"sending", "unknown"}, "due"),
    "attempt.unknown": ({"sending", "unknown"}, "unknown"),
    "attempt.approved": ({"sending", "unknown"}, "approved"),
    "attempt.declined": ({"sending", "unknown"}, "declined"),
    "attempt.withdrawn": ({"due", "sending", "unknown"}, "withdrawn"),
}
_CYCLE = {
    "cycle.paid": "paid",
    "cycle.missed": "missed",
    "cycle.skipped": "skipped",
    "cycle.refunded": "refunded",
}
_SUBSCRIPTION = {
    "subscription.enrolled": "active",
    "subscription.paused": "paused",
    "subscription.resumed": "active",
    "subscription.suspended": "suspended",
    "subscription.mended": "active",
    "subscription.cancelled": "cancelled",
}


_GIVES_UP = ("cycle.missed", "subscription.suspended")
# A request may arrive so long after it left.
IN_FLIGHT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Told:
    """One event line, with the names of what it is about."""

    at: datetime
    kind: str
    customer: str
    month: date | None
    attempt: int | None
    order: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ends:
    """The states of the book at the end: attempts by id, cycles by month, subscriptions."""

    attempts: Mapping[int, tuple[str, str]]
    """id → (customer, status)"""
    months: Mapping[tuple[str, date], str]
    subscriptions: Mapping[str, tuple[str, date, date]]
    """customer → (status, anchor, month of its first cycle)"""
    history: frozenset[tuple[str, date]] = frozenset()
    """Months that had ended before the run: the lines that tell of them may be archived."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`steady`: the clock of the book never stepped in this run, so its durations are exact."""

    lease: timedelta
    settle: timedelta
    visibility: timedelta
    steady: bool
    ended_at: datetime
    slack: timedelta
    """Months whose window closed 50 hours before this must have ended."""
    set_back: Sequence[tuple[datetime, datetime]] = ()
    """From when the book had forgotten something, until a person released it."""


def judge(told: Sequence[Told], asked: Sequence[Asked], ends: Ends, limits: Limits) -> list[Breach]:
    """Every unlawful line, and every state that the lines do not lead to."""
    return [
        *_Story(limits, {one.order for one in asked if one.forgotten}).breaches(told, ends),
        *_forgotten(told, ends, limits),
        *_unclaimed(told, asked, limits),
        *_misread(told, asked, limits),
        *_sent_after_all(told, asked, limits),
        *_while_set_back(told, asked, limits),
    ]


def _unclaimed(told: Sequence[Told], asked: Sequence[Asked], limits: Limits) -> Iterator[Breach]:
    """I5: whatever reached the gateway had been claimed, in writing, before it left."""
    first: dict[str, datetime] = {}
    for line in told:
        if line.kind == "attempt.sending":
            first.setdefault(line.order, line.at)
    for one in asked:
        if one.forgotten:
            continue
        if one.order not in first or first[one.order] > one.at + limits.slack:
            yield Breach("I5", one.customer, f"{one.order} asked before it was claimed")


def _misread(told: Sequence[Told], asked: Sequence[Asked], limits: Limits) -> Iterator[Breach]:
    """I3: an answer about something else approves nothing; the gateway has to be asked."""
    wrong = {one.order: one for one in asked if one.fault.startswith(("wrong_", "ready"))}
    before: dict[str, str] = {}
    for line in told:
        if line.kind == "attempt.approved" and before.get(line.order) == "attempt.sending":
            one = wrong.get(line.order)
            if one is not None and abs(line.at - one.at) < limits.lease + limits.slack:
                yield Breach("I3", line.customer, f"{line.order} approved by {one.fault}")
        if line.kind in _ATTEMPT:
            before[line.order] = line.kind


def _sent_after_all(
    told: Sequence[Told], asked: Sequence[Asked], limits: Limits
) -> Iterator[Breach]:
    """I5: what is called "not sent" without a question did not reach the gateway."""
    if not limits.steady:
        return
    arrived: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        if one.outcome != "turned_away" and not (one.excused or one.forgotten):
            arrived[one.order].append(one)
    before: dict[str, Told] = {}
    spans: dict[str, tuple[datetime, datetime]] = {}
    for line in told:
        if line.kind not in _ATTEMPT:
            continue
        previous, before[line.order] = before.get(line.order), line
        if line.kind == "attempt.not_sent" and previous is not None:
            if previous.kind == "attempt.sending":
                spans[line.order] = previous.at, line.at + IN_FLIGHT
        elif line.order in spans:
            since, until = spans.pop(line.order)
            reached = [one for one in arrived[line.order] if since <= one.at < min(until, line.at)]
            if reached:
                what = f"{line.order} called not sent, reached the gateway {reached[0].outcome}"
                yield Breach("I5", line.customer, what)


def _while_set_back(
    told: Sequence[Told], asked: Sequence[Asked], limits: Limits
) -> Iterator[Breach]:
    """I10: from a book that was set back nothing is sent, and nobody is given up in it: what it has
    forgotten may be paid."""
    for since, until in limits.set_back:
        for one in asked:
            if since + IN_FLIGHT < one.at < until:
                yield Breach("I10", one.customer, f"{one.order} asked from a book set back")
        for line in told:
            if limits.steady and line.kind in _GIVES_UP and since < line.at < until:
                yield Breach("I10", line.customer, f"{line.kind} in a book set back")


class _Story:
    """Folds the lines in their order."""

    def __init__(self, limits: Limits, forgotten: Container[str]) -> None:
        self.limits = limits
        self.forgotten = forgotten
        self.attempts: dict[int, str] = {}
        self.fences: dict[int, int] = {}
        self.sent_at: dict[int, datetime] = {}
        self.unknown_since: dict[int, tuple[datetime, bool]] = {}
        self.live: dict[tuple[str, date], int] = {}
        self.cycles: dict[tuple[str, date], str] = {}
        self.subscriptions: dict[str, str] = {}
        self.held: dict[tuple[str, date], str] = {}
        self.all_held = False
        self.found: list[Breach] = []

    def breaches(self, told: Sequence[Told], ends: Ends) -> list[Breach]:
        for line in told:
            self._follow(line)
        for attempt, (customer, status) in ends.attempts.items():
            if (known := self.attempts.get(attempt, "due")) != status:
                self._breach("I7", customer, f"attempt {attempt} is {status}, told {known}")
        for (customer, month), status in ends.months.items():
            if (customer, month) in ends.history:
                continue
            if (known := self.cycles.get((customer, month), "unheard of")) != status:
                self._breach("I7", customer, f"{month:%Y-%m} is {status}, told {known}")
        for customer, (status, _, _) in ends.subscriptions.items():
            if (known := self.subscriptions.get(customer, "unheard of")) != status:
                self._breach("I7", customer, f"subscription is {status}, told {known}")
        return self.found

    def _breach(self, rule: str, customer: str, what: str) -> None:
        self.found.append(Breach(rule, customer, what))

    def _follow(self, line: Told) -> None:
        where = None if line.month is None else (line.customer, line.month)
        match line.kind:
            case "charging.held":
                self.all_held = True
            case "charging.released":
                self.all_held = False
            case "cycle.opened" if where is not None:
                self.cycles[where] = "open"
            case "cycle.let_go" if where is not None:
                self.held.pop(where, None)
            case "cycle.held" if where is not None:
                self.held[where] = str(line.data.get("reason"))
        known = self.subscriptions.get(line.customer)
        # A chain that was at risk and held is mended, too: that changes no state.
        harmless = line.kind == "subscription.mended" and known != "suspended"
        if line.kind in _SUBSCRIPTION and not harmless:
            self.subscriptions[line.customer] = _SUBSCRIPTION[line.kind]
        if line.kind in _CYCLE and where is not None:
            self._ends_cycle(line, where)
        if line.kind in _ATTEMPT and line.attempt is not None:
            self._moves(line, line.attempt, where)

    def _ends_cycle(self, line: Told, where: tuple[str, date]) -> None:
        before, after = self.cycles.get(where, "open"), _CYCLE[line.kind]
        lawful = before == "open" if after != "refunded" else before == "paid"
        if not lawful and (before, after) != ("missed", "paid"):
            self._breach("I4", line.customer, f"{where[1]:%Y-%m} was {before}, then {after}")
        self.cycles[where] = after
        self.held.pop(where, None)

    def _moves(self, line: Told, attempt: int, where: tuple[str, date] | None) -> None:
        lawful, after = _ATTEMPT[line.kind]
        before = self.attempts.get(attempt, "due")
        # What a book that was set back calls due, it may have sent.
        found = (before, after) == ("due", "approved") and line.order in self.forgotten
        if before not in lawful and not found:
            self._breach("I7", line.customer, f"{line.order} was {before}, then {line.kind}")
        self.attempts[attempt] = after
        match line.kind:
            case "attempt.sending":
                self._sends(line, attempt, where)
            case "attempt.unknown":
                lease_ran_out = line.data.get("why") == "the lease ran out"
                self.unknown_since.setdefault(attempt, (line.at, lease_ran_out))
            case "attempt.not_sent" if before == "unknown":
                self._proven_too_early(line, attempt)
        if after in ("due", "approved", "declined", "withdrawn"):
            self.unknown_since.pop(attempt, None)
            if where is not None and self.live.get(where) == attempt:
                del self.live[where]

    def _sends(self, line: Told, attempt: int, where: tuple[str, date] | None) -> None:
        who = line.customer
        fence = int(line.data["fence"])
        if fence <= self.fences.get(attempt, 0):
            self._breach("I6", who, f"{line.order} claimed with fence {fence} again")
        self.fences[attempt] = fence
        self.sent_at[attempt] = line.at
        if self.subscriptions.get(who) != "active":
            self._breach("I11", who, f"{line.order} claimed, {self.subscriptions.get(who)}")
        if self.all_held or where in self.held:
            self._breach("I10", who, f"{line.order} claimed while held")
        if where is not None:
            if where in self.live and self.live[where] != attempt:
                self._breach("I6", who, f"{line.order} claimed beside another attempt")
            self.live[where] = attempt
            if self.cycles.get(where, "open") != "open":
                self._breach("I6", who, f"{line.order} claimed, month {self.cycles[where]}")

    def _proven_too_early(self, line: Told, attempt: int) -> None:
        since, lease_ran_out = self.unknown_since[attempt]
        over = since + self.limits.settle
        if lease_ran_out:
            over = self.sent_at[attempt] + self.limits.lease + self.limits.settle
        if self.limits.steady and line.at < over:
            early = over - line.at
            self._breach("I5", line.customer, f"{line.order} sent again {early} too early")


def _forgotten(told: Sequence[Told], ends: Ends, limits: Limits) -> Iterator[Breach]:
    """I4: every month of an active subscription whose window is long over has ended."""
    stopped: dict[str, datetime] = {}
    for line in told:
        if line.kind in ("subscription.suspended", "subscription.cancelled"):
            stopped.setdefault(line.customer, line.at)
        elif line.kind == "subscription.mended":
            stopped.pop(line.customer, None)
    by_customer: dict[str, set[date]] = defaultdict(set)
    for (customer, month), status in ends.months.items():
        by_customer[customer].add(month)
        _, anchor, _ = ends.subscriptions[customer]
        closed = band(anchor, month)[1] + timedelta(days=10) < limits.ended_at
        if status == "open" and closed:
            yield Breach("I4", customer, f"{month:%Y-%m} is still open")
    for customer, (_, anchor, first) in ends.subscriptions.items():
        month, until = first, min(stopped.get(customer, limits.ended_at), limits.ended_at)
        while band(anchor, month)[1] + timedelta(days=10) < until:
            if month not in by_customer[customer]:
                yield Breach("I4", customer, f"{month:%Y-%m} was passed over")
            month = (month + timedelta(days=32)).replace(day=1)
