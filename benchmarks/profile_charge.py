"""Where the time of a charge goes: processor time for one, of this process and of PostgreSQL.

    python benchmarks/profile_charge.py [--charges 6000] [--functions 25]

The steps run one after the other in one process, on a private PostgreSQL with fsync: opening the
months; claiming and recording, by a gateway in the same process that answers at once, so that what
is measured is ours; and the gateway's client alone, on uvloop, against `rig/gateway.py` without a
delay. With `--functions` claiming and recording runs under the profiler, in one thread and slower,
and the functions that took the most are printed instead. PostgreSQL's share is read from /proc, on
Linux alone.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from big_book import empty
from pipeline import gateway
from rig import processors
from rig.client import a_client
from rig.one_process import DUE, Month

from billing.domain.money import Won
from billing.domain.outcome import Approved
from billing.domain.payment import Buyer, ChargeRequest
from billing.embedded import running
from billing.services.answer import Result
from billing.store.session import create_book_engine

WIDTH = 100


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--charges", type=int, default=6000)
    options.add_argument(
        "--functions", type=int, default=0, help="so many functions, by their time"
    )
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder) / "data", broker=False) as servers:
            engine = create_book_engine(empty(str(servers.database_url), "profile"))
            month = Month(engine, one_thread=chosen.functions > 0)
            _ours(month, chosen.charges, chosen.functions)
            month.engine.dispose()
    if not chosen.functions:
        _print(month, chosen.charges, uvloop.run(_client(chosen.charges)))


def _ours(month: Month, charges: int, functions: int) -> None:
    """Import, open, claim and record."""
    month.enrol(charges)
    with month.measured("opening the month"):
        assert month.open() == charges
    profiler = cProfile.Profile(time.process_time) if functions else None
    with month.measured("claim and recording"), profiler or nullcontext():
        tally = month.charge(DUE)
    assert tally == {Result.APPROVED: charges}, tally
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(functions)


async def _client(charges: int) -> dict[str, tuple[float, float]]:
    """Processor seconds of this process and of the gateway: of all look-ups, of all charges."""
    found = {}
    with gateway(0) as (url, pid):
        client = a_client(url, WIDTH)

        async def look(number: int) -> None:
            since = datetime(2026, 11, 1, tzinfo=UTC)
            assert not await client.payments_of_key(f"customer-{number}", since)

        async def charge(number: int) -> None:
            assert isinstance(await client.charge(_request(number)), Approved)

        for name, step in (("look-up before the charge", look), ("the charge", charge)):
            here, there = time.process_time(), processors.of_process(pid)
            await _side_by_side(step, charges)
            found[name] = (time.process_time() - here, processors.of_process(pid) - there)
        await client.aclose()
    return found


async def _side_by_side(step: Callable[[int], Awaitable[None]], count: int) -> None:
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await step(number)

    await asyncio.gather(*(some() for _ in range(WIDTH)))


def _request(number: int) -> ChargeRequest:
    return ChargeRequest(
        customer_uid=f"customer-{number}",
        merchant_uid=f"mw-{number:016}-202611-01",
        amount=Won(9900),
        order_name="월 정기결제",
        buyer=Buyer(name="홍길동", tel="01000000000"),
    )


def _print(month: Month, charges: int, client: dict[str, tuple[float, float]]) -> None:
    print(f"\n{charges} charges; milliseconds of processor time for one")
    print(f"{'':<28}{'Python':>8}{'PostgreSQL':>12}{'gateway':>9}")
    for name in ("opening the month", "claim and recording"):
        spent = month.spent[name]
        of_one = [1000 * seconds / charges for seconds in (spent.python, spent.postgres)]
        print(f"{name:<28}{of_one[0]:>8.2f}{of_one[1]:>12.2f}")
    for name, (here, there) in client.items():
        print(f"{name:<28}{1000 * here / charges:>8.2f}{'':>12}{1000 * there / charges:>9.2f}")


if __name__ == "__main__":
    main()
