"""Moments in the life of one subscription, and what may be done about it at each, by whom ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from billing.domain.calendar import SEOUL
from billing.domain.webhook import announced
from billing.portone.client import PortOneClient
from billing.sandbox import mood
from billing.sandbox.model import Payment
from billing.services import change_status, correct, refund
from billing.services import charge as charge_service
from billing.services.charge import charge
from billing.services.close_cycles import close_cycles
from billing.services.enrol import enrol
from billing.services.enrol_payment import enrol_payment
from billing.services.forget import forget
from billing.services.hold import hold, release
from billing.services.inquire import find_unknown, inquire
from billing.services.let_go import let_go
from billing.services.look_at_webhooks import look_at_webhooks, waiting
from billing.services.open_cycles import open_cycles
from billing.services.receive_webhook import receive_webhook
from billing.services.seal_events import seal_events
from billing.services.try_again import try_again
from tests.between.weave import Operation
from tests.builders import KEY, query
from tests.town import Town, uid

_AGAIN = "/payments/again"
_CANCEL = "/payments/cancel"
_SOMEBODY, _ANEW = uid(1), uid(2)


@dataclass(frozen=True)
class Situation:
    """What was before, and what may happen now, two at a time."""

    set_up: Callable[[Town], object]
    operations: Mapping[str, Operation]


# -- what may happen ----------------------------------------------------------------------------


def _open(town: Town) -> None:
    open_cycles(town.book, town.policy)


def _close(town: Town) -> None:
    close_cycles(town.book, town.policy)


def _charge(town: Town) -> None:
    """A message to a worker, with what is due now or is at the gateway already."""
    ids = [row[0] for row in query(town.book, "SELECT id FROM attempts ORDER BY id")]
    town.run(lambda client: charge(town.book, client, town.policy, ids))


class _Asked:
    """A queue that keeps what is to be asked."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def charge(self, attempt_ids: Sequence[int]) -> None:
        raise AssertionError("nothing is dispatched here")

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        self.ids.extend(attempt_ids)

    def charges_waiting(self) -> int:
        return 0

    def dispatch_soon(self) -> None: ...


def _inquire(town: Town) -> None:
    queue = _Asked()
    find_unknown(town.book, queue, town.policy)
    if queue.ids:
        town.run(lambda client: inquire(town.book, client, town.policy, queue.ids))


def _look(town: Town) -> None:
    if waiting(town.book):
        town.run(lambda client: look_at_webhooks(town.book, client, town.policy))


def _reconcile(town: Town) -> None:
    first, last = _span(town)
    town.reconcile(first, last, apply=True)


def _span(town: Town) -> tuple[str, str]:
    return "2026-11-01", town.clock.now.date().isoformat()


def _refund(town: Town) -> None:
    async def whole(client: PortOneClient) -> None:
        named = await asyncio.to_thread(refund.payment_of_month, town.book, town.policy, _SOMEBODY)
        proposal = await refund.propose(
            town.book, client, town.policy, named.merchant_uid, named.imp_uid
        )
        refund_id = await asyncio.to_thread(refund.request, town.book, proposal, "was asked for")
        await refund.work_on(town.book, client, town.policy, refund_id)

    town.run(whole)


def _work_on_refunds(town: Town) -> None:
    town.run(lambda client: refund.work_on_open(town.book, client, town.policy))


def _correct(town: Town) -> None:
    async def whole(client: PortOneClient) -> None:
        proposal = await correct.propose(town.book, client, town.policy, _SOMEBODY)
        await asyncio.to_thread(correct.correct, town.book, town.policy, proposal)

    town.run(whole)


def _enrol_again(town: Town) -> None:
    """The line of a file that says what the gateway has of the first payment."""
    paid = town.sandbox.ledger.of_customer(_SOMEBODY)[0]
    fields = {
        "customer_uid": paid.customer_uid,
        "amount": str(paid.amount),
        "order_name": paid.name,
        "initial_paid_at": datetime.fromtimestamp(paid.paid_at, SEOUL).isoformat(),
        "buyer_name": paid.buyer_name,
        "buyer_tel": paid.buyer_tel,
        "initial_merchant_uid": paid.merchant_uid,
    }
    enrol(town.book, town.policy, lambda: KEY, fields)


def _enrol_payment(town: Town, *, previous: str | None = None) -> None:
    """The newest key that was registered, by its first payment."""
    imp_uid = town.sandbox.ledger.of_customer(_ANEW if previous else _SOMEBODY)[0].imp_uid
    town.run(
        lambda client: enrol_payment(
            town.book, town.policy, lambda: KEY, client, imp_uid, previous=previous
        )
    )


_OPERATIONS: dict[str, Operation] = {
    # People.
    "pause": lambda town: change_status.pause(town.book, town.policy, _SOMEBODY),
    "resume": lambda town: change_status.resume(town.book, town.policy, _SOMEBODY),
    "cancel": lambda town: change_status.cancel(town.book, town.policy, _SOMEBODY),
    "try again": lambda town: try_again(town.book, town.policy, _SOMEBODY),
    "hold": lambda town: hold(town.book, "by hand"),
    "release": lambda town: release(town.book, town.policy),
    "let go": lambda town: let_go(town.book, town.policy, _SOMEBODY),
    "forget": lambda town: forget(town.book, town.policy, _SOMEBODY),
    "correct": _correct,
    "refund": _refund,
    "enrol again": _enrol_again,
    "enrol payment": _enrol_payment,
    "go on from": lambda town: _enrol_payment(town, previous=_SOMEBODY),
    # Ticks and workers.
    "open": _open,
    "charge": _charge,
    "inquire": _inquire,
    "look": _look,
    "reconcile": _reconcile,
    "work on refunds": _work_on_refunds,
    "close": _close,
    "seal": lambda town: seal_events(town.book),
}


def _some(*names: str) -> dict[str, Operation]:
    return {name: _OPERATIONS[name] for name in names}


# Ticks and messages leave what somebody else has locked to the next one.
SKIPPING = frozenset({"open", "close", "charge", "inquire", "look", "work on refunds", "seal"})


# -- what was before ----------------------------------------------------------------------------


def _announce(town: Town, payment: Payment, status: str = "paid") -> None:
    receive_webhook(town.book, announced(payment.imp_uid, payment.merchant_uid, status))


def _newest(town: Town) -> Payment:
    return list(town.sandbox.ledger.payments)[-1]


def _due(town: Town) -> None:
    town.subscribe()
    _open(town)


def _coming(town: Town) -> None:
    """Paid by hand a moment before its month opens."""
    town.subscribe()
    _announce(town, town.pay_by_hand())
    town.move(minutes=5)


def _registered(town: Town) -> None:
    """A key at the gateway, and nobody in the book yet."""
    town.register_only(1)


def _registered_anew(town: Town) -> None:
    """Suspended for good, and then registered with a new key."""
    _refused_for_good(town)
    _close(town)
    assert query(town.book, "SELECT status FROM subscriptions") == [("suspended",)]
    town.move(minutes=5)
    town.register_only(2, paid="2026-11-20 10:02")


def _by_hand(town: Town) -> None:
    _due(town)
    _announce(town, town.pay_by_hand())
    town.move(minutes=5)


def _asked_in_vain(town: Town, fault: str) -> None:
    town.subscribe()
    town.wire.faults[_AGAIN] = fault
    assert town.charge() == {"unknown": 1}
    town.wire.faults.clear()


def _unknown(town: Town) -> None:
    _asked_in_vain(town, "unanswered")
    _announce(town, _newest(town))
    town.move(minutes=5)


def _lease_over(town: Town) -> None:
    """The worker died after the gateway had charged, and before the answer."""
    _due(town)
    ((attempt_id, name),) = query(town.book, "SELECT id, merchant_uid FROM attempts")
    asyncio.run(charge_service._claim(town.book, town.policy, [attempt_id], {}, trusting=True))
    _announce(town, town.pay_by_hand(merchant_uid=name))
    town.move(minutes=5)


def _never_arrived(town: Town) -> None:
    _asked_in_vain(town, "lost")
    town.move(minutes=5)


def _cancelled_outside(town: Town) -> None:
    town.charged()
    imp_uid = town.paid_imp_uid()
    town.cancel_outside(imp_uid)
    _announce(town, _newest(town), "cancelled")
    town.move(minutes=5)


def _refund_unknown(town: Town) -> None:
    town.charged()
    town.wire.faults[_CANCEL] = "unanswered"
    _refund(town)
    town.wire.faults.clear()
    assert query(town.book, "SELECT status FROM refunds") == [("unknown",)]
    _announce(town, _newest(town), "cancelled")
    town.move(minutes=5)


def _declined(town: Town, code: str = "0098") -> str:
    town.subscribe()
    town.sandbox.mood = mood({"scripts": [{"customers": "*", "does": [f"declined:{code}"]}]})
    assert town.charge() == {"declined": 1}
    town.sandbox.mood = mood({})
    ((name,),) = query(town.book, "SELECT merchant_uid FROM attempts WHERE status = 'declined'")
    return str(name)


def _late_paid(town: Town) -> None:
    """Declined, with a retry that is due, and then paid under its first name after all."""
    name = _declined(town)
    _announce(town, town.pay_by_hand(merchant_uid=name))
    town.move(hours=24)


def _closing(town: Town) -> None:
    """Declined, the window is over, and the month still open."""
    _declined(town)
    town.at("2026-11-26 10:00")


def _closing_paid(town: Town) -> None:
    """The same, and paid by hand on the last day."""
    _declined(town)
    town.at("2026-11-25 09:00")
    _announce(town, town.pay_by_hand())
    town.at("2026-11-26 10:00")


def _closing_unknown(town: Town) -> None:
    """Asked on the last day; nobody knows."""
    _unknown(town)
    town.at("2026-11-26 10:00")


def _refused_for_good(town: Town) -> None:
    """Waits to be suspended, if it is not our own fault."""
    _declined(town, "0011")
    town.move(minutes=1)


def _paused(town: Town) -> None:
    _due(town)
    change_status.pause(town.book, town.policy, _SOMEBODY)


def _held(town: Town) -> None:
    """Put aside: the carrier says that the facts are not those of the key."""
    _declined(town, "0060/mismatch")
    assert query(town.book, "SELECT held FROM cycles") == [("facts_mismatch",)]
    town.move(minutes=1)


def _stopped(town: Town) -> None:
    """All charging is held, with one due."""
    _due(town)
    hold(town.book, "by hand")


def _ended(town: Town) -> None:
    """Cancelled while its charge was unknown."""
    _unknown(town)
    change_status.cancel(town.book, town.policy, _SOMEBODY)


_ON_THE_WAY = ("inquire", "look", "reconcile", "charge", "pause", "cancel", "close", "hold")

SITUATIONS: dict[str, Situation] = {
    "due": Situation(
        _due,
        _some(
            *("charge", "open", "reconcile", "pause", "cancel", "try again", "hold", "seal"),
            *("enrol again", "close", "correct"),
        ),
    ),
    "coming": Situation(
        _coming, _some("open", "look", "reconcile", "pause", "cancel", "enrol again")
    ),
    "registered": Situation(
        _registered, _some("enrol payment", "enrol again", "open", "reconcile", "seal")
    ),
    "registered anew": Situation(
        _registered_anew,
        _some("go on from", "cancel", "forget", "reconcile", "close", "open"),
    ),
    "paid by hand": Situation(
        _by_hand, _some("charge", "look", "reconcile", "pause", "cancel", "hold", "close")
    ),
    "unknown": Situation(_unknown, _some(*_ON_THE_WAY)),
    "lease over": Situation(_lease_over, _some(*_ON_THE_WAY, "correct")),
    "never arrived": Situation(
        _never_arrived, _some("inquire", "reconcile", "charge", "pause", "cancel", "try again")
    ),
    "paid": Situation(
        Town.charged, _some("refund", "reconcile", "pause", "cancel", "charge", "open", "seal")
    ),
    "cancelled outside": Situation(
        _cancelled_outside, _some("look", "reconcile", "refund", "pause", "cancel")
    ),
    "refund unknown": Situation(
        _refund_unknown, _some("work on refunds", "refund", "look", "reconcile", "cancel", "pause")
    ),
    "paid late": Situation(
        _late_paid, _some("charge", "look", "reconcile", "try again", "pause", "cancel", "close")
    ),
    "closing": Situation(
        _closing, _some("close", "charge", "reconcile", "try again", "pause", "cancel", "hold")
    ),
    "closing, paid by hand": Situation(
        _closing_paid, _some("close", "look", "reconcile", "charge", "pause", "cancel")
    ),
    "closing, unknown": Situation(
        _closing_unknown, _some("close", "inquire", "look", "reconcile", "pause", "cancel")
    ),
    "refused for good": Situation(
        _refused_for_good,
        _some("close", "hold", "release", "try again", "pause", "cancel", "reconcile", "charge"),
    ),
    "paused": Situation(
        _paused, _some("resume", "cancel", "open", "close", "reconcile", "charge", "try again")
    ),
    "held": Situation(
        _held, _some("let go", "correct", "pause", "cancel", "reconcile", "close", "charge")
    ),
    "stopped": Situation(
        _stopped, _some("release", "charge", "hold", "pause", "cancel", "close", "open")
    ),
    "ended": Situation(_ended, _some("inquire", "look", "reconcile", "forget", "cancel", "close")),
}


# -- what is left -------------------------------------------------------------------------------


def left(town: Town) -> dict[str, object]:
    """What both sides hold at the end, but for names and numbers."""
    tables = {
        "subscriptions": "status, status_reason, next_cycle, amount, forgotten_at IS NULL",
        "cycles": "number, status, reason, held",
        "attempts": "cycle_id, number, status",
        "refunds": "status, cycle_id",
        "installation": "hold_reason",
        "webhooks": "outcome",
    }
    rows: dict[str, object] = {
        table: query(town.book, f"SELECT {columns} FROM {table} ORDER BY {columns}")
        for table, columns in tables.items()
    }
    rows["differences"] = query(
        town.book, "SELECT kind FROM ledger_differences WHERE resolved_at IS NULL ORDER BY 1"
    )
    rows["alarms"] = query(town.book, "SELECT kind FROM events WHERE alarm ORDER BY 1")
    rows["notices"] = query(town.book, "SELECT kind FROM notices ORDER BY 1")
    payments = [(one.status, one.amount) for one in town.sandbox.ledger.payments]
    rows["payments"] = sorted(payments, key=str)
    return rows


def quiet(town: Town) -> None:
    """Let the daemons go on for two days, until nothing is left to be done."""
    for minutes in (0, 2, 10, 60, 240, 720, 1440, 2880):
        town.move(minutes=minutes)
        _open(town)
        _charge(town)
        _inquire(town)
        _look(town)
        _work_on_refunds(town)
        _close(town)
    _reconcile(town)
