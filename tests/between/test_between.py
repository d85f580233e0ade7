"""Any two operations, the one in the middle of a transaction of the other: what they leave is what
they leave when it comes just before that transaction, or just after it.

`make test` weaves every seventh pair at one place; `make between` every pair at every place.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import make_url

from billing.bootstrap import billing_policy
from billing.domain.errors import BillingError
from billing.domain.policy import BillingPolicy
from billing.embedded import Servers
from billing.services.invariants import broken
from billing.settings import Settings
from billing.simulation import stage
from billing.store.session import Book, create_book_engine
from tests.between.situations import SITUATIONS, SKIPPING, left, quiet
from tests.between.weave import SECOND, Loom
from tests.conftest import MovedClock
from tests.town import Town


@pytest.fixture(scope="module")
def loom(servers: Servers) -> Iterator[Loom]:
    assert servers.database_url is not None
    name = "maewol_between"
    with stage.database(servers.database_url, name):
        url = make_url(servers.database_url).set(database=name)
        engines = [create_book_engine(url.render_as_string(hide_password=False)) for _ in range(3)]

        @event.listens_for(engines[1], "do_connect")
        def named(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
            parameters["application_name"] = SECOND

        yield Loom(*engines)
        for engine in engines:
            engine.dispose()


@pytest.fixture(scope="module")
def policy() -> BillingPolicy:
    return billing_policy(Settings.load(charge_cron="* * * * *", charges_per_second=0))


@dataclass
class Pair:
    """Two operations in one situation, begun anew as often as is wanted."""

    loom: Loom
    policy: BillingPolicy
    situation: str
    first: str
    second: str
    known: dict[tuple[int | None, bool], dict[str, Any]] = field(default_factory=dict)

    def begin(self) -> Town:
        stage.empty(self.loom.first)
        clock = MovedClock()
        town = Town(Book(self.loom.first, clock.read), self.policy, clock)
        SITUATIONS[self.situation].set_up(town)
        return town

    @cached_property
    def outside(self) -> list[bool]:
        """Of each place in the first, whether it lies outside of its transactions."""
        return self._woven(self.begin(), None)

    def _woven(self, town: Town, at: int | None) -> list[bool]:
        operations = SITUATIONS[self.situation].operations
        return self.loom.woven(town, operations[self.first], operations[self.second], at)

    def _end(self, at: int | None, *, settled: bool = False) -> dict[str, Any]:
        town = self.begin()
        self._woven(town, at)
        return _end(town, settled=settled)

    def _without(self, name: str, *, settled: bool) -> dict[str, Any]:
        town = self.begin()
        (kept,) = {self.first, self.second} - {name} or {name}
        with suppress(BillingError):
            SITUATIONS[self.situation].operations[kept](town)
        return _end(town, settled=settled)

    def wrong(self, at: int) -> str | None:
        """What is wrong when the second happens here, in the middle of a transaction."""
        for settled in (False, True):
            found, ends = self._end(at, settled=settled), self._around(at, settled=settled)
            if found in ends:
                return None
            # It waited for the first, so that this one came between two transactions of it.
            ends += self._turned_round.all_outside(settled=settled)
            # Or it left to the next tick what the first had locked, or the other way round.
            ticks = SKIPPING & {self.first, self.second}
            ends += [self._without(name, settled=settled) for name in sorted(ticks)]
            if found in ends:
                return None
        return _unlike(found, ends)

    @cached_property
    def _turned_round(self) -> Pair:
        return replace(self, first=self.second, second=self.first, known={})

    def all_outside(self, *, settled: bool) -> list[dict[str, Any]]:
        """What is left when the second happens anywhere between two transactions."""
        places = [place for place, outside in enumerate(self.outside) if outside]
        return [self._known(place, settled=settled) for place in (*places, None)]

    def _around(self, at: int, *, settled: bool) -> list[dict[str, Any]]:
        before = max(place for place in range(at) if self.outside[place])
        after = next((place for place in range(at, len(self.outside)) if self.outside[place]), None)
        return [self._known(place, settled=settled) for place in (before, after)]

    def _known(self, at: int | None, *, settled: bool = False) -> dict[str, Any]:
        """What is left when it happens between two transactions; looked at once."""
        if (at, settled) not in self.known:
            self.known[at, settled] = self._end(at, settled=settled)
            assert self.known[at, settled]["broken"] == [], f"at place {at}"
        return self.known[at, settled]


def _end(town: Town, *, settled: bool) -> dict[str, object]:
    if settled:
        quiet(town)
    return {**left(town), "broken": [str(one) for one in broken(town.book, town.policy)]}


def _unlike(found: dict[str, Any], serial: list[dict[str, Any]]) -> str:
    differing = [name for name in found if all(found[name] != one[name] for one in serial)]
    names = differing or [name for name in found if any(found[name] != one[name] for one in serial)]
    return "; ".join(
        f"{name}: {found[name]}, one after the other {[one[name] for one in serial]}"
        for name in names
    )


PAIRS = [
    pytest.param(situation, first, second, id=f"{situation}: {second} in {first}")
    for situation, what in SITUATIONS.items()
    for first, second in product(what.operations, repeat=2)
]


@pytest.mark.parametrize(("situation", "first", "second"), PAIRS[::7])
def test_at_one_place(
    loom: Loom, policy: BillingPolicy, situation: str, first: str, second: str
) -> None:
    pair = Pair(loom, policy, situation, first, second)
    inside = [place for place, outside in enumerate(pair.outside) if not outside]
    at = inside[zlib.crc32(f"{situation}{first}{second}".encode()) % len(inside)]
    assert pair.wrong(at) is None, f"at place {at}"


@pytest.mark.long
@pytest.mark.parametrize(("situation", "first", "second"), PAIRS)
def test_at_every_place(
    loom: Loom, policy: BillingPolicy, situation: str, first: str, second: str
) -> None:
    pair = Pair(loom, policy, situation, first, second)
    inside = [place for place, outside in enumerate(pair.outside) if not outside]
    wrong = {at: what for at in inside if (what := pair.wrong(at))}
    assert wrong == {}


def test_a_comparison_without_a_snapshot_is_found(
    loom: Loom, policy: BillingPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistake that this was written after, planted again."""

    def every_statement_for_itself(book: Book, *, staging: bool = False) -> Any:
        return book.transaction()

    monkeypatch.setattr(Book, "snapshot", every_statement_for_itself)
    pair = Pair(loom, policy, "paid by hand", "reconcile", "look")
    inside = [place for place, outside in enumerate(pair.outside) if not outside]
    found = [what for at in inside if (what := pair.wrong(at))]
    assert found
    assert "reconcile.difference" in found[0]
