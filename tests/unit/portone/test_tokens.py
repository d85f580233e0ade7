"""When a token is renewed, to the second, and how many are tried after refusals."""

from __future__ import annotations

import asyncio
import gc
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.domain.errors import GatewayError, GatewayRefused, GatewayUnavailable
from billing.portone.answer import Answer
from billing.portone.token import MemoryTokenStore, Tokens, token_of
from billing.ports import AccessToken
from tests.unit.portone.ladder import wrapped

pytestmark = pytest.mark.anyio

BEGINNING = datetime(2026, 11, 20, tzinfo=UTC)


@dataclass
class Issuer:
    """Hands out a new token, of so many seconds, each time it is asked."""

    seconds: float = 1800
    passed: float = 0
    offset: timedelta = timedelta(0)
    store: MemoryTokenStore = field(default_factory=MemoryTokenStore)
    handed_out: int = 0

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.passed)

    async def fetch(self) -> AccessToken:
        self.handed_out += 1
        await asyncio.sleep(0)
        expires_at = self.now() + self.offset + timedelta(seconds=self.seconds)
        return AccessToken(f"token-{self.handed_out}", expires_at, clock_offset=self.offset)

    def tokens(self) -> Tokens:
        return Tokens(self.fetch, self.store, now=self.now, monotonic=lambda: self.passed)


@pytest.mark.parametrize(("seconds", "used_for"), [(1800, 1770), (300, 270), (100, 90), (10, 9)])
async def test_it_is_renewed_half_a_minute_or_a_tenth_of_its_life_before_its_end(
    seconds: float, used_for: float
) -> None:
    issuer = Issuer(seconds)
    tokens = issuer.tokens()
    assert (await tokens.current()).value == "token-1"
    issuer.passed = used_for - 0.1
    assert (await tokens.current()).value == "token-1"
    issuer.passed = used_for
    assert (await tokens.current()).value == "token-2"


class AnotherEachTime(MemoryTokenStore):
    """Other workers renew the shared token again and again."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__()
        self._issuer = issuer
        self._numbers = itertools.count(1)

    async def get(self) -> AccessToken | None:
        number = next(self._numbers)
        expires_at = self._issuer.now() + timedelta(seconds=1000 + number)
        return AccessToken(f"theirs-{number}", expires_at, clock_offset=timedelta(0))


async def test_after_three_refusals_the_last_is_the_answer() -> None:
    issuer = Issuer()
    issuer.store = AnotherEachTime(issuer)
    sent: list[str] = []

    async def refused(token: AccessToken) -> Answer:
        sent.append(token.value)
        return Answer(401, b"")

    assert (await issuer.tokens().authorised(refused)).status == 401
    assert len(set(sent)) == len(sent) == 3
    assert issuer.handed_out == 0


async def test_a_refused_token_is_forgotten_here_and_by_everybody() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    first = await tokens.current()
    await tokens.refused(first)
    assert await issuer.store.get() is None
    # Another worker, who has not heard of it, leaves it for us once more.
    await issuer.store.put(first)
    assert (await tokens.current()).value == "token-2"


async def test_what_was_refused_to_one_that_has_a_newer_token_by_now_changes_nothing() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    old = await tokens.current()
    issuer.passed = 1790
    assert (await tokens.current()).value == "token-2"
    await tokens.refused(old)
    assert tokens.clock_offset is not None
    kept = await issuer.store.get()
    assert kept is not None
    assert kept.value == "token-2"
    assert (await tokens.current()).value == "token-2"


async def test_a_token_lives_by_the_gateways_clock() -> None:
    issuer = Issuer(offset=timedelta(hours=-2))
    tokens = issuer.tokens()
    assert tokens.clock_offset is None
    await tokens.current()
    assert tokens.clock_offset == timedelta(hours=-2)
    issuer.passed = 1769
    assert (await tokens.current()).value == "token-1"
    issuer.passed = 1770
    assert (await tokens.current()).value == "token-2"


async def test_many_at_once_share_one_fetch_and_its_failure() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    found = await asyncio.gather(*(tokens.current() for _ in range(50)))
    assert {one.value for one in found} == {"token-1"}

    async def away() -> AccessToken:
        issuer.handed_out += 1
        await asyncio.sleep(0)
        raise GatewayUnavailable("getToken: HTTP 500")

    issuer.passed, issuer.handed_out = 1800, 0
    tokens._fetch = away
    failed = await asyncio.gather(*(tokens.current() for _ in range(50)), return_exceptions=True)
    assert {type(one) for one in failed} == {GatewayUnavailable}
    assert issuer.handed_out == 1
    # And the next one tries again.
    tokens._fetch = issuer.fetch
    assert (await tokens.current()).value == "token-2"


async def test_one_that_gives_up_waiting_takes_the_token_from_nobody() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    first, second = asyncio.create_task(tokens.current()), asyncio.create_task(tokens.current())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).value == "token-1"
    assert issuer.handed_out == 1


@pytest.fixture
async def complaints() -> list[dict[str, Any]]:
    """What the event loop would print: errors that nobody looked at."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    return heard


async def test_a_fetch_under_way_is_stopped_at_the_end(complaints: list[dict[str, Any]]) -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    await tokens.aclose()
    begun, ended = asyncio.Event(), False

    async def never() -> AccessToken:
        nonlocal ended
        begun.set()
        try:
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            await asyncio.sleep(0)
            ended = True

    tokens._fetch = never
    waiting = asyncio.create_task(tokens.current())
    await begun.wait()
    await tokens.aclose()
    assert ended
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert complaints == []


async def test_a_failure_that_all_have_given_up_waiting_for_is_no_complaint(
    complaints: list[dict[str, Any]],
) -> None:
    tokens = Issuer().tokens()

    given_up = asyncio.Event()

    async def away() -> AccessToken:
        await given_up.wait()
        raise GatewayUnavailable("getToken: HTTP 500")

    tokens._fetch = away
    waiting = asyncio.create_task(tokens.current())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    given_up.set()
    assert tokens._renewal is not None
    await asyncio.wait([tokens._renewal])
    tokens._renewal = None
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_another_workers_newer_token_is_taken_and_not_a_dead_or_older_one() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()

    def theirs(seconds: float) -> AccessToken:
        ends = issuer.now() + timedelta(seconds=seconds)
        return AccessToken(f"theirs-{seconds}", ends, clock_offset=timedelta(0))

    for dead in (-1, 0):
        await issuer.store.put(theirs(dead))
        assert (await issuer.tokens().current()).value.startswith("token-")
    issuer.handed_out = 0
    await issuer.store.put(theirs(0.5))
    assert (await tokens.current()).value == "theirs-0.5"
    # As old as ours: it would be refused as ours is, or end with it.
    issuer.passed = 0.45
    await issuer.store.put(theirs(0.05))
    assert (await tokens.current()).value == "token-1"
    issuer.passed = 1790
    await issuer.store.put(theirs(900))
    assert (await tokens.current()).value == "theirs-900"
    assert issuer.handed_out == 1


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        ([200], 1),
        ([500], 1),
        ([403], 1),
        ([401, 200], 2),
        ([401, 500], 2),
        # The new one was fetched for its sake: no other would be taken.
        ([401, 401, 200], 2),
    ],
)
async def test_only_after_a_401_it_goes_again(answers: list[int], sent: int) -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    await tokens.current()
    used: list[str] = []

    async def send(token: AccessToken) -> Answer:
        used.append(token.value)
        return Answer(answers[len(used) - 1], b"")

    answer = await tokens.authorised(send)
    assert answer.status == answers[sent - 1]
    assert used == [f"token-{number}" for number in range(1, sent + 1)]


async def test_of_two_refused_at_once_only_the_first_forgets_and_fetches() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()

    async def send(token: AccessToken) -> Answer:
        await asyncio.sleep(0)
        return Answer(401 if token.value == "token-1" else 200, b"")

    answers = await asyncio.gather(*(tokens.authorised(send) for _ in range(20)))
    assert {one.status for one in answers} == {200}
    assert issuer.handed_out == 2


async def test_a_token_fetched_for_anothers_sake_is_not_the_last_that_is_tried() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    begun, other_has_gone_on, tried_too = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(token: AccessToken) -> Answer:
        begun.set()
        await other_has_gone_on.wait()
        if token.value == "token-2":
            tried_too.set()
        return Answer(200 if token.value == "token-3" else 401, b"")

    async def quick(token: AccessToken) -> Answer:
        if token.value == "token-2":
            other_has_gone_on.set()
            await tried_too.wait()
        return Answer(401, b"")

    first = asyncio.create_task(tokens.authorised(slow))
    await begun.wait()
    assert (await tokens.authorised(quick)).status == 401
    assert (await first).status == 200


async def test_what_was_refused_lately_is_remembered() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    ends = issuer.now() + timedelta(seconds=900)
    old = [AccessToken(f"old-{number}", ends, timedelta(0)) for number in range(17)]
    for one in old:
        await tokens.refused(one)
    for one in old[1:]:
        await issuer.store.put(one)
        tokens._held = None
        assert (await tokens.current()).value.startswith("token-"), one.value


class TestOneForThisProcess:
    """The store of tests, simulations and single commands."""

    async def test_only_the_very_token_is_discarded(self) -> None:
        store = MemoryTokenStore()
        assert await store.get() is None
        await store.discard("a")
        kept = AccessToken("a", BEGINNING, timedelta(0))
        await store.put(kept)
        await store.discard("b")
        assert await store.get() is kept
        await store.discard("a")
        assert await store.get() is None

    async def test_one_flies_at_a_time(self) -> None:
        store = MemoryTokenStore()
        flying: list[int] = []

        async def fly(number: int) -> None:
            async with store.single_flight():
                flying.append(number)
                await asyncio.sleep(0)
                assert flying == [number]
                flying.remove(number)

        await asyncio.gather(*(fly(number) for number in range(5)))


# -- the answer to a request for a token -----------------------------------------------------------

GIVEN = {"access_token": "abc", "now": 1_764_000_000, "expired_at": 1_764_001_800}


def test_a_token_and_how_far_the_gateways_clock_is_ahead() -> None:
    now = datetime.fromtimestamp(1_764_000_000, UTC) - timedelta(seconds=7)
    assert token_of(Answer(200, wrapped(GIVEN)), now) == AccessToken(
        "abc", datetime.fromtimestamp(1_764_001_800, UTC), timedelta(seconds=7)
    )


@pytest.mark.parametrize("value", ["!", "~", "a" * 4096])
def test_whatever_may_stand_in_a_header_is_a_token(value: str) -> None:
    assert (
        token_of(Answer(200, wrapped({**GIVEN, "access_token": value})), BEGINNING).value == value
    )


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(401, wrapped(GIVEN)), GatewayRefused, "getToken: HTTP 401"),
        (Answer(403, b""), GatewayRefused, "getToken: HTTP 403"),
        (Answer(402, b""), GatewayUnavailable, "getToken: HTTP 402"),
        (Answer(201, wrapped(GIVEN)), GatewayUnavailable, "getToken: HTTP 201"),
        (Answer(500, b""), GatewayUnavailable, "getToken: HTTP 500"),
        (Answer(200, wrapped(None, code=-1)), GatewayRefused, "getToken: code -1"),
        (Answer(200, wrapped(GIVEN, code=1)), GatewayRefused, "getToken: code 1"),
        (Answer(200, b"<html>"), GatewayUnavailable, "getToken: "),
        (Answer(200, wrapped(None)), GatewayUnavailable, "getToken: "),
        *(
            (Answer(200, wrapped({**GIVEN, name: None})), GatewayUnavailable, f"getToken: {name}")
            for name in GIVEN
        ),
        *(
            (
                Answer(200, wrapped({**GIVEN, "access_token": value})),
                GatewayUnavailable,
                "getToken: malformed token",
            )
            for value in ("a b", "a\r\nX: y", "\x7f", "é", "a" * 4097)
        ),
    ],
    ids=str,
)
def test_everything_else_is_no_token(answer: Answer, kind: type[GatewayError], words: str) -> None:
    with pytest.raises(kind) as caught:
        token_of(answer, BEGINNING)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(words)
