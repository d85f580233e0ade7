"""The shapes of the API's documents: the contract's, as the commands print them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from billing.domain.attempt import AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.subscription import SubscriptionStatus

# Free text from outside: what a terminal takes. (Halves of surrogate pairs are no text anyway.)
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"


def _number(value: object) -> object:
    """`9900` and `9900.0` are JSON's same number; `"9900"` and `true` are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("Input should be a number")
    return value


Printable = Annotated[str, Field(pattern=_PRINTABLE)]
CustomerName = Annotated[Printable, Field(min_length=1, max_length=80)]


class Enrolment(BaseModel):
    """The payment that registered a billing key, and what the merchant's server had ordered.

    Always say what was ordered: a browser can change the amount before it pays."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "imp_uid": "imp_123456789012",
                    "customer_uid": "customer-1",
                    "merchant_uid": "order-1001",
                    "amount": 9900,
                }
            ]
        },
    )

    imp_uid: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_-]{1,64}$",
            description="The gateway's id of the payment, as the payment window returned it.",
        ),
    ]
    customer_uid: CustomerName | None = Field(None, description="Of the order, if it is checked.")
    merchant_uid: Annotated[Printable, Field(min_length=1, max_length=40)] | None = Field(
        None, description="Of the order, if it is checked."
    )
    amount: Annotated[int, Field(ge=1, le=10**12), BeforeValidator(_number)] | None = Field(
        None, description="Of the order, in whole won, if it is checked."
    )
    previous: CustomerName | None = Field(
        None,
        description="`customer_uid` of an earlier, suspended or cancelled subscription of the same"
        " customer. It ends, and this one goes on from it.",
    )


class Subscription(BaseModel):
    """A standing agreement to be charged. Buyer data is never shown."""

    customer_uid: str = Field(examples=["customer-1"])
    status: SubscriptionStatus
    reason: str | None = Field(description="Why it is suspended, or at risk.")
    amount: int = Field(description="Whole won.", examples=[9900])
    order_name: str
    anchor_on: date = Field(description="The day of the initial payment, Asia/Seoul.")
    initial_paid_at: datetime
    enrolled_at: datetime
    next_cycle: int
    next_due_at: datetime
    reference: str | None
    previous: str | None = Field(description="`customer_uid` that the customer had before.")
    next: str | None = Field(description="`customer_uid` that the customer has now.")
    forgotten_at: datetime | None = Field(description="When the buyer data was erased.")


class Words(BaseModel):
    """One text in both languages."""

    en: str
    ko: str


class Changed(Subscription):
    """A subscription after a change, and what must be known about it."""

    warning: Words | None = Field(description="What follows, for example until when to resume it.")


class Attempt(BaseModel):
    """One request to the gateway."""

    number: int
    merchant_uid: str
    status: AttemptStatus
    planned_at: datetime
    sent_at: datetime | None = Field(
        description="When the request may have left; null once it is proved that none did anything."
    )
    settled_at: datetime | None
    decline_class: str | None
    message: str | None = Field(description="The gateway's own words.")


class Cycle(BaseModel):
    """One month of one subscription."""

    customer_uid: str
    cycle: int
    due_on: date
    opens_on: date
    closes_on: date
    status: CycleStatus
    reason: str | None
    held: str | None = Field(description="Why a person must look before it is charged.")
    amount: int
    merchant_uid: str | None = Field(description="Of the payment that counts.")
    imp_uid: str | None = Field(description="Of the payment that counts.")
    paid_at: datetime | None
    attempts: list[Attempt]


class SubscriptionPage(BaseModel):
    """Subscriptions, newest first."""

    items: list[Subscription]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


class CyclePage(BaseModel):
    """Cycles, newest first."""

    items: list[Cycle]
    next: str | None = Field(description="The cursor of the next page; null on the last.")
