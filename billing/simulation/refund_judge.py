"""The judge of what goes back, and of what is found afterwards: refunds, cancellations elsewhere,
and payments that only a webhook or reconciliation can bring into the book (I1, I4, I5 and I8).

Like the other judges it imports neither the engine's rules nor the sandbox's, and has tests of its
own on histories made by hand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.simulation.event_judge import Told
from billing.simulation.ledger_judge import Breach, Month, Paid

# Told of a payment that the book has no place for.
_NOT_COUNTED = frozenset({"double", "late_paid", "paid_elsewhere", "not_in_book", "paid_not_due"})
# So often a whole comparison saw a payment before the book must have followed: at the first one a
# charge of the month may have been on its way.
_SEEN_OFTEN = 2
# A comparison may begin while clocks are found wrong, and a list may lag.
_SURELY_SHOWN = timedelta(minutes=45)


@dataclass(frozen=True, slots=True)
class Request:
    """About one payment by its id, when it reached the gateway: to give it back, or a question."""

    at: datetime
    imp_uid: str


@dataclass(frozen=True, slots=True)
class LookedBack:
    """What was asked, and when. `frozen`: moments at which a process was stopped: what it was
    about to send then, it sends when it goes on, whatever others learnt meanwhile."""

    asked_back: Sequence[Request] = ()
    looked_up: Sequence[Request] = ()
    whole: Sequence[datetime] = ()
    """When each whole reconciliation began."""
    frozen: Sequence[datetime] = ()


def judge(
    paid: Sequence[Paid],
    months: Sequence[Month],
    told: Sequence[Told],
    back: LookedBack,
    claimed_for: timedelta,
) -> list[Breach]:
    """Every promise about money that goes back, or is found late, that was broken. `claimed_for`
    is how long a claim holds."""
    return [
        *_blind(back, claimed_for),
        *_done_twice(told),
        *_not_at_gateway(paid, months),
        *_not_followed(paid, months, back),
        *_untold(paid, months, told, back),
        *_told_though_counted(told),
    ]


def _blind(back: LookedBack, claimed_for: timedelta) -> Iterator[Breach]:
    """I5: between two requests to give one payment back the gateway was asked about it."""
    looks: dict[str, list[datetime]] = defaultdict(list)
    for look in back.looked_up:
        looks[look.imp_uid].append(look.at)
    before: dict[str, Request] = {}
    for one in sorted(back.asked_back, key=lambda each: each.at):
        first = before.get(one.imp_uid)
        before[one.imp_uid] = one
        if first is None or any(first.at <= at <= one.at for at in looks[one.imp_uid]):
            continue
        if not any(first.at - claimed_for <= at <= one.at for at in back.frozen):
            yield Breach("I5", "", f"{one.imp_uid} asked back again without a look")


def _done_twice(told: Sequence[Told]) -> Iterator[Breach]:
    """I1: a payment goes back once, and nothing is sent for one that did."""
    done = Counter[str]()
    for line in told:
        imp_uid = str(line.data.get("imp_uid"))
        if line.kind == "refund.sending" and done[imp_uid]:
            yield Breach("I1", line.customer, f"{imp_uid} sent again after it was given back")
        if line.kind == "refund.done":
            done[imp_uid] += 1
            if done[imp_uid] > 1:
                yield Breach("I1", line.customer, f"{imp_uid} given back twice")


def _not_at_gateway(paid: Sequence[Paid], months: Sequence[Month]) -> Iterator[Breach]:
    """I8: a month that is called refunded was given back."""
    back = {(one.customer, one.order) for one in paid if one.cancelled_at is not None}
    for month in months:
        if month.status == "refunded" and (month.customer, month.order) not in back:
            what = f"{month.first:%Y-%m} refunded, yet the gateway holds {month.order}"
            yield Breach("I8", month.customer, what)


def _not_followed(
    paid: Sequence[Paid], months: Sequence[Month], back: LookedBack
) -> Iterator[Breach]:
    """I8: what was given back, also by others, is not called paid for ever."""
    counted = {(one.customer, one.imp_uid): one for one in months if one.status == "paid"}
    for one in paid:
        month = counted.get((one.customer, one.imp_uid))
        if month is not None and one.cancelled_at and _was_seen(one.cancelled_at, back):
            yield Breach("I8", one.customer, f"{one.order} was given back, our book says paid")


def _untold(
    paid: Sequence[Paid], months: Sequence[Month], told: Sequence[Told], back: LookedBack
) -> Iterator[Breach]:
    """I8: a payment with a key of ours is counted, or a person was told of it."""
    known = {month.imp_uid for month in months}
    known.update(
        str(line.data.get("imp_uid")) for line in told if line.kind == "reconcile.difference"
    )
    for one in paid:
        open_question = one.cancelled_at is not None or one.imp_uid in known or one.initial
        if not open_question and _was_seen(max(one.at, one.entered_at), back):
            yield Breach("I8", one.customer, f"{one.order} was taken, neither counted nor told of")


def _was_seen(since: datetime, back: LookedBack) -> bool:
    return sum(begun > since + _SURELY_SHOWN for begun in back.whole) >= _SEEN_OFTEN


def _told_though_counted(told: Sequence[Told]) -> Iterator[Breach]:
    """I8: nobody is told that a payment has no place which the book counts."""
    counted: set[str] = set()
    for line in told:
        imp_uid = str(line.data.get("imp_uid"))
        if line.kind == "cycle.paid":
            counted.add(imp_uid)
        elif line.kind == "reconcile.difference" and imp_uid in counted:
            kind = line.data.get("kind")
            if kind in _NOT_COUNTED:
                yield Breach("I8", line.customer, f"{imp_uid} told of as {kind}, yet counted")
