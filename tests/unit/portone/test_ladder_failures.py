"""The rungs without an answer: what each kind of failure proves, by the phase it happened in."""

from __future__ import annotations

import asyncio

import aiohttp
import httpx
import pytest

from billing.domain.errors import GatewayRefused, GatewayUnavailable
from billing.domain.outcome import NotSent, Unknown
from billing.portone.answer import Unreadable
from billing.portone.transport import translated
from billing.portone.wire import Unsendable, outcome_of_failure

NEVER_CONNECTED = [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError]
NEVER_BUILT = [httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL]
BROKEN_OFF = [
    httpx.WriteError, httpx.WriteTimeout, httpx.ReadError, httpx.ReadTimeout, httpx.CloseError,
    httpx.RemoteProtocolError, httpx.DecodingError, TimeoutError, asyncio.CancelledError,
    ConnectionResetError, Unreadable, RecursionError, MemoryError, KeyError, OSError,
]  # fmt: skip


@pytest.mark.parametrize("kind", NEVER_CONNECTED)
@pytest.mark.parametrize("may_have_left", [True, False])
def test_never_connected(kind: type[Exception], may_have_left: bool) -> None:
    outcome = outcome_of_failure(kind("x"), may_have_left=may_have_left)
    assert isinstance(outcome, NotSent)
    assert not outcome.our_fault
    assert not outcome.credentials


@pytest.mark.parametrize("kind", NEVER_BUILT)
def test_never_built(kind: type[Exception]) -> None:
    outcome = outcome_of_failure(kind("x"), may_have_left=True)
    assert isinstance(outcome, NotSent)
    assert outcome.our_fault


@pytest.mark.parametrize("kind", BROKEN_OFF)
def test_broken_off(kind: type[BaseException]) -> None:
    assert isinstance(outcome_of_failure(kind("x"), may_have_left=True), Unknown)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GatewayRefused("getToken: HTTP 401"), (True, False)),
        (GatewayUnavailable("getToken: HTTP 500"), (False, False)),
        (TimeoutError(), (False, False)),
        (asyncio.CancelledError(), (False, False)),
        (Unsendable("merchant_uid"), (False, True)),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "x"), (False, True)),
        (KeyError("a bug"), (False, True)),
    ],
)
def test_before_anything_left(error: BaseException, expected: tuple[bool, bool]) -> None:
    outcome = outcome_of_failure(error, may_have_left=False)
    assert isinstance(outcome, NotSent)
    assert (outcome.credentials, outcome.our_fault) == expected


@pytest.mark.parametrize(
    "error",
    [aiohttp.ServerDisconnectedError(), aiohttp.ClientConnectionResetError(),
     aiohttp.ClientOSError(104, "x"), aiohttp.ClientConnectionError(), aiohttp.ClientPayloadError(),
     aiohttp.SocketTimeoutError(), aiohttp.ServerTimeoutError(), aiohttp.http.HttpProcessingError(),
     TimeoutError(), OSError(32, "broken pipe"), RuntimeError("Session is closed"), ValueError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_aiohttp_says_after_connecting_is_never_a_proof(error: Exception) -> None:
    """httpx-aiohttp makes `ConnectTimeout` of the first five: docs/adr/0003-http-transport.md."""
    made = translated(error)
    assert isinstance(outcome_of_failure(made, may_have_left=True), Unknown)
    assert str(made) == type(error).__name__
