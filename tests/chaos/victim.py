"""Charges attempts in a process made for it, to be killed at one of its system calls.

`python -m tests.chaos.victim DATABASE_URL GATEWAY_URL` imports everything once. For each line
`SECONDS ID ID…` (how far the clocks were moved, and what to charge) it forks a child and prints
its process id; at the next line the child runs the use case; when it has ended, so is printed how.

The child does everything in one thread, so that its system calls have one order.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from billing import clock, logs
from billing.bootstrap import billing_policy
from billing.portone.client import PortOneClient
from billing.portone.token import MemoryTokenStore
from billing.services.charge import charge
from billing.settings import Settings
from billing.store.session import Book, create_book_engine


class Inline(ThreadPoolExecutor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def a_client(gateway_url: str, moved: timedelta) -> PortOneClient:
    """The real client, for a world whose clocks were moved."""
    return PortOneClient(
        gateway_url,
        "key",
        "secret",
        tokens=MemoryTokenStore(),
        now=lambda: clock.host_time() + moved,
        monotonic=clock.monotonic,
        charge_timeout=10,
        include_sandbox=False,
    )


async def _charge(database_url: str, gateway_url: str, moved: timedelta, ids: list[int]) -> None:
    asyncio.get_running_loop().set_default_executor(Inline())
    book = Book(create_book_engine(database_url), clock.database_time)
    gateway = a_client(gateway_url, moved)
    await charge(book, gateway, billing_policy(Settings.load()), ids)
    await gateway.aclose()
    book.close()


def main(database_url: str, gateway_url: str) -> None:
    # What is printed here is read; log lines go elsewhere, and few of them.
    logs.configure("json", "WARNING")
    for line in sys.stdin:
        seconds, *ids = line.split()
        gate, opener = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(gate, 1)
            moved = timedelta(seconds=float(seconds))
            asyncio.run(_charge(database_url, gateway_url, moved, [int(one) for one in ids]))
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
        os.write(opener, b"!")
        os.close(opener)
        os.close(gate)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
