"""The client without a network: what it asks, what it makes of the answers, what it never sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from billing.domain.errors import GatewayRefused, GatewayUnavailable, InvalidInput
from billing.domain.money import Won
from billing.domain.outcome import Approved, NotSent, Unknown
from billing.domain.refund import Cancelled, CancelRequest
from billing.portone.answer import Answer, Unreadable
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.ports import AccessToken
from tests.unit.portone.ladder import ABSENT, ASKED, ECHO, NOW, Said, listed, told, wrapped

pytestmark = pytest.mark.anyio


@dataclass
class Sent:
    """One request as it left."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Network:
    """Answers with a token, and with what it was told to say, one after the other, the last again
    and again. None is silence. Time passes when a test says so."""

    def __init__(self, *says: Said, tokens: list[Said] | None = None) -> None:
        self.says = list(says)
        self.tokens = tokens
        self.sent: list[Sent] = []
        self.fetched = 0
        self.passed = 0.0
        self.closed = 0

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}" == "https://api.example.com"
        query = {name: value for name, (value,) in parse_qs(parts.query).items()}
        sent = Sent(method, parts.path, query, dict(headers), body and json.loads(body))
        if parts.path == "/users/getToken":
            assert (method, sent.body) == ("POST", {"imp_key": "key", "imp_secret": "secret"})
            self.fetched += 1
            return await told(self.tokens) if self.tokens else self._token()
        self.sent.append(sent)
        return await told(self.says)

    def _token(self) -> Answer:
        now = int(NOW.timestamp()) + 3
        token = {"access_token": f"t{self.fetched}", "now": now, "expired_at": now + 1800}
        return Answer(200, wrapped(token))

    async def aclose(self) -> None:
        self.closed += 1

    def client(self, **settings: Any) -> PortOneClient:
        # Only silence is waited for; what is said must never be late on a busy machine.
        patience = 0.3 if None in [*self.says, *(self.tokens or ())] else 60
        return PortOneClient(
            "https://api.example.com",
            "key",
            "secret",
            **{
                "tokens": MemoryTokenStore(),
                "now": lambda: NOW,
                "monotonic": lambda: self.passed,
                "charge_timeout": patience,
                "lookup_timeout": patience,
                "include_sandbox": False,
                "transport": self,
                **settings,
            },
        )


def found(**changes: object) -> Answer:
    return Answer(200, wrapped({**ECHO, **changes}))


# -- charge ----------------------------------------------------------------------------------------


async def test_a_charge_is_one_request_with_the_token() -> None:
    network = Network(found())
    outcome = await network.client().charge(ASKED)
    assert isinstance(outcome, Approved)
    (sent,) = network.sent
    assert (sent.method, sent.path, sent.query) == ("POST", "/subscribe/payments/again", {})
    assert sent.headers["Authorization"] == "Bearer t1"
    assert sent.body["merchant_uid"] == ASKED.merchant_uid
    assert network.fetched == 1


async def test_a_test_payment_contradicts_where_real_ones_are_expected() -> None:
    network = Network(found(sandbox=True))
    assert not isinstance(await network.client().charge(ASKED), Approved)
    assert isinstance(await network.client(include_sandbox=True).charge(ASKED), Approved)


BREAKS: list[Said] = [httpx.ReadError("x"), Unreadable("x"), ValueError("x"), None]


@pytest.mark.parametrize("said", BREAKS, ids=str)
async def test_whatever_breaks_after_it_may_have_left_is_unknown(said: Said) -> None:
    network = Network(said)
    assert isinstance(await network.client().charge(ASKED), Unknown)
    assert len(network.sent) == 1


@pytest.mark.parametrize("said", [httpx.ReadError("x"), Answer(500, b""), None], ids=str)
async def test_without_a_token_nothing_is_sent(said: Said) -> None:
    network = Network(found(), tokens=[said])
    assert isinstance(await network.client().charge(ASKED), NotSent)
    assert network.sent == []


async def test_refused_at_the_door_by_every_token_is_not_sent() -> None:
    network = Network(Answer(401, b""))
    assert isinstance(await network.client().charge(ASKED), NotSent)
    assert [sent.headers["Authorization"] for sent in network.sent] == ["Bearer t1", "Bearer t2"]


async def test_a_break_after_a_refusal_is_unknown_again() -> None:
    network = Network(Answer(401, b""), httpx.ReadError("x"))
    assert isinstance(await network.client().charge(ASKED), Unknown)
    assert len(network.sent) == 2


async def test_a_token_that_fails_after_a_refusal_leaves_it_not_sent() -> None:
    network = Network(Answer(401, b""))
    client = network.client()
    await client._tokens.current()
    network.tokens = [Answer(500, b"")]
    assert isinstance(await client.charge(ASKED), NotSent)


@pytest.mark.parametrize(("stood_still", "times"), [(0.0, 2), (59.9, 2), (60.0, 1), (900.0, 1)])
async def test_nothing_leaves_after_the_deadline_however_long_we_stood_still(
    stood_still: float, times: int
) -> None:
    """The first is refused; then the process is stopped, and its own timer is late."""
    network = Network(Answer(401, b""), found())

    class Stopped(MemoryTokenStore):
        async def discard(self, value: str) -> None:
            await super().discard(value)
            network.passed += stood_still

    outcome = await network.client(tokens=Stopped()).charge(ASKED)
    assert len(network.sent) == times
    assert isinstance(outcome, Approved if times == 2 else NotSent)


async def test_told_to_stop_it_still_says_what_became_of_it() -> None:
    network = Network(None)
    client = network.client(charge_timeout=60)
    task = asyncio.create_task(client.charge(ASKED))
    while not network.sent:
        await asyncio.sleep(0)
    task.cancel()
    assert isinstance(await task, Unknown)


# -- cancel ----------------------------------------------------------------------------------------

BACK = CancelRequest("imp_1", "mw-1", Won(9900), "asked for")
GIVEN_BACK = {**ECHO, "status": "cancelled", "cancel_amount": 9900, "cancelled_at": 1_732_400_100}


async def test_a_payment_is_taken_back_by_one_request() -> None:
    network = Network(Answer(200, wrapped(GIVEN_BACK)))
    assert isinstance(await network.client().cancel(BACK), Cancelled)
    (sent,) = network.sent
    assert (sent.method, sent.path) == ("POST", "/payments/cancel")
    assert sent.body["imp_uid"] == "imp_1"


@pytest.mark.parametrize("said", BREAKS, ids=str)
async def test_a_refund_that_breaks_is_unknown_too(said: Said) -> None:
    network = Network(said)
    assert isinstance(await network.client().cancel(BACK), Unknown)


async def test_a_refund_without_a_token_is_not_sent() -> None:
    network = Network(found(), tokens=[Answer(500, b"")])
    assert isinstance(await network.client().cancel(BACK), NotSent)
    late = Network(Answer(401, b""), Answer(200, wrapped(GIVEN_BACK)))

    class Stopped(MemoryTokenStore):
        async def discard(self, value: str) -> None:
            late.passed += 60

    assert isinstance(await late.client(tokens=Stopped()).cancel(BACK), NotSent)
    assert len(late.sent) == 1


# -- prepare ---------------------------------------------------------------------------------------


async def test_an_amount_is_pinned_or_found_pinned() -> None:
    done = Network(Answer(200, wrapped({"merchant_uid": "mw-1", "amount": 9900})))
    await done.client().prepare("mw-1", Won(9900))
    assert [(sent.method, sent.path) for sent in done.sent] == [("POST", "/payments/prepare")]
    pinned = Answer(200, wrapped({"merchant_uid": "mw/1", "amount": 9900}))
    before = Network(Answer(200, wrapped(None, code=1)), pinned)
    await before.client().prepare("mw/1", Won(9900))
    assert [(sent.method, sent.path) for sent in before.sent] == [
        ("POST", "/payments/prepare"),
        ("GET", "/payments/prepare/mw%2F1"),
    ]


@pytest.mark.parametrize("said", [httpx.ReadError("x"), Unreadable("x"), None], ids=str)
async def test_a_pin_that_breaks_is_not_known(said: Said) -> None:
    with pytest.raises(GatewayUnavailable, match=r"prepare: (ReadError|Unreadable|TimeoutError)"):
        await Network(said).client().prepare("mw-1", Won(9900))


# -- look-ups --------------------------------------------------------------------------------------


async def test_an_order_is_looked_up_whole() -> None:
    second = {**ECHO, "imp_uid": "imp_2", "status": "failed"}
    # A page may repeat a row when a new one pushed it on.
    network = Network(listed(ECHO, second, ECHO))
    rows = await network.client().payments_of_order("mw-1")
    assert [one.imp_uid for one in rows] == ["imp_1", "imp_2"]
    assert [sent.path for sent in network.sent] == ["/payments/findAll/mw-1"]
    other = Network(Answer(404, b""), listed(ECHO))
    assert len(await other.client().payments_of_order("mw-1")) == 1
    assert [sent.path for sent in other.sent] == [
        "/payments/findAll/mw-1",
        "/payments/findAll/mw-1/",
    ]
    with pytest.raises(GatewayUnavailable, match="rows of another order"):
        await (
            Network(listed(ECHO, {**second, "merchant_uid": "mw-2"}))
            .client()
            .payments_of_order("mw-1")
        )


SINCE = datetime(2024, 11, 1, tzinfo=UTC)
BEFORE = int(SINCE.timestamp()) - 1


async def test_of_a_key_only_what_happened_since() -> None:
    none = {"started_at": 0, "paid_at": 0, "failed_at": 0, "cancelled_at": 0}
    moments = ("started_at", "paid_at", "failed_at", "cancelled_at")
    rows = [{**ECHO, **none, "imp_uid": "timeless"}]
    for name in moments:
        old = {**ECHO, **dict.fromkeys(moments, BEFORE)}
        rows.append({**old, "imp_uid": f"since-{name}", name: BEFORE + 1})
        rows.append({**ECHO, **none, "imp_uid": f"before-{name}", name: BEFORE})
    network = Network(listed(*rows))
    kept = await network.client().payments_of_key("customer", SINCE)
    assert [one.imp_uid for one in kept] == ["timeless", *(f"since-{name}" for name in moments)]
    assert network.sent[0].path == "/subscribe/customers/customer/payments"


async def test_a_key_whose_rows_name_another() -> None:
    nameless = {**ECHO, "customer_uid": None}
    assert len(await Network(listed(nameless)).client().payments_of_key("customer", SINCE)) == 1
    with pytest.raises(GatewayUnavailable, match="rows of another billing key"):
        await (
            Network(listed({**ECHO, "customer_uid": "else"}))
            .client()
            .payments_of_key("customer", SINCE)
        )


async def test_one_payment() -> None:
    network = Network(found())
    payment = await network.client().payment("imp_1")
    assert payment is not None
    assert payment.imp_uid == "imp_1"
    assert network.sent[0].path == "/payments/imp_1"
    assert await Network(ABSENT).client().payment("imp_1") is None
    with pytest.raises(GatewayUnavailable, match="another payment"):
        await Network(found(imp_uid="imp_2")).client().payment("imp_1")
    with pytest.raises(GatewayUnavailable, match="look-up: "):
        await Network(found(amount=True)).client().payment("imp_1")


async def test_one_billing_key() -> None:
    row = {"customer_uid": "customer", "pg_provider": "danal", "inserted": 1}
    network = Network(Answer(200, wrapped(row)))
    assert await network.client().billing_key("customer") is not None
    assert network.sent[0].path == "/subscribe/customers/customer"
    assert await Network(ABSENT).client().billing_key("customer") is None
    with pytest.raises(GatewayUnavailable, match="look-up: "):
        await (
            Network(Answer(200, wrapped({**row, "customer_uid": "else"})))
            .client()
            .billing_key("customer")
        )


async def test_what_the_gateways_own_scheduler_holds() -> None:
    row = {
        "customer_uid": "customer",
        "merchant_uid": "mw-9",
        "amount": 9900,
        "schedule_at": BEFORE,
        "schedule_status": "scheduled",
    }
    network = Network(Answer(200, wrapped([row])))
    until = SINCE + timedelta(days=1, microseconds=5)
    (one,) = await network.client().scheduled_payments("customer", SINCE, until)
    assert one.merchant_uid == "mw-9"
    (sent,) = network.sent
    assert sent.path == "/subscribe/customers/customer/schedules"
    assert (sent.query["from"], sent.query["to"]) == (str(BEFORE + 1), str(BEFORE + 1 + 86_400))
    with pytest.raises(GatewayUnavailable, match="look-up: "):
        await (
            Network(listed({**row, "amount": "x"}))
            .client()
            .scheduled_payments("customer", SINCE, until)
        )


@pytest.mark.parametrize("sandbox", [True, False])
async def test_lists_by_status_are_of_the_kind_we_deal_with(sandbox: bool) -> None:
    network = Network(listed({**ECHO, "sandbox": sandbox}))
    client = network.client(include_sandbox=sandbox, page_limit=7)
    found = [part async for part in client.payments_between("paid", SINCE, SINCE)]
    assert [[one.imp_uid for one in part] for part in found] == [["imp_1"]]
    assert network.sent[0].path == "/payments/status/paid"
    assert network.sent[0].query["limit"] == "7"
    assert network.sent[0].query["include_sandbox"] == str(sandbox).lower()


async def test_a_page_is_waited_for_as_long_as_a_page_and_no_longer() -> None:
    client = Network(None).client(charge_timeout=60, lookup_timeout=0.05)
    with pytest.raises(GatewayUnavailable, match="TimeoutError"):
        await asyncio.wait_for(client.payment("imp_1"), 5)
    with pytest.raises(GatewayUnavailable, match="prepare: TimeoutError"):
        await asyncio.wait_for(client.prepare("mw-1", Won(9900)), 5)


# -- the token and the clock -----------------------------------------------------------------------


async def test_the_gateways_clock_is_asked_afresh() -> None:
    network = Network()
    client = network.client()
    assert client.clock_offset is None
    assert await client.moment() == NOW + timedelta(seconds=3)
    assert await client.moment() == NOW + timedelta(seconds=3)
    assert network.fetched == 2
    # It was not fetched to be used.
    assert client.clock_offset is None
    network.says = [found()]
    await client.charge(ASKED)
    assert client.clock_offset == timedelta(seconds=3)


GOOD = Network()._token()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (httpx.ReadError("x"), "ReadError"),
        (Unreadable("x"), "x"),
        (Answer(500, b""), "HTTP 500"),
        (Answer(200, b"<"), "not JSON"),
    ],
    ids=str,
)
async def test_a_token_is_asked_for_once_more(broken: Said, words: str) -> None:
    network = Network(tokens=[broken, GOOD])
    assert await network.client().moment() == NOW + timedelta(seconds=3)
    twice = Network(tokens=[broken])
    with pytest.raises(GatewayUnavailable, match=f"^getToken: {words}$"):
        await twice.client().moment()
    assert twice.fetched == 2


async def test_of_what_broke_only_our_own_words_are_told() -> None:
    for broken, words in (
        (Unreadable("too long"), "getToken: too long"),
        (httpx.ReadError("secret"), "getToken: ReadError"),
        (None, "getToken: TimeoutError"),
    ):
        with pytest.raises(GatewayUnavailable) as caught:
            await Network(tokens=[broken]).client().moment()
        assert str(caught.value) == words


async def test_refused_credentials_are_asked_with_once() -> None:
    network = Network(tokens=[Answer(401, b"")])
    with pytest.raises(GatewayRefused):
        await network.client().moment()
    assert network.fetched == 1


# -- the whole of it -------------------------------------------------------------------------------


async def test_each_request_is_measured_under_its_kind() -> None:
    heard: list[tuple[str, str]] = []

    class Meter:
        def note(self, call: str, outcome: str, seconds: float) -> None:
            heard.append((call, outcome))

    client = Network(found()).client(meter=Meter())
    await client.charge(ASKED)
    await client.payment("imp_1")
    await client.cancel(BACK)
    await client.prepare("mw-1", Won(9900))
    kinds = ("token", "charge", "lookup", "cancel", "prepare")
    assert heard == [(kind, "2xx") for kind in kinds]


@pytest.mark.parametrize(
    ("named", "ask"),
    [
        ("imp_uid", lambda client: client.payment("..")),
        ("merchant_uid", lambda client: client.payments_of_order("..")),
        ("customer_uid", lambda client: client.billing_key("..")),
        ("merchant_uid", lambda client: client.prepare("..", Won(9900))),
    ],
)
async def test_what_cannot_be_an_id_is_named(named: str, ask: Any) -> None:
    network = Network(Answer(200, wrapped(None, code=1)))
    with pytest.raises(InvalidInput, match=f"^{named}"):
        await ask(network.client())
    assert all(sent.method == "POST" for sent in network.sent)


async def test_anything_made_for_httpx_may_stand_in_for_the_network() -> None:
    client = Network().client(
        transport=httpx.MockTransport(lambda _: httpx.Response(404, content=ABSENT.body)),
        tokens=Ready(),
    )
    assert await client.payment("imp_1") is None


class Ready(MemoryTokenStore):
    """Another worker has fetched a token."""

    async def get(self) -> AccessToken:
        return AccessToken("t", NOW + timedelta(hours=1), timedelta(0))


async def test_every_connection_is_closed() -> None:
    network = Network(None, tokens=[None])
    client = network.client(charge_timeout=60, lookup_timeout=60)
    waiting = asyncio.create_task(client.charge(ASKED))
    while not network.fetched:
        await asyncio.sleep(0)
    await client.aclose()
    # What was still being fetched is given up first: it would use what is closed by now.
    assert client._tokens._renewal is not None
    assert client._tokens._renewal.cancelled()
    assert network.closed == 2
    assert isinstance(await waiting, NotSent)
