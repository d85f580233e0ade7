"""How long does the month's report take? Prints the time of each part by size of the book.

    python benchmarks/month_report.py [--sizes 100000,1000000] [--folder DIR]

Makes a book of each size on a private PostgreSQL (about 2 GB on disk for a million subscribers);
two thirds of it have paid in the month. `peak` is the most memory that this process held so far.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

from big_book import NOW, made

from billing.bootstrap import billing_policy
from billing.domain.calendar import SEOUL
from billing.embedded import running
from billing.presenting import month_files, month_page
from billing.presenting.texts import Texts
from billing.services.report import charges, report
from billing.settings import Settings
from billing.store.session import Book

MONTH = date(2026, 11, 1)
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100000,1000000")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mw-", dir=asked.folder) as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder) / "data", broker=False, durable=False) as servers:
            assert servers.database_url is not None
            print(
                f"{'subscribers':>11} {'figures':>9} {'page':>8} {'charges':>9} {'rows/s':>9} peak"
            )
            for size in map(int, asked.sizes.split(",")):
                _measure(servers.database_url, size)


def _measure(server: str, size: int) -> None:
    engine = made(server, size)
    book, policy = Book(engine, lambda _: NOW), billing_policy(Settings.load())
    figures, found = _timed(lambda: report(book, policy, MONTH))
    page, _ = _timed(lambda: month_page.page(found, Texts("ko"), SEOUL))
    lines, rows = _timed(lambda: sum(map(len, charges(book, policy, MONTH))))
    written, _ = _timed(
        lambda: sum(map(len, month_files.charges(charges(book, policy, MONTH), SEOUL)))
    )
    assert rows == found.figures.collected.count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{size:>11,} {figures:>7.2f} s {page:>6.2f} s {written:>7.1f} s {rows / lines:>9,.0f}"
        f" {peak} MB",
        flush=True,
    )
    book.close()


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


if __name__ == "__main__":
    main()
