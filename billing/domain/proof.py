"""The daily proof: what both sides hold of one day, as a text that cannot be changed unseen.

    Maewol proof 1
    day: 2026-11-20
    previous: <SHA-256 of the day before, 64 zeros for the first>
    ledger paid: 2 payments, 19800 won
      imp_1 mw-…-202611-01 9900
      imp_2 mw-…-202611-01 9900
    book paid: …
    ledger cancelled: …
    book cancelled: …
    agree: yes
    sha256: <of everything above>
    hmac-sha256: <of everything above, with the installation's key>

Each day's hash is in the next day's text: whoever changes one day must change all that follow, and
whoever wants to do that needs the installation's key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from billing.domain.money import Sum

HEADER = "Maewol proof 1"
FIRST = "0" * 64
PREFIX = "maewol-proof-"
# The problem of the first of a chain that begins in the middle.
NOT_THERE = "follows a proof that is not there"

_NAME = re.compile(rf"{PREFIX}(\d{{4}}-\d{{2}}-\d{{2}})\.txt")
_DAY = re.compile(r"^day: (\d{4}-\d{2}-\d{2})$", re.MULTILINE)
_PREVIOUS = re.compile(r"^previous: ([0-9a-f]{64})$", re.MULTILINE)
_END = re.compile(r"sha256: ([0-9a-f]{64})\nhmac-sha256: ([0-9a-f]{64})\n\Z")

Row = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Proof:
    """One proof as it stands in its file."""

    day: date
    previous: str
    body: str
    digest: str
    mac: str

    @property
    def facts(self) -> str:
        """What it says of the day, without its place in the chain."""
        return _PREVIOUS.sub("", self.body, count=1)

    @property
    def agrees(self) -> bool:
        """Whether both sides agreed when it was signed."""
        return self.body.endswith("\nagree: yes\n")

    def total(self, name: str) -> Sum | None:
        """How many payments one side holds, and their won; None where it does not say."""
        found = re.search(rf"^{name}: (\d+) payments, (\d+) won$", self.body, re.MULTILINE)
        return None if found is None else Sum(int(found[1]), int(found[2]))


def section(name: str, rows: Iterable[Row]) -> tuple[str, str]:
    """One side's lines, and a hash that is the same for both sides when they agree."""
    lines, total, digest = [], 0, hashlib.sha256()
    for imp_uid, merchant_uid, amount in rows:
        line = f"  {_word(imp_uid)} {_word(merchant_uid)[:40]} {amount}\n"
        lines.append(line)
        digest.update(line.encode())
        total += amount
    head = f"{name}: {len(lines)} payments, {total} won\n"
    return head + "".join(lines), digest.hexdigest()


def write(
    day: date, previous: str, sides: Iterable[tuple[str, Iterable[Row]]], key: bytes
) -> tuple[str, bool]:
    """The text of a day's proof, and whether both sides agree.

    `sides` come in pairs: the ledger's, then the book's."""
    made = [section(name, rows) for name, rows in sides]
    hashes = [digest for _, digest in made]
    agree = hashes[0::2] == hashes[1::2]
    head = f"{HEADER}\nday: {day.isoformat()}\nprevious: {previous}\n"
    body = head + "".join(text for text, _ in made) + f"agree: {'yes' if agree else 'no'}\n"
    return f"{body}sha256: {_sha256(body)}\nhmac-sha256: {_mac(key, body)}\n", agree


def read(text: str) -> Proof | None:
    """A proof from its text; None when it is none, or was cut."""
    end = _END.search(text)
    if end is None or not text.startswith(f"{HEADER}\n"):
        return None
    body = text[: end.start()]
    day, previous = _DAY.search(body), _PREVIOUS.search(body)
    if day is None or previous is None:
        return None
    on = _date(day[1])
    return None if on is None else Proof(on, previous[1], body, end[1], end[2])


def file_name(day: date) -> str:
    """Under which name a day's proof is kept."""
    return f"{PREFIX}{day.isoformat()}.txt"


def day_of_name(name: str) -> date | None:
    """The day of a file's name, None when it is not a proof's."""
    match = _NAME.fullmatch(name)
    return _date(match[1]) if match else None


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def problems(chain: Iterable[tuple[str, str]], key: bytes) -> Iterator[tuple[str, str]]:
    """What is wrong with a chain of (file name, text) in order of the days, as (name, problem)."""
    before: Proof | None = None
    for name, text in chain:
        proof = read(text)
        if proof is None:
            yield name, "is not a whole proof"
            before = None
            continue
        yield from ((name, problem) for problem in _problems(name, proof, before, key))
        before = proof


def _problems(name: str, proof: Proof, before: Proof | None, key: bytes) -> Iterator[str]:
    if name != file_name(proof.day):
        yield f"holds the day {proof.day}"
    if _sha256(proof.body) != proof.digest:
        yield "was changed: its text does not fit its sha256"
    if not hmac.compare_digest(_mac(key, proof.body), proof.mac):
        yield "was not signed with this installation's key"
    if before is None:
        if proof.previous != FIRST:
            yield NOT_THERE
        return
    if proof.day != before.day + timedelta(days=1):
        yield f"follows {before.day}: days are missing"
    if proof.previous != before.digest:
        yield "does not follow the proof of the day before: the chain is broken"


def _sha256(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _mac(key: bytes, body: str) -> str:
    return hmac.new(key, b"proof\0" + body.encode(), hashlib.sha256).hexdigest()


def _word(text: str) -> str:
    """An id as one word of one line: others' ids may hold anything."""
    return "".join(char if char.isprintable() and not char.isspace() else "?" for char in text)
