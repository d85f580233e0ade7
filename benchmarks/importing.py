"""Does an import need more memory for a larger file? Prints seconds and memory by its size.

    python benchmarks/importing.py [--sizes 10000,100000,1000000] [--folder DIR]

Each file goes through `maewol subscription import` as a merchant calls it, into an empty book on a
private PostgreSQL with fsync; then once more, when every line is `unchanged`. Beside it the same
lines go by `COPY` into one table without any rule: what PostgreSQL alone takes for them. The memory
is the most that the command held (not PostgreSQL's). About 2 GB on disk for a million.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from big_book import empty
from rig.commands import found

from billing.embedded import running

COLUMNS = ("customer_uid", "amount", "order_name", "initial_paid_at", "buyer_name", "buyer_tel")


@dataclass(frozen=True)
class Spent:
    seconds: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="10000,100000,1000000", help="lines, by comma")
    parser.add_argument("--folder", help="where files and books are made")
    options = parser.parse_args()
    print(
        f"{'lines':>10} {'import':>9} {'lines/s':>8} {'of COPY':>8} {'memory':>9}"
        f" {'again':>9} {'memory':>9}"
    )
    with tempfile.TemporaryDirectory(prefix="mw-", dir=options.folder) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder / "data", broker=False) as servers:
            for size in (int(one) for one in options.sizes.split(",")):
                _measured(str(servers.database_url), _written(folder, size), size)


def _measured(server: str, file: Path, size: int) -> None:
    copied = _copied(server, file, size)
    url = empty(server, f"import_{size}")
    first = _imported(url, file, "added", size)
    again = _imported(url, file, "unchanged", size)
    print(
        f"{size:>10,} {first.seconds:>7.1f} s {size / first.seconds:>8,.0f}"
        f" {copied / first.seconds:>8.2f} {first.megabytes:>6.0f} MB"
        f" {again.seconds:>7.1f} s {again.megabytes:>6.0f} MB",
        flush=True,
    )


def _written(folder: Path, size: int) -> Path:
    """A file of so many subscribers, who paid first on one of the 28 days before yesterday."""
    file = folder / f"{size}.csv"
    last = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    with file.open("w", newline="", encoding="utf-8") as out:
        lines = csv.writer(out)
        lines.writerow(COLUMNS)
        for number in range(size):
            paid = last - timedelta(days=number % 28, seconds=number % 3_600)
            lines.writerow(
                (
                    f"customer-{number}",
                    9_900 + number % 7 * 1_000,
                    "월 정기결제",
                    paid.isoformat(),
                    "홍길동",
                    f"010{number:08}",
                )
            )
    return file


def _copied(server: str, file: Path, size: int) -> float:
    """Seconds of a `COPY` of the same file."""
    kinds = ", ".join(f"{name} text" for name in COLUMNS)
    with psycopg.connect(server.replace("+psycopg", "")) as connection:
        connection.execute(f"CREATE TABLE copied_{size} ({kinds})".encode())
        started = time.perf_counter()
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY copied_{size} FROM STDIN (FORMAT csv, HEADER)".encode()) as copy,
            file.open("rb") as lines,
        ):
            while block := lines.read(1 << 16):
                copy.write(block)
        connection.commit()
    return time.perf_counter() - started


def _imported(url: str, file: Path, became: str, size: int) -> Spent:
    document, spent = _maewol(url, "subscription", "import", str(file), "--json")
    counts = json.loads(document)
    assert (counts["read"], counts[became], counts["rejected"]) == (size, size, [])
    return spent


def _maewol(url: str, *words: str) -> tuple[str, Spent]:
    """What a command printed, and what it took."""
    started = time.perf_counter()
    child = subprocess.Popen(
        found("maewol", *words),
        env={**os.environ, "MAEWOL_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, f"maewol {' '.join(words)} ended with {child.returncode}"
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return printed, Spent(time.perf_counter() - started, usage.ru_maxrss * unit / 1e6)


if __name__ == "__main__":
    main()
