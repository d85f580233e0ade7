"""What the use cases need of the outside world, as Protocols. Adapters are built in `bootstrap`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from billing.domain.delivery import Delivery
from billing.domain.money import Won
from billing.domain.notice import Outgoing
from billing.domain.outcome import Outcome
from billing.domain.payment import Buyer, ChargeRequest, Payment
from billing.domain.refund import CancelOutcome, CancelRequest

__all__ = [
    "AccessToken",
    "BillingKey",
    "Buyer",
    "CallMeter",
    "ChargeRequest",
    "NoticeQueue",
    "Notifier",
    "Payment",
    "PaymentGateway",
    "ScheduledPayment",
    "TokenStore",
    "Watermark",
    "WorkQueue",
]


@dataclass(frozen=True, slots=True)
class BillingKey:
    """A billing key that exists at the gateway. It reveals neither amount nor anchor."""

    customer_uid: str = field(repr=False)
    pg_provider: str | None
    sandbox: bool
    inserted_at: datetime | None


@dataclass(frozen=True, slots=True)
class ScheduledPayment:
    """A payment that the gateway itself is going to make with a billing key: a second charger."""

    merchant_uid: str
    scheduled_at: datetime
    amount: Won
    status: str


class PaymentGateway(Protocol):
    """PortOne V1 as the use cases see it. Look-ups return all pages or raise; never a part."""

    async def charge(self, request: ChargeRequest) -> Outcome:
        """Request one payment. Never raises for anything the gateway or the network does, and
        never for cancellation after bytes may have left: that is `Unknown`."""
        ...

    async def cancel(self, request: CancelRequest) -> CancelOutcome:
        """Request that one payment is taken back whole. Never raises, as `charge`."""
        ...

    def payments_between(
        self, status: str, since: datetime, until: datetime
    ) -> AsyncIterator[Sequence[Payment]]:
        """Every payment of the store in a status between two moments, in portions.

        Each portion is whole; one payment may come twice. Raises `GatewayError` when a portion
        could not be read whole: what came before is true, what is missing is not known. At the end
        `RowsUnreadable`, where only single rows could not be read."""
        ...

    async def payments_of_order(self, merchant_uid: str) -> Sequence[Payment]:
        """Every payment made under one merchant_uid, whatever its state; empty when there is none.

        Raises `GatewayError` when the gateway could not be asked."""
        ...

    async def payments_of_key(self, customer_uid: str, since: datetime) -> Sequence[Payment]:
        """Every payment made with a billing key and started or paid at or after `since`; empty
        when there is none or the key is unknown. Raises `GatewayError`."""
        ...

    async def prepare(self, merchant_uid: str, amount: Won) -> None:
        """Pin the amount of an order, so that its payment window takes no other. Doing it again
        with the same amount is harmless. Raises `GatewayError`: it may or may not be pinned."""
        ...

    async def payment(self, imp_uid: str) -> Payment | None:
        """One payment, or None when the gateway does not know it. Raises `GatewayError`."""
        ...

    async def billing_key(self, customer_uid: str) -> BillingKey | None:
        """The billing key, or None when it is not (or no longer) registered. Raises
        `GatewayError`."""
        ...

    async def scheduled_payments(
        self, customer_uid: str, since: datetime, until: datetime
    ) -> Sequence[ScheduledPayment]:
        """Payments the gateway's own scheduler holds for a key, at most 3 months at once. Raises
        `GatewayError`."""
        ...

    async def moment(self) -> datetime:
        """The gateway's own clock (`now` of getToken), fetched afresh. Raises `GatewayError`."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token of the gateway with the moment (aware UTC, gateway's clock) it ends."""

    value: str = field(repr=False)
    expires_at: datetime
    # Gateway clock minus our clock when the token was fetched.
    clock_offset: timedelta = timedelta(0)


class TokenStore(Protocol):
    """Where all workers keep the one access token they share."""

    async def get(self) -> AccessToken | None:
        """The shared token, or None. Never raises: a store that is away has no token."""
        ...

    async def put(self, token: AccessToken) -> None:
        """Share a token until it expires. Never raises."""
        ...

    async def discard(self, value: str) -> None:
        """Forget the shared token if it still is this one (the gateway refused it)."""
        ...

    def single_flight(self) -> AbstractAsyncContextManager[None]:
        """Held by the one worker that fetches a token; others wait for it, at most seconds."""
        ...


class CallMeter(Protocol):
    """Whoever wants to know how long the gateway's answers take."""

    def note(self, call: str, outcome: str, seconds: float) -> None:
        """One request has ended: its kind, how, and after how long. Quick, and never raises."""
        ...


class Watermark(Protocol):
    """The highest event number ever seen of a database, kept outside of it: a database that shows
    a lower one has forgotten something. A hint; where it is lost, nothing is concluded."""

    async def seen(self) -> Mapping[str, int]:
        """The highest number seen of each database. Never raises."""
        ...

    async def raise_to(self, database: str, number: int) -> None:
        """Remember a number, if it is the highest. Never raises."""
        ...

    async def begin_anew(self, database: str, number: int) -> None:
        """Remember this number, and forget a higher one: a person knows what is gone. Never
        raises."""
        ...


class WorkQueue(Protocol):
    """The way to the workers. A hint only: the database is the truth."""

    def charge(self, attempt_ids: Sequence[int]) -> None:
        """Ask a charging worker to charge these attempts. Raises `BrokerUnavailable`."""
        ...

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        """Ask a charging worker to ask the gateway what became of these attempts."""
        ...

    def charges_waiting(self) -> int:
        """How many messages to charge no worker has taken yet. Raises `BrokerUnavailable`."""
        ...

    def dispatch_soon(self) -> None:
        """Ask for a dispatch tick before the schedule has the next one."""
        ...


class NoticeQueue(Protocol):
    """The way to whoever sends notices. A hint only, as `WorkQueue`."""

    def notify(self, notice_ids: Sequence[int]) -> None:
        """Ask for these notices to be sent. Raises `BrokerUnavailable`."""
        ...

    def notify_soon(self) -> None:
        """Ask for a look at what is due before the schedule has the next one."""
        ...


class Notifier(Protocol):
    """The way to the merchant's own system."""

    async def send(self, notice: Outgoing) -> Delivery:
        """Send one notice, signed, within a deadline of its own. Never raises for anything the
        receiver or the network does; never follows a redirect."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
