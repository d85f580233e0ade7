"""The edge against whoever has no business there; no database stands behind it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from starlette.requests import Request

from billing.web import bodies
from billing.web.access import is_local, same_secret
from billing.web.patience import PatientProtocol
from tests.integration.web.conftest import Edge

GUARDED = ("/v1/subscriptions", "/v1/cycles", "/openapi.json", "/docs", "/docs/style.css")
TOKEN = "the-token-of-the-merchant"


@pytest.fixture
def edge(make_free_edge: Callable[..., Edge]) -> Edge:
    return make_free_edge()


@pytest.fixture
def guarded(make_free_edge: Callable[..., Edge]) -> Edge:
    return make_free_edge(api_token=TOKEN)


# -- without a credential: this machine alone -------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "host", "headers"),
    [
        ("203.0.113.9", "127.0.0.1", {}),
        ("10.0.0.2", "localhost", {}),
        ("::ffff:203.0.113.9", "localhost", {}),
        ("not-an-address", "localhost", {}),
        # A page of somebody's own whose name leads here.
        ("127.0.0.1", "evil.example", {}),
        ("127.0.0.1", "localhost.evil.example", {}),
        ("127.0.0.1", "127.0.0.1.nip.io", {}),
        ("127.0.0.1", "127.0.0.2", {}),
        # Through a proxy on this machine.
        ("127.0.0.1", "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", "127.0.0.1", {"Forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", "127.0.0.1", {"X-Real-IP": "127.0.0.1"}),
        ("127.0.0.1", "127.0.0.1", {"X-Forwarded-Proto": "https"}),
        ("127.0.0.1", "127.0.0.1", {"Via": "1.1 proxy"}),
        ("127.0.0.1", "127.0.0.1", {"CF-Connecting-IP": "127.0.0.1"}),
        # A page of another site in a browser on this machine.
        ("127.0.0.1", "127.0.0.1", {"Origin": "https://evil.example"}),
        ("127.0.0.1", "127.0.0.1", {"Origin": "null"}),
        ("127.0.0.1", "127.0.0.1", {"Origin": "http://127.0.0.1:9999"}),
        ("127.0.0.1", "127.0.0.1", {"Host": "127.0.0.1@evil.example"}),
        ("127.0.0.1", "127.0.0.1", {"Host": "[::1"}),
        ("127.0.0.1", "127.0.0.1", {"Host": ""}),
    ],
)
def test_nobody_from_elsewhere(edge: Edge, peer: str, host: str, headers: dict[str, str]) -> None:
    with edge.browse(peer=peer, host=host, **headers) as client:
        for path in GUARDED:
            refused = client.get(path)
            assert refused.status_code == 403
            assert refused.headers["content-type"] == "application/problem+json"
        # Asked before the body is read.
        assert client.post("/v1/subscriptions", content=b"{").status_code == 403
        assert client.post("/v1/subscriptions/x/cancel").status_code == 403


@pytest.mark.parametrize(
    ("peer", "host", "headers"),
    [
        ("127.0.0.1", "127.0.0.1", {}),
        ("127.0.0.1", "localhost:8000", {}),
        ("::1", "[::1]:8000", {}),
        ("127.0.0.1", "localhost", {"Origin": "http://localhost"}),
    ],
)
def test_somebody_on_this_machine(
    edge: Edge, peer: str, host: str, headers: dict[str, str]
) -> None:
    with edge.browse(peer=peer, host=host, **headers) as client:
        assert client.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        # What nginx sends with nothing but `proxy_pass http://127.0.0.1:8000`.
        ([(b"host", b"127.0.0.1:8000")], "1.0"),
        ([(b"host", b"127.0.0.1"), (b"host", b"evil.example")], "1.1"),
        ([], "1.1"),
    ],
)
def test_heads_that_no_client_here_sends(headers: list[tuple[bytes, bytes]], version: str) -> None:
    scope = {
        "type": "http",
        "scheme": "http",
        "http_version": version,
        "client": ("127.0.0.1", 4321),
        "headers": headers,
    }
    assert not is_local(Request(scope))


# -- with a credential ------------------------------------------------------------------------


def test_only_the_token_opens(guarded: Edge) -> None:
    wrong = (
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        "Bearer " + "x" * 5000,
    )
    for given in wrong:
        headers = {} if given is None else {"Authorization": given}
        # Being here is no credential where one is set.
        with guarded.browse(**headers) as client:
            refused = client.get("/docs")
        assert (refused.status_code, given) == (401, given)
        assert refused.headers["www-authenticate"] == "Bearer"
    for good in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
        with guarded.browse(peer="203.0.113.9", host="x.example", Authorization=good) as client:
            assert client.get("/docs").status_code == 200


def test_guessing_is_slowed_down_and_knowing_is_not(guarded: Edge) -> None:
    with guarded.browse(peer="203.0.113.9", Authorization="Bearer wrong") as client:
        seen = [client.get("/openapi.json").status_code for _ in range(32)]
        limited = client.get("/openapi.json")
        known = client.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (seen[:30], seen[30:]) == ([401] * 30, [429] * 2)
    assert limited.headers["retry-after"] == "60"
    assert known.status_code == 200


def test_secrets_of_any_shape_can_be_compared() -> None:
    assert same_secret("비밀", SecretStr("비밀"))
    assert not same_secret("\udcff", SecretStr("비밀"))
    assert not same_secret("", SecretStr("비밀"))


# -- paths, methods, headers, errors ----------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/subscriptions/",
        "/v1//subscriptions",
        "//v1/subscriptions",
        "/V1/subscriptions",
        "/v1/subscriptions;a=1",
        "/v1/%73ubscriptions",
        "/healthz/../v1/subscriptions",
        "/healthz/%2e%2e/v1/subscriptions",
        "/%2e%2e/etc/passwd",
        "/docs/../../etc/passwd",
        "/docs/%0d%0aX-Evil:%201",
        "/webhooks/portone/",
        "/webhooks",
        "/static/../../pyproject.toml",
    ],
)
def test_no_path_leads_around_the_door(guarded: Edge, path: str) -> None:
    raw, _, query = path.encode().partition(b"?")
    status, headers, _ = asyncio.run(_asked(guarded, raw, query))
    assert status in (401, 404)
    assert b"location" not in headers
    assert b"x-evil" not in headers


async def _asked(edge: Edge, raw: bytes, query: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """A request with exactly these bytes as its path: clients tidy them up before they send."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(raw.decode()),
        "raw_path": raw,
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 4321),
        "server": ("127.0.0.1", 80),
    }
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await edge.app(scope, receive, send)  # type: ignore[arg-type]
    body = b"".join(part.get("body", b"") for part in sent[1:])  # type: ignore[misc]
    return sent[0]["status"], dict(sent[0]["headers"]), body  # type: ignore[call-overload, return-value]


def test_no_other_site_is_let_in_and_no_other_method(guarded: Edge) -> None:
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    with guarded.browse(Authorization=f"Bearer {TOKEN}", **origin) as client:
        for method in ("OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "HEAD", "PROPFIND"):
            refused = client.request(method, "/v1/subscriptions")
            assert (refused.status_code, method) == (405, method)
            assert refused.headers["allow"]
        allowed = client.get("/docs")
    assert allowed.status_code == 200
    for answer in (refused, allowed):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_mistake_of_ours_tells_nothing_of_the_inside(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    @edge.app.get("/a-route-with-a-mistake")
    def fails() -> None:
        raise RuntimeError("an inner detail")

    with edge.browse() as client, caplog.at_level(logging.ERROR):
        failed = client.get("/a-route-with-a-mistake")
    assert failed.status_code == 500
    assert failed.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": "an error of ours; the log tells more",
    }
    assert failed.headers["x-content-type-options"] == "nosniff"
    assert "an inner detail" in caplog.text


def test_a_database_that_is_away_is_503_without_its_address(guarded: Edge) -> None:
    with guarded.browse(Authorization=f"Bearer {TOKEN}") as client:
        away = client.get("/v1/subscriptions")
    assert away.status_code == 503
    assert "127.0.0.1" not in away.text
    assert "nobody" not in away.text


# -- long and slow requests -------------------------------------------------------------------


def test_a_long_body_is_refused_as_soon_as_it_is_seen(guarded: Edge) -> None:
    read = 0

    async def endless() -> None:
        nonlocal read

        async def chunks():  # type: ignore[no-untyped-def]
            nonlocal read
            while True:
                read += 1
                yield b"x" * 1024

        transport = httpx.ASGITransport(guarded.app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path, most in (("/v1/subscriptions", 64), ("/webhooks/portone", 4)):
                read = 0
                answer = await client.post(
                    path,
                    content=chunks(),
                    headers={
                        "Authorization": f"Bearer {TOKEN}",
                        "content-type": "application/json",
                    },
                )
                assert answer.status_code == 413
                assert answer.headers["content-type"] == "application/problem+json"
                assert read <= most + 2
            read = 0
            assert (await client.post("/v1/subscriptions", content=chunks())).status_code == 401
            assert read == 0

    asyncio.run(endless())


@pytest.fixture
def served(make_free_edge: Callable[..., Edge], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a real server that waits half a second for what takes ten in earnest."""
    monkeypatch.setattr(bodies.Bodies.__init__, "__defaults__", (bodies.LARGEST, 0.5))

    class Impatient(PatientProtocol):
        head_seconds = 0.5

    config = uvicorn.Config(
        make_free_edge().app,
        port=0,
        log_config=None,
        http=Impatient,
        h11_max_incomplete_event_size=16 * 1024,
        ws="none",
        timeout_keep_alive=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def test_slow_and_endless_requests_end(served: int) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    post = b"POST /webhooks/portone HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
    assert said(served, b"") == b""
    assert said(served, b"GET /healthz HT") == b""
    assert said(served, whole).startswith(b"HTTP/1.1 200")
    assert said(served, whole + b"GET /heal").startswith(b"HTTP/1.1 200")
    assert said(served, whole, b"GET /heal").startswith(b"HTTP/1.1 200")
    assert said(served, post).startswith(b"HTTP/1.1 408")
    assert said(served, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000).startswith(b"HTTP/1.1 400")
    assert said(served, b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").startswith(
        b"HTTP/1.1 400"
    )
    assert said(served, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").startswith(
        b"HTTP/1.1 400"
    )


def said(port: int, data: bytes, later: bytes = b"") -> bytes:
    """Everything the server says to these bytes, and to others after its first answer, until it
    closes, which it must do by itself."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        heard = b""
        try:
            connection.sendall(data)
            while more := connection.recv(65_536):
                heard += more
                connection.sendall(later)
                later = b""
        except ConnectionResetError:
            return heard
    return heard
