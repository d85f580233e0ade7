"""A CSV file as records that know their line: strict, streamed, and never lost in a broken one."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

# The longest line a file may have; our columns together need a few hundred bytes.
LONGEST_LINE = 64 * 1024

_HANGUL = re.compile("[가-힣]")
# Korean Excel writes CP949 unless it is told otherwise.
_AS_CP949 = (
    'is not UTF-8: it looks like CP949 (EUC-KR), as Korean Excel writes a plain "CSV". Save the'
    ' file as "CSV UTF-8 (Comma delimited)" ("CSV UTF-8(쉼표로 분리)"), or:'
    " iconv -f CP949 -t UTF-8 FILE > NEW"
)
_AS_WHATEVER = "is not UTF-8. Save the file as UTF-8"


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
        self._told = False
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
            self._problem = self._encoding(raw)
            return raw.decode(errors="replace")

    def take_problem(self) -> str | None:
        """What was wrong with the lines since the last call."""
        problem, self._problem = self._problem, None
        return problem

    def _encoding(self, raw: bytes) -> str:
        """What to do about it stands at the first such line; the others have the same cause."""
        if self._told:
            return "is not UTF-8"
        self._told = True
        try:
            korean = _HANGUL.search(raw.decode("cp949"))
        except UnicodeDecodeError:
            korean = None
        return _AS_CP949 if korean else _AS_WHATEVER

    @staticmethod
    def _is_cut(raw: bytes) -> bool:
        return len(raw) == LONGEST_LINE and not raw.endswith(b"\n")
