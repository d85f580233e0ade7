"""How a span is cut, how often it is read, and when reading ends: to the second and to the row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from billing.domain.errors import GatewayUnavailable, RowsUnreadable
from billing.portone.lookups import Lookups, Page
from billing.portone.spans import Spans

pytestmark = pytest.mark.anyio

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
BEGINS = int(SINCE.timestamp())
DAY = 86_400
LIMIT = 3
# Of a list in these tests, but for those that are too long.
MOST_PAGES = 12


def row(number: int) -> dict[str, object]:
    return {"imp_uid": f"imp_{number}", "merchant_uid": "mw-1", "status": "paid", "amount": 9900}


@dataclass
class Listed:
    """Look-ups of one list: what a portion's page is, by its first and last second."""

    page_of: Callable[[int, int, int], Page | None]
    asked: list[tuple[int, int, int]] = field(default_factory=list)
    page_limit: int = LIMIT
    status: str = "paid"
    # How many are under way, and were at most. Earlier pages take longer.
    open: int = 0
    most: int = 0

    async def page(self, path: str, query: Mapping[str, str], number: int) -> Page | None:
        assert path == f"/payments/status/{self.status}"
        first, last = int(query["from"]) + 1, int(query["to"]) - 1
        self.asked.append((first - BEGINS, last - BEGINS, number))
        self.open += 1
        self.most = max(self.most, self.open)
        for _ in range(2 * MOST_PAGES - number):
            await asyncio.sleep(0)
        self.open -= 1
        return self.page_of(first - BEGINS, last - BEGINS, number)

    async def read(self, seconds: int) -> list[int]:
        """How many payments each portion had."""
        spans = Spans(cast(Lookups, self), sandbox=False)
        until = SINCE + timedelta(seconds=seconds)
        return [len(part) async for part in spans.payments(self.status, SINCE, until)]


def pages_of(total: int) -> Callable[[int, int, int], Page | None]:
    """A list of so many, whatever is asked."""

    def page(first: int, last: int, number: int) -> Page | None:
        begins = (number - 1) * LIMIT
        if begins and begins >= total:
            return None
        rows: list[object] = [row(one) for one in range(begins, min(begins + LIMIT, total))]
        return Page(rows, begins + LIMIT < total, total)

    return page


async def test_a_portion_is_ninety_days_with_a_second_more_at_both_ends() -> None:
    listed = Listed(pages_of(0))
    assert await listed.read(200 * DAY) == [0, 0, 0]
    longest = 90 * DAY - 2
    assert listed.asked == [
        (0, longest, 1),
        (longest + 1, 2 * longest + 1, 1),
        (2 * longest + 2, 200 * DAY, 1),
    ]


async def test_a_span_of_just_one_portion_is_one() -> None:
    listed = Listed(pages_of(0))
    assert await listed.read(90 * DAY - 2) == [0]


@pytest.mark.parametrize("status", ["all", "paid", "cancelled"])
async def test_a_row_in_another_status_is_what_it_says(status: str) -> None:
    """A sale of which a part was cancelled keeps nothing else from being read."""
    listed = Listed(lambda *_: Page([row(1), {**row(2), "status": "ready"}], False, 2))
    listed.status = status
    assert await listed.read(10) == [2]


async def test_five_thousand_are_held_at_once_and_not_one_more() -> None:
    listed = Listed(pages_of(5000))
    assert await listed.read(10) == [5000]

    def page(first: int, last: int, number: int) -> Page | None:
        return pages_of(5001 if (first, last) == (0, 10) else 2)(first, last, number)

    longer = Listed(page)
    assert await longer.read(10) == [2, 2]
    assert longer.asked == [(0, 10, 1), (0, 5, 1), (6, 10, 1)]


async def test_too_many_in_one_second_cannot_be_cut() -> None:
    listed = Listed(pages_of(5001))
    with pytest.raises(GatewayUnavailable, match="too many payments in one second"):
        await listed.read(2)
    assert listed.asked == [(0, 2, 1), (0, 1, 1), (0, 0, 1)]


async def test_a_list_that_moves_is_read_four_times() -> None:
    listed = Listed(lambda *_: Page([row(1)], False, 2))
    with pytest.raises(GatewayUnavailable, match="the list changes while it is read"):
        await listed.read(10)
    assert len(listed.asked) == 4


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (2, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
async def test_one_page_more_than_the_rows_fill_and_no_further(total: int, pages: int) -> None:
    """It names a next page for ever: one past the end may be the documented end, a second not."""
    listed = Listed(lambda first, last, number: Page([], True, total))
    with pytest.raises(GatewayUnavailable, match="the list changes while it is read"):
        await listed.read(10)
    assert [number for _, _, number in listed.asked] == list(range(1, pages + 2)) * 4


@pytest.mark.parametrize(
    ("beyond", "is_whole"),
    [
        (None, True),
        (Page([], False, 6), True),
        (Page([row(6)], False, 6), False),
        (Page([], True, 6), False),
        (Page([], False, 7), False),
    ],
    ids=["unknown", "empty", "a row", "names another", "another total"],
)
async def test_a_last_page_that_names_a_next_one(beyond: Page | None, is_whole: bool) -> None:
    def page(first: int, last: int, number: int) -> Page | None:
        begins = (number - 1) * LIMIT
        rows: list[object] = [row(one) for one in range(begins, begins + LIMIT)]
        return Page(rows, True, 6) if number <= 2 else beyond

    listed = Listed(page)
    if is_whole:
        assert await listed.read(10) == [6]
        return
    with pytest.raises(GatewayUnavailable, match="the list changes while it is read"):
        await listed.read(10)


@pytest.mark.parametrize("place", [2, 4, 6])
async def test_a_page_that_is_gone_makes_it_a_list_that_moved(place: int) -> None:
    whole = pages_of(6 * LIMIT)
    listed = Listed(lambda *asked: None if asked[2] == place else whole(*asked))
    with pytest.raises(GatewayUnavailable, match="the list changes while it is read"):
        await listed.read(10)


async def test_a_page_that_names_another_total_makes_it_a_list_that_moved() -> None:
    """As many different rows came: one of them in place of another, perhaps."""
    whole = pages_of(3 * LIMIT)

    def page(first: int, last: int, number: int) -> Page | None:
        found = whole(first, last, number)
        return replace(found, total=3 * LIMIT + 1) if found and number == 2 else found

    with pytest.raises(GatewayUnavailable, match="the list changes while it is read"):
        await Listed(page).read(10)


async def test_five_pages_at_once_and_not_one_more() -> None:
    """After the first, which says how many there are."""
    listed = Listed(pages_of(MOST_PAGES * LIMIT - 1))
    assert await listed.read(10) == [MOST_PAGES * LIMIT - 1]
    assert listed.most == 5
    assert [number for _, _, number in listed.asked] == list(range(1, MOST_PAGES + 1))


async def test_a_page_that_fails_leaves_none_under_way() -> None:
    """It is the first of them to end."""
    whole = pages_of(6 * LIMIT)

    def page(first: int, last: int, number: int) -> Page | None:
        if number == 6:
            raise GatewayUnavailable("look-up: HTTP 503")
        return whole(first, last, number)

    listed = Listed(page)
    with pytest.raises(GatewayUnavailable, match="HTTP 503"):
        await listed.read(10)
    assert listed.open == 0
    assert len(listed.asked) == 6


@pytest.mark.parametrize("heals", [True, False])
async def test_a_row_that_can_be_read_the_second_time_is_read(heals: bool) -> None:
    """The first reading does not count, since its list moved."""
    readings = 0

    def page(first: int, last: int, number: int) -> Page | None:
        nonlocal readings
        readings += 1
        is_odd = readings == 1 or not heals
        rows: list[object] = [{**row(1), "amount": "much"} if is_odd else row(1)]
        return Page(rows, False, 2 if readings == 1 else 1)

    listed = Listed(page)
    if heals:
        assert await listed.read(10) == [1]
        return
    with pytest.raises(RowsUnreadable):
        await listed.read(10)
