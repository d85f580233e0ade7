"""What leaves, header by header, and which texts may stand in an address."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from billing import __version__
from billing.domain.errors import InvalidInput, InvalidSetting
from billing.portone.answer import Answer
from billing.portone.exchange import Exchange, checked_base_url, segment
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


@pytest.mark.parametrize(
    ("text", "quoted"), [("a/b?", "a%2Fb%3F"), ("...", "..."), ("x" * 100, "x" * 100)]
)
def test_a_segment(text: str, quoted: str) -> None:
    assert segment("imp_uid", text) == quoted


@pytest.mark.parametrize("text", ["", ".", "..", "x" * 101, "\ud800"])
def test_no_segment(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        segment("imp_uid", text)
    assert str(refused.value) == "imp_uid='…': cannot be part of an address"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://key@api.example.com", "must not hold credentials"),
        ("https://:secret@api.example.com", "must not hold credentials"),
        ("https://api.example.com:0", "is not the address of a gateway"),
        ("https:///path", "is not the address of a gateway"),
        ("http:///path", "is not the address of a gateway"),
        ("ftp://127.0.0.1", "is not https"),
        ("http://api.example.com", "is not https"),
        ("https://[::1", "is not a URL"),
    ],
)
def test_what_is_wrong_with_an_address(url: str, said: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        checked_base_url(url)
    shown = "…" if said.startswith(("must", "is not a URL")) else url
    assert str(refused.value).startswith(f"MAEWOL_PORTONE_API_URL={shown!r}: {said}")


def test_port_one_and_a_path_are_taken() -> None:
    assert checked_base_url("https://api.example.com:1/X//") == "https://api.example.com:1/X"
