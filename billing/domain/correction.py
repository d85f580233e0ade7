"""What the book should hold of a subscription, by the initial payment as the gateway shows it.

The gateway's word comes first. What it does not show (PortOne documents nowhere which buyer data it
keeps, or masks) is kept from the book as far as a seal vouches for it: one over the book as it is,
or over the book with the gateway's word in it, which is what was sealed at enrolment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from zoneinfo import ZoneInfo

from billing.domain.calendar import day_of
from billing.domain.enrolment import shown
from billing.domain.errors import Unconfirmed
from billing.domain.money import Won
from billing.domain.subscription import Facts

_MASK = re.compile(r"\*+")


@dataclass(frozen=True, slots=True)
class Differing:
    """One field in which the book and the gateway differ. Buyer data is hidden in both."""

    field: str
    book: str | int | None
    gateway: str | int | None


def proven(
    book: Facts, payment: Facts, is_sealed: Callable[[Facts], bool], zone: ZoneInfo
) -> Facts:
    """The facts that the book should hold. `payment` is what the initial payment shows.

    Raises `Unconfirmed` for buyer data that the gateway masks and that the book has otherwise."""
    ours, theirs = _buyer(book), _buyer(payment)
    read = {name: _read(name, theirs[name], ours[name]) for name in ours}
    moments = [payment.initial_paid_at]
    if day_of(book.initial_paid_at, zone) == day_of(payment.initial_paid_at, zone):
        # Only the day counts; a merchant's own file tells the moment a little otherwise.
        moments.insert(0, book.initial_paid_at)
    exact = replace(_with_buyer(payment, read), initial_paid_at=moments[0])
    kept = _with_buyer(exact, {name: _kept(read[name], ours[name]) for name in ours})
    if is_sealed(book):
        return kept
    as_enrolled = (replace(kept, initial_paid_at=moment) for moment in moments)
    return next(filter(is_sealed, as_enrolled), exact)


def differing(book: Facts, anchor_on: date, right: Facts, zone: ZoneInfo) -> tuple[Differing, ...]:
    """In which fields the book (its facts, and the anchor that it counts from) is not right."""
    found = [
        Differing(one.name, _shown(one.name, ours, zone), _shown(one.name, theirs, zone))
        for one in fields(Facts)
        if (ours := getattr(book, one.name)) != (theirs := getattr(right, one.name))
    ]
    anchor = day_of(right.initial_paid_at, zone)
    if anchor_on != anchor:
        found.append(Differing("anchor_on", anchor_on.isoformat(), anchor.isoformat()))
    return tuple(found)


def plain(text: str) -> str:
    """A text without what its writing may change: case, spaces, dashes."""
    return "".join(sign for sign in text.casefold() if sign.isalnum())


def _buyer(facts: Facts) -> dict[str, str | None]:
    return {
        "buyer_name": facts.buyer_name,
        "buyer_email": facts.buyer_email,
        "buyer_tel": facts.buyer_tel,
    }


def _with_buyer(facts: Facts, buyer: Mapping[str, str | None]) -> Facts:
    return replace(
        facts,
        buyer_name=buyer["buyer_name"],
        buyer_email=buyer["buyer_email"],
        buyer_tel=buyer["buyer_tel"],
    )


def _kept(read: str | None, ours: str | None) -> str | None:
    """The book's, where the gateway shows nothing, or the same in another writing."""
    return ours if read is None or plain(read) == plain(ours or "") else read


def _read(name: str, theirs: str | None, ours: str | None) -> str | None:
    """What the gateway shows, and for what it masks the book's, where that fits."""
    if not theirs or "*" not in theirs:
        return theirs or None
    pattern = ".*".join(re.escape(plain(part)) for part in _MASK.split(theirs))
    if ours and re.fullmatch(pattern, plain(ours)):
        return ours
    raise Unconfirmed(
        name,
        "[hidden]",
        "the gateway masks it, and what the book holds does not fit",
        "Ask the customer to register again: nobody can tell what the carrier compares",
    )


def _shown(name: str, value: object, zone: ZoneInfo) -> str | int | None:
    match value:
        case Won():
            return value.amount
        case datetime():
            return value.astimezone(zone).isoformat(timespec="seconds")
        case _:
            return None if value is None else shown(name, str(value))
