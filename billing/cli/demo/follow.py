"""Moves billing's time along when somebody moves the sandbox's: on its page, or by a control
request. In the demo only; a real gateway's clock is nobody's to move."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta

import httpx
from sqlalchemy.exc import DBAPIError

from billing.cli.demo import watch
from billing.cli.demo.till import Till
from billing.store.session import Book

# Whoever charges in between is a fraction of a second behind the gateway.
_LOOK_SECONDS = 0.1


@contextlib.contextmanager
def following(till: Till, book: Book) -> Iterator[None]:
    """Follow the sandbox's clock until the end of the block."""
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(till, book, ended), name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(till: Till, book: Book, ended: threading.Event) -> None:
    known: timedelta | None = None
    with httpx.Client(trust_env=False, timeout=5) as client:
        while not ended.wait(_LOOK_SECONDS):
            # A sandbox that is being started again, a database that stops first: look again.
            with contextlib.suppress(httpx.HTTPError, DBAPIError):
                offset = till.clock_offset(client)
                if offset != known:
                    watch.move_clock(book, offset)
                    known = offset
