"""A CSV file as records that know their line: strict, streamed, and never lost in a broken one."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

# The longest line a file may have; our columns together need a few hundred bytes.
LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `line` is its first line in the file, from 1; `problem` why it is unreadable."""

    line: int
    cells: Sequence[str]
    problem: str | None = None


def records(file: BinaryIO) -> Iterator[Record]:
    """Every record of a file, header included, blank lines left out.

    A quoted cell may hold line ends, so a record may span lines; what an unreadable record
    swallowed is named in its problem, since those lines are not read again.
    """
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    while True:
        first, cells, problem = lines.number + 1, list[str](), None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"is not CSV ({error})"
        problem = lines.take_problem() or problem
        if problem is not None:
            yield Record(first, (), problem + _span(first, lines.number))
        elif cells:
            yield Record(first, cells)


def _span(first: int, last: int) -> str:
    return f"; lines {first} to {last} were read as one" if last > first else ""


class _Lines:
    """The lines of a file as text: UTF-8, with or without a byte order mark.

    A line that cannot be read still counts and still reaches the CSV reader, so that neither the
    numbers nor the quotes of the lines after it go wrong; `take_problem` tells of it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._problem: str | None = None
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(LONGEST_LINE)
        if not raw:
            raise StopIteration
        self.number += 1
        if self._is_cut(raw):
            self._problem = f"is longer than {LONGEST_LINE} bytes"
            while self._is_cut(raw):
                raw = self._file.readline(LONGEST_LINE)
            return "\n"
        if self.number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._problem = "is not UTF-8"
            return raw.decode(errors="replace")

    def take_problem(self) -> str | None:
        """What was wrong with the lines since the last call."""
        problem, self._problem = self._problem, None
        return problem

    @staticmethod
    def _is_cut(raw: bytes) -> bool:
        return len(raw) == LONGEST_LINE and not raw.endswith(b"\n")
