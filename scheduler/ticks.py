"""One small task per tick. Each asks the book what is due: missed and doubled ones do no harm."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from billing import clock
from billing.broker import (
    NOTIFY_TASK,
    TICK_CHECK,
    TICK_CLOSE,
    TICK_DISPATCH,
    TICK_INQUIRE,
    TICK_NOTIFY,
    TICK_OPEN,
    TICK_PRUNE,
    TICK_RECONCILE,
    TICK_REFUND,
    TICK_SEAL,
    TICK_WEBHOOKS,
    checked_ids,
)
from billing.domain.errors import BrokerUnavailable, InvalidSetting
from billing.ports import PaymentGateway
from billing.services import reconciled
from billing.services.alone import alone
from billing.services.check import check
from billing.services.clock_guard import ClockGuard
from billing.services.close_cycles import anything_ends, close_cycles
from billing.services.dispatch import dispatch
from billing.services.inquire import find_unknown
from billing.services.look_at_webhooks import PickUp, look_at_webhooks, waiting
from billing.services.notify import deliver, find_due
from billing.services.open_cycles import anything_opens, open_cycles
from billing.services.pick_up_order import pick_up_order
from billing.services.prune import prune
from billing.services.refund import open_now, work_on_open
from billing.services.seal_events import seal_events
from billing.store import heartbeats
from billing.store.session import Transaction
from scheduler.app import app, reconcile_slots, this_process

# Well within the broker's visibility timeout; what is left waits for tomorrow.
PRUNE_SECONDS = 1200

_house = this_process.house
_guard = ClockGuard(clock.host_time, clock.monotonic)


def _seen(tick: str) -> None:
    _house.book.run(lambda tx: heartbeats.beat(tx.session, tick, tx.now))


def _watch_the_clock(waits: Callable[[Transaction], bool]) -> None:
    """Compare our clock with the gateway's, where something waits and nobody did so lately."""
    if not _guard.must_compare(_house.book, waits):
        return
    try:
        this_process.run(lambda gateway: _guard.compare(_house.book, gateway))
    except InvalidSetting as error:
        # Without credentials there is no gateway to ask.
        _guard.not_compared(_house.book, str(error))


@app.task(name=TICK_OPEN)  # type: ignore[untyped-decorator]
def open_() -> dict[str, int]:
    _watch_the_clock(anything_opens)
    opened = open_cycles(_house.book, _house.policy, _guard)
    _seen(TICK_OPEN)
    if opened:
        _house.queue.dispatch_soon()
    return {"opened": opened}


@app.task(name=TICK_DISPATCH)  # type: ignore[untyped-decorator]
def dispatch_() -> dict[str, int]:
    dispatched = dispatch(_house.book, _house.queue, _house.policy, this_process.seen())
    _seen(TICK_DISPATCH)
    return {"dispatched": dispatched}


@app.task(name=TICK_INQUIRE)  # type: ignore[untyped-decorator]
def inquire_() -> dict[str, int]:
    asked = find_unknown(_house.book, _house.queue, _house.policy)
    _seen(TICK_INQUIRE)
    return {"asked": asked}


@app.task(name=TICK_CLOSE)  # type: ignore[untyped-decorator]
def close_() -> dict[str, int]:
    _watch_the_clock(lambda tx: anything_ends(tx, _house.policy))
    closed = close_cycles(_house.book, _house.policy, _guard)
    _seen(TICK_CLOSE)
    return {"closed": closed}


@app.task(name=TICK_SEAL)  # type: ignore[untyped-decorator]
def seal_() -> dict[str, int]:
    sealed = seal_events(_house.book)
    _seen(TICK_SEAL)
    return {"sealed": sealed}


@app.task(name=TICK_CHECK)  # type: ignore[untyped-decorator]
def check_() -> dict[str, int]:
    found = check(_house.book, _house.policy)
    _seen(TICK_CHECK)
    return {"broken": found}


@app.task(name=TICK_REFUND)  # type: ignore[untyped-decorator]
def refund_() -> dict[str, int]:
    # Without an open refund, which is the rule, no client of the gateway is made.
    waiting = open_now(_house.book)
    if waiting:
        this_process.run(lambda gateway: work_on_open(_house.book, gateway, _house.policy))
    _seen(TICK_REFUND)
    return {"worked_on": len(waiting)}


@app.task(name=TICK_NOTIFY)  # type: ignore[untyped-decorator]
def find_notices() -> dict[str, int]:
    found = find_due(_house.book, _house.queue, wanted=_house.settings.notice_url is not None)
    _seen(TICK_NOTIFY)
    return {"found": found}


@app.task(name=NOTIFY_TASK)  # type: ignore[untyped-decorator]
def notify(notice_ids: Any) -> dict[str, int]:
    ids = checked_ids(notice_ids)
    tally = this_process.notify(lambda notifier: deliver(_house.book, notifier, ids))
    if tally["delivered"]:
        # There may be more; without a broker the schedule finds it all the same.
        with contextlib.suppress(BrokerUnavailable):
            _house.queue.notify_soon()
    return dict(tally)


def _pick_up(gateway: PaymentGateway) -> PickUp:
    key, offer = _house.installation_key, _house.settings.offer
    return partial(pick_up_order, _house.book, _house.policy, key, gateway, offer)


@app.task(name=TICK_WEBHOOKS)  # type: ignore[untyped-decorator]
def webhooks_() -> dict[str, int]:
    # As for refunds: no client of the gateway where nothing waits for it.
    tally = Counter[str]()
    if waiting(_house.book):
        tally = this_process.run(
            lambda gateway: look_at_webhooks(_house.book, gateway, _house.policy, _pick_up(gateway))
        )
    _seen(TICK_WEBHOOKS)
    return dict(tally)


@app.task(name=TICK_RECONCILE)  # type: ignore[untyped-decorator]
def reconcile_() -> dict[str, int]:
    def due(tx: Transaction) -> bool:
        return reconciled.is_due(tx, _house.policy, reconcile_slots)

    _watch_the_clock(due)
    # By a clock that is wrong it would sign days that have not been.
    with alone(_house.book, lambda tx: due(tx) and _guard.may_end(tx)) as ours:
        if not ours:
            return {}
        folder = _house.settings.proof_dir
        report = this_process.run(
            lambda gateway: reconciled.make(_house.book, gateway, _house.policy, folder)
        )
    return {
        "differences": len(report.differences),
        "applied": len(report.applied),
        "unanswered": report.failed,
    }


@app.task(name=TICK_PRUNE)  # type: ignore[untyped-decorator]
def prune_() -> dict[str, int]:
    until = clock.monotonic() + PRUNE_SECONDS
    months, folder = _house.settings.retention_months, _house.settings.archive_dir
    pruned = prune(
        _house.book, _house.policy, months, folder, going_on=lambda: clock.monotonic() < until
    )
    _seen(TICK_PRUNE)
    return asdict(pruned)
