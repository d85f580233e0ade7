"""A month of the product's own use cases in one process, without a broker and without HTTP, and
what each step of it took: seconds, processor time here and of PostgreSQL (read from /proc, so on
Linux alone), and bytes of write-ahead log.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Engine, text

from billing.bootstrap import billing_policy
from billing.domain.outcome import Approved, Declined, Outcome
from billing.domain.payment import ChargeRequest, Payment
from billing.ports import PaymentGateway
from billing.services.answer import Result
from billing.services.charge import charge
from billing.services.desk import Desk
from billing.services.dispatch import dispatch
from billing.services.import_subscriptions import import_subscriptions
from billing.services.open_cycles import open_cycles
from billing.settings import Settings
from billing.store.session import Book
from rig import processors

# Everybody's day: the first attempt is at 10:00 in Seoul, the second at 18:00 of the next.
DUE = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
AGAIN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
# Messages that the threads of one charging process have in hand at once.
SIDE_BY_SIDE = 16
# Of the class "not today": tried again tomorrow.
_REFUSED = "반복적인 실패로 당일 결제가 불가합니다"


class Gateway:
    """Answers at once, in this process. Refuses the first try of one customer in `refuse_one_in`,
    where that is not 0."""

    def __init__(self, clock: Clock, refuse_one_in: int) -> None:
        self._clock = clock
        self._refuse_one_in = refuse_one_in
        self._asked = 0

    async def charge(self, request: ChargeRequest) -> Outcome:
        self._asked += 1
        first = request.merchant_uid.endswith("-01")
        if first and self._refuse_one_in and self._asked % self._refuse_one_in == 0:
            return Declined(_REFUSED, f"imp_{self._asked:012}")
        return Approved(f"imp_{self._asked:012}", request.amount, self._clock.now)

    async def payments_of_key(self, customer_uid: str, since: datetime) -> Sequence[Payment]:
        return ()

    async def payments_of_order(self, merchant_uid: str) -> Sequence[Payment]:
        return ()

    async def moment(self) -> datetime:
        return self._clock.now


@dataclass
class Clock:
    """Billing time, which stands still until it is moved."""

    now: datetime


class Queue:
    """Takes messages until somebody works on them."""

    def __init__(self) -> None:
        self.messages: list[list[int]] = []

    def charge(self, attempt_ids: Sequence[int]) -> None:
        self.messages.append(list(attempt_ids))

    def inquire(self, attempt_ids: Sequence[int]) -> None:
        raise AssertionError("no answer is lost here")

    def charges_waiting(self) -> int:
        return len(self.messages)

    def dispatch_soon(self) -> None: ...


class InThisThread(ThreadPoolExecutor):
    """Does at once, in the thread of the event loop, what would go to another: a profiler sees one
    thread alone."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@dataclass(frozen=True)
class Spent:
    """What one step took."""

    seconds: float
    python: float
    postgres: float
    log_bytes: int


@dataclass
class Month:
    """One month of many subscribers, all of whom are due on one day."""

    engine: Engine
    refuse_one_in: int = 0
    one_thread: bool = False
    spent: dict[str, Spent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A log line for each task of this many would be most of what is printed.
        quiet = structlog.make_filtering_bound_logger(logging.WARNING)
        structlog.configure(wrapper_class=quiet)
        self.clock = Clock(DUE - timedelta(days=1))
        self.book = Book(self.engine, lambda _: self.clock.now)
        settings = Settings.load(_env_file=None, charges_per_second=0, canary_charges=0)
        self.policy = billing_policy(settings)
        self.gateway: Any = Gateway(self.clock, self.refuse_one_in)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Note what the block took under a name."""
        before, log = self._postgres(), self._log_position()
        started, python = time.perf_counter(), time.process_time()
        yield
        seconds, python = time.perf_counter() - started, time.process_time() - python
        postgres = self._postgres() - before
        self.spent[name] = Spent(seconds, python, postgres, self._log_position() - log)

    def enrol(self, count: int) -> None:
        """The import, as a merchant's file."""
        with tempfile.TemporaryFile() as file:
            for line in _lines(count):
                file.write(line.encode())
            file.seek(0)
            report = import_subscriptions(self.book, self.policy, lambda: b"k" * 32, file)
        assert report.added == count, report

    def open(self) -> int:
        """The month of everybody, at the moment of the first attempts."""
        self.clock.now = DUE
        return open_cycles(self.book, self.policy)

    def charge(self, at: datetime) -> Counter[Result]:
        """Dispatch and charge what is ready at this moment."""
        self.clock.now = at
        queue, tally = Queue(), Counter[Result]()
        while dispatch(self.book, queue, self.policy):
            tally += asyncio.run(self._worked(queue))
        return tally

    async def _worked(self, queue: Queue) -> Counter[Result]:
        """All messages of the queue, some at once, as one charging process works on them."""
        gateway: PaymentGateway = self.gateway
        desk, tally = Desk(self.book, self.policy), Counter[Result]()
        if self.one_thread:
            asyncio.get_running_loop().set_default_executor(InThisThread())

        async def thread() -> None:
            while queue.messages:
                ids = queue.messages.pop(0)
                tally.update(await charge(self.book, gateway, self.policy, ids, desk=desk))

        await asyncio.gather(*(thread() for _ in range(SIDE_BY_SIDE)))
        return tally

    def one(self, query: str) -> Any:
        """One value of the book."""
        with self.engine.connect() as connection:
            return connection.execute(text(query)).scalar_one()

    def _postgres(self) -> float:
        return processors.of_server(int(self.one("SELECT pg_backend_pid()")))

    def _log_position(self) -> int:
        return int(self.one("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def _lines(count: int) -> Iterator[str]:
    yield "customer_uid,amount,order_name,initial_paid_at,buyer_name,buyer_tel\n"
    for number in range(count):
        yield (
            f"customer-{number},9900,월 정기결제,2026-10-20T12:00:00+09:00,홍길동,010{number:08}\n"
        )
