"""What befalls the world from outside: servers that are away, clocks that step, people who act."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import text

from billing.sandbox import HandPayment, LineChange, change, pay
from billing.sandbox.cancelling import cancel_in_console
from billing.sandbox.keys import delete as delete_key
from billing.sandbox.model import Payment, Schedule, Status
from billing.sandbox.mood import Chances, Spell
from billing.services import change_status, hold, refund
from billing.simulation import operating, set_back
from billing.simulation.announced import Announcements
from billing.simulation.people import SEOUL, Person, Trouble
from billing.simulation.processes import Process
from billing.simulation.world import World
from billing.store.session import Book

_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0
_SPELLS: Final = ("http:503", "timeout", "reset", "html", "too_many:30", "unauthorized")

Fate = Callable[[World, Sequence[Person], float], Coroutine[Any, Any, None]]


def all_of(world: World, people: Sequence[Person], until: float) -> list[Coroutine[Any, Any, None]]:
    """Everything that may befall a world, each as a coroutine of its own."""
    return [_again_and_again(world, people, until, kind, fate) for kind, fate in _FATES.items()]


async def _again_and_again(
    world: World, people: Sequence[Person], until: float, kind: str, fate: Fate
) -> None:
    while (wait := world.nemesis.wait_for(kind)) is not None:
        await asyncio.sleep(wait)
        world.nemesis.struck[kind] += 1
        await fate(world, people, until)


async def _for_a_while(world: World, until: float, low: float, high: float) -> float:
    """Wait as long as this fault lasts, at most until the faults stop; returns the seconds."""
    lasts = min(world.nemesis.between(low, high), max(until - world.loop.time(), 0.0))
    await asyncio.sleep(lasts)
    return lasts


def _any(world: World, people: Sequence[Person]) -> Person:
    return people[world.dice.randrange(len(people))]


# -- servers ----------------------------------------------------------------------------------


async def _database_down(world: World, _: Sequence[Person], until: float) -> None:
    world.database_is_down = True
    world.tell("database down")
    await _for_a_while(world, until, 2, 2 * _HOUR)
    world.database_is_down = False
    world.tell("database up")
    world.wake()


async def _broker_down(world: World, _: Sequence[Person], until: float) -> None:
    if world.broker_stays:
        return
    world.broker_is_down = True
    world.tell("broker down")
    await _for_a_while(world, until, 5, 6 * _HOUR)
    world.broker_is_down = False
    world.tell("broker up")


async def _broker_flushed(world: World, _: Sequence[Person], until: float) -> None:
    if world.broker_stays:
        return
    world.mail.flush()
    world.tell("broker flushed")


async def _ticks_down(world: World, _: Sequence[Person], until: float) -> None:
    world.ticks_are_down = True
    world.tell("no ticks")
    await _for_a_while(world, until, 5 * _MINUTE, 3 * _DAY)
    world.ticks_are_down = False
    world.tell("ticks again")
    world.wake()


async def _gateway_down(world: World, _: Sequence[Person], until: float) -> None:
    now = world.loop.now()
    lasts = min(world.nemesis.between(30, 5 * _DAY), until - world.loop.time())
    word = world.dice.choice(_SPELLS)
    spell = Spell.model_validate(
        {"from": now, "until": now + timedelta(seconds=max(lasts, 1)), "does": word}
    )
    world.sandbox.mood = world.sandbox.mood.model_copy(update={"spells": [spell]})
    world.tell("gateway spell", does=word, seconds=round(lasts))
    await asyncio.sleep(max(lasts, 1))


async def _lookups_down(world: World, _: Sequence[Person], until: float) -> None:
    """The gateway charges, and cannot say what it charged."""
    world.lookups_are_down = True
    world.tell("look-ups down")
    await _for_a_while(world, until, _HOUR, 6 * _DAY)
    world.lookups_are_down = False
    world.tell("look-ups up")


async def _outage(world: World, _: Sequence[Person], until: float) -> None:
    """Every process of ours is down, from minutes to days."""
    world.tell("outage")
    world.kill_all()
    await _for_a_while(world, until, _MINUTE, 9 * _DAY)
    world.out = False
    world.tell("outage over")
    world.wake()


async def _book_set_back(world: World, _: Sequence[Person], until: float) -> None:
    """The book is lost, and restored from a copy that was made hours or days before: a dump in
    another database, or the same disk as it was (docs/backup.md)."""
    if not world.looks_back:
        return
    copied_at = world.loop.now()
    set_back.copy(world.engine)
    world.tell("book copied")
    await _for_a_while(world, until, _MINUTE, 6 * _DAY)
    world.kill_all()
    set_back.put_back(world.engine)
    world.forgot.append((copied_at, world.loop.now()))
    world.tell("book set back", hours=round((world.loop.now() - copied_at) / timedelta(hours=1), 1))
    in_place = world.dice.random() < 0.5
    seen = max(world.mail.watermarks.values(), default=0)
    # The same disk as it was shows by what the broker keeps alone, which stays as it is until then.
    world.broker_stays = in_place and seen > set_back.newest_event(world.engine)
    if world.broker_is_down or not (world.broker_stays or set_back.move(world.engine)):
        # Nothing could tell: whoever restores it has to.
        hold.hold(Book(world.engine, world.database_time), "restored")
    await _for_a_while(world, until, _MINUTE, 2 * _HOUR)
    world.out = False
    world.tell("book in use again")
    world.wake()


async def _row_edited(world: World, people: Sequence[Person], until: float) -> None:
    """Somebody edits a subscription with the database's own tools, triggers off; it is noticed and
    put right hours or days later."""
    if not world.has_past:
        return
    who = _any(world, people).customer_uid
    edit = world.dice.choice(_EDITS)
    with world.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text(f"UPDATE subscriptions SET {edit} WHERE customer_uid = :who"),  # noqa: S608 - ours
            {"who": who},
        )
    world.edited.add(who)
    world.tell("row edited", customer=who, edit=edit)
    wait = world.nemesis.between(_HOUR, 4 * _DAY)

    async def noticed() -> None:
        await asyncio.sleep(wait)
        await operating.put_right(world, who)

    world.loop.outside(noticed())


# Another amount, name or day; within its month, by whose number months are counted.
_EDITS: Final = (
    "amount = amount + 1000",
    "amount = amount + 10",
    "order_name = order_name || '!'",
    "anchor_on = anchor_on + CASE WHEN extract(day FROM anchor_on) < 28 THEN 1 ELSE 0 END",
    "anchor_on = anchor_on - CASE WHEN extract(day FROM anchor_on) > 1 THEN 1 ELSE 0 END",
)


# -- clocks -----------------------------------------------------------------------------------


async def _clock_step(world: World, _: Sequence[Person], until: float) -> None:
    """The database's clock is set wrong by minutes, forwards or back, and later right again."""
    # Far enough to be wrong wherever it has strayed to.
    step = timedelta(seconds=world.nemesis.between(120, 2_000) * world.dice.choice((-1, 1)))
    world.stepped += step
    world.tell("database clock wrong", seconds=round(step.total_seconds()))
    world.wake()
    await _for_a_while(world, until, 10 * _MINUTE, _DAY)
    world.stepped -= step
    world.tell("database clock right")
    world.wake()


async def drift(world: World, until: float) -> None:
    """The database's clock strays from the gateway's, within the bound that is assumed."""
    if not world.nemesis.strikes("clock_drift"):
        return
    while world.loop.time() < until:
        world.strayed = timedelta(seconds=world.dice.uniform(-50, 50))
        await asyncio.sleep(world.nemesis.between(_HOUR, 20 * _DAY))
    world.strayed = timedelta(0)


# -- people -----------------------------------------------------------------------------------


async def _hand_payment(world: World, people: Sequence[Person], until: float) -> None:
    """Somebody else charges the key: a person, a script, the gateway console's daily recovery."""
    who = _any(world, people)
    key = world.sandbox.ledger.key(who.customer_uid)
    if key is None:
        return
    other = key.amount + 1_000 if world.dice.random() < 0.25 else None
    pay(
        world.sandbox,
        HandPayment(customer_uid=who.customer_uid, amount=other, carrier=True),
    )
    world.tell("paid by hand", customer=who.customer_uid, amount=other)


async def _second_charger(world: World, people: Sequence[Person], until: float) -> None:
    """The gateway's own scheduler is told to charge a key within some days."""
    who = _any(world, people)
    number = len(world.sandbox.ledger.schedules) + 1
    world.sandbox.ledger.put(
        Schedule(
            merchant_uid=f"schedule-{number}",
            customer_uid=who.customer_uid,
            schedule_at=int(world.loop.time() + world.nemesis.between(_HOUR, 20 * _DAY)),
            amount=who.amount,
            name=who.order_name,
            buyer_name=who.buyer_name,
            buyer_tel=who.buyer_tel,
        )
    )
    world.tell("scheduled at the gateway", customer=who.customer_uid)


async def _pause(world: World, people: Sequence[Person], until: float) -> None:
    who = _any(world, people).customer_uid
    await operating.by_hand(world, lambda it: change_status.pause(it.book, world.policy, who))
    wait = world.nemesis.between(_HOUR, 40 * _DAY)

    async def resume() -> None:
        await asyncio.sleep(wait)
        await operating.by_hand(world, lambda it: change_status.resume(it.book, world.policy, who))

    world.tell("paused", customer=who, resumed_after_days=round(wait / _DAY, 1))
    world.loop.outside(resume())


async def _cancel(world: World, people: Sequence[Person], until: float) -> None:
    who = _any(world, people).customer_uid
    world.tell("cancelled", customer=who)
    world.cancelled[who] = world.loop.now()
    await operating.by_hand(world, operating.cancelling(world, who))


async def _payment_cancelled(world: World, people: Sequence[Person], until: float) -> None:
    """A payment is given back in the gateway's console."""
    who = _any(world, people).customer_uid
    made = world.sandbox.ledger.of_customer(who)
    if made:
        cancel_in_console(world.sandbox, made[-1].imp_uid, "simulated")
        world.tell("payment cancelled at the gateway", customer=who)


async def _key_deleted(world: World, people: Sequence[Person], until: float) -> None:
    who = _any(world, people).customer_uid
    delete_key(world.sandbox, who)
    world.tell("billing key deleted", customer=who)


async def _refund(world: World, people: Sequence[Person], until: float) -> None:
    """A payment of this month is given back by us, whoever made it."""
    who, month = _any(world, people).customer_uid, _month(world.loop.time())
    made = [
        one
        for one in world.sandbox.ledger.of_customer(who)
        if one.status is Status.PAID and _month(one.paid_at) == month
    ]
    if not made or not world.has_past:
        return
    payment, waits = world.dice.choice(made), world.dice.random() < 0.5
    world.tell("refund asked for", customer=who, order=payment.merchant_uid)
    await operating.typed_again(world, lambda it: _give_back(it, payment, waits))


def _month(moment: float) -> tuple[int, int]:
    at = datetime.fromtimestamp(moment, SEOUL)
    return at.year, at.month


async def _give_back(process: Process, payment: Payment, waits: bool) -> None:
    """As the command `refund`, which waits for the end; the console leaves it to the ticks."""
    book, client, policy = process.book, process.client, process.world.policy
    named = payment.merchant_uid, payment.imp_uid
    proposal = await refund.propose(book, client, policy, *named)
    made = await asyncio.to_thread(refund.request, book, proposal, "simulated")
    if waits:
        await refund.see_through(book, client, policy, made, seconds=20)


async def _webhook_forged(world: World, people: Sequence[Person], until: float) -> None:
    """Somebody tells our edge something: made up, old, not so, or no webhook at all."""
    if not isinstance(world.sandbox.webhooks, Announcements):
        return
    of_somebody = world.sandbox.ledger.of_customer(_any(world, people).customer_uid)
    row = world.dice.choice(of_somebody) if of_somebody else None
    told: dict[str, object] = {
        "imp_uid": row.imp_uid if row else "imp_000000000000",
        "merchant_uid": row.merchant_uid if row else "none",
        "status": world.dice.choice(("paid", "paid", "cancelled", "failed")),
    }
    match world.dice.randrange(4):
        case 0:
            told["imp_uid"] = f"imp_{world.dice.randrange(10**12):012d}"
        case 1:
            told = {"imp_uid": ["no"], "status": 7}
    world.sandbox.webhooks.send(told)
    world.tell("webhook forged")


async def lives(world: World, troubles: Sequence[Trouble]) -> None:
    """What befalls the subscribers' lines, in the order of time."""
    for trouble in troubles:
        wait = (trouble.at - world.loop.now()).total_seconds()
        await asyncio.sleep(max(wait, 0.0))
        key = world.sandbox.ledger.key(trouble.customer_uid)
        if key is None:
            continue
        world.tell("trouble", customer=trouble.customer_uid, condition=trouble.condition or "limit")
        if trouble.limit:
            wish = LineChange(monthly_limit=key.amount, spent_elsewhere=1)
            raised = LineChange(monthly_limit=0, spent_elsewhere=0)
            change(world.sandbox, trouble.customer_uid, wish)
            if trouble.until is not None:
                world.loop.outside(_later(world, trouble.until, trouble.customer_uid, raised))
        else:
            wish = LineChange(condition=trouble.condition, condition_until=trouble.until)
            change(world.sandbox, trouble.customer_uid, wish)


async def _later(world: World, at: datetime, customer_uid: str, wish: LineChange) -> None:
    await asyncio.sleep(max((at - world.loop.now()).total_seconds(), 0.0))
    if world.sandbox.ledger.key(customer_uid) is not None:
        change(world.sandbox, customer_uid, wish)


async def down_between(world: World, spans: Sequence[tuple[datetime, datetime]]) -> None:
    """Outages at moments that are given: everything of ours is down."""
    for begins, ends in sorted(spans):
        await asyncio.sleep(max((begins - world.loop.now()).total_seconds(), 0.0))
        world.kill_all()
        world.tell("outage", until=ends.astimezone(UTC).isoformat())
        await asyncio.sleep(max((ends - world.loop.now()).total_seconds(), 0.0))
        world.out = False
        world.tell("outage over")
        world.wake()


def calm(world: World) -> None:
    """The faults stop; what the gateway and the carrier are like by nature stays."""
    world.database_is_down = world.broker_is_down = world.way_is_down = False
    world.ticks_are_down = world.lookups_are_down = world.out = False
    world.sandbox.mood = world.sandbox.mood.model_copy(update={"chances": Chances(), "spells": []})
    world.tell("faults stop")
    world.wake()


_FATES: Final[dict[str, Fate]] = {
    "database_down_a_month": _database_down,
    "broker_down_a_month": _broker_down,
    "broker_flushed_a_month": _broker_flushed,
    "ticks_down_a_month": _ticks_down,
    "gateway_down_a_month": _gateway_down,
    "lookups_down_a_month": _lookups_down,
    "outage_a_month": _outage,
    "clock_step_a_month": _clock_step,
    "hand_payment_a_month": _hand_payment,
    "second_charger_a_month": _second_charger,
    "pause_a_month": _pause,
    "cancel_a_month": _cancel,
    "payment_cancelled_a_month": _payment_cancelled,
    "key_deleted_a_month": _key_deleted,
    "refund_a_month": _refund,
    "webhook_forged_a_month": _webhook_forged,
    "book_set_back_a_month": _book_set_back,
    "row_edited_a_month": _row_edited,
}
