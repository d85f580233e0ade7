"""The way from a process to the gateway, at the client's transport seam.

What left is under way by itself: neither the death of the process nor its time-out calls it back.
It may arrive as long as the kernel of a live process would go on sending it (the request's
deadline); once the connection is closed it arrives only if it was out of our hands already.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import httpx
from starlette.datastructures import Headers
from starlette.types import ASGIApp

from billing.portone.answer import Answer, read
from billing.sandbox import Sandbox, SandboxConnectionReset, SandboxNoAnswer
from billing.sandbox.model import Origin
from billing.sandbox.texts import decline
from billing.simulation.loop import Killed

if TYPE_CHECKING:
    from billing.simulation.processes import Process

_CHARGE = "/subscribe/payments/again"
_CANCEL = "/payments/cancel"
_BY_ID = re.compile(r"/payments/(imp_[^/]+)$")
_KEY = re.compile(r"/subscribe/customers/([^/]+)/payments")
_WHOLE, _TURNED_AWAY = 200, 401
# In seconds; longer than lease, settle time and two looks.
_A_LONG_SLEEP = 3_000.0
# A usual way, in seconds, and one on which segments are lost and sent again.
_USUAL, _SLOW = (0.002, 0.08), (1.0, 55.0)


@dataclass(slots=True)
class Sent:
    """One charge request that left a process."""

    left_at: float
    process: str
    customer: str = ""
    arrived: bool = False
    stopped_at_send: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """A request about one payment, by the gateway's id of it, when it reached the gateway."""

    at: float
    imp_uid: str


@dataclass(frozen=True, slots=True)
class _Request:
    """What is on its way."""

    method: str
    path: str
    """As it was quoted."""
    query: str
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Carries the requests of one process to a gateway that runs in this same loop."""

    def __init__(self, process: Process, app: ASGIApp) -> None:
        self._process = process
        self._app = app

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """See `billing.portone.transport.Transport`."""
        parts = urlsplit(url)
        request = _Request(method, parts.path, parts.query, headers, body or b"")
        process, nemesis = self._process, self._process.world.nemesis
        is_charge = request.path == _CHARGE
        process.check()
        if process.world.way_is_down or nemesis.strikes("not_connected"):
            await asyncio.sleep(nemesis.between(*_USUAL))
            raise httpx.ConnectError("simulated")
        if is_charge and nemesis.strikes("token_revoked"):
            process.world.sandbox.tokens.revoke()
        if nemesis.strikes("kill_before_request"):
            process.kill()
            raise Killed
        stopped = is_charge and nemesis.strikes("stop_before_send")
        if stopped or (not is_charge and nemesis.strikes("stop_before_look")):
            # Between the last check and the write: the moment that no check of ours can cover.
            await process.stop(nemesis.between(30, 3_000))
        if not is_charge and nemesis.strikes("stop_until_sent_again"):
            await self._stop_until_sent_again(_looked_up(request))
        sent = Sent(process.world.loop.time(), process.name, stopped_at_send=stopped)
        if is_charge:
            sent.customer = json.loads(request.body)["customer_uid"]
            process.world.sent.append(sent)
        slow = nemesis.strikes("slow_way")
        way = nemesis.between(*(_SLOW if slow else _USUAL))
        under_way = process.world.loop.outside(self._delivered(request, sent, way))
        if nemesis.strikes("kill_after_request"):
            process.kill()
            raise Killed
        try:
            answer = await asyncio.shield(under_way)
        except asyncio.CancelledError:
            if not sent.arrived and nemesis.between(1, 4) > 2:
                under_way.cancel()
            raise
        got = await self._answered(request, answer, is_charge)
        if is_charge and got.status == 401 and nemesis.strikes("stop_after_refusal"):
            # It would go again with a new token; by then it may be somebody else's.
            await self._stop_until_sent_again(sent.customer)
        return got

    async def aclose(self) -> None:
        """Nothing is kept open."""

    async def _stop_until_sent_again(self, customer: str | None) -> None:
        """The worst moment to wake up: another worker is charging the same customer by now."""
        if customer is None:
            return
        sent, known = self._process.world.sent, len(self._process.world.sent)
        await self._process.stop(
            _A_LONG_SLEEP, until=lambda: any(one.customer == customer for one in sent[known:])
        )

    async def _answered(
        self, request: _Request, answer: _Answered | None, is_charge: bool
    ) -> Answer:
        world, nemesis = self._process.world, self._process.world.nemesis
        await asyncio.sleep(nemesis.between(*_USUAL))
        if is_charge and nemesis.strikes("database_down_after_answer"):
            world.take_database_down(nemesis.between(5, 900))
        if request.method == "GET" and world.lookups_are_down:
            raise httpx.ReadError("simulated")
        if nemesis.strikes("kill_after_answer"):
            self._process.kill()
            raise Killed
        if answer is None:
            await asyncio.get_running_loop().create_future()
        if nemesis.strikes("answer_lost"):
            if is_charge and nemesis.strikes("failed_row_after"):
                _recover(world.sandbox, request)
            if nemesis.between(1, 4) > 2:
                await asyncio.get_running_loop().create_future()
            raise httpx.ReadError("simulated")
        match answer:
            case Exception():
                raise httpx.ReadError("simulated")
            case (int() as status, headers, bytes() as body):
                return await read(status, Headers(raw=headers), _whole(body))
        raise AssertionError("an answer is one of these")

    async def _delivered(self, request: _Request, sent: Sent, way: float) -> _Answered | None:
        """What the gateway says; None for a connection that stays silent."""
        await asyncio.sleep(way)
        sent.arrived = True
        arrived_at, answer = self._process.world.loop.time(), None
        try:
            answer = await _called(self._app, request)
        except SandboxNoAnswer:
            pass
        except SandboxConnectionReset as error:
            answer = error
        self._note(request, arrived_at, answer)
        return answer

    def _note(self, request: _Request, at: float, answer: _Answered | None) -> None:
        """Keep what the gateway's own log does not name: requests about one payment by its id."""
        world, status = self._process.world, answer[0] if isinstance(answer, tuple) else 0
        if request.path == _CANCEL and status != _TURNED_AWAY:
            world.asked_back.append(Named(at, json.loads(request.body)["imp_uid"]))
        elif status == _WHOLE and (named := _BY_ID.match(request.path)):
            world.looked_up.append(Named(at, named[1]))


def _looked_up(request: _Request) -> str | None:
    """Whose payments a look-up asks for."""
    asked = _KEY.match(unquote(request.path))
    return None if asked is None else asked[1]


def _recover(sandbox: Sandbox, request: _Request) -> None:
    """The gateway's console tries a paid order once more by itself: a failed row, newer than the
    paid one, under the same name."""
    order = json.loads(request.body)["merchant_uid"]
    rows = sandbox.ledger.of_order(order)
    if rows and rows[-1].paid_at and (key := sandbox.ledger.key(rows[-1].customer_uid)):
        now = sandbox.clock.unix()
        sandbox.enter(key, order, key, now, Origin.HAND, decline=decline("0098"))


_Answered = tuple[int, list[tuple[bytes, bytes]], bytes] | Exception


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _called(app: ASGIApp, request: _Request) -> _Answered:
    """One request to an ASGI application, whole."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(request.path),
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query.encode(),
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in request.headers.items()
        ],
        "server": ("gateway", 80),
        "client": ("maewol", 1),
    }
    begun: dict[str, Any] = {}
    body = bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            begun.update(message)
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return begun["status"], list(begun["headers"]), bytes(body)
