"""Where charges and questions hand in their answers, to be written down together.

A transaction costs far more than a row in it, so the first answer waits a moment for others, of its
own task or of another. Nothing is lost by it: what is not written yet is a claim with a lease.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from billing import trail
from billing.domain.policy import BillingPolicy
from billing.services.answer import Answer, Result
from billing.services.record import record
from billing.store.session import Book, is_away

_log = structlog.get_logger(__name__)

# What learns one answer, and hands it in by this.
Work = Callable[[Callable[[Answer], None]], Awaitable[None]]

# How long the first answer of a group waits for others.
_GATHERING_SECONDS = 0.25
# Answers of one transaction: more of them hold more rows for longer, and are hardly cheaper.
_AT_MOST = 200
# Between tries to write a record while the database is away.
_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _HandedIn:
    answer: Answer
    # On the event loop's clock.
    lease_ends: float
    written: asyncio.Future[Result]


class Desk:
    """One for all charges of a process and its event loop; one for each list of questions."""

    def __init__(self, book: Book, policy: BillingPolicy) -> None:
        self._book = book
        self._policy = policy
        self._awaited = 0
        self._group: list[_HandedIn] = []
        self._closing: asyncio.TimerHandle | None = None
        # Kept, since a loop holds its tasks weakly.
        self._writing: set[asyncio.Task[None]] = set()

    async def written(self, works: Sequence[Work], until: float) -> Counter[Result]:
        """Do all of this side by side; how many of the answers that were handed in ended how.

        What breaks in one is its own: it is raised when the others are written down. `until`: the
        moment on the event loop's clock up to which it is worth trying to.
        """
        self.expect(len(works))
        handed_in: list[asyncio.Future[Result]] = []

        def hand_in(answer: Answer) -> None:
            handed_in.append(self.hand_in(answer, until))

        try:
            ended = await asyncio.gather(*(work(hand_in) for work in works), return_exceptions=True)
        finally:
            # Also when we are told to stop: what answers there will be are in, and written down
            # first.
            self.expect(len(handed_in) - len(works))
            tally = Counter(await asyncio.shield(asyncio.gather(*handed_in)))
        if tally:
            counts = {str(result): count for result, count in tally.items()}
            _log.info("recorded", counts=counts)
        for failure in ended:
            if isinstance(failure, BaseException):
                raise failure
        return tally

    def expect(self, answers: int) -> None:
        """So many answers will be handed in, or so many fewer: while some are missing, others wait
        for them."""
        self._awaited += answers

    def hand_in(self, answer: Answer, lease_ends: float) -> asyncio.Future[Result]:
        """Take one of the expected answers; the future tells what became of it, once it is written
        down. It is, whoever stops waiting for it."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[Result] = loop.create_future()
        self._group.append(_HandedIn(answer, lease_ends, written))
        self._awaited -= 1
        if not self._awaited or len(self._group) >= _AT_MOST:
            self._close()
        elif self._closing is None:
            self._closing = loop.call_later(_GATHERING_SECONDS, self._close)
        return written

    def _close(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        group, self._group = self._group, []
        writing = asyncio.create_task(self._write(group))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def _write(self, group: Sequence[_HandedIn]) -> None:
        try:
            with trail.span("record"):
                await self._record(group)
        except BaseException as error:
            for one in group:
                if not one.written.done():
                    one.written.set_exception(error)
            if not isinstance(error, Exception):
                raise

    async def _record(self, group: Sequence[_HandedIn]) -> None:
        """Record a group; each half of it alone where something in it cannot be recorded, so that
        one does not keep the others waiting; again, while leases last, where the database is away.

        What cannot be written by then stays `sending`; its lease runs out and it is asked about.
        """
        while group:
            try:
                results = await asyncio.to_thread(self._recorded, [one.answer for one in group])
            except Exception as error:
                if len(group) > 1 and not is_away(error):
                    middle = len(group) // 2
                    await asyncio.gather(self._record(group[:middle]), self._record(group[middle:]))
                    return
                group = _without_hope(group, error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                _tell(group, results)
                return

    def _recorded(self, answers: Sequence[Answer]) -> Sequence[Result]:
        # Not at once again: of a group its halves are tried, and what is left after a while.
        return self._book.run(lambda tx: record(tx, self._policy, answers), tries=1)


def _without_hope(group: Sequence[_HandedIn], error: Exception) -> Sequence[_HandedIn]:
    """Those of a group to try again; the others are told that they are not recorded."""
    now = asyncio.get_running_loop().time()
    # What the database refuses, it refuses again.
    refused = isinstance(error, IntegrityError | DataError)
    worth = isinstance(error, SQLAlchemyError) and not refused
    left: list[_HandedIn] = []
    lost: list[_HandedIn] = []
    for one in group:
        (left if worth and now < one.lease_ends else lost).append(one)
    for one in lost:
        # Never the error's own text: it may hold a row of somebody's data.
        _log.error("unrecorded", attempt=one.answer.attempt_id, error=type(error).__name__)
    _tell(lost, [Result.UNRECORDED] * len(lost))
    return left


def _tell(group: Sequence[_HandedIn], results: Sequence[Result]) -> None:
    for one, result in zip(group, results, strict=True):
        if not one.written.done():
            one.written.set_result(result)
