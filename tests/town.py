"""A town: a book and a sandbox on one clock, spoken to through the real client in one process."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import httpx

from billing.domain.calendar import SEOUL
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.sandbox import (
    HandPayment,
    NewCustomer,
    Sandbox,
    SandboxClock,
    create_app,
    pay,
    register,
)
from billing.sandbox.model import Payment
from billing.sandbox.view import payment_row
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.close_cycles import close_cycles
from billing.services.import_subscriptions import import_subscriptions
from billing.services.open_cycles import open_cycles
from billing.services.reconcile import Report, Span, reconcile
from billing.store.session import Book
from tests.builders import KEY, a_client, a_file, query
from tests.conftest import MovedClock

T = TypeVar("T")


def seoul(text: str) -> datetime:
    """A moment in Korea, such as `2026-11-20 10:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=SEOUL)


class Crash(BaseException):
    """The process is gone: nobody catches this."""


class Wiretap(httpx.AsyncBaseTransport):
    """The sandbox behind a wire that a test can cut: before a request arrives, or after."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._app = httpx.ASGITransport(create_app(sandbox))
        self.asked: list[str] = []
        # Bodies of requests to take a payment back, when a test wants them.
        self.bodies: list[bytes] = []
        # What happens to a request, by the end of its path: `lost`, `unanswered`, `crash before`,
        # `crash after`, `http:503`, or a function that is called when it arrives and may answer
        # in the gateway's place.
        self.faults: dict[str, str | Callable[[], httpx.Response | None]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(path)
        if path == "/payments/cancel":
            self.bodies.append(request.content)
        fault = next((f for end, f in self.faults.items() if path.endswith(end)), None)
        if fault == "lost":
            raise httpx.ReadTimeout("lost before it arrived", request=request)
        if fault == "crash before":
            raise Crash
        if callable(fault) and (answer := fault()) is not None:
            return answer
        if isinstance(fault, str) and fault.startswith("http:"):
            return httpx.Response(int(fault.removeprefix("http:")), request=request)
        answer = await self._app.handle_async_request(request)
        if fault == "crash after":
            raise Crash
        if fault == "unanswered":
            await answer.aread()
            raise httpx.ReadTimeout("the answer was lost", request=request)
        return answer


class Town:
    """Subscribers in a book, their keys at a sandbox, and one clock for both."""

    def __init__(self, book: Book, policy: BillingPolicy, clock: MovedClock) -> None:
        self.book, self.policy, self.clock = book, policy, clock
        self.sandbox = Sandbox(clock=SandboxClock.manual(clock.now), sleep=self._no_sleep)
        self.wire = Wiretap(self.sandbox)
        self.page_limit = 100

    async def _no_sleep(self, seconds: float) -> None:
        self.move(seconds=seconds)

    def at(self, moment: str) -> Town:
        self.clock.move_to(seoul(moment))
        self.sandbox.clock.set(self.clock.now)
        self.sandbox.clock_moved()
        return self

    def move(self, **by: float) -> None:
        self.clock.move(**by)
        self.sandbox.clock.set(self.clock.now)
        self.sandbox.clock_moved()

    def run(self, work: Callable[[PortOneClient], Awaitable[T]]) -> T:
        """One piece of work with a client of its own."""

        async def whole() -> T:
            client = a_client(
                self.clock,
                self.wire,
                include_sandbox=self.policy.sandbox,
                page_limit=self.page_limit,
            )
            try:
                return await work(client)
            finally:
                await client.aclose()

        return asyncio.run(whole())

    # -- people ---------------------------------------------------------------------------------

    def subscribe(self, count: int = 1, paid: str = "2026-10-20 14:30", first: int = 1) -> None:
        """Register so many at the gateway, and enrol them."""
        people = [
            NewCustomer(
                customer_uid=uid(number),
                amount=1000 + number,
                name=f"plan {number}",
                paid_at=seoul(paid),
                buyer_name="홍길동",
                buyer_tel="010-1234-5678",
            )
            for number in range(first, first + count)
        ]
        initial = register(self.sandbox, people)
        rows = [
            f"{one.customer_uid},{one.amount},{one.name},{one.paid_at.isoformat()},홍길동,"
            f"010-1234-5678,{payment.merchant_uid}"
            for one, payment in zip(people, initial, strict=True)
        ]
        header = (
            "customer_uid,amount,order_name,initial_paid_at,buyer_name,buyer_tel,"
            "initial_merchant_uid"
        )
        file = a_file(*rows, header=header)
        report = import_subscriptions(self.book, self.policy, lambda: KEY, file)
        assert report.added == count, report.rejected

    def register_only(self, number: int, paid: str = "2026-10-20 14:30", **more: Any) -> Payment:
        """A key at the gateway that nobody enrolled."""
        person = NewCustomer(
            customer_uid=uid(number), amount=5000, name="another", paid_at=seoul(paid), **more
        )
        return register(self.sandbox, [person])[0]

    def charge(self) -> dict[Result, int]:
        """Open what is due and charge it: the canaries first, then the others."""
        open_cycles(self.book, self.policy)
        tally: Counter[Result] = Counter()
        due = "SELECT id FROM attempts WHERE status = 'due'"
        while True:
            ids = [row[0] for row in query(self.book, due)]
            done = self.run(lambda client, ids=ids: charge(self.book, client, self.policy, ids))
            if not done:
                return dict(tally)
            tally += done

    def charged(self) -> Town:
        """With one subscriber, whose month is paid by our charge."""
        self.subscribe()
        assert self.charge() == {"approved": 1}
        return self

    def close(self) -> int:
        return close_cycles(self.book, self.policy)

    def pay_by_hand(self, number: int = 1, **more: Any) -> Payment:
        """A payment with somebody's key that Maewol did not make."""
        return pay(self.sandbox, HandPayment(customer_uid=uid(number), **more))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Speak to the gateway beside Maewol, as its console or another system would."""

        async def whole() -> Any:
            transport = httpx.ASGITransport(create_app(self.sandbox))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                keys = {"imp_key": "key", "imp_secret": "secret"}
                token = (await client.post("/users/getToken", json=keys)).json()
                headers = {"Authorization": f"Bearer {token['response']['access_token']}"}
                return (await client.post(path, json=body, headers=headers)).json()

        return asyncio.run(whole())

    def cancel_outside(self, imp_uid: str) -> None:
        answer = self.post("/payments/cancel", {"imp_uid": imp_uid, "reason": "in the console"})
        assert answer["code"] == 0, json.dumps(answer, ensure_ascii=False)

    def changed(self, imp_uid: str, **facts: Any) -> None:
        """The gateway's own row of a payment says something else from now on."""
        payment = self.sandbox.ledger.by_imp_uid(imp_uid)
        assert payment is not None
        self.sandbox.ledger.put(replace(payment, **facts))

    def row(self, imp_uid: str, /, **facts: Any) -> dict[str, Any]:
        """A payment as the gateway shows it, but for these facts."""
        payment = self.sandbox.ledger.by_imp_uid(imp_uid)
        assert payment is not None
        return {**payment_row(payment), **facts}

    def says(self, response: object) -> httpx.Response:
        """A whole answer of the gateway's, for `wire.faults`."""
        return httpx.Response(200, json={"code": 0, "message": None, "response": response})

    def paid_imp_uid(self, number: int = 1) -> str:
        """What the book counts as the newest month's payment of one subscriber."""
        (found, *_) = query(
            self.book,
            "SELECT c.paid_imp_uid FROM cycles c JOIN subscriptions s ON s.id = c.subscription_id"
            " WHERE s.customer_uid = :uid ORDER BY c.number DESC",
            uid=uid(number),
        )
        return str(found[0])

    # -- reconciliation -------------------------------------------------------------------------

    def reconcile(self, first: str = "2026-11-01", last: str = "2026-11-30", **more: Any) -> Report:
        span = Span(datetime.fromisoformat(first).date(), datetime.fromisoformat(last).date())
        return self.run(
            lambda client: reconcile(
                self.book, client, self.policy, span, sleep=self._no_sleep, **more
            )
        )

    def kinds(self, **more: Any) -> list[str]:
        """The names of what is found, in order, five minutes from now: all is visible by then."""
        self.move(minutes=5)
        return [str(one.kind) for one in self.reconcile(**more).differences]


def uid(number: int) -> str:
    return f"customer-{number}"
