"""Where both sides of a billing key agree, and where a person should look."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from billing.domain.errors import GatewayUnavailable, NotFound
from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.services.beside import LOOKS_BACK, Beside, Line, beside
from billing.store import dossier
from billing.store.dossier import CycleRows, Dossier
from billing.store.tables import Attempt, Cycle, Subscription

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
MOMENT, DAY = timedelta(microseconds=1), timedelta(days=1)
KEY = object()
SUBSCRIPTION = Subscription(
    customer_uid="customer-1", initial_imp_uid="imp_0", initial_merchant_uid="order-0"
)
PAID = Payment("imp_1", "mw-1", "paid", Won(9900), "customer-1", paid_at=NOW)


def a_month(status: str = "paid", attempt: str | None = "approved", **more: Any) -> CycleRows:
    """A month that `PAID` paid, tried once."""
    paid = {"amount": 9900, "paid_imp_uid": "imp_1", "paid_at": NOW} | more
    attempts = [] if attempt is None else [Attempt(merchant_uid="mw-1", status=attempt)]
    return CycleRows(Cycle(status=status, **paid), attempts, [])


def asked(
    *payments: Payment, months: Sequence[CycleRows] = (), waits: float = 0, known: bool = True
) -> Beside:
    """What comes of asking about one key, by a gateway that answers after so many seconds."""
    since: list[datetime] = []

    async def answer(value: Any) -> Any:
        await asyncio.sleep(waits)
        return value

    def of_key(uid: str, after: datetime) -> Any:
        assert uid == "customer-1"
        since.append(after)
        return answer(payments)

    def key(uid: str) -> Any:
        assert uid == "customer-1"
        return answer(KEY)

    gateway: Any = SimpleNamespace(billing_key=key, payments_of_key=of_key)
    book: Any = SimpleNamespace(
        transaction=lambda: nullcontext(SimpleNamespace(session=None, now=NOW))
    )
    ours = Dossier(SUBSCRIPTION, None, months, [], None, [])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dossier, "read", lambda _, number: ours if known and number == 7 else None)
        found = asyncio.run(beside(book, gateway, 7, seconds=0.05 if waits else 30))
    assert since == [NOW - LOOKS_BACK]
    return found


def line(payment: Payment, *months: CycleRows) -> Line:
    (found,) = (one for one in asked(payment, months=months).lines if one.payment is payment)
    return found


def test_it_is_asked_once_and_not_for_long() -> None:
    found = asked(PAID, months=[a_month()])
    assert (found.asked_at, found.key, len(found.lines)) == (NOW, KEY, 1)
    with pytest.raises(GatewayUnavailable, match=r"within 0\.05 seconds"):
        asked(waits=5)
    with pytest.raises(NotFound, match="number 7"):
        asked(known=False)


@pytest.mark.parametrize(
    ("payment", "month", "agrees"),
    [
        (PAID, a_month(), True),
        (PAID, a_month("open"), False),
        (PAID, a_month(amount=9901), False),
        (PAID, a_month(paid_imp_uid="imp_2"), False),
        (PAID, a_month(attempt=None), True),
        (replace(PAID, status="cancelled"), a_month("refunded"), True),
        (replace(PAID, status="cancelled"), a_month(), False),
        (replace(PAID, status="cancelled"), a_month("refunded", paid_imp_uid="imp_2"), False),
        (replace(PAID, status="failed"), a_month("open", "declined", paid_imp_uid=None), True),
        (replace(PAID, status="failed"), a_month("open", "unknown", paid_imp_uid=None), False),
        (replace(PAID, status="failed"), a_month(attempt=None), False),
        (replace(PAID, status="ready"), a_month("open", "sending", paid_imp_uid=None), True),
        (replace(PAID, status="ready"), a_month("open", "unknown", paid_imp_uid=None), True),
        (replace(PAID, status="ready"), a_month("open", "due", paid_imp_uid=None), False),
        (replace(PAID, status="ready"), a_month(attempt=None), False),
    ],
)
def test_a_payment_beside_its_month(payment: Payment, month: CycleRows, *, agrees: bool) -> None:
    found = line(payment, a_month(attempt=None, paid_imp_uid="imp_9", paid_at=None), month)
    assert found.rows is month
    assert found.attempt is (month.attempts[0] if month.attempts else None)
    assert found.agrees is agrees
    assert not found.initial


@pytest.mark.parametrize(
    ("payment", "initial", "agrees"),
    [
        (replace(PAID, imp_uid="imp_0"), True, None),
        (replace(PAID, merchant_uid="order-0"), True, None),
        (replace(PAID, customer_uid_usage="issue"), True, None),
        (replace(PAID, customer_uid_usage="payment"), False, False),
        (replace(PAID, status="failed"), False, None),
        (replace(PAID, status="failed", imp_uid="imp_0"), True, None),
    ],
)
def test_a_payment_of_no_month(payment: Payment, *, initial: bool, agrees: bool | None) -> None:
    found = line(payment)
    assert (found.rows, found.attempt, found.initial, found.agrees) == (None, None, initial, agrees)


def test_a_payment_under_another_name_is_of_no_month() -> None:
    found = line(replace(PAID, imp_uid="imp_2", merchant_uid="mw-2"), a_month())
    assert (found.rows, found.attempt, found.agrees) == (None, None, False)


def test_what_only_the_book_has_is_looked_at() -> None:
    since = NOW - LOOKS_BACK
    months = [
        a_month(paid_imp_uid="imp_2", paid_at=since),
        a_month(paid_imp_uid="imp_3", paid_at=since - MOMENT),
        a_month(paid_imp_uid="imp_4", paid_at=None),
        a_month("open", paid_imp_uid=None, paid_at=None),
        a_month("open", paid_imp_uid=None),
    ]
    (found,) = asked(months=months).lines
    assert found == Line(since, None, months[0], None, initial=False, agrees=False)


def test_the_newest_comes_first_by_whatever_moment_it_has() -> None:
    bare = replace(PAID, paid_at=None)
    moments = {"paid_at": 4, "cancelled_at": 3, "failed_at": 2, "started_at": 1}
    payments = [
        replace(bare, imp_uid=f"imp_{name}", **{name: NOW - days * DAY})
        for name, days in moments.items()
    ]
    # The earlier of these names wins over every later one.
    later = iter(moments)
    for at, name in enumerate(later):
        rest = dict.fromkeys(list(moments)[at:], NOW)
        both = replace(bare, **(rest | {name: NOW - DAY}))
        assert line(both).at == NOW - DAY
    found = asked(bare, *payments).lines
    assert [one.at for one in found] == [None, *(NOW - days * DAY for days in (1, 2, 3, 4))]
