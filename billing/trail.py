"""What ties together everything that one tick sets off: a correlation id for log lines, and spans
for whoever traces.

Both live in context variables, which follow the work into threads and event loops. Nothing here
knows Celery or a tracer: `carrying` takes the id from message to message, and `telemetry` puts a
tracer in where one is wanted.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

P = ParamSpec("P")
T = TypeVar("T")
# Opens a span of this name, with attributes that are numbers or words of our own.
Tracer = Callable[[str, dict[str, str | int]], AbstractContextManager[Any]]

_CORRELATION = "correlation"
_ID = re.compile(r"[0-9a-f]{16}")
_NOTHING: AbstractContextManager[None] = nullcontext()
_tracer: Tracer | None = None


def fresh() -> str:
    """A new correlation id: 16 hexadecimal digits that mean nothing."""
    return secrets.token_hex(8)


def checked(claimed: object) -> str:
    """The id that a message claims, or a new one: anybody who can write to the broker can send
    anything, and this is going to be logged."""
    return claimed if isinstance(claimed, str) and _ID.fullmatch(claimed) else fresh()


def correlation() -> str | None:
    """The id of what is being done here; None outside of tasks."""
    return get_contextvars().get(_CORRELATION)


def begin(correlation: str, task: str) -> None:
    """From here on every log line of this context carries the id, and that of the task."""
    clear_contextvars()
    bind_contextvars(**{_CORRELATION: correlation, "task": task})


def end() -> None:
    """This context does something else now."""
    clear_contextvars()


def mark() -> dict[str, str]:
    """The id as data of an event line; empty outside of tasks."""
    known = correlation()
    return {} if known is None else {_CORRELATION: known}


def marks() -> dict[str, str]:
    """All that is bound here: the id, and that of the task."""
    return {name: str(value) for name, value in get_contextvars().items()}


def trace_by(tracer: Tracer | None) -> None:
    """Open spans by this from now on; None for none at all, as at the start."""
    global _tracer
    _tracer = tracer


def span(name: str, **attributes: str | int) -> AbstractContextManager[Any]:
    """A span over the block. Never anybody's data in its attributes."""
    return _NOTHING if _tracer is None else _tracer(name, attributes)


def spanned(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """A span over each call of an asynchronous function."""

    def around(step: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(step)
        async def traced(*args: P.args, **kwargs: P.kwargs) -> T:
            with span(name):
                return await step(*args, **kwargs)

        return traced

    return around
