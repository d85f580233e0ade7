"""The text of an archive: sealed events, a run after the other, that proves itself.

    Maewol events 1
    previous: <digest of the seal before the first, empty for the very first>
    seal 12: after 1200, up to 1202, 2 events, <digest>
    1201|2024-01-20 01:00:00.000000|attempt.sending|7|9|11|f|{"fence": 1}
    1202|…

A seal's digest is the SHA-256 over the digest before it and its lines, joined by line ends. So the
file can be checked with nothing but itself; and its last digest is in the book.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

HEADER = "Maewol events 1"

_PREVIOUS = re.compile(r"previous: ([0-9a-f]{64}|)")
_SEAL = re.compile(r"seal (\d+): after (\d+), up to (\d+), (\d+) events, ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class SealedRun:
    """One seal: which events it covers, how many they are, and the digest."""

    number: int
    after_id: int
    up_to_id: int
    events: int
    digest: bytes


def file_name(number: int) -> str:
    """Under which name an archive is kept."""
    return f"maewol-events-{number:06d}.txt.gz"


def head(previous: bytes) -> str:
    """What an archive begins with."""
    return f"{HEADER}\nprevious: {previous.hex()}\n"


def fits(run: SealedRun, previous: bytes, lines: Sequence[str]) -> bool:
    """Whether these lines are what was sealed."""
    return len(lines) == run.events and _digest(previous, lines) == run.digest


def section(run: SealedRun, lines: Sequence[str]) -> str:
    """One run as it stands in the file."""
    first = (
        f"seal {run.number}: after {run.after_id}, up to {run.up_to_id}, {run.events} events,"
        f" {run.digest.hex()}\n"
    )
    return first + "".join(f"{line}\n" for line in lines)


def read(text: Iterable[str]) -> Iterator[SealedRun]:
    """Every run of an archive, whose lines are given with their ends. Raises `ValueError`, which
    says what is wrong, at the first run that does not prove itself."""
    rows = (line.removesuffix("\n") for line in text)
    if next(rows, None) != HEADER or (first := _PREVIOUS.fullmatch(next(rows, ""))) is None:
        raise ValueError("is not an archive of events")
    previous, before = bytes.fromhex(first[1]), None
    for run, lines in _runs(rows):
        if not fits(run, previous, lines):
            raise ValueError(f"the events of seal {run.number} are not those that were sealed")
        if before is not None and (run.number, run.after_id) != (
            before.number + 1,
            before.up_to_id,
        ):
            raise ValueError(f"seal {run.number} does not follow seal {before.number}")
        yield run
        previous, before = run.digest, run


def _runs(rows: Iterator[str]) -> Iterator[tuple[SealedRun, list[str]]]:
    run: SealedRun | None = None
    lines: list[str] = []
    for row in rows:
        if (found := _SEAL.fullmatch(row)) is None:
            lines.append(row)
            continue
        if run is not None:
            yield run, lines
        elif lines:
            raise ValueError("has events before its first seal")
        number, after_id, up_to_id, events = (int(found[place]) for place in range(1, 5))
        run, lines = SealedRun(number, after_id, up_to_id, events, bytes.fromhex(found[5])), []
    if run is None:
        raise ValueError("holds no seal")
    yield run, lines


def _digest(previous: bytes, lines: Sequence[str]) -> bytes:
    return hashlib.sha256(previous + "\n".join(lines).encode()).digest()
