"""`maewol release`: what was held, for what and since when, and what follows."""

from __future__ import annotations

from typing import Any

from billing.bootstrap import House
from billing.cli.output import err
from billing.services import hold
from billing.services.let_go import let_go
from billing.store.views import moment


def everything(house: House) -> dict[str, Any]:
    """All charging starts again; a line on stderr where it had not been stopped."""
    done = hold.release(house.book, house.policy)
    held = done.hold
    if held is None:
        err.print("Nothing was held: charging was on. 결제가 중지되어 있지 않았습니다.")
    return {
        "hold": None,
        "released": held.why if held else None,
        "held_since": moment(held.since if held else None, house.settings.zone),
        "tried_again": done.tried_again,
    }


def one(house: House, customer_uid: str) -> dict[str, Any]:
    """The held month of one customer is charged after all."""
    gone = let_go(house.book, house.policy, customer_uid)
    return {
        "customer_uid": customer_uid,
        "was_held": gone.held,
        "held_since": moment(gone.since, house.settings.zone),
        "next_attempt_at": moment(gone.at, house.settings.zone),
        "why_not": gone.why_not,
    }
