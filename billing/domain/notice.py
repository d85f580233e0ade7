"""Notice: news for the merchant's own system. The kinds, and what each tells.

A notice tells enough to act on without asking back, and nothing of the buyer: `customer_uid`, which
every kind carries beside what stands here, is the merchant's own name for the customer. The names
of kinds and fields are a promise (docs/notices.md): added to, never changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar

from billing.domain.calendar import SEOUL
from billing.domain.money import CURRENCY
from billing.domain.remedies import Remedy


class NoticeKind(StrEnum):
    ENROLLED = "subscription.enrolled"
    PAUSED = "subscription.paused"
    RESUMED = "subscription.resumed"
    SUSPENDED = "subscription.suspended"
    CANCELLED = "subscription.cancelled"
    PAID = "payment.paid"
    DECLINED = "payment.declined"
    CLOSING_SOON = "payment.closing_soon"
    MISSED = "payment.missed"
    SKIPPED = "payment.skipped"
    REFUNDED = "payment.refunded"
    # A payment that Maewol did not make, or that is one too many.
    UNKNOWN = "payment.unknown"
    # Sent by hand, to see whether the receiver works. Never in the outbox.
    TEST = "maewol.test"


class NoticeStatus(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    # Given up after three days: shown until somebody sends it again, for 90 days at most.
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What one notice tells."""

    kind: ClassVar[NoticeKind]

    def data(self) -> dict[str, Any]:
        """The fields as JSON holds them: moments with the offset of Seoul, amounts whole won."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfMonth(News):
    """News of one month of one subscription; `month` as in 2026-11."""

    cycle: int
    month: str
    amount: int
    currency: str = field(default=CURRENCY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled(News):
    """It will be charged from `first_due_at` on."""

    kind: ClassVar[NoticeKind] = NoticeKind.ENROLLED
    amount: int
    currency: str = field(default=CURRENCY)
    anchor_on: date
    first_cycle: int
    first_due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(News):
    """Nothing is charged until it is resumed, which must be before `last_chance_at`."""

    kind: ClassVar[NoticeKind] = NoticeKind.PAUSED
    before: str
    last_chance_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(News):
    """Active again: by hand, or (before: suspended) since proof of a payment came late."""

    kind: ClassVar[NoticeKind] = NoticeKind.RESUMED
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended(News):
    """The billing key will never be charged again; only a new registration helps."""

    kind: ClassVar[NoticeKind] = NoticeKind.SUSPENDED
    reason: str
    advice: Remedy
    for_customer: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(News):
    """Ended for good, by the merchant."""

    kind: ClassVar[NoticeKind] = NoticeKind.CANCELLED
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid(_OfMonth):
    """The month is paid; `reason` says so where Maewol's own charge was not what paid it."""

    kind: ClassVar[NoticeKind] = NoticeKind.PAID
    merchant_uid: str
    imp_uid: str
    paid_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal(_OfMonth):
    """The newest refusal and what follows: the gateway's words, the next attempt, the last moment
    at which one may start, what the merchant and what the customer can do."""

    decline_class: str | None
    code: str | None
    message: str | None
    next_attempt_at: datetime | None
    last_chance_at: datetime
    advice: Remedy
    for_customer: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined(_Refusal):
    """An attempt was refused; nothing was charged."""

    kind: ClassVar[NoticeKind] = NoticeKind.DECLINED
    attempt: int
    merchant_uid: str
    imp_uid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingSoon(_Refusal):
    """Unpaid, and the window closes soon: the last day to save the subscription."""

    kind: ClassVar[NoticeKind] = NoticeKind.CLOSING_SOON
    closes_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed(_OfMonth):
    """The window closed unpaid."""

    kind: ClassVar[NoticeKind] = NoticeKind.MISSED
    reason: str
    advice: Remedy
    for_customer: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped(_OfMonth):
    """The month passed without a charge, since nobody wanted one."""

    kind: ClassVar[NoticeKind] = NoticeKind.SKIPPED
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded(News):
    """A payment was given back; without `cycle` it was one that paid no month."""

    kind: ClassVar[NoticeKind] = NoticeKind.REFUNDED
    cycle: int | None
    month: str | None
    amount: int
    currency: str = field(default=CURRENCY)
    merchant_uid: str
    imp_uid: str
    refunded_at: datetime
    # Whether next month's payment will be refused, because this month has none any more.
    chain_at_risk: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownPayment(News):
    """A payment at the gateway that the book cannot count; `keep` is the one it counts instead,
    `refund_by` the moment until which this one can be given back."""

    kind: ClassVar[NoticeKind] = NoticeKind.UNKNOWN
    # As the gateway names the payment's owner, whom the book may not know.
    customer_uid: str | None = field(repr=False)
    reason: str
    merchant_uid: str
    imp_uid: str | None
    amount: int | None
    currency: str = field(default=CURRENCY)
    paid_at: datetime | None
    keep: str | None
    refund_by: datetime | None
    advice: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownPayments(News):
    """So many unknown payments at once that they have one cause; `maewol reconcile` lists them."""

    kind: ClassVar[NoticeKind] = NoticeKind.UNKNOWN
    reason: str = field(default="many")
    payments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(News):
    """Nothing happened."""

    kind: ClassVar[NoticeKind] = NoticeKind.TEST
    note: str = field(default="A test. 시험용 알림입니다.")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One notice as it goes out. The same notice has the same `webhook_id` at every try."""

    webhook_id: str
    body: bytes = field(repr=False)


def outgoing(
    notice_id: int,
    kind: str,
    created_at: datetime,
    customer_uid: str | None,
    data: Mapping[str, Any],
) -> Outgoing:
    """A notice of the outbox on its way.

    The number alone would come again in another book, or in this one once it was restored from
    before; with a digest of what it tells and when, it does not.
    """
    told = json.dumps([notice_id, kind, created_at.isoformat(), dict(data)], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    whole = {"customer_uid": customer_uid, **data}
    return Outgoing(f"mw_{notice_id}_{digest}", body(kind, created_at, whole))


def body(kind: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """The payload, in the form of Standard Webhooks."""
    whole = {"type": kind, "timestamp": _plain(at), "data": dict(data)}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


_ID = re.compile(r"(?:mw_)?([1-9]\d{0,17})(?:_[0-9a-f]{16})?", re.ASCII)


def id_of(text: str) -> int | None:
    """The number of a notice, from the number or the `webhook-id` that the receiver saw."""
    found = _ID.fullmatch(text.strip())
    return int(found[1]) if found else None


def _plain(value: object) -> Any:
    match value:
        case datetime():
            return value.astimezone(SEOUL).isoformat(timespec="seconds")
        case date():
            return value.isoformat()
        case Remedy():
            return asdict(value)
        case StrEnum():
            return str(value)
        case _:
            return value
