"""What the sandbox knows: payments, billing keys, schedules, pinned amounts, every request it saw.

All five are flat and frozen, so that a row of the ledger file and the value in memory are the same
thing. Moments are unix seconds of the sandbox's clock, 0 for "did not happen", as PortOne writes
them (docs/gateway.md §3). Amounts are whole won.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Status(StrEnum):
    """The states of a payment, in the gateway's words."""

    READY = "ready"
    PAID = "paid"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Origin(StrEnum):
    """Who asked for a payment. The verdict judges only what came by `again`."""

    WINDOW = "window"
    """The payment window: the initial payment, which makes the billing key."""
    AGAIN = "again"
    SCHEDULE = "schedule"
    """The gateway's own scheduler."""
    HAND = "hand"
    """By hand, or by a second charger beside the merchant's."""


class Terms(Protocol):
    """What the carrier compares with the first payment."""

    @property
    def amount(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def buyer_name(self) -> str: ...
    @property
    def buyer_email(self) -> str: ...
    @property
    def buyer_tel(self) -> str: ...


COMPARED = ("amount", "name", "buyer_name", "buyer_email", "buyer_tel")


def differences(one: Terms, other: Terms) -> str:
    """The names of the terms that differ, comma-separated; empty when none does."""
    return ",".join(name for name in COMPARED if getattr(one, name) != getattr(other, name))


@dataclass(frozen=True, slots=True)
class Payment:
    """One row of the gateway's book."""

    number: int
    imp_uid: str
    merchant_uid: str
    customer_uid: str = field(repr=False)
    amount: int
    name: str = ""
    buyer_name: str = field(default="", repr=False)
    buyer_email: str = field(default="", repr=False)
    buyer_tel: str = field(default="", repr=False)
    origin: Origin = Origin.AGAIN
    status: Status = Status.PAID
    started_at: int = 0
    paid_at: int = 0
    failed_at: int = 0
    cancelled_at: int = 0
    fail_code: str = ""
    fail_class: str = ""
    fail_reason: str = ""
    cancel_reason: str = ""
    custom_data: str = field(default="", repr=False)
    sandbox: bool = False
    visible_at: float = 0.0
    """Look-ups do not show it before this moment."""
    turns_paid_at: float = 0.0
    """A failed payment that becomes paid after all; 0 for never."""
    notice_url: str = field(default="", repr=False)
    """Where its webhooks go instead of the store's address."""


@dataclass(frozen=True, slots=True)
class BillingKey:
    """A billing key with the terms of its first payment, and the state of the line behind it."""

    customer_uid: str = field(repr=False)
    amount: int
    name: str
    issued_at: int
    """When the initial payment was made; its day in Korea is the anchor."""
    buyer_name: str = field(default="", repr=False)
    buyer_email: str = field(default="", repr=False)
    buyer_tel: str = field(default="", repr=False)
    deleted_at: int = 0
    carrier_knows: bool = True
    """False: the key exists at PortOne, but the carrier has no agreement on record."""
    monthly_limit: int = 0
    """What the line may spend in a calendar month in all; 0 for no limit."""
    spent_elsewhere: int = 0
    """What the line spends each month with other shops."""
    condition: str = ""
    """A standing decline (`0016`, `D`, …) until it is lifted."""
    condition_until: float = 0.0
    """When the condition ends by itself; 0 for never."""
    script: str = ""
    """What the next requests meet, comma-separated (see `faults`)."""
    script_from: int = 0
    """How many requests this customer had made when the script was set."""
    sandbox: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """A payment that the gateway's own scheduler is going to make (docs/gateway.md §6)."""

    merchant_uid: str
    customer_uid: str = field(repr=False)
    schedule_at: int
    amount: int
    name: str
    buyer_name: str = field(default="", repr=False)
    buyer_email: str = field(default="", repr=False)
    buyer_tel: str = field(default="", repr=False)
    status: str = "scheduled"
    payment_status: str = ""
    imp_uid: str = ""
    executed_at: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """The amount that the window must charge for an order, told to the gateway beforehand."""

    merchant_uid: str
    amount: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that reached the gateway, and what became of it."""

    number: int
    at: float
    kind: str
    customer_uid: str = field(repr=False)
    merchant_uid: str
    amount: int
    nth: int
    """Which `again` of this customer it was, from 1; 0 for other kinds."""
    differs: str
    """The terms that differ from the billing key's, comma-separated."""
    overlaps: str
    """`order` or `customer` when another charge of the same was in hand, else empty."""
    fault: str
    outcome: str
    imp_uid: str
