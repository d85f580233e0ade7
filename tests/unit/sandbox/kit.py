"""A sandbox behind an in-process transport, spoken to as a merchant's code would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import httpx

from billing.sandbox import NewCustomer, Sandbox, SandboxClock, create_app, mood, register
from billing.sandbox.clock import SEOUL

T = TypeVar("T")

ADA = "ada"
TERMS = {"amount": 9_900, "name": "월간 구독", "buyer_tel": "010-0000-0000"}


def seoul(text: str) -> datetime:
    """A moment in Korea, such as `2027-02-25 10:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=SEOUL)


def a_customer(
    paid: str = "2027-01-20 11:00", uid: str = ADA, last: str | None = None, **more: Any
) -> NewCustomer:
    """A billing key whose initial payment was at `paid`, whole up to `last`."""
    return NewCustomer(
        customer_uid=uid,
        paid_at=seoul(paid),
        last_paid_at=None if last is None else seoul(last),
        **{**TERMS, **more},
    )


class Shop:
    """A merchant with one sandbox, whose clock stands still at `now`."""

    def __init__(self, now: str = "2027-02-20 10:00", faults: object = None, **more: Any) -> None:
        self.naps: list[float] = []
        self.sandbox = Sandbox(
            clock=SandboxClock.manual(seoul(now)),
            mood=mood(faults or {}),
            sleep=self._nap,
            **more,
        )
        self._app = create_app(self.sandbox)
        self._token = ""

    async def _nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.sandbox.clock.advance(seconds)
        await asyncio.sleep(0)

    def at(self, moment: str) -> Shop:
        """Move the clock."""
        self.sandbox.clock.set(seoul(moment))
        self.sandbox.clock_moved()
        return self

    def register(self, *customers: NewCustomer) -> Shop:
        """Register billing keys; without any, Ada's."""
        register(self.sandbox, customers or [a_customer()])
        return self

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request, with a good token unless `headers` are given."""
        return self.run(lambda: self.send(method, path, **more))

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The same inside a loop."""
        more.setdefault("headers", {"Authorization": f"Bearer {self.token()}"})
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, **more)

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run one piece of asynchronous work to its end."""

        async def whole() -> T:
            return await work()

        return asyncio.run(whole())

    def token(self) -> str:
        """A token that is good now."""
        if not self.sandbox.tokens.accepts(self._token):
            got = self.sandbox.tokens.get_token({"imp_key": "key", "imp_secret": "secret"})
            response = got.body["response"]
            assert isinstance(response, dict)
            self._token = response["access_token"]
        return self._token

    def charge(self, order: str = "m-1", uid: str = ADA, **more: Any) -> httpx.Response:
        """`again`, as the initial payment was unless said otherwise."""
        body = {"customer_uid": uid, "merchant_uid": order, **TERMS, **more}
        return self.call("POST", "/subscribe/payments/again", json=body)

    def payment(self, order: str = "m-1", uid: str = ADA, **more: Any) -> dict[str, Any]:
        """The payment in the answer of a charge that the gateway accepted."""
        answer = self.charge(order, uid, **more)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["code"] == 0, body
        return dict(body["response"])

    def said(self, order: str = "m-1", uid: str = ADA, **more: Any) -> str:
        """`paid`, or why not."""
        payment = self.payment(order, uid, **more)
        return str(payment["fail_reason"] or payment["status"])

    def ask(self, path: str, **query: Any) -> httpx.Response:
        """A look-up."""
        return self.call("GET", path, params=query)

    def found(self, path: str, **query: Any) -> Any:
        """The `response` of a look-up that finds something."""
        answer = self.ask(path, **query)
        assert answer.status_code in (200, 207), answer.text
        return answer.json()["response"]

    def control(self, method: str, path: str, document: object = None) -> Any:
        """A control request that succeeds."""
        answer = self.call(method, f"/sandbox/{path}", json=document, headers={})
        assert answer.status_code == 200, answer.text
        return answer.json()
