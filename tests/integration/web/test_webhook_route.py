"""`POST /webhooks/portone`: from anybody, in any shape."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import httpx
import pytest
from limits import RateLimitItemPerMinute

from billing.bootstrap import billing_policy
from billing.services.open_cycles import open_cycles
from billing.store import webhooks
from billing.web.limiting import Limiter
from tests.builders import enrolled, query
from tests.integration.web.conftest import Edge
from tests.integration.web.console_kit import only_reading

PATH = "/webhooks/portone"
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}
KEPT = "SELECT imp_uid, merchant_uid, claimed_status, times FROM webhooks ORDER BY id"
# Everything but the webhooks themselves.
BOOK = """
    SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM (
        SELECT row_to_json(s) FROM subscriptions s UNION ALL SELECT row_to_json(c) FROM cycles c
        UNION ALL SELECT row_to_json(a) FROM attempts a
        UNION ALL SELECT row_to_json(e) FROM events e
        UNION ALL SELECT row_to_json(n) FROM notices n
    ) t(t)
"""


def test_a_database_that_only_reads_just_now_is_503(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """As the old primary is after a failover; the gateway sends it again."""
    with only_reading(edge), edge.browse() as client:
        answer = client.post(PATH, json={"imp_uid": "imp_1"})
    assert (answer.status_code, answer.json()["detail"]) == (503, "the database cannot be reached")
    assert "a route failed" not in caplog.text


def test_both_shapes_are_kept_and_nothing_else_of_them(edge: Edge) -> None:
    ours = "mw-abcdefghabcdefgh-202611-01"
    with edge.browse(peer="203.0.113.9", host="pay.example.com") as client:
        as_json = {"imp_uid": "imp_1", "merchant_uid": "010-1234-5678", "status": "paid", "x": [1]}
        answers = [
            client.post(PATH, json=as_json),
            client.post(PATH, json={**as_json, "merchant_uid": ours}),
            client.post(PATH, content=f"imp_uid=imp_2&merchant_uid={ours}&status=어", headers=FORM),
            client.post(
                PATH,
                content="imp_uid=imp_3",
                headers={"content-type": FORM["content-type"] + "; charset=UTF-8"},
            ),
            # Some senders name no type at all.
            client.post(PATH, content=b'{"imp_uid": "imp_4", "status": "cancelled"}'),
        ]
    assert [(one.status_code, one.json()) for one in answers] == [(200, {"ok": True})] * 5
    assert query(edge.book, KEPT) == [
        ("imp_1", ours, "paid", 2),
        ("imp_2", ours, None, 1),
        ("imp_3", None, None, 1),
        ("imp_4", None, "cancelled", 1),
    ]


BROKEN = [
    (b"", JSON),
    (b"{", JSON),
    (b"null", JSON),
    (b"[]", JSON),
    (b"{}", JSON),
    (b'{"imp_uid": 1}', JSON),
    (b'{"imp_uid": ""}', JSON),
    (b'{"imp_uid": null}', JSON),
    (b'{"imp_uid": ["imp_1"]}', JSON),
    (b'{"imp_uid": "../subscribe/customers/x"}', JSON),
    (b'{"imp_uid": "imp_1\\u0000"}', JSON),
    (b'{"imp_uid": "imp_1\\r\\nX-Evil: 1"}', JSON),
    (b'{"imp_uid": "\\ud800"}', JSON),
    (b'{"imp_uid": "' + b"x" * 65 + b'"}', JSON),
    (b"[" * 4000, JSON),
    (b"\xff\xfe\x00", JSON),
    (b"imp_uid=imp_1", JSON),
    (b"imp_uid=", FORM),
    (b"imp_uid=%00", FORM),
    (b"imp_uid=%ff", FORM),
    (b"&".join(b"a=1" for _ in range(40)) + b"&imp_uid=imp_1", FORM),
    (b'{"imp_uid": "imp_1"}', FORM),
    (b"imp_uid=imp_1; DROP TABLE webhooks", FORM),
]


def test_what_cannot_be_read_is_refused_before_the_book_is_touched(
    make_free_edge: Callable[..., Edge], caplog: pytest.LogCaptureFixture
) -> None:
    """There is no database behind this one."""
    edge = make_free_edge()
    with edge.browse() as client:
        for body, headers in BROKEN:
            refused = client.post(PATH, content=body, headers=headers)
            assert (refused.status_code, body[:40]) == (400, body[:40])
            assert refused.headers["content-type"] == "application/problem+json"
        long = client.post(PATH, content=b'{"imp_uid": "imp_1", "x": "' + b"x" * 4096 + b'"}')
        other_methods = {client.request(name, PATH).status_code for name in ("GET", "PUT", "HEAD")}
        unreachable = client.post(PATH, json={"imp_uid": "imp_secret"})
    assert (long.status_code, other_methods) == (413, {405})
    # The gateway may send it again; and no log line holds what was sent.
    assert unreachable.status_code == 503
    assert "imp_secret" not in caplog.text


def test_a_flood_is_slowed_down_and_cannot_fill_the_disk(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MOST_WAITING", 3)
    edge.app.state.edge.webhooks = Limiter(RateLimitItemPerMinute(6), RateLimitItemPerMinute(8))
    seen: list[tuple[int, str | None]] = []
    for peer in ("203.0.113.1", "2001:db8::1", "2001:db8::2", "203.0.113.3"):
        with edge.browse(peer=peer) as client:
            for number in range(5 if peer != "203.0.113.1" else 7):
                answer = client.post(PATH, json={"imp_uid": f"imp_{number}"})
                seen.append((answer.status_code, answer.headers.get("retry-after")))
    # No room for more than three; then one peer's limit; then that of all.
    assert seen[:7] == [(200, None)] * 3 + [(503, "120")] * 3 + [(503, "60")]
    # One network is one peer, and what it is refused does not count for all.
    assert [status for status, _ in seen[7:]] == [200, 200, *[503] * 13]
    assert query(edge.book, "SELECT count(*), max(times) FROM webhooks") == [(3, 2)]


def test_thousands_of_forged_and_broken_ones_change_nothing(edge: Edge) -> None:
    policy = billing_policy(edge.app.state.edge.settings)
    enrolled(edge.book, policy, "customer-1,9900,plan,2026-10-20T14:30:00+09:00,,")
    open_cycles(edge.book, policy)
    ((name,),) = query(edge.book, "SELECT merchant_uid FROM attempts")
    before = query(edge.book, BOOK)
    statuses = asyncio.run(flood(edge, name, random.Random(1)))
    assert set(statuses) <= {200, 400, 413, 503}
    assert statuses[200] > 250
    assert statuses[400] > 900
    assert query(edge.book, BOOK) == before
    ((waiting,),) = query(edge.book, "SELECT count(*) FROM webhooks WHERE looked_at IS NULL")
    assert waiting <= 400


async def flood(edge: Edge, name: str, dice: random.Random) -> Counter[int]:
    """Two thousand at a few dozen a time: broken, forged, and about our own payment."""

    def body() -> tuple[bytes, dict[str, str]]:
        chance = dice.random()
        if chance < 0.8:
            broken, headers = dice.choice(BROKEN)
            return broken + dice.randbytes(dice.randrange(1, 9)), headers
        forged = f'{{"imp_uid": "imp_{dice.randrange(400)}", "merchant_uid": "{name}",'
        return f'{forged} "status": "{dice.choice(["paid", "cancelled"])}"}}'.encode(), JSON

    statuses: Counter[int] = Counter()

    async def sender(peer: str) -> None:
        transport = httpx.ASGITransport(edge.app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(70):
                content, headers = body()
                answer = await client.post(PATH, content=content, headers=headers)
                statuses[answer.status_code] += 1

    await asyncio.gather(*(sender(f"198.51.100.{number}") for number in range(30)))
    return statuses
