"""Hostile bytes, a little of it in every run; `make fuzz` for more, guided by coverage."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))


@pytest.mark.parametrize("name", TARGETS)
def test_known_nuisances(name: str) -> None:
    for data in SEEDS[name]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_documented_errors(name: str) -> None:
    known = st.sampled_from(SEEDS[name])

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(mutated(known) | st.binary(max_size=200) | st.text(max_size=60).map(_encoded))
    @example(b"")
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def mutated(known: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A known text with a piece of it replaced."""

    def change(parts: tuple[bytes, int, int, bytes]) -> bytes:
        data, start, length, piece = parts
        start %= len(data) + 1
        return data[:start] + piece + data[start + length :]

    return st.tuples(known, st.integers(0, 3000), st.integers(0, 20), st.binary(max_size=12)).map(
        change
    )
