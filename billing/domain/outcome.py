"""What the gateway's answer to one charge request means to us: exactly one of four values.

The ladder from answers to outcomes is `billing.portone.wire`; what follows from an outcome is
`billing.services.record`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from billing.domain.money import Won


@dataclass(frozen=True, slots=True)
class Approved:
    """The gateway charged: its payment, echoing our order, amount and billing key."""

    imp_uid: str
    amount: Won
    paid_at: datetime


@dataclass(frozen=True, slots=True)
class Declined:
    """The gateway tried and the carrier refused (code 0, `status: failed`). Nothing was charged.

    `message` is the carrier's text as it came; `declines` classifies it.
    """

    message: str
    imp_uid: str | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Provably no charge: the request never left, or was refused at the door (401)."""

    why: str
    # Our credentials do not work: nobody else's request will do better.
    credentials: bool = False
    # A fault of ours (a request that could not even be built): an operator must look.
    our_fault: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have been charged. It is only asked about, never repeated blindly."""

    why: str
    # The gateway answered `code != 0` with this text. Not proof by itself: when the look-up shows
    # nothing paid, it becomes a decline of the text's class (docs/gateway.md §3).
    refusal: str | None = None
    # The answer contradicts our request (another amount, order or billing key): a person must look.
    contradiction: bool = False
    # The payment was made in the gateway's other mode, test or live: a setting of ours is wrong.
    other_mode: bool = False
    # 429: everyone slows down, for so many seconds where the gateway said so.
    slow_down: bool = False
    retry_after_seconds: float | None = None


Outcome = Approved | Declined | NotSent | Unknown
