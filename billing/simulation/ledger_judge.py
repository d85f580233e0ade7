"""The judge of money: our book against the gateway's own ledger.

Of docs/reliability.md it holds I1 to I4, I8 and I9. It imports neither the engine's rules nor the
sandbox's: days, windows and bands are worked out here once more, in another way, from what the
documents say. Its own tests are histories made by hand.
"""

from __future__ import annotations

import calendar
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

KOREA = timezone(timedelta(hours=9))
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment that was ever paid, be it cancelled since. `late`: the gateway had called it failed
    and turned it paid after our last request of the month: only reconciliation can find it."""

    customer: str
    order: str
    amount: int
    at: datetime
    ours: bool
    entered_at: datetime
    late: bool = False
    imp_uid: str = ""
    cancelled_at: datetime | None = None
    initial: bool = False
    """The payment that made the billing key, or one of a time before the run."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A charge request that reached the gateway. `excused`: its process was frozen between its last
    check and the write, which no check of ours can cover (docs/protocol.md, What is left).
    `forgotten`: our book was set back to before it, and knows of it by what it asks alone."""

    at: datetime
    customer: str
    order: str
    differs: str
    outcome: str
    fault: str = ""
    overlaps: bool = False
    excused: bool = False
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """A look-up that the gateway answered in full, by order or by customer."""

    at: datetime
    order: str
    customer: str


@dataclass(frozen=True, slots=True)
class Month:
    """One cycle as our book has it at the end."""

    customer: str
    first: date
    status: str
    reason: str
    held: bool
    order: str
    amount: int
    orders: Sequence[str]
    unproven: bool = False
    """An attempt had been unknown, and the book waited the 48 hours for it."""
    declined: Sequence[str] = ()
    """The orders that our book calls declined since the run began."""
    imp_uid: str = ""
    declined_before: Sequence[str] = ()
    """Those that it called so before: the run's gateway never saw them."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What was promised. `slack` is how far clocks may stray from the gateway's."""

    margin: timedelta
    slack: timedelta
    most_declines: int
    most_a_day: int
    in_flight: timedelta


@dataclass(frozen=True, slots=True)
class Breach:
    """One promise that was broken, whose, and how."""

    rule: str
    customer: str
    what: str


def judge(
    anchors: Mapping[str, date],
    paid: Sequence[Paid],
    asked: Sequence[Asked],
    looked: Sequence[Looked],
    months: Sequence[Month],
    rules: Rules,
) -> list[Breach]:
    """Every promise about money that was broken."""
    return [
        *_blind(asked, looked),
        *_unproved(asked, months),
        *_twice(paid, asked),
        *_outside(anchors, asked, rules),
        *_already_paid(paid, asked, rules),
        *_otherwise(asked),
        *_untrue(paid, asked, months),
        *_disagree(paid, months),
        *_too_often(asked, rules),
    ]


def _twice(paid: Sequence[Paid], asked: Sequence[Asked]) -> Iterator[Breach]:
    ours = Counter((one.customer, month_of(one.at)) for one in paid if one.ours and not one.late)
    for (customer, month), count in ours.items():
        if count > 1:
            yield Breach("I1", customer, f"{count} payments of ours in {month:%Y-%m}")
    for one in asked:
        if one.overlaps and not one.excused:
            yield Breach("I6", one.customer, f"two charges in hand at once: {one.order}")


def _outside(anchors: Mapping[str, date], asked: Sequence[Asked], rules: Rules) -> Iterator[Breach]:
    for one in asked:
        begins, ends = band(anchors[one.customer], one.at.astimezone(KOREA).date())
        late = ends - rules.margin + rules.slack + rules.in_flight
        if not one.excused and not begins - rules.slack <= one.at <= late:
            yield Breach("I2", one.customer, f"{one.order} asked at {one.at.astimezone(KOREA)}")


def band(anchor: date, day: date) -> tuple[datetime, datetime]:
    """When requests of `day`'s month may be made: six days from the anchor's day, or from the 26th,
    none of them in another month or more than five days from the due day."""
    last = calendar.monthrange(day.year, day.month)[1]
    due = min(anchor.day, last)
    begins = min(anchor.day, 26)
    ends = min(begins + 5, last, due + 5)
    first = datetime(day.year, day.month, begins, tzinfo=KOREA)
    return first, datetime(day.year, day.month, ends, tzinfo=KOREA) + timedelta(days=1)


def _already_paid(paid: Sequence[Paid], asked: Sequence[Asked], rules: Rules) -> Iterator[Breach]:
    known = defaultdict(list)
    for payment in paid:
        known[payment.customer, month_of(payment.at)].append(payment)
    for one in asked:
        for payment in known[one.customer, month_of(one.at)]:
            seen_by = payment.entered_at + rules.in_flight
            gone = payment.cancelled_at is not None and payment.cancelled_at <= one.at
            if payment.order != one.order and seen_by < one.at and not one.excused and not gone:
                yield Breach("I1", one.customer, f"{one.order} asked, month paid: {payment.order}")


def _blind(asked: Sequence[Asked], looked: Sequence[Looked]) -> Iterator[Breach]:
    """Between two requests of one month the gateway was asked what became of the first."""
    orders, customers = defaultdict(list), defaultdict(list)
    for look in looked:
        orders[look.order].append(look.at)
        customers[look.customer].append(look.at)
    before: dict[tuple[str, date], Asked] = {}
    for one in sorted(asked, key=lambda each: each.at):
        first = before.get((one.customer, month_of(one.at)))
        before[one.customer, month_of(one.at)] = one
        if first is None or first.excused or first.outcome == "turned_away":
            continue
        by_order = any(first.at <= at <= one.at for at in orders[first.order])
        by_key = any(first.at <= at <= one.at for at in customers[one.customer])
        if not (by_order and by_key):
            yield Breach("I5", one.customer, f"{one.order} asked blindly after {first.order}")


def _unproved(asked: Sequence[Asked], months: Sequence[Month]) -> Iterator[Breach]:
    """Nothing is called declined that the gateway did not refuse."""
    refused = {one.order for one in asked if one.outcome.startswith(("declined", "refused"))}
    for month in months:
        for order in month.declined:
            if order not in refused:
                yield Breach("I5", month.customer, f"{order} called declined, never refused")


def _otherwise(asked: Sequence[Asked]) -> Iterator[Breach]:
    for one in asked:
        if one.differs:
            yield Breach("I3", one.customer, f"{one.order}: not as first paid: {one.differs}")


def _untrue(
    paid: Sequence[Paid], asked: Sequence[Asked], months: Sequence[Month]
) -> Iterator[Breach]:
    """The reason of a month that ended without our payment must be what really happened."""
    got = {payment.order for payment in paid if not payment.late}
    refused = [one for one in asked if one.outcome.startswith(("declined", "refused"))]
    tried = {one.order for one in refused}
    remembered = {one.order for one in refused if not one.forgotten}
    for month in months:
        who = month.customer
        charged = [order for order in month.orders if order in got]
        known = tried.union(month.declined_before)
        declined = [order for order in month.orders if order in known]
        told = [order for order in declined if order in remembered.union(month.declined_before)]
        if month.status in ("missed", "skipped") and charged:
            yield Breach("I4", who, f"{month.first:%Y-%m} {month.status}, yet paid: {charged}")
        match month.status, month.reason:
            case "missed", "declined" if not declined:
                yield Breach("I4", who, f"{month.first:%Y-%m} declined, yet never refused")
            case "missed", "not_attempted" if told:
                yield Breach("I4", who, f"{month.first:%Y-%m} not attempted, yet {told}")
            case "missed", "held" if not month.held:
                yield Breach("I4", who, f"{month.first:%Y-%m} held, yet nobody held it")
            case "missed", "unproven" if not month.unproven:
                yield Breach("I4", who, f"{month.first:%Y-%m} unproven, yet nothing was unknown")


def _disagree(paid: Sequence[Paid], months: Sequence[Month]) -> Iterator[Breach]:
    ours = [one for one in paid if one.ours and not one.late]
    theirs = {(one.customer, one.order, one.amount) for one in ours}
    anyones = {(one.customer, one.order, one.amount) for one in paid}
    counted = [one for one in months if one.status in ("paid", "refunded")]
    book = {(one.customer, one.order, one.amount) for one in counted}
    for customer, order, amount in sorted(theirs - book):
        yield Breach("I8", customer, f"the gateway took {amount} by {order}, unknown to our book")
    for customer, order, amount in sorted(book - anyones):
        yield Breach("I8", customer, f"our book says {order} paid {amount}, the gateway does not")


def _too_often(asked: Sequence[Asked], rules: Rules) -> Iterator[Breach]:
    counted = [one for one in asked if not (one.excused or one.forgotten)]
    declined = [one for one in counted if one.outcome.startswith("declined")]
    daily = Counter((one.customer, one.at.astimezone(KOREA).date()) for one in declined)
    for (customer, day), count in daily.items():
        if count > rules.most_a_day:
            yield Breach("I9", customer, f"{count} declines on {day}")
    monthly = Counter((one.customer, month_of(one.at)) for one in declined)
    for (customer, month), count in monthly.items():
        if count > rules.most_declines:
            yield Breach("I9", customer, f"{count} declines in {month:%Y-%m}")


def month_of(at: datetime) -> date:
    """The first day of a moment's Korean month."""
    return at.astimezone(KOREA).date().replace(day=1)
