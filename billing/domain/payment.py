"""A charge as it is requested, and a payment as the gateway's own book shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from billing.domain.money import Won

_NOTHING = Won(0)


@dataclass(frozen=True, slots=True)
class Buyer:
    """Buyer data as the initial payment shows it; the carrier compares it with last month's.

    Personal: never logged (the repr is blank on purpose).
    """

    name: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    tel: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """One request for one cycle: everything the gateway compares with last month's payment."""

    customer_uid: str = field(repr=False)
    merchant_uid: str
    amount: Won
    order_name: str
    buyer: Buyer


@dataclass(frozen=True, slots=True)
class Payment:
    """One row of the gateway's own book.

    `status` is the gateway's word (ready, paid, cancelled, failed, or a new one), never ours.
    Moments are aware UTC; a 0 of the gateway is None.
    """

    imp_uid: str
    merchant_uid: str
    status: str
    amount: Won
    customer_uid: str | None = field(repr=False)
    paid_at: datetime | None = None
    failed_at: datetime | None = None
    cancelled_at: datetime | None = None
    started_at: datetime | None = None
    cancelled_amount: Won = _NOTHING
    fail_reason: str | None = None
    pay_method: str | None = None
    pg_provider: str | None = None
    order_name: str | None = None
    currency: str | None = None
    sandbox: bool = False
    customer_uid_usage: str | None = None
    buyer: Buyer = field(default=Buyer(), repr=False)
