"""When a token is renewed, to the second, and how many are tried after refusals."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from billing.portone.answer import Answer
from billing.portone.token import MemoryTokenStore, Tokens
from billing.ports import AccessToken

pytestmark = pytest.mark.anyio

BEGINNING = datetime(2026, 11, 20, tzinfo=UTC)


@dataclass
class Issuer:
    """Hands out a new token, of so many seconds, each time it is asked."""

    seconds: float = 1800
    passed: float = 0
    store: MemoryTokenStore = field(default_factory=MemoryTokenStore)
    handed_out: int = 0

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.passed)

    async def fetch(self) -> AccessToken:
        self.handed_out += 1
        expires_at = self.now() + timedelta(seconds=self.seconds)
        return AccessToken(f"token-{self.handed_out}", expires_at, clock_offset=timedelta(0))

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
    kept = await issuer.store.get()
    assert kept is not None
    assert kept.value == "token-2"
    assert (await tokens.current()).value == "token-2"
