"""What leaves, header by header."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from billing import __version__
from billing.portone.answer import Answer
from billing.portone.exchange import Exchange
from billing.ports import AccessToken

TOKEN = AccessToken("token-1", datetime(2026, 11, 20, tzinfo=UTC), timedelta(0))
ALWAYS = {
    "User-Agent": f"Maewol/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}


class Kept:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        self.sent.append((method, url, dict(headers), body))
        return Answer(200, b"{}")

    async def aclose(self) -> None:
        self.sent.append("closed")


@pytest.mark.anyio
async def test_every_request_as_it_leaves() -> None:
    kept = Kept()
    exchange = Exchange("https://api.example.com/", kept)
    assert await exchange.get("/a", TOKEN, {"page": "1", "q": "한 "}) == Answer(200, b"{}")
    assert await exchange.post("/b", TOKEN, b"{1}") == Answer(200, b"{}")
    await exchange.post("/c", None, b"{2}")
    await exchange.aclose()
    bearer = {"Authorization": "Bearer token-1"}
    json = {"Content-Type": "application/json"}
    assert kept.sent == [
        ("GET", "https://api.example.com/a?page=1&q=%ED%95%9C+", ALWAYS | bearer, None),
        ("POST", "https://api.example.com/b", ALWAYS | json | bearer, b"{1}"),
        ("POST", "https://api.example.com/c", ALWAYS | json, b"{2}"),
        "closed",
    ]
