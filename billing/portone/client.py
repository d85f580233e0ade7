"""PortOne V1 as the use cases see it: the `PaymentGateway` of `billing.ports`."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import httpx

from billing.domain.errors import AnswerUnusable, GatewayUnavailable
from billing.domain.money import Won
from billing.domain.outcome import Outcome
from billing.domain.refund import CancelOutcome, CancelRequest
from billing.portone import cancellation, preparation, rows
from billing.portone.answer import Answer, Unreadable
from billing.portone.exchange import Exchange, segment
from billing.portone.lookups import PAGE_LIMIT, Lookups
from billing.portone.measured import MeasuredTransport
from billing.portone.spans import Spans
from billing.portone.token import Tokens, token_of
from billing.portone.transport import (
    AiohttpTransport,
    HttpxTransport,
    SocketFactory,
    Transport,
    hard_closing_sockets,
    public_tls,
    verified_tls,
)
from billing.portone.wire import charge_body, outcome_of_answer, outcome_of_failure
from billing.ports import (
    AccessToken,
    BillingKey,
    CallMeter,
    ChargeRequest,
    Payment,
    ScheduledPayment,
    TokenStore,
)

AGAIN = "/subscribe/payments/again"
CANCEL = "/payments/cancel"
GET_ACCESS = "/users/getToken"

# A page of a hundred rows takes far less; no less is waited for, however quick the charges are.
LOOKUP_SECONDS = 20.0
SHORTEST_LOOKUP_SECONDS = 5.0

_KINDS = {AGAIN: "charge", CANCEL: "cancel", preparation.PATH: "prepare", GET_ACCESS: "token"}

T = TypeVar("T")


class PortOneClient:
    """One merchant's way to the gateway. Build it after forking; use it in one event loop.

    `charge_timeout` and `lookup_timeout` are total deadlines in seconds, connecting included, of
    one charge and of one page. `include_sandbox` says that we deal with test payments; one of the
    other kind contradicts. Charges have connections of their own, whose bytes cannot arrive once
    they are closed (`hard_closing_sockets`). `tls` adds trust (a private authority), never takes
    checks away. `transport` replaces the network, for simulation. `meter` hears of every request.
    Raises `InvalidSetting`.
    """

    def __init__(
        self,
        base_url: str,
        imp_key: str,
        imp_secret: str,
        *,
        tokens: TokenStore,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        charge_timeout: float,
        include_sandbox: bool,
        lookup_timeout: float = LOOKUP_SECONDS,
        max_connections: int = 100,
        page_limit: int = PAGE_LIMIT,
        tls: ssl.SSLContext | None = None,
        transport: Transport | httpx.AsyncBaseTransport | None = None,
        meter: CallMeter | None = None,
    ) -> None:
        # More would leave no time for the answer. Of a page's twenty seconds it is ten, as long as
        # PortOne's own webhook sender takes to connect (docs/gateway.md §7).
        connect = min(charge_timeout, lookup_timeout) / 2
        verified = verified_tls(tls or public_tls())

        def network(sockets: SocketFactory | None) -> Transport:
            if isinstance(transport, httpx.AsyncBaseTransport):
                return HttpxTransport(transport)
            if transport is not None:
                return transport
            return AiohttpTransport(
                connect_timeout=connect,
                max_connections=max_connections,
                tls=verified,
                socket_factory=sockets,
            )

        def measured(carrier: Transport) -> Transport:
            return MeasuredTransport(carrier, _KINDS, meter, monotonic) if meter else carrier

        self._credentials = json.dumps({"imp_key": imp_key, "imp_secret": imp_secret}).encode()
        self._now = now
        self._monotonic = monotonic
        self._charge_timeout = charge_timeout
        self._lookup_timeout = lookup_timeout
        self._sandbox = include_sandbox
        self._charges = Exchange(base_url, measured(network(hard_closing_sockets(charge_timeout))))
        self._others = Exchange(base_url, measured(network(None)))
        self._tokens = Tokens(self._fetched_token, tokens, now=now, monotonic=monotonic)
        self._lookups = Lookups(
            self._others,
            self._tokens,
            timeout=lookup_timeout,
            include_sandbox=include_sandbox,
            page_limit=page_limit,
        )

    @property
    def clock_offset(self) -> timedelta | None:
        """The gateway's clock minus ours, as of the token in use; None before the first."""
        return self._tokens.clock_offset

    async def charge(self, request: ChargeRequest) -> Outcome:
        """Request one payment; see `wire` for what each answer means.

        Always returns. Cancelled, too: the caller has an outcome to record (`Unknown` once the
        request may have left, `NotSent` before), and `asyncio.current_task().cancelling()` still
        says that it was asked to stop. Only the end of the whole process passes through.
        """
        departure = _Departure(self._monotonic() + self._charge_timeout)
        try:
            async with asyncio.timeout(self._charge_timeout):
                return await self._charged(request, departure)
        except (Exception, asyncio.CancelledError) as error:
            return outcome_of_failure(error, may_have_left=departure.possible)

    async def cancel(self, request: CancelRequest) -> CancelOutcome:
        """Request that one payment is taken back whole; see `cancellation`. Returns as `charge`."""
        departure = _Departure(self._monotonic() + self._charge_timeout)
        try:
            async with asyncio.timeout(self._charge_timeout):
                answer = await self._sent(CANCEL, cancellation.cancel_body(request), departure)
                return cancellation.outcome_of_answer(answer, request, now=self._now())
        except (Exception, asyncio.CancelledError) as error:
            return outcome_of_failure(error, may_have_left=departure.possible)

    def payments_between(
        self, status: str, since: datetime, until: datetime
    ) -> AsyncIterator[Sequence[Payment]]:
        """Payments of a status between two moments, in whole verified portions (see `spans`)."""
        return Spans(self._lookups, sandbox=self._sandbox).payments(status, since, until)

    async def prepare(self, merchant_uid: str, amount: Won) -> None:
        """Pin the amount of an order; see `preparation`."""
        body = preparation.body(merchant_uid, amount)
        try:
            async with asyncio.timeout(self._lookup_timeout):
                answer = await self._tokens.authorised(
                    lambda token: self._others.post(preparation.PATH, token, body)
                )
        except (httpx.TransportError, Unreadable, TimeoutError) as error:
            raise GatewayUnavailable(f"prepare: {type(error).__name__}") from None
        if preparation.is_done(answer, merchant_uid, amount):
            return
        path = f"{preparation.PATH}/{segment('merchant_uid', merchant_uid)}"
        preparation.check_pinned(await self._lookups.one(path), amount)

    async def payments_of_order(self, merchant_uid: str) -> Sequence[Payment]:
        """Every payment under one merchant_uid, from `findAll`: `find` shows a single row, and a
        later failed one would hide an earlier paid one (docs/gateway.md §4)."""
        path = f"/payments/findAll/{segment('merchant_uid', merchant_uid)}"
        # The state is left out to get all. Public clients spell that both ways.
        found = self._payments(await self._lookups.all(path, f"{path}/"))
        if any(payment.merchant_uid != merchant_uid for payment in found):
            raise AnswerUnusable("look-up: rows of another order")
        return found

    async def payments_of_key(self, customer_uid: str, since: datetime) -> Sequence[Payment]:
        """Every payment of a billing key with a moment of its own at or after `since`.

        All pages are read, because their order is not documented. A payment without any moment is
        kept: it may have happened a second ago.
        """
        path = f"{_customer(customer_uid)}/payments"
        found = self._payments(await self._lookups.all(path))
        if any(payment.customer_uid not in (None, customer_uid) for payment in found):
            raise AnswerUnusable("look-up: rows of another billing key")
        return [payment for payment in found if _happened_since(payment, since)]

    async def payment(self, imp_uid: str) -> Payment | None:
        """One payment. Raises `InvalidInput` for an id that cannot be one."""
        row = await self._lookups.one(f"/payments/{segment('imp_uid', imp_uid)}")
        if row is None:
            return None
        (found,) = self._payments([row])
        if found.imp_uid != imp_uid:
            raise AnswerUnusable("look-up: another payment")
        return found

    async def billing_key(self, customer_uid: str) -> BillingKey | None:
        """The billing key, or None when the gateway does not know it (any more)."""
        row = await self._lookups.one(_customer(customer_uid))
        if row is None:
            return None
        return _checked(lambda: rows.billing_key(row, customer_uid))

    async def scheduled_payments(
        self, customer_uid: str, since: datetime, until: datetime
    ) -> Sequence[ScheduledPayment]:
        """What the gateway's own scheduler holds for a key between two moments."""
        span = {"from": str(int(since.timestamp())), "to": str(int(until.timestamp()))}
        found = await self._lookups.all(f"{_customer(customer_uid)}/schedules", query=span)
        return _checked(lambda: [rows.scheduled_payment(row) for row in found])

    async def moment(self) -> datetime:
        """The gateway's clock now, by a token fetched for the purpose. Precise to a second."""
        token = await self._fetched_token()
        return self._now() + token.clock_offset

    async def aclose(self) -> None:
        """Close every connection."""
        await self._tokens.aclose()
        await self._charges.aclose()
        await self._others.aclose()

    async def _charged(self, request: ChargeRequest, departure: _Departure) -> Outcome:
        answer = await self._sent(AGAIN, charge_body(request), departure)
        return outcome_of_answer(answer, request, sandbox=self._sandbox, now=self._now())

    async def _sent(self, path: str, body: bytes, departure: _Departure) -> Answer:
        return await self._tokens.authorised(
            lambda token: self._posted(path, body, token, departure)
        )

    async def _posted(
        self, path: str, body: bytes, token: AccessToken, departure: _Departure
    ) -> Answer:
        # The deadline itself is late where the process stood still between a 401 and this: by now
        # another worker may have proved it not charged and sent it anew.
        if self._monotonic() >= departure.until:
            raise TimeoutError
        departure.possible = True
        answer = await self._charges.post(path, token, body)
        # Refused at the door: nothing was charged.
        departure.possible = answer.status != 401
        return answer

    def _payments(self, found: Sequence[object]) -> list[Payment]:
        """Each payment once: a page may repeat a row when a new one pushed it on."""
        read = _checked(lambda: [rows.payment(row, sandbox=self._sandbox) for row in found])
        return list({payment.imp_uid: payment for payment in read}.values())

    async def _fetched_token(self) -> AccessToken:
        """Asked for once more when it goes wrong: everybody waits for this one answer."""
        try:
            async with asyncio.timeout(self._lookup_timeout):
                try:
                    return await self._asked_for_token()
                except (httpx.TransportError, Unreadable, GatewayUnavailable):
                    return await self._asked_for_token()
        except (httpx.TransportError, Unreadable, TimeoutError) as error:
            why = str(error) if isinstance(error, Unreadable) else type(error).__name__
            raise GatewayUnavailable(f"getToken: {why}") from None

    async def _asked_for_token(self) -> AccessToken:
        answer = await self._others.post(GET_ACCESS, None, self._credentials)
        return token_of(answer, self._now())


@dataclass(slots=True)
class _Departure:
    """Until when (monotonic) the request in hand may leave, and whether it may have left."""

    until: float
    possible: bool = False


def _customer(customer_uid: str) -> str:
    return f"/subscribe/customers/{segment('customer_uid', customer_uid)}"


def _happened_since(payment: Payment, since: datetime) -> bool:
    moments = (
        payment.started_at,
        payment.paid_at,
        payment.failed_at,
        payment.cancelled_at,
    )
    known = [moment for moment in moments if moment is not None]
    return not known or max(known) >= since


def _checked(read: Callable[[], T]) -> T:
    """A row that cannot be read makes the whole answer useless: a part would be a guess."""
    try:
        return read()
    except Unreadable as error:
        raise AnswerUnusable(f"look-up: {error}") from None
