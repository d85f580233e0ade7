"""How an answer leaves: whole, or broken in the way that the mood wants.

Under the server a connection is really cut or left silent; inside a process (behind an ASGI
transport) there is none, and a `SandboxNetworkFault` is raised for the transport to translate.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping

from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from billing.sandbox.reply import Broken, Reply

EXTENSION = "sandbox.connection"

_HTML = "<!DOCTYPE html><html><body><h1>시스템 점검 중입니다</h1></body></html>"
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class SandboxNetworkFault(Exception):
    """What happened to a connection, where there is none: behind an in-process transport."""


class SandboxConnectionReset(SandboxNetworkFault):
    """The connection was reset, before or within the answer."""


class SandboxNoAnswer(SandboxNetworkFault):
    """No answer comes, ever: a client runs into its time-out."""


class SandboxProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, able to break its own connection.

    The application finds itself in `scope["extensions"]`.
    """

    silent = False

    def on_message_begin(self) -> None:
        """Begin a request: tell the application about this connection."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"protocol": self}}

    def reset(self) -> None:
        """Cut the connection with a TCP reset, not a polite end."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            linger = struct.pack("ii", 1, 0)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    def shutdown(self) -> None:
        """The server stops: nobody waits any longer for an answer that never comes."""
        if self.silent:
            self.reset()
        else:
            super().shutdown()


class Answered(Response):
    """The gateway's JSON."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(
            encoded(reply.body), reply.status, reply.headers, "application/json; charset=utf-8"
        )


class _Silence(Response):
    """No answer, until the client hangs up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protocol = _protocol(scope)
        if protocol is None:
            raise SandboxNoAnswer("no answer comes")
        protocol.silent = True
        await _hung_up(receive)


class _Reset(Response):
    """The connection ends, after `begun` bytes of a whole answer if any."""

    def __init__(self, begun: bytes = b"") -> None:
        super().__init__()
        self._begun = begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protocol = _protocol(scope)
        if protocol is None:
            raise SandboxConnectionReset("connection reset by peer")
        if self._begun:
            await self._begin(send)
        protocol.reset()
        await _hung_up(receive)

    async def _begin(self, send: Send) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(2 * len(self._begun)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._begun, "more_body": True})
        # So that the bytes are on their way before the reset throws away what is not.
        await asyncio.sleep(0.01)


def respond(answer: Reply | Broken) -> Response:
    """The response for an answer, whole or broken."""
    if isinstance(answer, Reply):
        return Answered(answer)
    body = encoded(answer.reply.body)
    match answer.fault.kind:
        case "timeout":
            return _Silence()
        case "reset":
            return _Reset()
        case "cut_body":
            return _Reset(body[: len(body) // 2])
        case "cut_json":
            return Response(body[: len(body) // 2], 200, media_type="application/json")
        case "html":
            return Response(_HTML, 200, media_type="text/html")
    return Response("", answer.fault.number, media_type="text/plain")


def encoded(body: Mapping[str, object]) -> bytes:
    """JSON as the gateway writes it; halves of surrogate pairs become question marks."""
    try:
        return to_json(body)
    except PydanticSerializationError:
        return _ENCODER.encode(body).encode("utf-8", "replace")


def _protocol(scope: Scope) -> SandboxProtocol | None:
    extension = scope.get("extensions", {}).get(EXTENSION)
    found = None if extension is None else extension["protocol"]
    return found if isinstance(found, SandboxProtocol) else None


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
