"""Every rung of the ladder, and every way a connection can end, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import shutil
import socket
import ssl
import subprocess
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from billing.domain.errors import GatewayUnavailable
from billing.domain.outcome import Approved, Declined, NotSent, Unknown
from billing.ports import Buyer

pytestmark = pytest.mark.anyio

APPROVED = {
    "status": "paid",
    "imp_uid": "imp_1",
    "merchant_uid": "mw-abc-202411-01",
    "customer_uid": "customer@example.com",
    "amount": 9900,
    "currency": "KRW",
    "paid_at": 1_732_400_000,
    "sandbox": False,
}


def body(code: object = 0, message: object = None, **payment: object) -> bytes:
    answered = {"code": code, "message": message, "response": {**APPROVED, **payment}}
    return json.dumps(answered).encode()


def refusal(code: object, message: object) -> bytes:
    return json.dumps({"code": code, "message": message, "response": None}).encode()


def without(name: str) -> bytes:
    kept = {key: value for key, value in APPROVED.items() if key != name}
    return json.dumps({"code": 0, "message": None, "response": kept}).encode()


def unknown(why: str = "", **facts: object) -> Callable[[object], bool]:
    """Unknown with exactly these flags, and nothing of the answer in its words."""

    def holds(outcome: object) -> bool:
        if not isinstance(outcome, Unknown) or why not in outcome.why:
            return False
        expected = {"refusal": None, "contradiction": False, "slow_down": False, **facts}
        return all(getattr(outcome, name) == value for name, value in expected.items())

    return holds


def approved(outcome: object) -> bool:
    return isinstance(outcome, Approved) and outcome.amount.amount == 9900


def declined(message: str) -> Callable[[object], bool]:
    return lambda outcome: isinstance(outcome, Declined) and outcome.message == message


def contradiction(field: str) -> Callable[[object], bool]:
    return unknown(field, contradiction=True)


Rung = tuple[int, bytes, Callable[[object], bool]]
LADDER: dict[str, Rung] = {
    "paid": (200, body(), approved),
    "paid, amount as an integral float": (200, body(amount=9900.0), approved),
    "paid, no currency": (200, without("currency"), approved),
    "paid, a part of a second": (200, body(paid_at=1_732_400_000.75), approved),
    "paid, customer_uid not echoed": (200, without("customer_uid"), approved),
    "paid, sandbox flag not carried": (200, without("sandbox"), approved),
    "failed": (200, body(status="failed", paid_at=0, fail_reason="[0031] 한도초과"),
               declined("[0031] 한도초과")),
    "failed without a reason": (200, body(status="failed", paid_at=0), declined("")),
    "failed, unstorable reason": (200, body(status="failed", paid_at=0, fail_reason="x\ud800\x00"),
                                  declined("x\ufffd\ufffd")),
    "failed, yet paid": (200, body(status="failed"), unknown("paid_at")),
    "failed, another order": (200, body(status="failed", merchant_uid="mw-2"),
                              contradiction("merchant_uid")),
    "failed, another billing key": (200, body(status="failed", paid_at=0, customer_uid="other"),
                                    contradiction("customer_uid")),
    "ready": (200, body(status="ready"), unknown("ready")),
    "cancelled": (200, body(status="cancelled"), unknown("cancelled")),
    "a new word": (200, body(status="PAID"), unknown("not known")),
    "code 1": (200, refusal(1, "등록되지 않은 구매자입니다."),
               unknown("code 1", refusal="등록되지 않은 구매자입니다.")),
    "code -1": (200, refusal(-1, "이미 결제"), unknown("code -1", refusal="이미 결제")),
    "code 1 without words": (200, refusal(1, None), unknown("code 1", refusal="code 1")),
    "code 1 with a payment": (200, body(code=1), unknown("code 1")),
    "code as text": (200, body(code="0"), unknown("no code")),
    "code as true": (200, refusal(True, "x"), unknown("no code")),
    "code as false": (200, body(code=False), unknown("no code")),
    "another amount": (200, body(amount=9901), contradiction("amount")),
    "another order": (200, body(merchant_uid="mw-abc-202411-02"), contradiction("merchant_uid")),
    "another billing key": (200, body(customer_uid="other"), contradiction("customer_uid")),
    "another currency": (200, body(currency="USD"), contradiction("currency")),
    "a test payment": (200, body(sandbox=True), contradiction("sandbox")),
    "amount as true": (200, body(amount=True), unknown("amount")),
    "amount as text": (200, body(amount="9900"), unknown("amount")),
    "amount with a fraction": (200, body(amount=9900.5), unknown("amount")),
    "amount below zero": (200, body(amount=-9900), unknown("amount")),
    "amount not a number": (200, body(amount=float("nan")), unknown("NaN")),
    "amount too long a number": (200, body().replace(b"9900", b"9" * 5000), unknown("not JSON")),
    "sandbox as a number": (200, body(sandbox=0), unknown("sandbox")),
    "paid_at zero": (200, body(paid_at=0), unknown("paid_at")),
    "paid_at beyond time": (200, body(paid_at=10**18), unknown("paid_at")),
    "imp_uid malformed": (200, body(imp_uid="../x"), unknown("imp_uid")),
    "imp_uid with half a surrogate": (200, body(imp_uid="imp\udc00"), unknown("imp_uid")),
    **{f"no {name}": (200, without(name), unknown(name))
       for name in ("imp_uid", "merchant_uid", "amount", "status", "paid_at")},
    "response null, code 0": (200, refusal(0, None), unknown("not an object")),
    "response a list": (200, b'{"code":0,"message":null,"response":[]}', unknown("not an object")),
    "a list": (200, b"[]", unknown("not a JSON object")),
    "empty": (200, b"", unknown("not JSON")),
    "HTML": (200, b"<html>ok</html>", unknown("not JSON")),
    "cut JSON": (200, body()[:-2], unknown("not JSON")),
    "two documents": (200, body() + body(), unknown("not JSON")),
    "UTF-16": (200, body().decode().encode("utf-16"), unknown("not JSON")),
    "not UTF-8": (200, body().replace(b"imp_1", b"imp\xff"), unknown("not JSON")),
    "deep nesting": (200, b'{"code":' + b"[" * 200_000, unknown("not JSON")),
    "a key twice": (200, body(status="failed").replace(b'"amount"', b'"status": "paid", "amount"'),
                    unknown("key twice")),
    "above the size limit": (200, b" " * (1 << 20) + body(), unknown("too long")),
    **{f"HTTP {status}, well-formed": (status, body(), unknown(f"HTTP {status}"))
       for status in (201, 204, 207, 400, 403, 404, 409, 422, 500, 502, 503, 504)},
    "302": (302, body(), unknown("HTTP 302")),
}  # fmt: skip


@pytest.mark.parametrize("rung", LADDER.values(), ids=LADDER.keys())
async def test_each_answer_means_exactly_one_outcome(kit: Any, rung: Rung) -> None:
    status, content, holds = rung

    async def scene(wire: Any, arrival: Any) -> None:
        if status == 204:
            await wire.send(b"HTTP/1.1 204 Nothing\r\n\r\n")
        else:
            await wire.answer(status, content, Location=f"{kit.gateway.url}/elsewhere")

    kit.gateway.scene = scene
    outcome = await kit.client().charge(kit.request())
    assert holds(outcome), outcome
    assert len(kit.gateway.arrivals) == 1


async def test_a_test_payment_is_approved_where_test_payments_are_wanted(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(200, body(sandbox=True))

    kit.gateway.scene = scene
    assert approved(await kit.client(include_sandbox=True).charge(kit.request()))


async def test_a_live_payment_contradicts_where_test_payments_are_wanted(kit: Any) -> None:
    outcome = await kit.client(include_sandbox=True).charge(kit.request())
    assert contradiction("sandbox")(outcome)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("999999", 900.0), ("-3", None), ("soon", None), ("", None), ("1" * 40, None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 900.0),
     ("Wed, 99 Foo 2015 07:28:00 GMT", None), ("Wed, 21 Oct 2015 07:28:00 -0000", None)],
)  # fmt: skip
async def test_429_slows_down(kit: Any, header: str, seconds: float | None) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(429, b"slow", Retry_After=header)

    kit.gateway.scene = scene
    outcome = await kit.client().charge(kit.request())
    assert outcome == Unknown("HTTP 429", slow_down=True, retry_after_seconds=seconds)


# --- what is sent -------------------------------------------------------------------------------


async def test_the_request_holds_what_the_carrier_compares_and_nothing_else(kit: Any) -> None:
    assert approved(await kit.client().charge(kit.request()))
    (arrival,) = kit.gateway.arrivals
    assert (arrival.method, arrival.path) == ("POST", "/subscribe/payments/again")
    assert arrival.json() == {
        "customer_uid": "customer@example.com",
        "merchant_uid": "mw-abc-202411-01",
        "amount": 9900,
        "name": "월간 구독",
        "buyer_name": "홍길동",
        "buyer_email": "hong@example.com",
        "buyer_tel": "010-1234-5678",
    }
    assert type(arrival.json()["amount"]) is int
    assert arrival.headers["authorization"] == "Bearer token-1"
    assert arrival.headers["content-type"] == "application/json"
    assert arrival.headers["user-agent"].startswith("Maewol/")
    assert "cookie" not in arrival.headers


async def test_buyer_fields_we_do_not_hold_are_left_out(kit: Any) -> None:
    await kit.client().charge(kit.request(buyer=Buyer(tel="010-1")))
    (arrival,) = kit.gateway.arrivals
    assert set(arrival.json()) == {"customer_uid", "merchant_uid", "amount", "name", "buyer_tel"}


@pytest.mark.parametrize(
    "changes",
    [{"merchant_uid": "mw 1"}, {"merchant_uid": ""}, {"merchant_uid": "m" * 41},
     {"merchant_uid": "mw-한"}, {"customer_uid": ""}, {"customer_uid": "c" * 81},
     {"order_name": ""}, {"order_name": "half \ud800"}],
)  # fmt: skip
async def test_a_request_that_must_not_be_sent_is_our_fault(
    kit: Any, changes: dict[str, Any]
) -> None:
    outcome = await kit.client().charge(kit.request(**changes))
    assert isinstance(outcome, NotSent)
    assert outcome.our_fault
    assert kit.gateway.arrivals == []


async def test_no_cookie_comes_back(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(200, body(), Set_Cookie="session=1; Path=/")

    kit.gateway.scene = scene
    client = kit.client()
    await client.charge(kit.request())
    await client.charge(kit.request())
    assert all("cookie" not in arrival.headers for arrival in kit.gateway.arrivals)


async def test_proxies_of_the_environment_are_ignored(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert approved(await kit.client().charge(kit.request()))


# --- compression --------------------------------------------------------------------------------

COMPRESSED: dict[str, tuple[str, bytes, Callable[[object], bool]]] = {
    "gzip, unasked": ("gzip", gzip.compress(body()), approved),
    "deflate, unasked": ("deflate", zlib.compress(body()), approved),
    "gzip bomb": ("gzip", gzip.compress(b" " * 50_000_000), unknown("too long when inflated")),
    "bomb in a bomb": ("gzip, gzip", gzip.compress(gzip.compress(body())), unknown("encoding")),
    "cut gzip": ("gzip", gzip.compress(body())[:-4], unknown("compression")),
    "not gzip": ("gzip", body(), unknown("compression")),
    "gzip with a tail": ("gzip", gzip.compress(body()) + b"x", unknown("compression")),
    "brotli": ("br", body(), unknown("encoding")),
}


@pytest.mark.parametrize("case", COMPRESSED.values(), ids=COMPRESSED.keys())
async def test_compressed_answers(
    kit: Any, case: tuple[str, bytes, Callable[[object], bool]]
) -> None:
    encoding, content, holds = case

    async def scene(wire: Any, arrival: Any) -> None:
        assert arrival.headers["accept-encoding"] == "identity"
        await wire.answer(200, content, Content_Encoding=encoding)

    kit.gateway.scene = scene
    outcome = await kit.client().charge(kit.request())
    assert holds(outcome), outcome


# --- connections that end after the request left: unknown, and never sent again -----------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n"


async def closes(wire: Any, arrival: Any) -> None:
    wire.close()


async def resets(wire: Any, arrival: Any) -> None:
    wire.reset()


async def closes_in_the_status_line(wire: Any, arrival: Any) -> None:
    await wire.send(b"HTTP/1.1 2")
    wire.close()


async def resets_in_the_headers(wire: Any, arrival: Any) -> None:
    await wire.send(HEAD[:25])
    wire.reset()


async def closes_in_the_body(wire: Any, arrival: Any) -> None:
    await wire.send(HEAD + b'{"code":0,')
    wire.close()


async def resets_in_the_body(wire: Any, arrival: Any) -> None:
    await wire.send(HEAD + b'{"code":0,')
    wire.reset()


async def breaks_the_chunks(wire: Any, arrival: Any) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")


async def speaks_nonsense(wire: Any, arrival: Any) -> None:
    await wire.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def says_two_lengths(wire: Any, arrival: Any) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")


async def sends_an_endless_header(wire: Any, arrival: Any) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")


async def says_nothing(wire: Any, arrival: Any) -> None:
    await asyncio.sleep(60)


async def continues_for_ever(wire: Any, arrival: Any) -> None:
    while True:
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.05)


async def drips(wire: Any, arrival: Any) -> None:
    await wire.send(HEAD)
    while True:
        await wire.send(b" ")
        await asyncio.sleep(0.05)


async def drips_headers(wire: Any, arrival: Any) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await wire.send(b"X-Drip: 1\r\n")
        await asyncio.sleep(0.05)


BROKEN = [
    closes, resets, closes_in_the_status_line, resets_in_the_headers, closes_in_the_body,
    resets_in_the_body, breaks_the_chunks, speaks_nonsense, says_two_lengths,
    sends_an_endless_header, says_nothing, continues_for_ever, drips, drips_headers,
]  # fmt: skip


@pytest.mark.parametrize("scene", BROKEN, ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("connection", ["fresh", "kept"])
async def test_a_request_that_may_have_left_is_unknown_and_sent_once(
    kit: Any, scene: Callable[[Any, Any], Awaitable[None]], connection: str
) -> None:
    client = kit.client(charge_timeout=0.6)
    if connection == "kept":
        assert approved(await client.charge(kit.request()))
        kit.gateway.arrivals.clear()
    kit.gateway.scene = scene
    started = asyncio.get_running_loop().time()
    outcome = await client.charge(kit.request())
    assert unknown()(outcome), outcome
    assert asyncio.get_running_loop().time() - started < 1.5
    await asyncio.sleep(0.05)
    assert len(kit.gateway.arrivals) == 1


async def test_a_connection_reset_before_it_was_read_is_unknown(kit: Any) -> None:
    """Connected is all we know: the gateway may have read the request before it reset."""
    connected = asyncio.Event()

    async def accept(reader: Any, writer: Any) -> None:
        connected.set()
        writer.transport.abort()

    client = kit.client()
    await client.charge(kit.request())  # a token, from the gateway that works
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = client._tokens._store
    other = kit.client(url=f"http://127.0.0.1:{port}", tokens=store)
    outcome = await other.charge(kit.request())
    server.close()
    assert connected.is_set()
    assert unknown()(outcome), outcome


async def test_a_connection_the_gateway_closed_long_ago_is_not_used_again(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(200, body())
        wire.close()

    kit.gateway.scene = scene
    client = kit.client()
    assert approved(await client.charge(kit.request()))
    await asyncio.sleep(0.1)
    assert approved(await client.charge(kit.request()))
    assert len(kit.gateway.arrivals) == 2


# --- connections that were never made: provably not sent ----------------------------------------


async def token_store(kit: Any) -> Any:
    """A store that holds a good token, so that only the charge itself can fail."""
    client = kit.client()
    assert approved(await client.charge(kit.request()))
    kit.gateway.arrivals.clear()
    return client._tokens._store


def never_connected(outcome: object) -> bool:
    return (
        isinstance(outcome, NotSent)
        and outcome.why.startswith("never connected")
        and not outcome.credentials
        and not outcome.our_fault
    )


async def test_refused(kit: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    client = kit.client(url=f"http://127.0.0.1:{port}", tokens=await token_store(kit))
    assert never_connected(await client.charge(kit.request()))


async def test_no_such_host(kit: Any) -> None:
    client = kit.client(url="https://gateway.invalid", tokens=await token_store(kit))
    assert never_connected(await client.charge(kit.request()))


async def test_nobody_accepts(kit: Any) -> None:
    store = await token_store(kit)
    waiting: list[socket.socket] = []
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        outcome = await kit.client(url=url, tokens=store, charge_timeout=1.0).charge(kit.request())
        for each in waiting:
            each.close()
    assert never_connected(outcome), outcome


async def test_no_free_connection(kit: Any) -> None:
    client = kit.client(tokens=await token_store(kit), max_connections=1, charge_timeout=1.0)
    kit.gateway.scene = says_nothing
    first = asyncio.create_task(client.charge(kit.request(1)))
    while not kit.gateway.arrivals:
        await asyncio.sleep(0.01)
    second = await client.charge(kit.request(2))
    assert never_connected(second), second
    assert unknown()(await first)
    assert len(kit.gateway.arrivals) == 1


async def test_tls_that_never_answers(kit: Any) -> None:
    async def mute(reader: Any, writer: Any) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = kit.client(url=url, tokens=await token_store(kit), charge_timeout=1.0)
    assert never_connected(await client.charge(kit.request()))
    server.close()


async def test_tls_to_a_server_that_speaks_plainly(kit: Any) -> None:
    url = kit.gateway.url.replace("http:", "https:")
    client = kit.client(url=url, tokens=await token_store(kit))
    assert never_connected(await client.charge(kit.request()))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    made = tmp_path / "gateway.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(made), "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_text(made.read_text() + (tmp_path / "cert.pem").read_text())
    return made


async def served(kit: Any, certificate: Path, newest: ssl.TLSVersion) -> str:
    store = await token_store(kit)
    await kit.gateway.stop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    if newest is not ssl.TLSVersion.TLSv1_3:
        context.minimum_version = newest
        context.maximum_version = newest
    await kit.gateway.start(context)
    kit.store = store
    return str(kit.gateway.url.replace("http:", "https:"))


async def test_a_certificate_nobody_vouches_for(kit: Any, certificate: Path) -> None:
    url = await served(kit, certificate, ssl.TLSVersion.TLSv1_3)
    assert never_connected(await kit.client(url=url, tokens=kit.store).charge(kit.request()))
    assert kit.gateway.arrivals == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize(
    ("newest", "taken"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True),
     (ssl.TLSVersion.TLSv1_3, True)],
)  # fmt: skip
async def test_tls_1_2_or_newer(
    kit: Any, certificate: Path, newest: ssl.TLSVersion, taken: bool
) -> None:
    url = await served(kit, certificate, newest)
    trusting = ssl.create_default_context(cafile=certificate)
    outcome = await kit.client(url=url, tokens=kit.store, tls=trusting).charge(kit.request())
    assert approved(outcome) if taken else never_connected(outcome), outcome


async def test_a_certificate_of_another_host(kit: Any, certificate: Path) -> None:
    url = await served(kit, certificate, ssl.TLSVersion.TLSv1_3)
    trusting = ssl.create_default_context(cafile=certificate)
    client = kit.client(url=url.replace("127.0.0.1", "localhost"), tokens=kit.store, tls=trusting)
    assert never_connected(await client.charge(kit.request()))


# --- given up: what we drop cannot arrive any more, and somebody is told ------------------------


async def test_what_we_gave_up_on_is_reset_for_charges_only(kit: Any) -> None:
    """A reset discards what is still under way in the kernel; an orderly close delivers it."""
    ends: asyncio.Queue[str] = asyncio.Queue()
    client = kit.client(tokens=await token_store(kit), charge_timeout=0.3, lookup_timeout=0.3)

    async def scene(wire: Any, arrival: Any) -> None:
        try:
            ends.put_nowait("closed" if await wire.reader.read() == b"" else "more")
        except ConnectionResetError:
            ends.put_nowait("reset")

    kit.gateway.scene = scene
    assert unknown("TimeoutError")(await client.charge(kit.request()))
    assert await ends.get() == "reset"
    with pytest.raises(GatewayUnavailable, match="TimeoutError"):
        await client.payment("imp_1")
    assert await ends.get() == "closed"


async def test_a_cancelled_charge_still_tells_its_outcome(kit: Any) -> None:
    kit.gateway.scene = says_nothing
    client = kit.client()
    told: list[object] = []

    async def caller() -> int:
        told.append(await client.charge(kit.request()))
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    task = asyncio.create_task(caller())
    while not kit.gateway.arrivals:
        await asyncio.sleep(0.01)
    task.cancel()
    # It goes on to record, and still sees that it was asked to stop.
    assert await task == 1
    assert unknown("CancelledError")(told[0])


async def test_cancelled_before_the_request_left(kit: Any) -> None:
    kit.gateway.token_scene = says_nothing
    client = kit.client()
    task = asyncio.create_task(client.charge(kit.request()))
    while not kit.gateway.token_fetches:
        await asyncio.sleep(0.01)
    task.cancel()
    assert isinstance(await task, NotSent)


async def test_one_broken_answer_does_not_touch_its_neighbours(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await asyncio.sleep(0.05)
        if arrival.json()["merchant_uid"].endswith("07"):
            wire.reset()
        else:
            await wire.answer(200, body(merchant_uid=arrival.json()["merchant_uid"]))

    kit.gateway.scene = scene
    client = kit.client()
    outcomes = await asyncio.gather(*(client.charge(kit.request(n)) for n in range(1, 31)))
    assert [number for number, outcome in enumerate(outcomes, 1) if not approved(outcome)] == [7]


async def test_no_outcome_tells_personal_data(kit: Any) -> None:
    for scene in (resets, says_nothing):
        kit.gateway.scene = scene
        outcome = await kit.client(charge_timeout=0.3).charge(kit.request())
        assert "customer" not in repr(outcome)
        assert "hong" not in repr(outcome)
        assert "127.0.0.1" not in repr(outcome)


async def test_nothing_personal_is_logged(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = kit.client(charge_timeout=0.5, lookup_timeout=0.5)
    assert approved(await client.charge(kit.request()))
    for scene in (resets, says_nothing, speaks_nonsense):
        kit.gateway.scene = scene
        assert unknown()(await client.charge(kit.request()))
        with pytest.raises(GatewayUnavailable):
            await client.billing_key("customer@example.com")
    for secret in ("customer", "hong", "홍길동", "010-1234", "the-secret", "token-1"):
        assert secret not in caplog.text
