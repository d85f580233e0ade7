"""What an answer to a question proves, one branch after another, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import httpx
import pytest

from billing.domain.errors import GatewayError, GatewayRefused, GatewayUnavailable
from billing.portone.answer import Answer, Unreadable
from billing.portone.exchange import Exchange
from billing.portone.lookups import Lookups, Page
from billing.portone.token import MemoryTokenStore, Tokens
from billing.ports import AccessToken
from tests.unit.portone.ladder import ABSENT, Said, listed, told, wrapped

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NO_ROUTE = Answer(404, b"<html>404</html>")
PAST_THE_END = Answer(400, wrapped(None, code=-1))


class Gateway:
    """Says one thing after the other, the last again and again; silence is None."""

    def __init__(self, *says: Said) -> None:
        self._says = list(says)
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def get(self, path: str, token: AccessToken, query: Mapping[str, str]) -> Answer:
        assert token.value.startswith("token-")
        self.asked.append((path, dict(query)))
        return await told(self._says)

    def lookups(self, *, sandbox: bool = False, page_limit: int | None = None) -> Lookups:
        handed_out = iter(range(1, 10))

        async def fetch() -> AccessToken:
            return AccessToken(f"token-{next(handed_out)}", NOW + timedelta(hours=1), timedelta(0))

        tokens = Tokens(fetch, MemoryTokenStore(), now=lambda: NOW, monotonic=lambda: 0.0)
        return Lookups(
            cast(Exchange, self),
            tokens,
            # Only silence is waited for; what is said must never be late on a busy machine.
            timeout=0.2 if None in self._says else 60,
            include_sandbox=sandbox,
            **({} if page_limit is None else {"page_limit": page_limit}),
        )


@pytest.mark.parametrize("sandbox", [False, True])
async def test_test_payments_are_asked_for_or_not_and_never_left_open(sandbox: bool) -> None:
    gateway = Gateway(Answer(200, wrapped({"imp_uid": "imp_1"})))
    assert await gateway.lookups(sandbox=sandbox).one("/payments/imp_1") == {"imp_uid": "imp_1"}
    assert gateway.asked == [("/payments/imp_1", {"include_sandbox": str(sandbox).lower()})]


async def test_absence_is_believed_in_the_gateways_own_words_alone() -> None:
    assert await Gateway(ABSENT).lookups().one("/x") is None
    assert await Gateway(ABSENT).lookups().all("/x") == []
    assert await Gateway(ABSENT).lookups().page("/x", {}, 1) is None


NOT_AN_ANSWER: list[tuple[Said, type[GatewayError], str, int]] = [
    (Answer(200, wrapped(None)), GatewayUnavailable, "found, and yet nothing in the answer", 1),
    # Absent or not? Each half of it says something else.
    (Answer(404, wrapped(None, code=0)), GatewayUnavailable, "HTTP 404, code 0", 1),
    (Answer(404, wrapped({"a": 1}, code=-1)), GatewayUnavailable, "HTTP 404, code -1", 1),
    (Answer(200, wrapped(None, code=-1)), GatewayUnavailable, "HTTP 200, code -1", 1),
    (Answer(200, wrapped({"a": 1}, code=1)), GatewayUnavailable, "HTTP 200, code 1", 1),
    (NO_ROUTE, GatewayUnavailable, "HTTP 404 that is not the gateway's own", 1),
    (PAST_THE_END, GatewayUnavailable, "HTTP 400, code -1", 1),
    (Answer(403, b""), GatewayRefused, "HTTP 403", 1),
    (Answer(302, b""), GatewayUnavailable, "HTTP 302", 1),
    (Answer(429, b""), GatewayUnavailable, "HTTP 429", 1),
    (Answer(499, b""), GatewayUnavailable, "HTTP 499", 1),
    # What is broken is asked for once more.
    (Answer(500, b""), GatewayUnavailable, "HTTP 500", 2),
    (Answer(503, wrapped(None)), GatewayUnavailable, "HTTP 503", 2),
    (Answer(200, b"<html>"), GatewayUnavailable, "look-up: ", 2),
    (Answer(400, b"<html>"), GatewayUnavailable, "look-up: ", 2),
    (httpx.ReadError("secret"), GatewayUnavailable, "ReadError", 2),
    (Unreadable("too long"), GatewayUnavailable, "too long", 2),
]


@pytest.mark.parametrize(("said", "kind", "words", "times"), NOT_AN_ANSWER, ids=str)
async def test_everything_else_is_an_error_in_words(
    said: Said, kind: type[GatewayError], words: str, times: int
) -> None:
    gateway = Gateway(said)
    with pytest.raises(kind) as caught:
        await gateway.lookups().one("/x")
    assert words in str(caught.value)
    assert str(caught.value).startswith("look-up: ")
    assert "secret" not in str(caught.value)
    assert len(gateway.asked) == times


async def test_a_401_is_asked_again_by_another_token_and_refused_at_last() -> None:
    gateway = Gateway(Answer(401, b""), Answer(200, wrapped({"a": 1})))
    assert await gateway.lookups().one("/x") == {"a": 1}
    with pytest.raises(GatewayRefused, match="look-up: HTTP 401"):
        await Gateway(Answer(401, b"")).lookups().one("/x")


@pytest.mark.parametrize("broken", [Answer(500, b""), httpx.ReadError(""), Answer(200, b"{")])
async def test_a_second_answer_counts(broken: Said) -> None:
    gateway = Gateway(broken, listed({"n": 1}))
    assert await gateway.lookups().all("/x") == [{"n": 1}]
    assert gateway.asked[0] == gateway.asked[1]


async def test_silence_ends() -> None:
    with pytest.raises(GatewayUnavailable, match="look-up: TimeoutError"):
        await Gateway(None).lookups().one("/x")


# -- lists -----------------------------------------------------------------------------------------


async def test_every_page_is_asked_for_in_order() -> None:
    gateway = Gateway(listed(1, 2, more=2, total=5), listed(3, 4, more=3, total=5), listed(5))
    found = await gateway.lookups(page_limit=2).all("/x", query={"sorting": "started"})
    assert found == [1, 2, 3, 4, 5]
    assert gateway.asked == [
        (
            "/x",
            {"include_sandbox": "false", "sorting": "started", "limit": "2", "page": str(number)},
        )
        for number in (1, 2, 3)
    ]


async def test_a_list_without_pages_is_whole() -> None:
    assert await Gateway(Answer(200, wrapped([1, 2]))).lookups().all("/x") == [1, 2]
    assert await Gateway(Answer(200, wrapped([]))).lookups().all("/x") == []


async def test_a_page_without_a_count_is_as_long_as_it_is() -> None:
    answer = Answer(200, wrapped({"list": [1]}))
    assert await Gateway(answer).lookups().all("/x") == [1]
    assert await Gateway(answer).lookups().page("/x", {}, 1) == Page([1], more=False, total=0)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ([listed(1, total=2)], "the list is not whole"),
        ([listed(1, more=2, total=2), ABSENT], "the list ended in the middle"),
        ([listed(1, more=2, total=2), PAST_THE_END], "HTTP 400"),
        ([Answer(200, wrapped({"list": {}}))], "no list in the answer"),
        ([Answer(200, wrapped({}))], "no list in the answer"),
        ([Answer(200, wrapped("list"))], "look-up: "),
        ([Answer(200, wrapped(None))], "look-up: "),
        ([Answer(200, wrapped({"list": [], "next": "no"}))], "look-up: next"),
        ([Answer(200, wrapped({"list": [], "total": [1]}))], "look-up: total"),
    ],
)
async def test_a_part_of_a_list_is_no_list(says: list[Said], words: str) -> None:
    with pytest.raises(GatewayUnavailable) as caught:
        await Gateway(*says).lookups().all("/x")
    assert words in str(caught.value)


async def test_what_came_in_addition_while_pages_were_turned_is_no_trouble() -> None:
    """The count of the last page is what the list has by then; a row may be seen twice."""
    gateway = Gateway(listed(1, 2, more=2, total=2), listed(2, 3, total=3))
    assert await gateway.lookups().all("/x") == [1, 2, 2, 3]


async def test_a_list_that_never_ends_is_given_up() -> None:
    gateway = Gateway(listed(1, more=2, total=1))
    with pytest.raises(GatewayUnavailable, match="the list does not end"):
        await gateway.lookups().all("/x")
    assert len(gateway.asked) == 100
    last = Gateway(*[listed(1, more=2)] * 99, listed(1, total=100))
    assert len(await last.lookups().all("/x")) == 100
    assert last.asked[99] == ("/x", {"include_sandbox": "false", "limit": "100", "page": "100"})


async def test_the_next_spelling_is_tried_where_there_is_no_such_route() -> None:
    gateway = Gateway(NO_ROUTE, listed(1))
    assert await gateway.lookups().all("/a", "/b", "/c") == [1]
    assert [path for path, _ in gateway.asked] == ["/a", "/b"]
    never = Gateway(NO_ROUTE)
    with pytest.raises(GatewayUnavailable, match="not the gateway's own"):
        await never.lookups().all("/a", "/b")
    assert [path for path, _ in never.asked] == ["/a", "/b"]


async def test_an_absence_leads_to_no_other_spelling() -> None:
    gateway = Gateway(ABSENT)
    assert await gateway.lookups().all("/a", "/b") == []
    assert [path for path, _ in gateway.asked] == ["/a"]


@pytest.mark.parametrize("said", [Answer(500, b""), PAST_THE_END, Answer(403, b"")])
async def test_no_other_error_leads_to_another_spelling(said: Said) -> None:
    gateway = Gateway(said)
    with pytest.raises(GatewayError):
        await gateway.lookups().all("/a", "/b")
    assert {path for path, _ in gateway.asked} == {"/a"}


# -- one page --------------------------------------------------------------------------------------


async def test_one_page_says_whether_there_is_another() -> None:
    gateway = Gateway(listed(1, 2, more=3, total=7))
    lookups = gateway.lookups(page_limit=2)
    assert lookups.page_limit == 2
    assert await lookups.page("/x", {"from": "1"}, 2) == Page([1, 2], more=True, total=7)
    assert gateway.asked == [
        ("/x", {"include_sandbox": "false", "from": "1", "limit": "2", "page": "2"})
    ]


async def test_past_the_end_is_no_page_and_for_the_first_a_refusal() -> None:
    assert await Gateway(PAST_THE_END).lookups().page("/x", {}, 2) is None
    with pytest.raises(GatewayUnavailable, match="HTTP 400"):
        await Gateway(PAST_THE_END).lookups().page("/x", {}, 1)
