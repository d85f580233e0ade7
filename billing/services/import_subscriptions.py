"""A CSV file of subscriptions → the book: streamed, whole or not at all, with a report by line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO

from billing.domain.enrolment import (
    COLUMNS,
    REQUIRED,
    Misfit,
    identifier_or_nothing,
    new_subscription,
    shown,
)
from billing.domain.errors import InvalidInput
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import NewSubscription
from billing.services.bring_in import contradiction, staged_row
from billing.services.clock_guard import check_day
from billing.services.csv_lines import Record, records
from billing.store import installation, subscriptions
from billing.store.session import Book, Transaction

# Finds the initial payment of each at the gateway, or says what is wrong with it.
Verify = Callable[[Sequence[NewSubscription]], Sequence[Misfit | Payment]]
# What a verification adds where a line leaves it out: by these ids the payment is found again, to
# be given back, or to put the book right by it.
_ADDED = ("initial_imp_uid", "initial_merchant_uid")

# A report longer than this helps nobody; the rest is counted.
MOST_REJECTIONS = 10_000
_VERIFY_TOGETHER = 200
_PROGRESS_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Rejection:
    """One line that was not taken, and why. The header is line 1."""

    line: int
    field: str
    value: str
    problem: str


@dataclass(slots=True)
class ImportReport:
    read: int = 0
    added: int = 0
    unchanged: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    rejected_beyond: int = 0
    # Nothing below the header was read, so that no line was good or bad.
    header_refused: bool = False

    def reject(self, line: int, name: str, value: str, problem: str) -> None:
        if len(self.rejected) < MOST_REJECTIONS:
            self.rejected.append(Rejection(line, name, value, problem))
        else:
            self.rejected_beyond += 1

    @property
    def bad(self) -> int:
        return len(self.rejected) + self.rejected_beyond


class _NothingWritten(Exception):
    """Leaves the transaction without a commit; the report says why."""


def import_subscriptions(
    book: Book,
    policy: BillingPolicy,
    derive_key: Callable[[], bytes],
    file: BinaryIO,
    *,
    dry_run: bool = False,
    skip_bad: bool = False,
    verify: Verify | None = None,
    notify: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> ImportReport:
    """Enrol every line of a file in one transaction.

    Without `skip_bad` one bad line means that nothing is written. The same line again is
    `unchanged`; other facts for a known customer are rejected (the gateway compares them with last
    month's). Memory does not grow with the file. With `notify` each that is added is told to the
    merchant's own system. With `dry_run` nothing is written, and the report is that of a real run.
    Raises `GatewayUnavailable` where the clock was just found to be wrong by far.
    """
    report = ImportReport()
    found = records(file)
    names = _columns(next(found, None), report)
    if not names:
        report.header_refused = True
        return report
    counted = _counted(found, report, progress)
    with tempfile.TemporaryFile() as spool:
        if verify is not None:
            # Before the transaction opens: no transaction spans the network.
            counted = _verified(book, policy, verify, names, counted, report, spool)
            names = _with_ids(names)
        try:
            with book.transaction() as tx:
                check_day(tx)
                subscriptions.take_time(tx.session)
                _Import(tx, policy, derive_key, report, notify=notify).run(names, counted)
                if dry_run or (report.bad and not skip_bad):
                    raise _NothingWritten
        except _NothingWritten:
            if report.bad and not skip_bad:
                report.added = 0
    report.rejected.sort(key=lambda one: one.line)
    return report


def _counted(
    found: Iterable[Record], report: ImportReport, progress: Callable[[int], None]
) -> Iterator[Record]:
    for record in found:
        report.read += 1
        if report.read % _PROGRESS_EVERY == 0:
            progress(report.read)
        yield record
    progress(report.read)


def _verified(
    book: Book,
    policy: BillingPolicy,
    verify: Verify,
    names: Sequence[str],
    found: Iterable[Record],
    report: ImportReport,
    spool: BinaryIO,
) -> Iterator[Record]:
    """Ask the gateway about every good line, many at once; the lines that it confirms, with the ids
    of their initial payments.

    Those wait in a file without a name: memory does not grow, and what is imported is what was
    asked about, even if the caller's file changes meanwhile.
    """
    with book.transaction() as tx:
        now = tx.now
    for group in _grouped(_read_all(names, found, now, policy, report)):
        answers = verify([new for _, new in group])
        for (record, _), answer in zip(group, answers, strict=True):
            row = dict(zip(names, record.cells, strict=True))
            if isinstance(answer, Misfit):
                value = shown(answer.field, row.get(answer.field, ""))
                report.reject(record.line, answer.field, value, answer.problem)
            else:
                cells = _completed(row, answer)
                spool.write(json.dumps([record.line, *cells]).encode() + b"\n")
    spool.seek(0)
    kept = (json.loads(line) for line in spool)
    return (Record(line, cells) for line, *cells in kept)


def _with_ids(names: Sequence[str]) -> Sequence[str]:
    return (*names, *(name for name in _ADDED if name not in names))


def _completed(row: Mapping[str, str], initial: Payment) -> list[str]:
    """The cells of a line in the order of `_with_ids`, with the ids that it leaves out."""
    ids = zip(_ADDED, (initial.imp_uid, initial.merchant_uid), strict=True)
    found = {name: identifier_or_nothing(name, value) for name, value in ids}
    return [row.get(name) or found.get(name, "") for name in _with_ids(list(row))]


def _grouped(
    rows: Iterable[tuple[Record, NewSubscription]],
) -> Iterator[list[tuple[Record, NewSubscription]]]:
    rows = iter(rows)
    while group := list(islice(rows, _VERIFY_TOGETHER)):
        yield group


def _read_all(
    names: Sequence[str],
    found: Iterable[Record],
    now: datetime,
    policy: BillingPolicy,
    report: ImportReport,
) -> Iterator[tuple[Record, NewSubscription]]:
    """The lines that can be a subscription; the report gets the others."""
    for record in found:
        problem = record.problem
        if problem is None and len(record.cells) != len(names):
            problem = f"has {len(record.cells)} cells where the header has {len(names)}"
        if problem is not None:
            report.reject(record.line, "line", "", problem)
            continue
        row = dict(zip(names, record.cells, strict=True))
        try:
            yield record, new_subscription(row, now, policy.plan.zone)
        except InvalidInput as error:
            value = shown(error.field, str(error.value))
            report.reject(record.line, error.field, value, error.problem)


class _Import:
    def __init__(
        self,
        tx: Transaction,
        policy: BillingPolicy,
        derive_key: Callable[[], bytes],
        report: ImportReport,
        *,
        notify: bool,
    ) -> None:
        self.tx = tx
        self.policy = policy
        self.notify = notify
        self.key = installation.key(tx.session, derive_key)
        self.report = report

    def run(self, names: Sequence[str], found: Iterable[Record]) -> None:
        session = self.tx.session
        good = _read_all(names, found, self.tx.now, self.policy, self.report)
        subscriptions.stage(session, (self._row(record, new) for record, new in good))
        self._reject_changed(subscriptions.drop_changed_in_book(session, MOST_REJECTIONS))
        self._reject_contradicting(subscriptions.drop_changed_in_file(session, MOST_REJECTIONS))
        self.report.added = subscriptions.insert_staged(session, self.tx.now, notify=self.notify)
        # What another import brought in meanwhile was left alone by the insert; it must agree too.
        self._reject_changed(subscriptions.drop_changed_in_book(session, MOST_REJECTIONS))
        self.report.unchanged = self.report.read - self.report.bad - self.report.added

    def _row(self, record: Record, new: NewSubscription) -> Sequence[Any]:
        return staged_row(self.tx, self.policy, self.key, record.line, new)

    def _reject_changed(self, changed: subscriptions.Dropped) -> None:
        """Lines that contradict the book."""
        for row in changed.rows:
            self.report.reject(row.line, *contradiction(row))
        self.report.rejected_beyond += changed.total - len(changed.rows)

    def _reject_contradicting(self, changed: subscriptions.Dropped) -> None:
        """Lines that contradict an earlier line of the file."""
        for row in changed.rows:
            problem = f"differs from line {row.first_line} of the same customer"
            self.report.reject(row.line, "customer_uid", row.customer_uid, problem)
        self.report.rejected_beyond += changed.total - len(changed.rows)


def _columns(header: Record | None, report: ImportReport) -> Sequence[str]:
    """The columns, if they are ours; otherwise none, and the report says what is wrong."""
    if header is None or header.problem is not None:
        line, problem = (header.line, header.problem) if header is not None else (1, None)
        report.reject(line, "header", "", problem or "the file is empty")
        return ()
    names = header.cells
    for name in names:
        if name not in COLUMNS:
            report.reject(header.line, "header", shown("header", name), "is no column of this file")
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        report.reject(header.line, "header", shown("header", name), "stands there more than once")
    for name in REQUIRED:
        if name not in names:
            report.reject(header.line, "header", name, "is missing")
    return () if report.bad else names
