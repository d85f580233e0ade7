"""Move events that were sealed long ago from the book into files, and check such files.

copy      the events of some seals into a file, compared with the seals on the way; whole on disk
          before anything else happens
note      the archive in the book, with the digest of the file and of the lines that stay
remove    its events, a few thousand in one short transaction, after the file was read once more

Killed anywhere, it goes on from there: a file that the book does not know yet is checked and taken,
and removing what is gone already is nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from billing.domain import archive
from billing.domain.archive import SealedRun
from billing.domain.calendar import SEOUL
from billing.domain.errors import ArchiveDamaged, InvalidInput
from billing.store import archives
from billing.store.session import Book, Transaction, by_index
from billing.store.tables import EventArchive, EventSeal

# About 30 MB in a file, 1.5 MB in memory at a time, and some tens of milliseconds for a removal.
FILE_EVENTS = 1_000_000
READ_EVENTS = 5_000
REMOVE_EVENTS = 2_000


@dataclass(frozen=True, slots=True)
class _Plan:
    """The seals of the next file, the digest that they follow, and how old its events are."""

    number: int
    runs: Sequence[SealedRun]
    previous: bytes
    older_than: datetime

    @property
    def bounds(self) -> tuple[int, int]:
        return self.runs[0].after_id, self.runs[-1].up_to_id


def archive_next(book: Book, folder: Path, older_than: datetime) -> int:
    """Copy the events of one more file, and note it; returns how many they are, 0 when none is old
    enough. Raises `ArchiveDamaged` where they are not those that were sealed, or a file stands in
    the way, and `OSError` where it cannot be written."""
    plan = book.run(lambda tx: _plan(tx, older_than))
    if plan is None:
        return 0
    path = folder / archive.file_name(plan.number)
    try:
        if not path.exists():
            _write_whole(path, _text(book, plan))
    except FileExistsError:
        # Another process was quicker: its file is checked and taken as one that was left behind.
        pass
    except ArchiveDamaged:
        # So much quicker, perhaps, that the events have left the book while they were read.
        if book.run(lambda tx: _is_noted(tx, plan)):
            return 0
        raise
    digest = _examined(path, plan)
    return book.run(lambda tx: _note(tx, plan, path.name, digest))


def remove_archived(book: Book, folder: Path, going_on: Callable[[], bool]) -> int:
    """Remove the events of every archive that still has some in the book, while `going_on`; returns
    how many went. Raises `ArchiveDamaged` where a file is not there as it was written."""
    gone = 0
    for one in book.run(lambda tx: archives.unfinished(tx.session)):
        if not going_on():
            break
        _check_file(folder, one)
        while going_on():
            some = book.run(partial(_remove_some, one=one))
            gone += some
            if not some:
                break
    return gone


def verify(book: Book, folder: Path) -> list[tuple[str, str]]:
    """What is wrong with the archives of this book, as (file, problem). Raises `InvalidInput` where
    the book has none."""
    known = book.run(lambda tx: archives.every(tx.session))
    if not known:
        raise InvalidInput("folder", str(folder), "this book has no archives", "Nothing to verify")
    problems = []
    for one in known:
        try:
            _check_file(folder, one)
            runs = list(_runs_of(folder / one.file))
        except ArchiveDamaged as error:
            problems.append((one.file, error.problem))
            continue
        if book.run(partial(_sealed_so, runs=runs)):
            continue
        problems.append((one.file, "its seals are not those of this book"))
    return problems


def _plan(tx: Transaction, older_than: datetime) -> _Plan | None:
    if not archives.only_archiver(tx.session):
        return None
    seals = archives.archivable(tx.session, older_than)
    if not seals:
        return None
    # The same seals whenever it is asked, so that a file which was left behind is taken up again.
    month, events = _month(seals[0]), 0
    chosen: list[SealedRun] = []
    for seal in seals:
        if chosen and (events + seal.events > FILE_EVENTS or _month(seal) != month):
            break
        chosen.append(_run(seal))
        events += seal.events
    last, before = archives.newest(tx.session), archives.seal_before(tx.session, seals[0].number)
    return _Plan(
        number=last.number + 1 if last else 1,
        runs=chosen,
        previous=before.digest if before else b"",
        older_than=older_than,
    )


def _month(seal: EventSeal) -> tuple[int, int]:
    at = seal.sealed_at.astimezone(SEOUL)
    return at.year, at.month


def _run(seal: EventSeal) -> SealedRun:
    return SealedRun(seal.number, seal.after_id, seal.up_to_id, seal.events, bytes(seal.digest))


def _text(book: Book, plan: _Plan) -> Iterator[str]:
    """The file's text, each run compared with its seal."""
    yield archive.head(plan.previous)
    previous = plan.previous
    for group in _groups(plan.runs):
        rows = book.run(partial(_lines, group=group))
        young = [at for _, at, _ in rows if at >= plan.older_than]
        if young:
            raise ArchiveDamaged(f"seal {group[0].number}", "holds events that are too young to go")
        for run in group:
            lines = [line for number, _, line in rows if run.after_id < number <= run.up_to_id]
            if not archive.fits(run, previous, lines):
                raise ArchiveDamaged(f"seal {run.number}", "its events are not those it sealed")
            yield archive.section(run, lines)
            previous = run.digest


def _groups(runs: Sequence[SealedRun]) -> Iterator[list[SealedRun]]:
    group: list[SealedRun] = []
    for run in runs:
        if group and sum(one.events for one in group) + run.events > READ_EVENTS:
            yield group
            group = []
        group.append(run)
    yield group


def _lines(tx: Transaction, group: Sequence[SealedRun]) -> Sequence[tuple[int, datetime, str]]:
    by_index(tx.session)
    found = archives.lines(tx.session, group[0].after_id, group[-1].up_to_id)
    return [(row.id, row.at, row.line) for row in found]


def _write_whole(path: Path, text: Iterator[str]) -> None:
    """Whole and on disk, or not at all, and never over another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, rough = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with (
            os.fdopen(handle, "wb") as raw,
            # No time and no name in it: the same events make the same file.
            gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        ):
            for part in text:
                packed.write(part.encode())
            packed.close()
            raw.flush()
            os.fsync(raw.fileno())
        os.link(rough, path)
    finally:
        Path(rough).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _examined(path: Path, plan: _Plan) -> bytes:
    """The digest of a file that holds exactly what was planned."""
    if list(_runs_of(path)) != list(plan.runs):
        raise ArchiveDamaged(path.name, "is there already and holds something else")
    return _file_digest(path)


def _is_noted(tx: Transaction, plan: _Plan) -> bool:
    last = archives.newest(tx.session)
    return last is not None and last.number >= plan.number


def _note(tx: Transaction, plan: _Plan, name: str, digest: bytes) -> int:
    last = archives.newest(tx.session)
    if not archives.only_archiver(tx.session) or (last.number if last else 0) != plan.number - 1:
        return 0
    after, up_to = plan.bounds
    events = sum(run.events for run in plan.runs)
    tx.session.add(
        EventArchive(
            number=plan.number,
            first_seal=plan.runs[0].number,
            last_seal=plan.runs[-1].number,
            after_id=after,
            up_to_id=up_to,
            events=events,
            older_than=plan.older_than,
            file=name,
            file_digest=digest,
            kept_digest=archives.kept_digest(tx.session, after, up_to),
            archived_at=tx.now,
        )
    )
    return events


def _remove_some(tx: Transaction, one: EventArchive) -> int:
    if not archives.only_archiver(tx.session):
        return 0
    by_index(tx.session)
    some = archives.remove(tx.session, one, REMOVE_EVENTS)
    if not some:
        archives.removed(tx.session, one.number, tx.now)
    return some


def _check_file(folder: Path, one: EventArchive) -> None:
    path = folder / one.file
    if not path.is_file():
        raise ArchiveDamaged(one.file, "is not in the folder")
    if _file_digest(path) != one.file_digest:
        raise ArchiveDamaged(one.file, "was changed since it was written")


def _runs_of(path: Path) -> Iterator[SealedRun]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as text:
            yield from archive.read(text)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ArchiveDamaged(path.name, f"cannot be trusted: {error}") from None


def _sealed_so(tx: Transaction, runs: Sequence[SealedRun]) -> bool:
    last = runs[-1]
    there = archives.seal_before(tx.session, last.number + 1)
    return there is not None and _run(there) == last


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
