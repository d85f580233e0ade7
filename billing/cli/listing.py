"""Lists of any length: the rows wait in a file without a name.

So neither memory nor the transaction that reads them grows with the list, or with a pager that
nobody scrolls; and what is printed is a whole document, or none.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from billing.cli.output import err, show

# A longer list stands in several tables: the width of a column needs all rows of its table.
_ROWS_OF_A_TABLE = 1000
_IN_MEMORY = 1 << 20


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows that were read, one a line, and whether `--limit` left some out."""

    file: IO[str]
    count: int
    is_cut: bool

    def show(self, *, as_json: bool, leave_out: Collection[str] = ()) -> None:
        """Print them as `output.show`; what was cut is said on stderr."""
        self.file.seek(0)
        if as_json:
            self._document()
        else:
            rows = (json.loads(line) for line in self.file)
            while table := list(islice(rows, _ROWS_OF_A_TABLE)):
                show(table, as_json=False, leave_out=leave_out)
            if not self.count:
                show([], as_json=False)
        if self.is_cut:
            err.print(
                f"The first {self.count:,} only; more with a higher --limit, all without it."
                f" 처음 {self.count:,}건만 표시했습니다."
                " --limit을 늘리면 더, 빼면 모두 표시합니다.",
                markup=False,
                highlight=False,
            )

    def total(self, column: str) -> int:
        """The sum of a column."""
        self.file.seek(0)
        return sum(json.loads(line)[column] for line in self.file)

    def _document(self) -> None:
        sys.stdout.write("[")
        for number, line in enumerate(self.file):
            sys.stdout.write((", " if number else "") + line.rstrip("\n"))
        sys.stdout.write("]\n")
        sys.stdout.flush()


@contextlib.contextmanager
def listed(rows: Generator[Mapping[str, Any], None, None], limit: int | None) -> Iterator[Listing]:
    """Read rows, at most `limit`, to be shown once the book is left alone."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8", newline="\n") as file:
        count, is_cut = 0, False
        with contextlib.closing(rows):
            for row in rows:
                is_cut = count == limit
                if is_cut:
                    break
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
                count += 1
        yield Listing(file, count, is_cut)
