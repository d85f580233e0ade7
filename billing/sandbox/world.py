"""A world to test in: customers with a past, payments by hand, lines that change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from billing.sandbox.clock import SEOUL
from billing.sandbox.faults import charge_fault
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import BillingKey, Origin, Payment
from billing.sandbox.months import after, clamped, month_of
from billing.sandbox.texts import matching


class WorldError(ValueError):
    """A wish that cannot be fulfilled; says which and why."""


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


Condition = Annotated[str, _checked(lambda text: text and matching(text))]
ScriptWord = Annotated[str, _checked(charge_fault)]
Won = Annotated[int, Field(ge=0, lt=10**12)]
CustomerUid = Annotated[str, Field(min_length=1, max_length=80)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewCustomer(_Strict):
    """A billing key to register, with its initial payment at `paid_at`.

    With `last_paid_at` the months up to that moment are paid too, each on the anchor's day, so that
    the chain is whole. `script` is what its first requests meet.
    """

    customer_uid: CustomerUid
    amount: Won
    name: Annotated[str, Field(min_length=1, max_length=40)]
    paid_at: AwareDatetime
    last_paid_at: AwareDatetime | None = None
    merchant_uid: Annotated[str, Field(max_length=40)] | None = None
    buyer_name: str = ""
    buyer_email: str = ""
    buyer_tel: str = ""
    monthly_limit: Won = 0
    spent_elsewhere: Won = 0
    condition: Condition = ""
    condition_until: AwareDatetime | None = None
    carrier_knows: bool = True
    sandbox: bool = False
    script: list[ScriptWord] = []


class LineChange(_Strict):
    """What changes with a line that exists: a limit raised, a bill paid (`condition` ""), a new
    script for the requests from now on. What is left out stays."""

    monthly_limit: Won | None = None
    spent_elsewhere: Won | None = None
    condition: Condition | None = None
    condition_until: AwareDatetime | None = None
    carrier_knows: bool | None = None
    script: list[ScriptWord] | None = None


class HandPayment(_Strict):
    """A payment with a key by somebody else than the merchant's biller: a person, a script, the
    console's daily recovery. The amount and name are the key's unless given; `carrier` says
    whether the carrier's rules are asked."""

    customer_uid: CustomerUid
    merchant_uid: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    amount: Won | None = None
    name: str | None = None
    at: AwareDatetime | None = None
    carrier: bool = False


def register(sandbox: Sandbox, wishes: Sequence[NewCustomer]) -> list[Payment]:
    """Register billing keys; their initial payments, in the same order. All or none. Raises
    `WorldError`."""
    now = sandbox.clock.now()
    for wish in wishes:
        if max(wish.paid_at, wish.last_paid_at or wish.paid_at) > now:
            raise WorldError(f"{wish.customer_uid}: paid in the future of the sandbox's clock")
        if wish.last_paid_at is not None and wish.last_paid_at < wish.paid_at:
            raise WorldError(f"{wish.customer_uid}: last_paid_at is before paid_at")
    return [_registered(sandbox, wish) for wish in wishes]


def _registered(sandbox: Sandbox, wish: NewCustomer) -> Payment:
    key = BillingKey(
        customer_uid=wish.customer_uid,
        amount=wish.amount,
        name=wish.name,
        issued_at=int(wish.paid_at.timestamp()),
        buyer_name=wish.buyer_name,
        buyer_email=wish.buyer_email,
        buyer_tel=wish.buyer_tel,
        carrier_knows=wish.carrier_knows,
        monthly_limit=wish.monthly_limit,
        spent_elsewhere=wish.spent_elsewhere,
        condition=wish.condition,
        condition_until=_unix(wish.condition_until),
        script=",".join(wish.script),
        script_from=sandbox.ledger.times_asked(wish.customer_uid),
        sandbox=wish.sandbox,
    )
    sandbox.ledger.put(key)
    initial = _past(sandbox, key, wish.paid_at, Origin.WINDOW, wish.merchant_uid or "initial")
    for moment in _months_between(wish.paid_at, wish.last_paid_at):
        _past(sandbox, key, moment, Origin.HAND, "month")
    return initial


def _past(
    sandbox: Sandbox, key: BillingKey, moment: datetime, origin: Origin, order: str
) -> Payment:
    """A payment of the past: no look-up lags behind it."""
    if order in ("initial", "month"):
        order = f"{order}-{sandbox.ledger.next_number}"
    payment = sandbox.enter(key, order, key, moment.timestamp(), origin)
    if payment.visible_at:
        payment = replace(payment, visible_at=0.0)
        sandbox.ledger.put(payment)
    return payment


def _months_between(first: datetime, last: datetime | None) -> Iterator[datetime]:
    """One moment in each month after `first`'s, the last being `last` itself."""
    if last is None:
        return
    anchor, end = first.astimezone(SEOUL), last.astimezone(SEOUL)
    month = after(month_of(anchor.date()))
    while month < month_of(end.date()):
        yield datetime.combine(clamped(month, anchor.day), anchor.timetz()).astimezone(UTC)
        month = after(month)
    if month == month_of(end.date()):
        yield last


def change(sandbox: Sandbox, customer_uid: str, wish: LineChange) -> BillingKey:
    """Change a line. Raises `WorldError` for a key that is not there."""
    key = _key(sandbox, customer_uid)
    given = {
        name: getattr(wish, name)
        for name in ("monthly_limit", "spent_elsewhere", "carrier_knows")
        if getattr(wish, name) is not None
    }
    if wish.condition is not None:
        given |= {"condition": wish.condition, "condition_until": _unix(wish.condition_until)}
    if wish.script is not None:
        asked = sandbox.ledger.times_asked(customer_uid)
        given |= {"script": ",".join(wish.script), "script_from": asked}
    changed = replace(key, **given)
    sandbox.ledger.put(changed)
    return changed


def pay(sandbox: Sandbox, wish: HandPayment) -> Payment:
    """Pay with a key by hand, now or at a moment of the past. Raises `WorldError`."""
    key = _key(sandbox, wish.customer_uid)
    at = sandbox.clock.unix() if wish.at is None else wish.at.timestamp()
    if at > sandbox.clock.unix():
        raise WorldError(f"{wish.customer_uid}: paid in the future of the sandbox's clock")
    terms = replace(
        key,
        amount=key.amount if wish.amount is None else wish.amount,
        name=key.name if wish.name is None else wish.name,
    )
    order = wish.merchant_uid or f"hand-{sandbox.ledger.next_number}"
    decline = sandbox.decision(key, terms, at) if wish.carrier else None
    payment = sandbox.enter(terms, order, key, at, Origin.HAND, decline=decline)
    if payment.paid_at:
        sandbox.webhooks.tell(payment)
    return payment


def _key(sandbox: Sandbox, customer_uid: str) -> BillingKey:
    key = sandbox.ledger.key(customer_uid)
    if key is None:
        raise WorldError(f"{customer_uid}: no such billing key")
    return key


def _unix(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
