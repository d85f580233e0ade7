"""The verdict: what a biller did wrong, read from the book and the request log alone.

It judges by the strict reading of every rule, however lenient the carrier was told to be, and it
judges requests, not only payments: a request outside the window was wrong even if it was declined.
What the biller cannot help (a customer without money, a second charger) is a note, not a problem.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from billing.sandbox.clock import seoul_day
from billing.sandbox.faults import Fault, charge_fault
from billing.sandbox.model import BillingKey, Origin, Payment, Seen, Status
from billing.sandbox.months import Month, after, month_of, within

MARGIN_DAYS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact: what rule, which customer and order, and in words."""

    rule: str
    customer_uid: str
    merchant_uid: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`problems` break a rule of billing; `notes` are worth a look."""

    problems: Sequence[Finding]
    notes: Sequence[Finding]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was done wrong."""
        return not self.problems

    def as_json(self) -> dict[str, object]:
        """The verdict as the control endpoint shows it."""
        return {
            "ok": self.ok,
            "counts": dict(self.counts),
            "problems": [asdict(one) for one in self.problems],
            "notes": [asdict(one) for one in self.notes],
        }


def judge(
    payments: Sequence[Payment],
    keys: Mapping[str, BillingKey],
    requests: Iterable[Seen],
    now: float,
    declines_per_day: int = 2,
) -> Verdict:
    """Judge everything up to `now`. More than `declines_per_day` declines of one customer in one
    day is a problem: the carrier would block the line."""
    seen = [one for one in requests if one.outcome != "turned_away"]
    charges = [one for one in seen if one.kind == "again"]
    problems = [
        *_doubles(payments),
        *_outside(charges, keys, payments),
        *_other_terms(charges),
        *_at_once(charges),
        *_too_often(charges, declines_per_day),
        *_blind(seen),
    ]
    notes = [*_empty_months(payments, keys, now), *_second_charger(payments)]
    outcomes = Counter(one.outcome.partition(":")[0] for one in charges)
    rules = Counter(one.rule for one in (*problems, *notes))
    paid = [one for one in payments if one.paid_at and one.origin is Origin.AGAIN]
    counts = {
        "requests": len(charges),
        **{f"requests_{name}": number for name, number in sorted(outcomes.items())},
        "payments": len(payments),
        "charged": len(paid),
        "won_charged": sum(one.amount for one in paid),
        **dict(sorted(rules.items())),
    }
    return Verdict(problems, notes, counts)


def _by_month(payments: Iterable[Payment]) -> Mapping[tuple[str, Month], list[Payment]]:
    """Whatever was ever paid, by customer and month: one cancelled since was paid, too."""
    found: dict[tuple[str, Month], list[Payment]] = defaultdict(list)
    for one in payments:
        if one.paid_at:
            found[one.customer_uid, month_of(seoul_day(one.paid_at))].append(one)
    return found


def _doubles(payments: Iterable[Payment]) -> Iterator[Finding]:
    """More than one payment of a customer in a calendar month. Who came first is in the right."""
    for (customer_uid, month), paid in _by_month(payments).items():
        later = sorted(paid, key=lambda one: (one.paid_at, one.number))[1:]
        for one in later:
            if one.origin is Origin.AGAIN:
                what = f"one of {len(paid)} payments in {_name(month)}"
                yield Finding("double", customer_uid, one.merchant_uid, what)


def _second_charger(payments: Iterable[Payment]) -> Iterator[Finding]:
    for (customer_uid, month), paid in _by_month(payments).items():
        for one in sorted(paid, key=lambda one: (one.paid_at, one.number))[1:]:
            if one.origin in (Origin.HAND, Origin.SCHEDULE):
                what = f"somebody else charged in {_name(month)}, which was paid already"
                yield Finding("second_charger", customer_uid, one.merchant_uid, what)


def _outside(
    charges: Iterable[Seen], keys: Mapping[str, BillingKey], payments: Iterable[Payment]
) -> Iterator[Finding]:
    """Requests on a day that is not within the margin, counted both from the anchor and from last
    month's payment; the initial month has no window at all."""
    paid = _by_month(payments)
    for one in charges:
        key = keys.get(one.customer_uid)
        if key is None:
            continue
        today, anchor = seoul_day(one.at), seoul_day(key.issued_at)
        last = paid.get((one.customer_uid, after(month_of(today), -1)), [])
        days = [anchor.day, *(seoul_day(payment.paid_at).day for payment in last)]
        in_window = all(within(today, day, MARGIN_DAYS) for day in days)
        if month_of(today) <= month_of(anchor) or not in_window:
            yield Finding(
                "outside", one.customer_uid, one.merchant_uid, f"asked on {today}, anchor {anchor}"
            )


def _other_terms(charges: Iterable[Seen]) -> Iterator[Finding]:
    for one in charges:
        if one.differs:
            what = f"not as in the initial payment: {one.differs}"
            yield Finding("other_terms", one.customer_uid, one.merchant_uid, what)


def _at_once(charges: Iterable[Seen]) -> Iterator[Finding]:
    for one in charges:
        if one.overlaps:
            what = f"asked while another charge of the same {one.overlaps} was in hand"
            yield Finding("at_once", one.customer_uid, one.merchant_uid, what)


def _too_often(charges: Iterable[Seen], allowed: int) -> Iterator[Finding]:
    declined = Counter(
        (one.customer_uid, seoul_day(one.at))
        for one in charges
        if one.outcome.startswith("declined")
    )
    for (customer_uid, day), number in declined.items():
        if number > allowed:
            yield Finding("too_often", customer_uid, "", f"{number} declines on {day}")


def _blind(seen: Iterable[Seen]) -> Iterator[Finding]:
    """Charges asked for while the customer's last answer was lost and nobody had looked it up."""
    lost: dict[str, Seen] = {}
    for one in seen:
        if one.kind == "again":
            if before := lost.pop(one.customer_uid, None):
                what = f"asked without a look-up after {before.merchant_uid} lost its answer"
                yield Finding("blind", one.customer_uid, one.merchant_uid, what)
            if one.fault and _is_lost(charge_fault(one.fault)):
                lost[one.customer_uid] = one
        elif one.outcome[:3] in _ANSWERED and one.kind in _LOOK_UPS:
            lost = {uid: charge for uid, charge in lost.items() if not _asks_for(one, charge)}


_ANSWERED = ("200", "207", "404")
# The last two show the payments of everybody, or of orders that the log does not name.
_LOOK_UPS = ("findAll", "find", "customer_payments", "status", "payments")


def _is_lost(fault: Fault) -> bool:
    return fault.breaks or fault.kind == "ready" or fault.kind.startswith("wrong_")


def _asks_for(look_up: Seen, charge: Seen) -> bool:
    """Whether a look-up could have shown what became of a charge."""
    named = look_up.merchant_uid or look_up.customer_uid
    return not named or named in (charge.merchant_uid, charge.customer_uid)


def _empty_months(
    payments: Sequence[Payment], keys: Mapping[str, BillingKey], now: float
) -> Iterator[Finding]:
    """The first month of a key, over by now, without a payment in normal state: the chain's end."""
    paid: dict[str, set[Month]] = defaultdict(set)
    for one in payments:
        if one.status is Status.PAID:
            paid[one.customer_uid].add(month_of(seoul_day(one.paid_at)))
    this_month = month_of(seoul_day(now))
    for key in keys.values():
        month = month_of(seoul_day(key.issued_at))
        end = min(this_month, month_of(seoul_day(key.deleted_at))) if key.deleted_at else this_month
        while month < end and month in paid[key.customer_uid]:
            month = after(month)
        if month < end:
            what = f"no payment in {_name(month)}: the chain is broken"
            yield Finding("chain_broken", key.customer_uid, "", what)


def _name(month: Month) -> str:
    return f"{month[0]}-{month[1]:02}"
