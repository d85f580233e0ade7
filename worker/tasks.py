"""One small task per kind of work. Arguments are ids of attempts, results are counts by outcome."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

from billing import daemon
from billing.broker import CHARGE_TASK, INQUIRE_TASK, checked_ids
from billing.domain.errors import BrokerUnavailable
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.desk import Desk
from billing.services.inquire import inquire
from worker.app import app, this_process

# Required to charge: without them each task would fail, one by one.
daemon.for_charging(this_process)

_house = this_process.house
_desk = Desk(_house.book, _house.policy)
# With fewer messages waiting than this, more are asked for. A dispatch for each task would cost as
# much as the task.
_RUNNING_DRY = 12


@app.task(name=CHARGE_TASK)  # type: ignore[untyped-decorator]
def charge_(attempt_ids: Any) -> dict[str, int]:
    ids = checked_ids(attempt_ids)
    tally = this_process.run(
        lambda gateway: charge(
            _house.book,
            gateway,
            _house.policy,
            ids,
            watermark=this_process.watermark,
            desk=_desk,
        )
    )
    return _finish(tally)


@app.task(name=INQUIRE_TASK)  # type: ignore[untyped-decorator]
def inquire_(attempt_ids: Any) -> dict[str, int]:
    ids = checked_ids(attempt_ids)
    tally = this_process.run(lambda gateway: inquire(_house.book, gateway, _house.policy, ids))
    return _finish(tally)


def _finish(tally: Counter[Result]) -> dict[str, int]:
    if tally:
        # There is room again; waiting for the next scheduled tick would leave us idle. Without a
        # broker the schedule finds what is due all the same.
        with contextlib.suppress(BrokerUnavailable):
            if _house.queue.charges_waiting() < _RUNNING_DRY:
                _house.queue.dispatch_soon()
    return {str(result): count for result, count in tally.items()}
