"""Lists by status: whole portions or `GatewayError`, however the list moves while it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from billing.domain.errors import GatewayRefused, GatewayUnavailable, RowsUnreadable
from billing.domain.payment import Payment
from billing.portone import spans

pytestmark = pytest.mark.anyio

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
UNTIL = datetime(2026, 11, 30, tzinfo=UTC)
BEGINS = int(SINCE.timestamp())
REFUSED = {"code": -1, "message": "no such page", "response": None}


def row(number: int, **changes: object) -> dict[str, object]:
    return {
        "imp_uid": f"imp_{number}",
        "merchant_uid": f"mw-{number}",
        "status": "paid",
        "amount": 9900,
        "currency": "KRW",
        "paid_at": BEGINS + number,
        "started_at": BEGINS + number,
        **changes,
    }


def asked(arrival: Any) -> dict[str, str]:
    return {name: found[0] for name, found in parse_qs(urlsplit(arrival.path).query).items()}


def listing(
    rows: Callable[[int], Sequence[dict[str, object]]] | Sequence[dict[str, object]],
) -> Any:
    """A list by `paid_at` as the gateway pages it. A function gets the number of the request and
    says how the list is at that moment."""
    requests = 0

    async def scene(wire: Any, arrival: Any) -> None:
        nonlocal requests
        requests += 1
        query = asked(arrival)
        now = rows(requests) if callable(rows) else rows
        since, until = int(query["from"]), int(query["to"])
        held = [one for one in now if since <= int(str(one["paid_at"])) <= until]
        page, limit = int(query["page"]), int(query["limit"])
        part = held[(page - 1) * limit : page * limit]
        if page > 1 and not part:
            await wire.answer(400, REFUSED)
            return
        more = page + 1 if page * limit < len(held) else 0
        await wire.ok({"total": len(held), "previous": page - 1, "next": more, "list": part})

    return scene


async def read(kit: Any, status: str = "paid", *, days: int = 29, **settings: Any) -> list[Payment]:
    client = kit.client(**{"page_limit": 3, **settings})
    portions = client.payments_between(status, SINCE, SINCE + timedelta(days=days))
    return [payment async for portion in portions for payment in portion]


def ids(found: Sequence[Payment]) -> list[str]:
    return sorted({one.imp_uid for one in found})


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9, 10])
async def test_all_pages_of_any_length(kit: Any, count: int) -> None:
    kit.gateway.scene = listing([row(number) for number in range(count)])
    assert ids(await read(kit)) == sorted(f"imp_{number}" for number in range(count))


@pytest.mark.parametrize("status", spans.STATUSES)
async def test_the_address_and_the_query(kit: Any, status: str) -> None:
    kit.gateway.scene = listing([])
    assert await read(kit, status) == []
    (arrival,) = kit.gateway.arrivals
    assert urlsplit(arrival.path).path == f"/payments/status/{status}"
    query = asked(arrival)
    assert (int(query["from"]), int(query["to"])) == (BEGINS - 1, BEGINS + 29 * 86_400 + 1)
    assert (query["limit"], query["sorting"], query["include_sandbox"]) == ("3", "started", "false")


async def test_a_status_that_is_none(kit: Any) -> None:
    with pytest.raises(ValueError, match="no such status"):
        await read(kit, "canceled")


@pytest.mark.parametrize("days", [89, 90, 91, 180, 200])
async def test_no_request_spans_more_than_90_days(kit: Any, days: int) -> None:
    """Every second of a long span is asked about, in parts that the gateway allows."""
    rows = [row(number, paid_at=BEGINS + number * 3 * 86_400) for number in range(days // 3 + 1)]
    kit.gateway.scene = listing(rows)
    found = await read(kit, days=days, page_limit=100)
    assert ids(found) == sorted(str(one["imp_uid"]) for one in rows)
    queries = [asked(arrival) for arrival in kit.gateway.arrivals]
    assert all(int(query["to"]) - int(query["from"]) <= 90 * 86_400 for query in queries)
    assert len(queries) <= days // 90 + 1


async def test_a_list_too_long_to_hold_is_read_in_halves(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "MOST_ROWS", 5)
    rows = [row(number, paid_at=BEGINS + number * 86_400) for number in range(29)]
    kit.gateway.scene = listing(rows)
    client = kit.client(page_limit=3)
    portions = [part async for part in client.payments_between("paid", SINCE, UNTIL)]
    assert max(map(len, portions)) <= 5
    assert ids([one for part in portions for one in part]) == sorted(f"imp_{n}" for n in range(29))


async def test_too_many_in_one_second_are_an_error(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "MOST_ROWS", 5)
    kit.gateway.scene = listing([row(number, paid_at=BEGINS + 5) for number in range(9)])
    with pytest.raises(GatewayUnavailable, match="one second"):
        await read(kit)


async def test_a_list_that_shrank_between_pages_is_read_again(kit: Any) -> None:
    """The first row leaves after the first page; the fourth would be skipped."""

    def rows(request: int) -> list[dict[str, object]]:
        return [row(number) for number in range(0 if request == 1 else 1, 8)]

    kit.gateway.scene = listing(rows)
    assert ids(await read(kit)) == sorted(f"imp_{number}" for number in range(1, 8))


async def test_a_list_that_shrank_to_a_page_is_read_again(kit: Any) -> None:
    """The page that was promised is not there any more: 400."""

    def rows(request: int) -> list[dict[str, object]]:
        return [row(number) for number in range(4 if request == 1 else 3)]

    kit.gateway.scene = listing(rows)
    assert ids(await read(kit)) == ["imp_0", "imp_1", "imp_2"]


async def test_a_list_that_grew_is_read_again(kit: Any) -> None:
    def rows(request: int) -> list[dict[str, object]]:
        return [row(number) for number in range(6 if request == 1 else 7)]

    kit.gateway.scene = listing(rows)
    assert len(ids(await read(kit))) == 7


async def test_a_page_repeated_because_rows_moved_on_is_read_again(kit: Any) -> None:
    """One came in at the front and one left at the end: the total is the same, a row is twice."""

    def rows(request: int) -> list[dict[str, object]]:
        return [row(number) for number in (range(1, 7) if request == 1 else range(6))]

    kit.gateway.scene = listing(rows)
    assert ids(await read(kit)) == sorted(f"imp_{number}" for number in range(6))


async def test_a_list_that_never_stands_still_is_an_error(kit: Any) -> None:
    kit.gateway.scene = listing(lambda request: [row(n) for n in range(4 + request)])
    with pytest.raises(GatewayUnavailable, match="changes while it is read"):
        await read(kit)
    assert len(kit.gateway.arrivals) <= spans.MOST_READINGS * (1 + spans.PAGES_AT_ONCE)


@pytest.mark.parametrize(
    "answer",
    [
        {"total": 9, "previous": 0, "next": 0, "list": [row(1)]},
        {"total": 0, "previous": 0, "next": 0, "list": [row(1)]},
        {"total": 1, "previous": 0, "next": 2, "list": [row(1)]},
        {"previous": 0, "next": 0, "list": [row(1)]},
        {"total": 1, "list": [row(1, amount=True)], "next": 0},
        {"total": 1, "list": [row(1, imp_uid=None)], "next": 0},
        {"total": 1, "list": ["a row"], "next": 0},
        {"total": 1, "list": None, "next": 0},
        [row(1)],
    ],
)
async def test_a_part_or_a_riddle_is_an_error(kit: Any, answer: object) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        if int(asked(arrival)["page"]) > 1 and isinstance(answer, dict) and answer["total"] == 1:
            await wire.ok({"total": 1, "next": 0, "list": [row(2)]})
        else:
            await wire.ok(answer)

    kit.gateway.scene = scene
    with pytest.raises(GatewayUnavailable):
        await read(kit)


async def test_a_row_that_cannot_be_read_is_left_out_and_told_at_the_end(kit: Any) -> None:
    """A sale of the store that is none of ours, say; the rows beside it are given all the same."""
    odd = [row(2, amount=-1), row(5, started_at=253402300799), row(7, merchant_uid=7)]
    numbers = {2, 5, 7}
    kit.gateway.scene = listing([row(n) for n in range(9) if n not in numbers] + odd)
    seen: list[Payment] = []

    async def keep_all() -> None:
        async for portion in kit.client(page_limit=3).payments_between("paid", SINCE, UNTIL):
            seen.extend(portion)

    with pytest.raises(RowsUnreadable, match="3 rows unread") as told:
        await keep_all()
    assert ids(seen) == sorted(f"imp_{n}" for n in range(9) if n not in numbers)
    assert told.value.problems == {
        "imp_2": "amount is below zero",
        "imp_5": "started_at is no moment",
        "imp_7": "merchant_uid is no text",
    }


@pytest.mark.parametrize("body", [REFUSED, b"", b"<html>"])
async def test_a_first_page_that_is_refused_is_an_error(kit: Any, body: object) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(400, body)

    kit.gateway.scene = scene
    with pytest.raises(GatewayUnavailable):
        await read(kit)


async def test_a_page_past_the_end_ends_a_whole_list(kit: Any) -> None:
    """`next` names a page that is not there: with every row in hand, 400 is the documented end."""

    async def scene(wire: Any, arrival: Any) -> None:
        if asked(arrival)["page"] == "1":
            await wire.ok({"total": 3, "next": 2, "list": [row(1), row(2), row(3)]})
        else:
            await wire.answer(400, REFUSED)

    kit.gateway.scene = scene
    assert len(await read(kit)) == 3


async def test_no_such_list_is_an_empty_one(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(404, REFUSED)

    kit.gateway.scene = scene
    assert await read(kit) == []


async def test_refused_credentials_are_named(kit: Any) -> None:
    async def scene(wire: Any, arrival: Any) -> None:
        await wire.answer(401, REFUSED)

    kit.gateway.scene = scene
    with pytest.raises(GatewayRefused):
        await read(kit)


async def test_another_currency_is_passed_over(kit: Any) -> None:
    kit.gateway.scene = listing([row(1), row(2, currency="USD", amount=12.5), row(3)])
    assert ids(await read(kit)) == ["imp_1", "imp_3"]


async def test_a_break_in_the_middle_gives_what_was_whole_and_raises(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "MOST_ROWS", 5)
    rows = [row(number, paid_at=BEGINS + number * 2 * 86_400) for number in range(9)]
    scene = listing(rows)

    async def breaking(wire: Any, arrival: Any) -> None:
        if int(asked(arrival)["from"]) > BEGINS + 8 * 86_400:
            await wire.answer(502, b"<html>")
        else:
            await scene(wire, arrival)

    kit.gateway.scene = breaking
    seen: list[Payment] = []

    async def keep_all() -> None:
        async for portion in kit.client(page_limit=3).payments_between("paid", SINCE, UNTIL):
            seen.extend(portion)

    with pytest.raises(GatewayUnavailable):
        await keep_all()
    assert seen
    assert len(ids(seen)) < 9
