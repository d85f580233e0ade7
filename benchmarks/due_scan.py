"""Does a tick cost what is due, or what there is? Prints the time of each step by size of the book.

    python benchmarks/due_scan.py [--sizes 100000,1000000] [--folder DIR]

Makes a book of each size on a private PostgreSQL (about 2 GB on disk for a million subscribers),
then runs each step of the ticks on it, the best of three, each rolled back. A step finds the same
batch whatever the size, so a ratio near 1 means that it reads only what is due; `ready` is how many
rows lie ready for it. The last two rows are no ticks but what `maewol status` asks: counts, which
read the more, the larger the book, and the invariants, which stop after half a second each (`ready`
is how many were stopped).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from big_book import NOW, leave_claimed, made, undone
from sqlalchemy import text

from billing.bootstrap import billing_policy
from billing.domain.policy import BillingPolicy
from billing.embedded import running
from billing.services import close_cycles, dispatch, inquire, invariants, open_cycles
from billing.settings import Settings
from billing.store import attempts, views
from billing.store.session import Book, Transaction

ROUNDS = 3
# At ten in the morning those wait who were declined the day before; at six they are tried again.
EVENING = NOW + timedelta(hours=8)
# One in so many of them was with a worker that died.
_CLAIMED_ONE_IN = 10
Act = Callable[[Transaction, BillingPolicy], object]
_NOW = f"timestamptz '{NOW.isoformat()}'"
_EVENING = f"timestamptz '{EVENING.isoformat()}'"


class Step(NamedTuple):
    """What is run, of which rows it finds some (or all) ready, and at which moment."""

    act: Act
    ready: str
    at: datetime = NOW


STEPS = {
    "open a batch of 500": Step(
        open_cycles._open_batch,
        f"subscriptions WHERE status = 'active' AND next_due_at <= {_NOW}",
    ),
    "… only the query": Step(
        lambda tx, _: open_cycles._due(tx.session, tx.now),
        f"subscriptions WHERE status = 'active' AND next_due_at <= {_NOW}",
    ),
    "dispatch": Step(
        dispatch._hand_out,
        f"attempts WHERE status = 'due' AND ready_at <= {_EVENING}",
        EVENING,
    ),
    "find expired leases": Step(
        inquire._give_up_on_expired,
        f"attempts WHERE status = 'sending' AND lease_until < {_NOW}",
    ),
    "take open questions": Step(
        lambda tx, _: attempts.take_to_ask(tx.session, tx.now, tx.now, inquire.BATCH),
        f"attempts WHERE status = 'unknown' AND ask_at <= {_NOW}",
    ),
    "warn of closing soon": Step(
        close_cycles._warn_closing_soon,
        f"cycles WHERE status = 'open' AND closes_at > {_NOW}"
        f" AND closes_at <= {_NOW} + interval '24 hours'",
    ),
    "close a batch of 500": Step(
        close_cycles._close_batch,
        f"cycles WHERE status = 'open' AND closes_at <= {_NOW}",
    ),
    "skip paused months": Step(
        close_cycles._skip_paused,
        f"subscriptions WHERE status = 'paused' AND next_closes_at <= {_NOW}",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="100000,1000000", help="subscribers, by comma")
    parser.add_argument("--folder", help="where the books are made; default a temporary folder")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    policy = billing_policy(Settings.load(_env_file=None, charges_per_second=0, canary_charges=0))
    with tempfile.TemporaryDirectory(prefix="mw-", dir=options.folder) as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder) / "data", broker=False, durable=False) as servers:
            found = [_measured(str(servers.database_url), size, policy) for size in sizes]
    _print(sizes, found)


def _measured(server: str, size: int, policy: BillingPolicy) -> dict[str, tuple[int, float]]:
    """Milliseconds and ready rows of each step on a book of so many subscribers."""
    started = time.perf_counter()
    engine = made(server, size)
    print(f"{size:,} subscribers made in {time.perf_counter() - started:.0f} s", flush=True)
    leave_claimed(engine.url.render_as_string(hide_password=False), _CLAIMED_ONE_IN)
    moment = NOW
    book = Book(engine, lambda _: moment)
    figures = {}
    for name, (act, ready, at) in STEPS.items():
        moment = at
        with book.transaction() as tx:
            count = tx.session.execute(text(f"SELECT count(*) FROM {ready}")).scalar_one()  # noqa: S608
        figures[name] = (count, min(_timed(book, act, policy) for _ in range(ROUNDS)))
    moment = NOW
    figures["(status: counts)"] = (0, _timed(book, _status, policy))
    started = time.perf_counter()
    unchecked = invariants.glance(book, policy).unchecked
    figures["(status: invariants)"] = (unchecked, (time.perf_counter() - started) * 1000)
    engine.dispose()
    return figures


def _status(tx: Transaction, policy: BillingPolicy) -> object:
    return views.status(tx.session, tx.now, timedelta(hours=24), policy.plan.zone)


def _timed(book: Book, step: Act, policy: BillingPolicy) -> float:
    with undone(book) as tx:
        started = time.perf_counter()
        step(tx, policy)
        tx.session.flush()
        spent = time.perf_counter() - started
    return spent * 1000


def _print(sizes: list[int], found: list[dict[str, tuple[int, float]]]) -> None:
    print("\n" + "step".ljust(24), *(f"{size:>12,} ready" for size in sizes), "   ratio")
    for name in found[0]:
        cells = [f"{spent:8.1f} ms {ready:>7,}" for ready, spent in (one[name] for one in found)]
        ratio = found[-1][name][1] / found[0][name][1]
        print(name.ljust(24), *cells, f"{ratio:8.1f}")


if __name__ == "__main__":
    main()
