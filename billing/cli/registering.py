"""`maewol subscription add --imp-uid` and `forget`: a person comes in, a person is erased."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import typer

from billing.bootstrap import House
from billing.cli.output import err
from billing.cli.refunding import ask
from billing.domain.errors import InvalidInput
from billing.services.enrol_payment import enrol_payment
from billing.services.forget import forget

# What may be said beside the payment: what was ordered.
_ORDERED = {"customer_uid", "amount", "initial_merchant_uid"}


def add_by_payment(
    house: House, imp_uid: str, previous: str, fields: Mapping[str, str]
) -> dict[str, Any]:
    """Enrol from the payment at the gateway; `fields` are what was ordered.

    Raises `InvalidInput` for a field that the payment itself shows, and as `enrol_payment`."""
    given = {name: value for name, value in fields.items() if value}
    for name in given.keys() - _ORDERED:
        raise InvalidInput(name, "…", "is what the payment shows", "Leave it out with --imp-uid")
    amount = given.get("amount")
    if amount is not None and not (amount.isascii() and amount.isdigit()):
        raise InvalidInput("amount", amount, "is not a whole number of won", "Write e.g. 9900")
    found = ask(
        house,
        lambda client: enrol_payment(
            house.book,
            house.policy,
            house.installation_key,
            client,
            imp_uid,
            customer_uid=given.get("customer_uid"),
            merchant_uid=given.get("initial_merchant_uid"),
            amount=None if amount is None else int(amount),
            previous=previous or None,
        ),
    )
    return found.subscription


def erase(house: House, customer_uid: str, *, yes: bool, as_json: bool) -> dict[str, Any]:
    """Erase buyer data after a question. Raises as `forget`; without a yes `InvalidInput` where
    nobody can be asked, else `typer.Exit`."""
    if not yes:
        err.print("Buyer data and reference are erased for good; the payments stay in the book.")
        err.print("구매자 정보와 참조 값을 영구히 삭제합니다. 결제 기록은 남습니다.")
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(
                "--yes",
                False,
                "nothing was erased, which cannot be undone. 삭제하지 않았습니다",
                "To erase, add --yes. 삭제하려면 --yes를 붙이십시오",
            )
        if not typer.confirm("Erase? 삭제할까요?", err=True):
            raise typer.Exit(1)
    return forget(house.book, house.policy, customer_uid)
