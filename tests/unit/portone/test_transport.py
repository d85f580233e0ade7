"""What carries a request: over any transport of httpx, and which error of aiohttp proves what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey

from billing.portone.answer import Answer
from billing.portone.transport import HttpxTransport, translated

pytestmark = pytest.mark.anyio

URL = "https://api.example.com/payments/imp_1?x=%2F"
KEY = ConnectionKey("api.example.com", 443, True, True, None, None, None)


class Body(httpx.AsyncByteStream):
    """An answer in pieces, that may break off."""

    def __init__(self, *pieces: bytes, breaks: Exception | None = None) -> None:
        self.pieces = pieces
        self.breaks = breaks
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.breaks:
            raise self.breaks

    async def aclose(self) -> None:
        self.closed += 1


class Blocking(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("read without a loop")


class Carrier(httpx.AsyncBaseTransport):
    """Answers each request with the same body."""

    def __init__(self, body: httpx.AsyncByteStream | httpx.SyncByteStream) -> None:
        self.body = body
        self.asked: list[httpx.Request] = []
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(429, headers={"Retry-After": "7"}, stream=self.body)

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_request_and_its_answer_go_through_as_they_are() -> None:
    body = Body(b"{", b"}")
    carrier = Carrier(body)
    transport = HttpxTransport(carrier)
    answer = await transport.send("POST", URL, {"X-One": "1"}, b"asked")
    assert answer == Answer(429, b"{}", "7")
    (asked,) = carrier.asked
    assert (asked.method, str(asked.url), asked.headers["x-one"]) == ("POST", URL, "1")
    assert asked.content == b"asked"
    assert (body.closed, carrier.closed) == (1, 0)
    await transport.aclose()
    assert (body.closed, carrier.closed) == (1, 1)


async def test_an_answer_that_breaks_off_is_closed_and_the_error_told() -> None:
    body = Body(b"{", breaks=httpx.ReadError("gone"))
    with pytest.raises(httpx.ReadError, match="gone"):
        await HttpxTransport(Carrier(body)).send("GET", URL, {}, None)
    assert body.closed == 1


async def test_an_answer_that_would_stop_the_loop_is_not_read() -> None:
    with pytest.raises(TypeError, match="an asynchronous transport is needed"):
        await HttpxTransport(Carrier(Blocking())).send("GET", URL, {}, None)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        # Before a connection is held: no byte left.
        (aiohttp.ConnectionTimeoutError(), httpx.ConnectTimeout),
        (aiohttp.ClientConnectorError(KEY, OSError("refused")), httpx.ConnectError),
        (aiohttp.ClientConnectorDNSError(KEY, OSError("no such host")), httpx.ConnectError),
        (aiohttp.ClientConnectorSSLError(KEY, OSError("handshake")), httpx.ConnectError),
        (
            aiohttp.ClientConnectorCertificateError(KEY, ValueError("not trusted")),
            httpx.ConnectError,
        ),
        (aiohttp.ServerFingerprintMismatch(b"", b"", "h", 1), httpx.ConnectError),
        # Of our own making.
        (aiohttp.InvalidURL("https://secret"), httpx.LocalProtocolError),
        (UnicodeError("secret"), httpx.LocalProtocolError),
        # Everything else: it may have left, and with it what is new in the next aiohttp.
        (TimeoutError(), httpx.ReadTimeout),
        (aiohttp.SocketTimeoutError(), httpx.ReadTimeout),
        (aiohttp.ServerTimeoutError(), httpx.ReadTimeout),
        (aiohttp.ServerDisconnectedError("secret"), httpx.ReadError),
        (aiohttp.ClientOSError(104, "secret"), httpx.ReadError),
        (aiohttp.ClientConnectionResetError("secret"), httpx.ReadError),
        (aiohttp.ClientConnectionError("secret"), httpx.ReadError),
        (aiohttp.ClientPayloadError("secret"), httpx.ReadError),
        (ConnectionResetError(104, "secret"), httpx.ReadError),
        (RuntimeError("secret"), httpx.ReadError),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else type(one).__name__,
)
def test_each_error_says_what_is_proven_and_its_name_only(
    raised: Exception, told: type[httpx.TransportError]
) -> None:
    error = translated(raised)
    # Exactly: some of them are the parents of others.
    assert type(error) is told
    assert str(error) == type(raised).__name__
