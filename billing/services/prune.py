"""The daily clearing up: what grows for years and is not asked for any more leaves the book.

Notices and webhooks are cleared up by their own ticks. Payments, months and attempts never go: they
are what the gateway's ledger is compared with, and few beside the events that tell of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from billing.domain.calendar import start_of
from billing.domain.policy import BillingPolicy
from billing.services.archive_events import archive_next, remove_archived
from billing.services.clock_guard import is_far_off
from billing.store import archives, heartbeats
from billing.store.session import Book, Transaction

# A process that nobody has seen for so long will not come back under its name.
HOSTS_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Pruned:
    """Events that were copied into files, events that left the book, hosts that were forgotten."""

    archived: int
    removed: int
    hosts: int


def prune(
    book: Book,
    policy: BillingPolicy,
    months: int,
    folder: Path | None,
    *,
    going_on: Callable[[], bool] = lambda: True,
) -> Pruned:
    """Clear up for as long as `going_on`. Events go only where `months` is not 0 and there is a
    `folder` for their archives; nothing goes by a clock that is far off. Raises `ArchiveDamaged`,
    `OSError`; then nothing has gone that no file holds."""
    if book.run(is_far_off):
        # By such a clock everything is old enough, and an archive gives nothing back.
        return Pruned(0, 0, 0)
    hosts = book.run(lambda tx: heartbeats.forget_hosts(tx.session, tx.now - HOSTS_KEPT))
    if not months or folder is None:
        return Pruned(0, 0, hosts)
    older_than = book.run(lambda tx: _older_than(tx, policy, months))
    archived = removed = 0
    while going_on():
        # First whatever an earlier run has left.
        removed += remove_archived(book, folder, going_on)
        some = archive_next(book, folder, older_than)
        archived += some
        if not some:
            break
    return Pruned(archived, removed, hosts)


def would_prune(book: Book, policy: BillingPolicy, months: int) -> int:
    """How many events are old enough to be archived now."""
    if not months or book.run(is_far_off):
        return 0
    return book.run(
        lambda tx: archives.count_archivable(tx.session, _older_than(tx, policy, months))
    )


def _older_than(tx: Transaction, policy: BillingPolicy, months: int) -> datetime:
    """The beginning of the month that lies so many months before this one."""
    zone = policy.plan.zone
    today = tx.now.astimezone(zone).date()
    year, month = divmod(today.year * 12 + today.month - 1 - months, 12)
    return start_of(today.replace(year=year, month=month + 1, day=1), zone)
