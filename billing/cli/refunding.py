"""Giving a payment back by hand: say what follows, request, wait for the gateway's word.

The call itself is the wish: it names one payment, or a subscription whose payment of this month is
meant. Only a person at a terminal is asked once more.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import typer

from billing.bootstrap import House, gateway
from billing.cli.output import err
from billing.domain.errors import NotFound
from billing.domain.refund import RefundStatus
from billing.portone.client import PortOneClient
from billing.services import change_status, refund
from billing.services.refund import Proposal
from billing.store import refunds, views
from billing.store.session import Transaction
from billing.store.tables import Refund

T = TypeVar("T")

# A person waits: long enough for a refusal to be looked up (GATEWAY_VISIBILITY_SECONDS and some).
_PATIENCE_SECONDS = 15.0


def give_back(
    house: House,
    merchant_uid: str,
    *,
    imp_uid: str | None = None,
    reason: str = "",
    asks: bool = False,
    also: Callable[[Transaction], object] = lambda _: None,
) -> dict[str, Any]:
    """Give one payment back and tell how it stands. `asks`: a person confirms it. `also` is done
    in the transaction that writes the wish down.

    Raises `BillingError`, and `typer.Exit` when it was not confirmed."""
    known = _known(house, merchant_uid, imp_uid)
    if known is not None:
        # It was confirmed when it was requested: say how it stands, or go on with it.
        house.book.run(also)
        done = known.status == RefundStatus.DONE
        if not done:
            _see_through(house, known.id)
        return _document(house, known.id, already=done)
    proposal = ask(
        house,
        lambda client: refund.propose(house.book, client, house.policy, merchant_uid, imp_uid),
    )
    if proposal.cancelled_at is None:
        _say_what_follows(house, proposal)
        if asks and not typer.confirm("Give it back? 환불할까요?", err=True):
            raise typer.Exit(1)
    refund_id = refund.request(house.book, proposal, reason, also)
    _see_through(house, refund_id)
    return _document(house, refund_id, already=proposal.cancelled_at is not None)


def is_asked(*, yes: bool, as_json: bool) -> bool:
    """Whether a person is there who can be asked: a program that reads JSON, or stands where the
    terminal would, cannot answer."""
    return not yes and not as_json and sys.stdin.isatty()


def cancel_and_give_back(
    house: House, customer_uid: str, *, reason: str = "", asks: bool = False
) -> dict[str, Any]:
    """End a subscription and ask for this month's payment back, or neither. Raises
    `BillingError`."""
    merchant_uid, imp_uid = _payment_of_month(house, customer_uid)
    return give_back(
        house,
        merchant_uid,
        imp_uid=imp_uid,
        reason=reason,
        asks=asks,
        also=lambda tx: change_status.end(
            tx, house.policy, change_status.found_one(tx, customer_uid)
        ),
    )


def ask(house: House, use_case: Callable[[PortOneClient], Awaitable[T]]) -> T:
    """Run a use case with a client of the gateway."""

    async def whole() -> T:
        async with gateway(house.settings, broker_url=house.broker_url) as client:
            return await use_case(client)

    return anyio.run(whole)


def _payment_of_month(house: House, customer_uid: str) -> tuple[str, str | None]:
    """Which payment of this calendar month is meant. Raises `NotFound`, `GatewayError`."""
    found = refund.payment_of_month(house.book, house.policy, customer_uid)
    if found.merchant_uid is not None:
        return found.merchant_uid, found.imp_uid
    # An initial payment of which the book has the gateway's id alone.
    imp_uid = found.imp_uid or ""
    payment = ask(house, lambda client: client.payment(imp_uid))
    if payment is None:
        raise NotFound(f"the gateway does not show the initial payment {imp_uid!r}")
    return payment.merchant_uid, payment.imp_uid


def _say_what_follows(house: House, proposal: Proposal) -> None:
    zone = house.policy.plan.zone
    until = f"{proposal.refund_by.astimezone(zone):%Y-%m-%d %H:%M}"
    for line in (proposal.warning_en, proposal.warning_ko):
        err.print(line, markup=False)
    err.print(f"Possible until {until} (Seoul). 환불은 {until}(서울) 전까지입니다.", markup=False)


def _known(house: House, merchant_uid: str, imp_uid: str | None) -> Refund | None:
    """The refund of this payment that stands, if there is one."""
    with house.book.transaction() as tx:
        found = refunds.of_payment(tx.session, merchant_uid, imp_uid)
    return next((one for one in found if one.status != RefundStatus.REFUSED), None)


def _see_through(house: House, refund_id: int) -> None:
    patience = house.policy.visibility.total_seconds() + _PATIENCE_SECONDS
    ask(
        house,
        lambda client: refund.see_through(house.book, client, house.policy, refund_id, patience),
    )


def _document(house: House, refund_id: int, *, already: bool) -> dict[str, Any]:
    if already:
        err.print("Given back already; nothing was sent. 이미 환불되어 아무것도 보내지 않았습니다.")
    with house.book.transaction() as tx:
        return views.refund(tx.session, house.policy.plan.zone, refund_id, already=already)
