"""What a month of a large book takes, by its parts: bytes, log, processor time, seconds.

    python benchmarks/capacity.py [--subscribers 100000] [--payments 100000,1000000] [--folder DIR]

The month of `--subscribers`, all due on one day, goes through the product's own use cases in one
process (`rig/one_process.py`) on a private PostgreSQL with fsync: import, opening, charges of which
one in ten is refused once, seals, the hourly check, `pg_dump`, clearing up. The gateway answers at
once, so that the figures are of the book; the road over the network is measured by `pipeline.py`.

Then, for each number of `--payments`, reconciliation's own comparing: a month of so many payments,
as the gateway's list would have them, staged and laid beside the book (about 2.5 GB on disk for a
million). docs/capacity.md works out ten million from these, and
from the days on which the calendar of billing has first attempts fall, which are printed first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import IO, Any

from big_book import NOW, empty, fill
from rig.one_process import AGAIN, DUE, Month
from sqlalchemy import Engine, text

from billing.bootstrap import billing_policy
from billing.domain.calendar import cycle_dates
from billing.embedded import find_home, running
from billing.embedded.programs import postgres_programs
from billing.services import invariants, reconcile
from billing.services.check import check
from billing.services.prune import prune
from billing.services.reconcile import Span
from billing.services.seal_events import seal_events
from billing.settings import Settings
from billing.store.session import Book, create_book_engine

REFUSE_ONE_IN = 10
# What stands for as long as the subscription, and what each month adds.
STANDING = ("subscriptions", "buyers")
OF_A_MONTH = ("cycles", "attempts", "events", "notices", "event_seals")
# In November two of three subscribers of `fill` have been charged by its day.
_CHARGED = 19 / 28


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--subscribers", type=int, default=100_000, help="0 leaves the month out")
    options.add_argument("--payments", default="100000,1000000", help="by comma; empty: none")
    options.add_argument("--folder", help="where the books are made; default a temporary folder")
    chosen = options.parse_args()
    _print_peaks(date.today().year + 1)  # noqa: DTZ011 - any year does
    with tempfile.TemporaryDirectory(prefix="mw-", dir=chosen.folder) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if chosen.subscribers:
            with running(folder / "month", broker=False) as servers:
                _month(str(servers.database_url), chosen.subscribers, folder)
        for payments in (int(one) for one in chosen.payments.split(",") if one):
            with running(folder / f"ledger{payments}", broker=False, durable=False) as servers:
                _reconciled(str(servers.database_url), payments)


# -- days --------------------------------------------------------------------------------------


def _print_peaks(year: int) -> None:
    """For each month the day with the most first attempts, where people enrolled evenly on every
    day of the year before."""
    first = date(year - 1, 1, 1)
    anchors = [first + timedelta(days=number) for number in range(365)]
    print("month  busiest day  of the book  the 10th")
    for month in range(1, 13):
        number = {one: (year - one.year) * 12 + month - one.month for one in anchors}
        days = Counter(
            cycle_dates(one, number[one]).first_attempt_on.day for one in anchors if number[one] > 0
        )
        day, most = days.most_common(1)[0]
        shares = [100 * count / days.total() for count in (most, days[10])]
        print(f"{month:>5}{day:>13}{shares[0]:>11.1f} %{shares[1]:>8.1f} %")


# -- a month -----------------------------------------------------------------------------------


def _month(server: str, subscribers: int, folder: Path) -> None:
    url = empty(server, "month")
    month = Month(create_book_engine(url), REFUSE_ONE_IN)
    done = _steps(month, subscribers)
    _print_tables(month.engine, subscribers)
    _print_facts(month)
    with month.measured("backup (pg_dump)"):
        dump = _dumped(url, folder)
    done["backup (pg_dump)"] = subscribers
    # Three months later everything of this one is old enough.
    month.clock.now = DUE + timedelta(days=92)
    with month.measured("clearing up"):
        pruned = prune(month.book, month.policy, 1, folder / "archives")
    # The newest seal is never archived: a book of one has nothing to clear up.
    done["clearing up"] = pruned.archived
    _print_steps(month, done)
    print(f"dump: {dump / subscribers:,.0f} bytes a subscriber, compressed")
    if pruned.archived:
        archives = sum(file.stat().st_size for file in (folder / "archives").iterdir())
        print(f"archives: {archives / pruned.archived:,.0f} bytes an event")
    month.engine.dispose()


def _steps(month: Month, subscribers: int) -> dict[str, int]:
    """Each step once; how many of what it is measured by went through each."""
    done: dict[str, int] = {}
    with month.measured("import"):
        month.enrol(subscribers)
    with month.measured("opening"):
        done["opening"] = month.open()
    with month.measured("charges"):
        done["charges"] = month.charge(DUE).total()
    with month.measured("second charges"):
        done["second charges"] = month.charge(AGAIN).total()
    assert month.one("SELECT count(*) FROM cycles WHERE status = 'paid'") == subscribers
    month.clock.now = AGAIN + timedelta(minutes=5)
    with month.measured("seals"):
        sealed = 0
        # A run notes what the next one seals.
        while some := seal_events(month.book) or seal_events(month.book):
            sealed += some
    with month.measured("hourly check"):
        assert check(month.book, month.policy) == 0
    return {"import": subscribers, **done, "seals": sealed, "hourly check": subscribers}


def _dumped(url: str, folder: Path) -> int:
    """The bytes of a dump as docs/backup.md takes it."""
    program = postgres_programs(find_home(folder / "month"), None).folder / "pg_dump"
    file = folder / "book.dump"
    address = url.replace("+psycopg", "")
    subprocess.run(
        [program, f"--dbname={address}", "--format=custom", f"--file={file}"], check=True
    )
    return file.stat().st_size


def _print_tables(engine: Engine, subscribers: int) -> None:
    print(f"\n{subscribers:,} subscribers after their month; bytes")
    print(f"{'table':<16}{'rows':>10}{'a subscriber':>14}{'table':>8}{'indexes':>9}  (of one row)")
    totals = {"standing": 0.0, "of a month": 0.0}
    with engine.connect() as connection:
        for name in (*STANDING, *OF_A_MONTH):
            rows, heap, indexes = connection.execute(
                text(
                    f"SELECT count(*), pg_table_size('{name}'), pg_indexes_size('{name}')"  # noqa: S608 - our own names
                    f" FROM {name}"
                )
            ).one()
            totals["standing" if name in STANDING else "of a month"] += heap + indexes
            of_one = [size / max(rows, 1) for size in (heap, indexes)]
            print(
                f"{name:<16}{rows:>10,}{rows / subscribers:>14.2f}"
                f"{of_one[0]:>8.0f}{of_one[1]:>9.0f}"
            )
    for name, total in totals.items():
        print(f"{name}: {total / subscribers:,.0f} bytes a subscriber")


def _print_facts(month: Month) -> None:
    """The facts of the hourly check that take the most, one statement each: none may take longer
    than the time limit of a statement (`create_book_engine`)."""
    for fact in invariants._FACTS:
        with month.measured(fact.name), month.book.snapshot() as tx:
            assert not invariants._examined(tx, month.policy, fact).rows
    facts = {fact.name: month.spent.pop(fact.name) for fact in invariants._FACTS}
    for name in sorted(facts, key=lambda one: facts[one].seconds, reverse=True)[:4]:
        print(f"{name}: {facts[name].seconds:.1f} s, {facts[name].postgres:.2f} s of processor")


def _print_steps(month: Month, done: dict[str, int]) -> None:
    print(f"\n{'step':<18}{'of':>9}{'seconds':>9}{'Python':>9}{'PostgreSQL':>12}{'log':>12}")
    print(f"{'':<36}{'ms each':>9}{'ms each':>12}{'bytes each':>12}")
    for name, spent in month.spent.items():
        count = max(1, done[name])
        print(
            f"{name:<18}{count:>9,}{spent.seconds:>9.1f}{1000 * spent.python / count:>9.3f}"
            f"{1000 * spent.postgres / count:>12.3f}{spent.log_bytes / count:>12,.0f}"
        )


# -- reconciliation ----------------------------------------------------------------------------


def _reconciled(server: str, payments: int) -> None:
    url = empty(server, f"ledger_{payments}")
    fill(url, round(payments / _CHARGED))
    engine = create_book_engine(url)
    book = Book(engine, lambda _: NOW)
    policy = billing_policy(Settings.load(_env_file=None))
    scope = reconcile._scope(Span(date(2026, 11, 1), date(2026, 11, 30)), NOW, policy)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        count = _listed(engine, spool)
        started = time.perf_counter()
        compared = reconcile._compare(book, scope, spool)
        spent = time.perf_counter() - started
        size = spool.tell()
    assert not compared.unseen, "every payment of the book was listed"
    assert not compared.cases, "every payment that was listed is the book's"
    print(
        f"reconciliation: {count:,} payments staged and compared in {spent:.1f} s"
        f" ({spent / count * 1e6:.0f} s for a million; {size / count:.0f} bytes of file each)",
        flush=True,
    )
    engine.dispose()


def _listed(engine: Engine, spool: IO[str]) -> int:
    """The payments of the book as the gateway's list would have them; returns how many."""
    count = 0
    with engine.connect() as connection:
        found = connection.execution_options(yield_per=5000).execute(
            text(
                "SELECT c.paid_imp_uid, c.paid_merchant_uid, c.amount, s.customer_uid, c.paid_at"
                " FROM cycles c JOIN subscriptions s ON s.id = c.subscription_id"
                " WHERE c.paid_at IS NOT NULL"
            )
        )
        for row in found:
            spool.write(f"{json.dumps(_staged(row))}\n")
            count += 1
    return count


def _staged(row: Sequence[Any]) -> list[Any]:
    """In the order of `ledger.STAGED_COLUMNS`."""
    imp_uid, merchant_uid, amount, customer_uid, paid_at = row
    paid = [imp_uid, merchant_uid, "paid", amount, 0, customer_uid, paid_at.isoformat(), None]
    return [*paid, "KRW", False, None, "phone"]


if __name__ == "__main__":
    main()
