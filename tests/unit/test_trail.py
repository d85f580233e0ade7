"""The correlation id follows the work, and nothing else is ever taken for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from billing import trail

ID = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    yield
    trail.end()
    trail.trace_by(None)


def test_it_follows_into_threads_and_tasks() -> None:
    async def elsewhere() -> str | None:
        return trail.correlation()

    async def work() -> list[str | None]:
        return [await asyncio.to_thread(trail.correlation), await asyncio.create_task(elsewhere())]

    trail.begin(ID, "task-1")
    assert asyncio.run(work()) == [ID, ID]
    assert trail.mark() == {"correlation": ID}
    assert trail.marks() == {"correlation": ID, "task": "task-1"}
    trail.end()
    assert trail.mark() == {}
    assert trail.correlation() is None


@pytest.mark.parametrize(
    "claimed", [None, 7, "", "x", ID + "0", ID.upper(), f"{ID}\n", "홍길동", ["a"]]
)
def test_what_is_no_id_is_replaced(claimed: object) -> None:
    made = trail.checked(claimed)
    assert made != claimed
    assert trail.checked(made) == made


def test_spans_are_nothing_until_somebody_traces() -> None:
    opened: list[tuple[str, dict[str, str | int]]] = []

    def tracer(
        name: str, attributes: dict[str, str | int]
    ) -> contextlib.AbstractContextManager[str]:
        opened.append((name, attributes))
        return contextlib.nullcontext(name)

    @trail.spanned("step")
    async def step(number: int) -> int:
        return number

    with trail.span("before") as nothing:
        assert nothing is None
    trail.trace_by(tracer)
    with trail.span("one", count=2) as span:
        assert span == "one"
    assert asyncio.run(step(3)) == 3
    assert opened == [("one", {"count": 2}), ("step", {})]
