"""What the daily clearing up asks for, in which order, and how old is old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from billing.domain.calendar import SEOUL
from billing.services import prune as module
from billing.services.prune import Pruned, prune, would_prune
from billing.store import archives, heartbeats

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=SEOUL)
FOLDER = Path("archives")


class Stage:
    """A book whose archives take so many events each, in turn, and give up what they took."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now, self.far_off = now, False
        self.takes = iter([3, 2])
        self.held = 0
        self.did: list[Any] = []
        self.policy: Any = SimpleNamespace(plan=SimpleNamespace(zone=SEOUL))
        self.book: Any = self

    def run(self, step: Any) -> Any:
        return step(SimpleNamespace(session=None, now=self.now))

    def archive(self, _: Any, folder: Path, older_than: datetime) -> int:
        self.did.append(("archive", folder, older_than))
        self.held += (taken := next(self.takes, 0))
        return taken

    def remove(self, _: Any, folder: Path, going_on: Any) -> int:
        self.did.append(("remove", folder))
        assert going_on is not None
        gone, self.held = self.held, 0
        return gone

    def forget(self, _: Any, before: datetime) -> int:
        self.did.append(("forget", before))
        return 7

    def count(self, _: Any, older_than: datetime) -> int:
        self.did.append(("count", older_than))
        return 5


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage()
    monkeypatch.setattr(module, "is_far_off", lambda _: made.far_off)
    monkeypatch.setattr(module, "archive_next", made.archive)
    monkeypatch.setattr(module, "remove_archived", made.remove)
    monkeypatch.setattr(heartbeats, "forget_hosts", made.forget)
    monkeypatch.setattr(archives, "count_archivable", made.count)
    return made


def test_what_was_archived_is_removed_until_nothing_is_old_enough(stage: Stage) -> None:
    assert prune(stage.book, stage.policy, 3, FOLDER) == Pruned(5, 5, 7)
    old = datetime(2026, 8, 1, tzinfo=SEOUL)
    archive, remove = ("archive", FOLDER, old), ("remove", FOLDER)
    forget = ("forget", NOW - timedelta(days=30))
    assert stage.did == [forget, remove, archive, remove, archive, remove, archive]


def test_for_as_long_as_it_may(stage: Stage) -> None:
    turns = iter([True, False])
    done = prune(stage.book, stage.policy, 3, FOLDER, going_on=lambda: next(turns))
    assert done == Pruned(3, 0, 7), "the next run removes it"


@pytest.mark.parametrize(("months", "folder"), [(0, FOLDER), (3, None)])
def test_without_months_or_a_folder_hosts_alone_go(
    stage: Stage, months: int, folder: Path | None
) -> None:
    assert prune(stage.book, stage.policy, months, folder) == Pruned(0, 0, 7)
    assert len(stage.did) == 1


def test_how_much_would_go(stage: Stage) -> None:
    assert would_prune(stage.book, stage.policy, 3) == 5
    assert would_prune(stage.book, stage.policy, 0) == 0
    assert stage.did == [("count", datetime(2026, 8, 1, tzinfo=SEOUL))]


def test_nothing_by_a_clock_that_is_far_off(stage: Stage) -> None:
    stage.far_off = True
    assert prune(stage.book, stage.policy, 3, FOLDER) == Pruned(0, 0, 0)
    assert would_prune(stage.book, stage.policy, 3) == 0
    assert stage.did == []


@pytest.mark.parametrize(
    ("now", "months", "old"),
    [
        ("2026-11-20T10:00", 10, "2026-01-01"),
        ("2026-11-20T10:00", 11, "2025-12-01"),
        ("2026-12-31T23:59", 3, "2026-09-01"),
        ("2026-12-31T23:59", 12, "2025-12-01"),
        ("2027-01-01T00:00", 3, "2026-10-01"),
        ("2027-01-31T00:00", 36, "2024-01-01"),
    ],
)
def test_old_is_a_whole_month_in_seoul(stage: Stage, now: str, months: int, old: str) -> None:
    # Kept in UTC, as the book does: in Seoul the month began nine hours earlier.
    stage.now = datetime.fromisoformat(f"{now}+09:00").astimezone(UTC)
    would_prune(stage.book, stage.policy, months)
    assert stage.did == [("count", datetime.fromisoformat(f"{old}T00:00+09:00"))]
