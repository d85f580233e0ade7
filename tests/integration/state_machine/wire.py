"""The ways between a worker, its book, the gateway and our edge; each may break off."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import httpx

from billing.portone import webhook
from billing.portone.answer import Unreadable
from billing.sandbox import Sandbox, SandboxConnectionReset, SandboxNoAnswer, create_app
from billing.sandbox.model import Payment
from billing.sandbox.webhooks import Webhooks
from billing.services.receive_webhook import receive_webhook
from billing.store.session import TRIES, Book

T = TypeVar("T")

# When a worker may die of what it asks.
DEATHS = (
    "before a look",
    "after a look",
    "before a charge",
    "after a charge",
    "before a cancellation",
    "after a cancellation",
)


class Killed(BaseException):
    """kill -9: nobody catches it."""


class MortalBook(Book):
    """The book as one worker sees it: once dead, the worker writes no more."""

    dead = False

    def run(self, step: Callable[..., T], tries: int = TRIES) -> T:
        if self.dead:
            raise Killed
        return super().run(step, tries)


class Journal:
    """What was asked about payments by their ids, in its order: back, or only about. `blind` are
    those that were asked back again with no look between."""

    def __init__(self) -> None:
        self.blind: list[str] = []
        self._unseen: set[str] = set()

    def asked_back(self, imp_uid: str) -> None:
        if imp_uid in self._unseen:
            self.blind.append(imp_uid)
        self._unseen.add(imp_uid)

    def looked_at(self, imp_uid: str) -> None:
        self._unseen.discard(imp_uid)


class Wire(httpx.AsyncBaseTransport):
    """The sandbox in this process; what it does to connections becomes the client's error."""

    def __init__(self, sandbox: Sandbox, book: MortalBook, journal: Journal, kill: str) -> None:
        self._app = httpx.ASGITransport(create_app(sandbox))
        self._book = book
        self._journal = journal
        self._kill = kill

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        act = _act(request)
        self._maybe_die(f"before {act}")
        status = 0
        try:
            answer = await self._app.handle_async_request(request)
            status = answer.status_code
        except SandboxNoAnswer as error:
            raise httpx.ReadTimeout(str(error), request=request) from error
        except SandboxConnectionReset as error:
            raise httpx.ReadError(str(error), request=request) from error
        finally:
            self._note(act, request, status)
            self._maybe_die(f"after {act}")
        return answer

    def _note(self, act: str, request: httpx.Request, status: int) -> None:
        if act == "a cancellation" and status != httpx.codes.UNAUTHORIZED:
            self._journal.asked_back(json.loads(request.content)["imp_uid"])
        elif act == "a look" and status == httpx.codes.OK:
            self._journal.looked_at(request.url.path.rpartition("/")[2])

    def _maybe_die(self, where: str) -> None:
        if self._book.dead or where == self._kill:
            self._book.dead = True
            raise Killed


def _act(request: httpx.Request) -> str:
    path = request.url.path
    if "getToken" in path:
        return "a token"
    if path.endswith("/again"):
        return "a charge"
    return "a cancellation" if path.endswith("/payments/cancel") else "a look"


class Post(Webhooks):
    """The gateway's webhooks on their way to our edge, where they may be lost, late and doubled.
    Stands where the sandbox has its own sender."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.under_way: list[bytes] = []

    def tell(self, payment: Payment) -> None:
        self.send(
            imp_uid=payment.imp_uid,
            merchant_uid=payment.merchant_uid,
            status=payment.status.value,
        )

    def send(self, **said: object) -> None:
        """Send one, whoever sends it."""
        self.under_way.append(json.dumps(said).encode())


def arrives(book: Book, body: bytes) -> bool:
    """What the edge does with a body; whether it kept it."""
    try:
        return receive_webhook(book, webhook.read("application/json", body))
    except Unreadable:
        return False
