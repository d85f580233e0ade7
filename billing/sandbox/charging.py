"""Charging a billing key, `again`: docs/gateway.md §3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from billing.sandbox.faults import OK, Fault, charge_fault, script
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import BillingKey, Origin, Payment, Seen, Status, differences
from billing.sandbox.mood import by_chance, seconds
from billing.sandbox.reply import NO_SUCH_BUYER, Broken, Reply, door, refusal, success
from billing.sandbox.texts import Decline, decline
from billing.sandbox.view import payment_row

# The gateway's limits of length, in characters (docs/gateway.md §3), also of what is not kept.
_LONGEST = {
    "customer_uid": 80,
    "merchant_uid": 40,
    "name": 40,
    "buyer_name": 16,
    "buyer_email": 64,
    "buyer_tel": 16,
    "buyer_addr": 128,
    "buyer_postcode": 8,
    "channel_key": 55,
}
# Above this a number is no amount of won; it also would not fit the ledger file.
_ENDLESS_WON = 10**12
_REQUIRED = ("customer_uid", "merchant_uid", "name")

ALREADY_PAID = "이미 결제가 이루어진 거래건입니다."
ALREADY_USED = "한번 사용한 merchant_uid는 재사용이 불가능합니다."


@dataclass(frozen=True, slots=True)
class Asked:
    """One charge as it was asked for. An `amount` below 0 could not be read."""

    customer_uid: str = field(repr=False)
    merchant_uid: str
    amount: int
    name: str
    buyer_name: str = field(default="", repr=False)
    buyer_email: str = field(default="", repr=False)
    buyer_tel: str = field(default="", repr=False)
    custom_data: str = field(default="", repr=False)
    notice_url: str = field(default="", repr=False)


def read_asked(form: Mapping[str, object]) -> Asked:
    """The fields of a request, JSON or form, without judging them."""

    def text(name: str) -> str:
        return storable(form.get(name))

    return Asked(
        customer_uid=text("customer_uid"),
        merchant_uid=text("merchant_uid"),
        amount=won(form.get("amount")),
        name=text("name"),
        buyer_name=text("buyer_name"),
        buyer_email=text("buyer_email"),
        buyer_tel=text("buyer_tel"),
        custom_data=text("custom_data"),
        notice_url=text("notice_url"),
    )


async def again(sandbox: Sandbox, form: Mapping[str, object]) -> Reply | Broken:
    """Charge a billing key once, unless the mood or the carrier has something against it."""
    asked = read_asked(form)
    arrived = sandbox.clock.unix()
    nth = sandbox.ledger.next_turn(asked.customer_uid)
    fault = _fault(sandbox, asked, nth, arrived)
    paid_on_arrival = _is_paid(sandbox, asked.merchant_uid)
    with _in_hand(sandbox, asked) as overlaps:
        await _wait(sandbox, asked, nth, fault)
        sandbox.settle()
        paid = paid_on_arrival if sandbox.mood.racy else _is_paid(sandbox, asked.merchant_uid)
        ending = _ending(sandbox, asked, form, fault, nth, paid)
        key = sandbox.ledger.key(asked.customer_uid)
        sandbox.ledger.saw(
            Seen(
                number=len(sandbox.ledger.requests) + 1,
                at=arrived,
                kind="again",
                customer_uid=asked.customer_uid,
                merchant_uid=asked.merchant_uid,
                amount=asked.amount,
                nth=nth,
                differs="" if key is None else differences(key, asked),
                overlaps=overlaps,
                fault="" if fault == OK else str(fault),
                outcome=ending.outcome,
                imp_uid=ending.imp_uid,
            )
        )
        await sandbox.ledger.committed()
    return Broken(fault, ending.reply) if fault.breaks else ending.reply


@dataclass(frozen=True, slots=True)
class _Ending:
    reply: Reply
    outcome: str
    imp_uid: str = ""


def _ending(
    sandbox: Sandbox,
    asked: Asked,
    form: Mapping[str, object],
    fault: Fault,
    nth: int,
    paid: bool,
) -> _Ending:
    if turned_away := door(fault):
        return _Ending(turned_away, "turned_away")
    if fault.charged is False:
        return _Ending(refusal("", code=-1), "lost")
    if problem := _problem(asked, form):
        return _Ending(refusal(problem), "refused:malformed")
    key = sandbox.ledger.key(asked.customer_uid)
    if key is None:
        return _Ending(refusal(NO_SUCH_BUYER), "refused:unregistered")
    if paid:
        return _Ending(refusal(ALREADY_PAID), "refused:already_paid")
    if sandbox.mood.failed_merchant_uid == "strict" and sandbox.ledger.of_order(asked.merchant_uid):
        return _Ending(refusal(ALREADY_USED), "refused:already_used")
    payment = _decided(sandbox, asked, key, fault, nth)
    if payment.paid_at:
        sandbox.webhooks.tell(payment)
    outcome = "paid" if payment.paid_at else f"declined:{payment.fail_code}"
    return _Ending(success(_echo(payment, fault)), outcome, payment.imp_uid)


def _decided(sandbox: Sandbox, asked: Asked, key: BillingKey, fault: Fault, nth: int) -> Payment:
    """The carrier's word, unless the fault has the word."""
    now, late = sandbox.clock.unix(), 0.0
    if fault.kind == "declined":
        dice = sandbox.dice.of("decline", asked.customer_uid, asked.merchant_uid, nth)
        said: Decline | None = decline(fault.argument, dice)
    else:
        said = sandbox.decision(key, asked, now)
        if said is None and fault.kind == "late_paid":
            said, late = decline("0098"), now + fault.number
    return sandbox.enter(
        asked,
        asked.merchant_uid,
        key,
        now,
        Origin.AGAIN,
        decline=said,
        turns_paid_at=late,
        custom_data=asked.custom_data,
        notice_url=asked.notice_url,
    )


def _echo(payment: Payment, fault: Fault) -> dict[str, object]:
    row = payment_row(payment)
    match fault.kind:
        case "wrong_amount":
            row["amount"] = payment.amount + 1_000
        case "wrong_merchant_uid":
            row["merchant_uid"] = f"x{payment.merchant_uid}"[:40]
        case "wrong_customer_uid":
            row["customer_uid"] = "somebody-else"
        case "ready" if payment.status is Status.PAID:
            row |= {"status": "ready", "paid_at": 0, "receipt_url": None}
    return row


def _fault(sandbox: Sandbox, asked: Asked, nth: int, now: float) -> Fault:
    if spell := sandbox.mood.spell(now):
        return spell
    key = sandbox.ledger.key(asked.customer_uid)
    if key is not None and key.script:
        turns, turn = script(key.script), nth - key.script_from - 1
        if turn < len(turns):
            return turns[turn]
    scripted = sandbox.mood.scripted(asked.customer_uid, nth)
    if scripted is not None:
        return scripted
    chances = sandbox.mood.chances.charge
    if not chances:
        return OK
    dice = sandbox.dice.of("charge", asked.customer_uid, asked.merchant_uid, nth)
    return charge_fault(by_chance(chances, dice))


async def _wait(sandbox: Sandbox, asked: Asked, nth: int, fault: Fault) -> None:
    latency = sandbox.mood.latency.charge
    wait = fault.number / 1000 if fault.kind == "slow" else 0.0
    if latency:
        wait += seconds(latency, sandbox.dice.of("latency", asked.customer_uid, nth))
    if wait:
        await sandbox.sleep(wait)


@contextmanager
def _in_hand(sandbox: Sandbox, asked: Asked) -> Iterator[str]:
    """Hold a charge in hand; yields what else was in hand already: its order, its customer."""
    order, customer = f"order {asked.merchant_uid}", f"customer {asked.customer_uid}"
    hands = sandbox.in_hand
    overlaps = "order" if hands[order] else "customer" if hands[customer] else ""
    hands.update((order, customer))
    try:
        yield overlaps
    finally:
        for name in (order, customer):
            hands[name] -= 1
            if not hands[name]:
                del hands[name]


def _is_paid(sandbox: Sandbox, merchant_uid: str) -> bool:
    """Whether a merchant_uid was ever paid, be it cancelled since (docs/gateway.md §3)."""
    return any(one.paid_at for one in sandbox.ledger.of_order(merchant_uid))


def _problem(asked: Asked, form: Mapping[str, object]) -> str:
    for name in _REQUIRED:
        if not getattr(asked, name):
            return f"{name}은(는) 필수 항목입니다."
    if asked.amount < 0:
        return "amount가 올바르지 않습니다."
    for name, longest in _LONGEST.items():
        if len(str(form.get(name) or "")) > longest:
            return f"{name}은(는) {longest}자를 넘을 수 없습니다."
    return ""


def storable(value: object) -> str:
    """A field as text that a file can hold: halves of surrogate pairs become question marks."""
    text = "" if value is None else str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def won(value: object) -> int:
    """Whole won from JSON or a form; -1 when it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < _ENDLESS_WON else -1
