"""A CSV file of subscriptions → the book: streamed, whole or not at all, with a report by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from billing.domain.attempt import customer_tag
from billing.domain.calendar import cycle_dates, day_of, first_cycle
from billing.domain.enrolment import COLUMNS, REQUIRED, new_subscription, shown
from billing.domain.errors import InvalidInput
from billing.domain.plan import closes_at, first_attempt_at
from billing.domain.policy import BillingPolicy
from billing.domain.seal import seal
from billing.domain.subscription import NewSubscription
from billing.store import installation, subscriptions
from billing.store.session import Book, Transaction

# Says what is wrong with each at the gateway, or None.
Verify = Callable[[Sequence[NewSubscription]], Sequence[str | None]]

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
    progress: Callable[[int], None] = lambda _: None,
) -> ImportReport:
    """Enrol every line of a file in one transaction.

    Without `skip_bad` one bad line means that nothing is written. The same line again is
    `unchanged`; other facts for a known customer are rejected (the gateway compares them with last
    month's). Memory does not grow with the file.
    """
    report = ImportReport()
    try:
        with book.transaction() as tx:
            importing = _Import(tx, policy, derive_key, report, verify, progress)
            importing.run(file)
            if dry_run or (report.bad and not skip_bad):
                raise _NothingWritten
    except _NothingWritten:
        if not dry_run:
            report.added = 0
    report.rejected.sort(key=lambda one: one.line)
    return report


class _Import:
    def __init__(
        self,
        tx: Transaction,
        policy: BillingPolicy,
        derive_key: Callable[[], bytes],
        report: ImportReport,
        verify: Verify | None,
        progress: Callable[[int], None],
    ) -> None:
        self.tx = tx
        self.policy = policy
        self.key = installation.key(tx.session, derive_key)
        self.report = report
        self.verify = verify
        self.progress = progress

    def run(self, file: BinaryIO) -> None:
        subscriptions.stage(self.tx.session, self._staged(file))
        good = self.report.read - self.report.bad
        self._reject_changed()
        self.report.added = subscriptions.insert_staged(self.tx.session, self.tx.now)
        self.report.unchanged = good - self._changed - self.report.added

    def _staged(self, file: BinaryIO) -> Iterator[Sequence[Any]]:
        group: list[tuple[int, NewSubscription]] = []
        for line, row in _rows(file, self.report):
            self.report.read += 1
            if self.report.read % _PROGRESS_EVERY == 0:
                self.progress(self.report.read)
            try:
                found = new_subscription(row, self.tx.now, self.policy.plan.zone)
            except InvalidInput as error:
                value = shown(error.field, str(error.value))
                self.report.reject(line, error.field, value, error.problem)
                continue
            group.append((line, found))
            if self.verify is None or len(group) == _VERIFY_TOGETHER:
                yield from self._verified(group)
                group = []
        yield from self._verified(group)
        self.progress(self.report.read)

    def _verified(self, group: list[tuple[int, NewSubscription]]) -> Iterator[Sequence[Any]]:
        problems: Sequence[str | None] = [None] * len(group)
        if self.verify is not None and group:
            problems = self.verify([new for _, new in group])
        for (line, new), problem in zip(group, problems, strict=True):
            if problem is None:
                yield self._row(line, new)
            else:
                self.report.reject(line, "customer_uid", new.facts.customer_uid, problem)

    def _row(self, line: int, new: NewSubscription) -> Sequence[Any]:
        facts, plan = new.facts, self.policy.plan
        anchor_on = day_of(facts.initial_paid_at, plan.zone)
        number = first_cycle(anchor_on, self.tx.now, new.last_paid_on, plan.calendar, plan.zone)
        dates = cycle_dates(anchor_on, number, plan.calendar)
        return (
            line,
            facts.customer_uid,
            facts.amount.amount,
            facts.order_name,
            anchor_on,
            facts.initial_paid_at,
            seal(self.key, facts),
            customer_tag(self.key, facts.customer_uid),
            new.initial_merchant_uid,
            new.initial_imp_uid,
            new.last_paid_on,
            new.reference,
            number,
            first_attempt_at(dates, plan),
            closes_at(dates, plan),
            facts.buyer_name,
            facts.buyer_email,
            facts.buyer_tel,
        )

    def _reject_changed(self) -> None:
        """Lines that contradict the book, or an earlier line of the file."""
        lines = []
        for row in subscriptions.changed_in_book(self.tx.session):
            name, now = (
                ("amount", row.amount)
                if row.amount_differs
                else ("initial_paid_at", row.anchor_on)
                if row.anchor_differs
                else ("customer_uid", "other facts")
            )
            problem = f"differs from the book ({now}); other facts need a new registration"
            self.report.reject(row.line, name, row.customer_uid, problem)
            lines.append(row.line)
        subscriptions.drop_staged(self.tx.session, lines)
        for row in subscriptions.changed_in_file(self.tx.session):
            problem = f"differs from line {row.first_line} of the same customer"
            self.report.reject(row.line, "customer_uid", row.customer_uid, problem)
            lines.append(row.line)
        subscriptions.drop_staged(self.tx.session, lines)
        self._changed = len(lines)


def _rows(file: BinaryIO, report: ImportReport) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of the file with their numbers; what is no line at all is rejected here."""
    reader = csv.reader(_decoded(file, report), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            report.reject(line, "line", "", f"is not CSV ({error})")
            report.read += header is not None
            continue
        if header is None:
            header = cells
            if not _good_header(header, report):
                return
        elif not cells:
            continue
        elif len(cells) != len(header):
            report.read += 1
            problem = f"has {len(cells)} cells where the header has {len(header)}"
            report.reject(line, "line", "", problem)
        else:
            yield line, dict(zip(header, cells, strict=True))
    if header is None:
        report.reject(1, "header", "", "the file is empty")


def _good_header(header: Sequence[str], report: ImportReport) -> bool:
    before = report.bad
    for name in header:
        if name not in COLUMNS:
            report.reject(1, "header", shown("header", name), "is no column of this file")
    for name in dict.fromkeys(name for name in header if header.count(name) > 1):
        report.reject(1, "header", shown("header", name), "stands there more than once")
    for name in REQUIRED:
        if name not in header:
            report.reject(1, "header", name, "is missing")
    return report.bad == before


def _decoded(file: BinaryIO, report: ImportReport) -> Iterator[str]:
    """Lines as text: UTF-8, with or without a byte order mark. A line that is not is rejected."""
    for number, raw in enumerate(_bounded(file), start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            report.reject(number, "line", "", "is not UTF-8")
            report.read += number > 1
            # An empty line keeps the count of lines right.
            yield "\n" if number > 1 else ""
            continue
        yield text.replace("\x00", "\ufffd") if "\x00" in text else text


# The longest line a file may have; our columns together need a few hundred bytes.
_LONGEST_LINE = 64 * 1024


def _bounded(file: BinaryIO) -> Iterable[bytes]:
    buffered = file if isinstance(file, io.BufferedIOBase) else io.BufferedReader(file)  # type: ignore[type-var]
    while True:
        raw = buffered.readline(_LONGEST_LINE)
        if not raw:
            return
        yield raw
