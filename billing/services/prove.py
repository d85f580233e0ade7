"""Write the daily proofs of the days that are over, and check a chain of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from billing.domain import proof
from billing.domain.calendar import day_of, end_of, start_of
from billing.domain.errors import InvalidInput
from billing.domain.policy import BillingPolicy
from billing.store import installation, ledger
from billing.store.session import Book, Transaction


@dataclass
class Proofs:
    """What became of the proofs of one run."""

    written: list[str] = field(default_factory=list)
    # Days whose two sides do not agree, and signed days about which the facts are others now.
    disagree: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def first_missing(folder: Path) -> date | None:
    """The day after the last proof in a folder; None when there is none yet."""
    days = [day for name in _names(folder) if (day := proof.day_of_name(name)) is not None]
    return max(days) + timedelta(days=1) if days else None


def check_follows(folder: Path, first: date) -> None:
    """Raises `InvalidInput` where a day would be left out between the last proof and `first`."""
    following = first_missing(folder)
    if following is not None and first > following:
        raise InvalidInput(
            "from",
            first.isoformat(),
            "leaves days out between the last proof and this span",
            f"Begin with --from {following}",
        )


def write_proofs(
    tx: Transaction, policy: BillingPolicy, scope: ledger.Scope, folder: Path
) -> Proofs:
    """The proofs of all whole days in a scope whose ledger is staged in this transaction.

    A signed day is never written again; it is compared. Raises `InvalidInput` where a day would be
    left out between the last proof and the scope."""
    zone, done = policy.plan.zone, Proofs()
    first, last = day_of(scope.since, zone), day_of(scope.until, zone) - timedelta(days=1)
    check_follows(folder, first)
    key = installation.stored_key(tx.session)
    folder.mkdir(parents=True, exist_ok=True)
    day, previous = first, _digest_before(folder, first)
    while day <= last:
        previous = _one(tx, scope, folder, day, previous, key, done)
        day += timedelta(days=1)
    return done


def _one(
    tx: Transaction,
    scope: ledger.Scope,
    folder: Path,
    day: date,
    previous: str,
    key: bytes,
    done: Proofs,
) -> str:
    """Write or compare one day; returns the digest that the next day follows."""
    since, until = start_of(day, scope.zone), end_of(day, scope.zone)
    sides = (
        (name, ledger.side(tx.session, name, since, until, sandbox=scope.sandbox))
        for name in ledger.SIDES
    )
    text, agree = proof.write(day, previous, sides, key)
    made = proof.read(text)
    if made is None:
        raise AssertionError("a proof that was just made can be read")
    if not agree:
        done.disagree.append(day.isoformat())
    path = folder / proof.file_name(day)
    if _is_next(folder, day) and _write_once(path, text):
        done.written.append(day.isoformat())
        return made.digest
    if not path.exists():
        # Before the chain's beginning: it grows at its end only.
        return previous
    # Signed before, or by a run beside this one: what stands in the file is what the next follows.
    signed = _signed(path)
    if signed is None or signed.facts != made.facts:
        done.changed.append(day.isoformat())
    return made.digest if signed is None else signed.digest


def _is_next(folder: Path, day: date) -> bool:
    following = first_missing(folder)
    return following is None or day >= following


def verify(book: Book, folder: Path) -> list[tuple[str, str]]:
    """What is wrong with the proofs in a folder, as (file name, problem). Raises `InvalidInput`
    where there are none."""
    names = sorted(name for name in _names(folder) if proof.day_of_name(name) is not None)
    if not names:
        raise InvalidInput("folder", str(folder), "holds no proofs", "Name the folder of --proof")
    key = book.run(lambda tx: installation.stored_key(tx.session))
    return list(proof.problems(_texts(folder, names), key))


def _texts(folder: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        yield name, _text(folder / name)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _digest_before(folder: Path, day: date) -> str:
    path = folder / proof.file_name(day - timedelta(days=1))
    signed = _signed(path) if path.exists() else None
    return signed.digest if signed is not None else proof.FIRST


def _signed(path: Path) -> proof.Proof | None:
    return proof.read(_text(path))


def _text(path: Path) -> str:
    # A disk may have damaged any byte: then it is a changed proof, and no error of ours.
    return path.read_text(encoding="utf-8", errors="replace")


def _write_once(path: Path, text: str) -> bool:
    """Whole or not at all, and never over another one; False when there is one."""
    handle, rough = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(rough, path)
    except FileExistsError:
        return False
    finally:
        Path(rough).unlink()
    return True
