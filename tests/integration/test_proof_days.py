"""Which days are proved, which are compared, and what each follows: a ledger of a few rows beside
an empty book."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from billing.domain import proof
from billing.domain.calendar import SEOUL
from billing.domain.errors import InvalidInput
from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.services import prove
from billing.services.prove import Proofs, first_missing, verify, write_proofs
from billing.store import ledger
from billing.store.session import Book
from tests.builders import subscribed

MICROSECOND = timedelta(microseconds=1)
PAID = Payment(
    imp_uid="imp_1",
    merchant_uid="theirs-1",
    status="paid",
    amount=Won(9900),
    customer_uid="customer-1",
    paid_at=datetime(2026, 11, 3, 1, tzinfo=UTC),
)


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy()


@pytest.fixture
def days(book: Book, policy: BillingPolicy, tmp_path: Path) -> Days:
    subscribed(book, policy)
    return Days(book, policy, tmp_path / "proofs" / "here")


class Days:
    """Days of November 2026 in one folder."""

    def __init__(self, book: Book, policy: BillingPolicy, folder: Path) -> None:
        self.book, self.policy, self.folder = book, policy, folder

    def prove(self, first: int, until: datetime | int, *paid: Payment) -> Proofs:
        """What is written from a day on, up to a moment; a number is the last whole day."""
        if isinstance(until, int):
            until = datetime(2026, 11, until, tzinfo=SEOUL) + timedelta(days=1)
        scope = ledger.Scope(
            since=datetime(2026, 11, first, tzinfo=SEOUL),
            until=until,
            month_begins=datetime(2026, 11, 1, tzinfo=SEOUL),
            zone=SEOUL,
            prefix=self.policy.merchant_uid_prefix,
            sandbox=self.policy.sandbox,
        )
        with self.book.snapshot(staging=True) as tx:
            ledger.stage(tx.session, [ledger.row_of(one) for one in paid], scope)
            return write_proofs(tx, self.policy, scope, self.folder)

    def file(self, day: int) -> Path:
        return self.folder / f"maewol-proof-2026-11-{day:02d}.txt"

    def there(self) -> list[int]:
        """The days in the folder, in which nothing else is left behind."""
        return [int(path.stem[-2:]) for path in sorted(self.folder.iterdir())]

    def wrong(self) -> list[tuple[str, str]]:
        return verify(self.book, self.folder)


def test_every_whole_day_of_a_span_is_proved_and_no_other(days: Days) -> None:
    assert first_missing(days.folder) is None
    assert days.prove(2, datetime(2026, 11, 4, tzinfo=SEOUL) - MICROSECOND).written == [
        "2026-11-02"
    ]
    assert first_missing(days.folder) == date(2026, 11, 3)
    done = days.prove(2, datetime(2026, 11, 5, tzinfo=SEOUL))
    assert done == Proofs(written=["2026-11-03", "2026-11-04"])
    assert days.there() == [2, 3, 4]
    assert days.wrong() == []
    assert days.prove(2, 4) == Proofs(), "and once"


def test_what_else_is_in_the_folder_is_no_proof(days: Days) -> None:
    days.prove(2, 3)
    (days.folder / "read me.txt").write_text("of the accountant's")
    (days.folder / "maewol-proof-2026-11-31.txt").write_text("no day")
    assert first_missing(days.folder) == date(2026, 11, 4)
    assert days.wrong() == []


def test_the_day_after_the_last_proof_is_the_first_that_may_follow(days: Days) -> None:
    """Begun later, a day would be left out for good. The chain goes on from the day before."""
    days.prove(1, 2)
    with pytest.raises(InvalidInput, match="leaves days out") as refused:
        days.prove(4, 5)
    assert (refused.value.field, refused.value.value) == ("from", "2026-11-04")
    assert "--from 2026-11-03" in refused.value.remedy
    assert days.there() == [1, 2]
    assert days.prove(3, 4).written == ["2026-11-03", "2026-11-04"]
    assert days.wrong() == []


def test_before_its_beginning_a_chain_does_not_grow(days: Days) -> None:
    days.prove(4, 5)
    assert days.prove(2, 6) == Proofs(written=["2026-11-06"])
    assert days.there() == [4, 5, 6]
    assert days.wrong() == []


def test_a_day_on_which_the_sides_differ_is_signed_so(days: Days) -> None:
    done = days.prove(2, 4, PAID)
    assert done == Proofs(
        written=["2026-11-02", "2026-11-03", "2026-11-04"], disagree=["2026-11-03"]
    )
    text = days.file(3).read_text()
    assert "ledger paid: 1 payments, 9900 won\n  imp_1 theirs-1 9900\nbook paid: 0" in text
    assert days.wrong() == []


def test_a_signed_day_stays_and_the_next_follows_what_was_signed(days: Days) -> None:
    """The gateway tells otherwise of the 3rd now."""
    days.prove(2, 3)
    signed = days.file(3).read_bytes()
    done = days.prove(2, 4, PAID)
    assert done == Proofs(written=["2026-11-04"], disagree=["2026-11-03"], changed=["2026-11-03"])
    assert days.file(3).read_bytes() == signed
    assert days.wrong() == []


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe no text at all", b"Maewol proof 1\n"])
def test_a_proof_that_cannot_be_read_any_more_is_told_and_costs_nothing_else(
    days: Days, damage: bytes
) -> None:
    """The disk lost it, or somebody wrote over it; what follows fits the one in a backup."""
    days.prove(2, 4)
    whole = days.file(3).read_bytes()
    days.file(3).write_bytes(damage)
    assert days.prove(2, 5) == Proofs(written=["2026-11-05"], changed=["2026-11-03"])
    assert ("maewol-proof-2026-11-03.txt", "is not a whole proof") in days.wrong()
    days.file(3).write_bytes(whole)
    assert days.wrong() == []


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe no text at all"])
def test_after_a_last_day_that_cannot_be_read_a_chain_begins(days: Days, damage: bytes) -> None:
    days.prove(2, 3)
    days.file(3).write_bytes(damage)
    assert days.prove(4, 4).written == ["2026-11-04"]
    signed = proof.read(days.file(4).read_text())
    assert signed is not None
    assert signed.previous == proof.FIRST
    assert [name for name, _ in days.wrong()] == ["maewol-proof-2026-11-03.txt"]


def test_a_disk_that_is_full_leaves_nothing_half_written(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a rough copy on every day that follows."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(prove.os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            days.prove(2, 3)
    assert days.there() == []
    assert days.prove(2, 3).written == ["2026-11-02", "2026-11-03"]


def test_a_proof_is_on_the_disk_before_it_has_its_name(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves a whole proof, or none."""
    seen: list[tuple[int, bool]] = []

    def synced(handle: int) -> None:
        seen.append((os.fstat(handle).st_size, days.file(2).exists()))

    monkeypatch.setattr(prove.os, "fsync", synced)
    days.prove(2, 2)
    assert seen == [(days.file(2).stat().st_size, False)]


def test_a_proof_is_never_written_over(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run beside this one may write the same day at the same time: its file stands."""
    days.prove(2, 3)
    theirs = days.file(3).read_bytes()
    monkeypatch.setattr(prove, "_is_next", lambda *_: True)
    assert days.prove(3, 3, PAID) == Proofs(disagree=["2026-11-03"], changed=["2026-11-03"])
    assert days.file(3).read_bytes() == theirs
    assert days.there() == [2, 3]


def test_a_folder_without_proofs_proves_nothing(days: Days) -> None:
    with pytest.raises(InvalidInput, match="holds no proofs") as refused:
        days.wrong()
    assert (refused.value.field, refused.value.value) == ("folder", str(days.folder))
    assert refused.value.remedy == "Name the folder of --proof"
