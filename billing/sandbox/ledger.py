"""The gateway's own book: everything in memory for speed, and every change through the journal."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from billing.sandbox.journal import Journal
from billing.sandbox.model import BillingKey, Payment, Prepared, Schedule, Seen, Status


class Ledger:
    """Payments, billing keys, schedules and requests; `path` None keeps them in memory only.

    Changes are made in one step, without waiting in between, and are on the disk once `committed`
    returns. Raises `LedgerFileError`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._journal = Journal(path)
        self._forget()
        for payment in self._journal.rows(Payment):
            self._index(payment)
        for key in self._journal.rows(BillingKey):
            self.keys[key.customer_uid] = key
        for schedule in self._journal.rows(Schedule):
            self._index_schedule(schedule)
        for prepared in self._journal.rows(Prepared):
            self.prepared[prepared.merchant_uid] = prepared.amount
        for seen in self._journal.rows(Seen):
            self._index_seen(seen)

    def _forget(self) -> None:
        self.payments: list[Payment] = []
        self.keys: dict[str, BillingKey] = {}
        self.schedules: dict[str, Schedule] = {}
        self.prepared: dict[str, int] = {}
        self.requests: list[Seen] = []
        self.version = 0
        self._of_order: dict[str, list[int]] = defaultdict(list)
        self._of_customer: dict[str, list[int]] = defaultdict(list)
        self._by_imp_uid: dict[str, int] = {}
        self._times_asked: dict[str, int] = defaultdict(int)
        # What happens by itself later: (moment, payment number or schedule's merchant_uid).
        self._late: list[tuple[float, int]] = []
        self._planned: list[tuple[float, str]] = []

    @property
    def next_number(self) -> int:
        """The number that the next payment takes; numbers start at 1 and have no gaps."""
        return len(self.payments) + 1

    def of_order(self, merchant_uid: str) -> Sequence[Payment]:
        """All payments under a merchant_uid, in the order they were made."""
        return [self.payments[number - 1] for number in self._of_order.get(merchant_uid, ())]

    def of_customer(self, customer_uid: str) -> Sequence[Payment]:
        """All payments of a billing key, in the order they were made."""
        return [self.payments[number - 1] for number in self._of_customer.get(customer_uid, ())]

    def by_imp_uid(self, imp_uid: str) -> Payment | None:
        """One payment, None when there is none."""
        number = self._by_imp_uid.get(imp_uid)
        return None if number is None else self.payments[number - 1]

    def key(self, customer_uid: str) -> BillingKey | None:
        """A billing key that is in use, None when it was never made or is deleted."""
        found = self.keys.get(customer_uid)
        return None if found is None or found.deleted_at else found

    def times_asked(self, customer_uid: str) -> int:
        """How many `again` requests this customer has made so far."""
        return self._times_asked.get(customer_uid, 0)

    def next_turn(self, customer_uid: str) -> int:
        """Count one more `again` of this customer; which one it is, from 1."""
        self._times_asked[customer_uid] += 1
        return self._times_asked[customer_uid]

    def put(self, row: Payment | BillingKey | Schedule | Prepared) -> None:
        """Add a row, or replace the one with the same key."""
        self.version += 1
        match row:
            case Payment():
                self._index(row)
            case BillingKey():
                self.keys[row.customer_uid] = row
            case Schedule():
                self._index_schedule(row)
            case Prepared():
                self.prepared[row.merchant_uid] = row.amount
        self._journal.write(row)

    def saw(self, seen: Seen) -> None:
        """Add one request to the log."""
        self._index_seen(seen)
        self._journal.write(seen)

    def late_payments(self, now: float) -> Iterator[tuple[float, Payment]]:
        """Failed payments that turn paid at or before `now`, each once."""
        while self._late and self._late[0][0] <= now:
            moment, number = heapq.heappop(self._late)
            payment = self.payments[number - 1]
            if payment.status is Status.FAILED:
                yield moment, payment

    def planned_payments(self, now: float) -> Iterator[tuple[float, Schedule]]:
        """Payments that the gateway's own scheduler makes at or before `now`, each once."""
        while self._planned and self._planned[0][0] <= now:
            moment, merchant_uid = heapq.heappop(self._planned)
            schedule = self.schedules[merchant_uid]
            if schedule.status == "scheduled" and schedule.schedule_at == moment:
                yield moment, schedule

    def note(self, name: str, text: str) -> None:
        """Keep a single value across restarts."""
        self._journal.note(name, text)

    def noted(self, name: str) -> str | None:
        """A value kept by `note`."""
        return self._journal.noted(name)

    async def committed(self) -> None:
        """Return once every change so far is on the disk. Raises `sqlite3.Error`."""
        await self._journal.committed()

    def commit(self) -> None:
        """The same, at once. Raises `sqlite3.Error`."""
        self._journal.commit()

    def reset(self) -> None:
        """Forget everything, on the disk too."""
        self._journal.clear()
        self._forget()

    def close(self) -> None:
        """Let go of the file."""
        self._journal.close()

    def _index(self, payment: Payment) -> None:
        if payment.number < self.next_number:
            self.payments[payment.number - 1] = payment
        else:
            self.payments.append(payment)
            self._of_order[payment.merchant_uid].append(payment.number)
            self._of_customer[payment.customer_uid].append(payment.number)
            self._by_imp_uid[payment.imp_uid] = payment.number
        if payment.turns_paid_at and payment.status is Status.FAILED:
            heapq.heappush(self._late, (payment.turns_paid_at, payment.number))

    def _index_schedule(self, schedule: Schedule) -> None:
        self.schedules[schedule.merchant_uid] = schedule
        if schedule.status == "scheduled":
            heapq.heappush(self._planned, (float(schedule.schedule_at), schedule.merchant_uid))

    def _index_seen(self, seen: Seen) -> None:
        self.requests.append(seen)
        if seen.nth:
            self._times_asked[seen.customer_uid] = max(
                self._times_asked[seen.customer_uid], seen.nth
            )
