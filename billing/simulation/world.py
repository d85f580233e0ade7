"""The whole simulated world of one run: clock, database, gateway, processes, and what befalls them.

Nobody waits for real and nothing reads a real clock, so one seed is one run, bit for bit.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from starlette.types import ASGIApp

from billing.domain.policy import BillingPolicy
from billing.sandbox import Sandbox, SandboxClock, create_app, mood
from billing.services.answer import Result
from billing.simulation.announced import Announcements
from billing.simulation.lookback import LookBack
from billing.simulation.loop import VirtualLoop
from billing.simulation.nemesis import Nemesis
from billing.simulation.processes import Mail, Process, is_progress, tick_job
from billing.simulation.wire import Named, Sent
from billing.store.session import by_index

TICKS: Final = ("open", "dispatch", "inquire", "close", "refund", "webhooks")
_MINUTE: Final = 60.0
# A tick that finds nothing changes nothing, so the next is made when something is due (in database
# time). With something due that does not move on, ticks come less and less often.
_RAREST: Final = 1_800.0
_LONGEST_SLEEP: Final = 86_400.0
# A plan that was made when the book was empty reads, of more subscribers than this, a whole table
# for each of its rows; planning anew each time is worth it.
_A_FEW: Final = 500

# When each tick has something to do next. Written apart from the use cases' own queries, and only
# to save ticks: a moment too early costs one, and every wait has an upper bound.
_AGENDA: Final = text(
    """
    SELECT
        (SELECT next_due_at FROM subscriptions s WHERE status = 'active' AND NOT EXISTS
            (SELECT FROM cycles c WHERE c.subscription_id = s.id AND c.status = 'open')
            ORDER BY next_due_at LIMIT 1),
        (SELECT min(greatest(a.ready_at, c.band_opens_at, a.dispatched_at + :again))
            FROM attempts a JOIN cycles c ON c.id = a.cycle_id
            JOIN subscriptions s ON s.id = c.subscription_id
            WHERE a.status = 'due' AND c.status = 'open' AND c.held IS NULL
            AND s.status = 'active' AND c.last_start_at >= :now),
        least((SELECT min(lease_until) FROM attempts WHERE status = 'sending'),
            (SELECT min(ask_at) FROM attempts WHERE status = 'unknown')),
        least(
            (SELECT min(closes_at) FROM cycles WHERE status = 'open'),
            (SELECT closes_at - :soon FROM cycles
                WHERE status = 'open' AND closing_soon_at IS NULL ORDER BY closes_at LIMIT 1),
            (SELECT next_closes_at FROM subscriptions s WHERE status = 'paused' AND NOT EXISTS
                (SELECT FROM cycles c WHERE c.subscription_id = s.id AND c.status = 'open')
                ORDER BY next_closes_at LIMIT 1),
            (SELECT min(a.settled_at) + interval '30 seconds' FROM attempts a
                JOIN cycles c ON c.id = a.cycle_id JOIN subscriptions s ON s.id = c.subscription_id,
                installation i WHERE a.status = 'declined' AND c.status = 'open'
                AND c.held = 'unconfirmed' AND s.status IN ('active', 'paused')
                AND i.hold_reason IS NULL)),
        (SELECT min(CASE status WHEN 'sending' THEN lease_until ELSE coalesce(ask_at, :now) END)
            FROM refunds WHERE status IN ('requested', 'sending', 'unknown')),
        (SELECT min(look_at) FROM webhooks WHERE looked_at IS NULL)
    """
)


@dataclass(slots=True)
class Line:
    """One thing that happened around the engine, for the story of a failure."""

    at: datetime
    what: str
    data: Mapping[str, Any] = field(default_factory=dict)


class World:
    """Everything of one run. `begin` starts its processes; the caller lets the loop run."""

    def __init__(
        self,
        loop: VirtualLoop,
        engine: Engine,
        policy: BillingPolicy,
        nemesis: Nemesis,
        *,
        seed: str,
        faults: Mapping[str, Any],
        workers: int = 2,
        announced: bool = False,
    ) -> None:
        self.loop = loop
        self.engine = engine
        self.policy = policy
        self.nemesis = nemesis
        self.dice = random.Random(f"{seed}/world")  # noqa: S311 - repeatable on purpose
        # Whose settings expect test payments has a test channel.
        tested = {**faults, "test_mode": True} if policy.sandbox else faults
        self.sandbox = Sandbox(
            seed=self.dice.getrandbits(32), clock=SandboxClock(loop.now), mood=mood(tested)
        )
        self.app: ASGIApp = create_app(self.sandbox)
        self.mail = Mail(self)
        # How far the database's clock is ahead of the gateway's: set wrong, and strayed.
        self.stepped = self.strayed = timedelta(0)
        self.database_is_down = self.broker_is_down = self.way_is_down = False
        self.ticks_are_down = self.lookups_are_down = False
        self.out = False
        self.forgot: list[tuple[datetime, datetime]] = []
        """From when until when each book that was set back has forgotten everything."""
        self.caught_up_at = loop.now()
        self.broker_stays = False
        """Whether what the broker keeps is all by which a book that was set back is noticed."""
        self.cancelled: dict[str, datetime] = {}
        """Customers who were cancelled by hand, and when."""
        self.edited: set[str] = set()
        """Customers whose row somebody edited with the database's own tools."""
        self.sent: list[Sent] = []
        self.asked_back: list[Named] = []
        """Requests to give a payment back that reached the gateway."""
        self.looked_up: list[Named] = []
        """Payments that the gateway was asked about by their id, and answered."""
        self.surprises: list[BaseException] = []
        self.tallies: Counter[str] = Counter()
        self.lines: list[Line] = []
        self.crowd = 0
        """How many subscribers there are."""
        self.has_past = True
        """Whether the gateway knows every payment that the book knows."""
        self.progress = 0
        self.on_commit: Callable[[], None] = lambda: None
        """Called after each commit of a process of ours."""
        self._woken = asyncio.Event()
        self.workers = [Process(self, f"worker{number}") for number in range(1, workers + 1)]
        self.ticker = Process(self, "ticks")
        self.operator = Process(self, "operator")
        self.edge = Process(self, "edge")
        self.begun_at = loop.now()
        self.look_back = LookBack(self, policy.plan.zone)
        if announced:
            self.sandbox.webhooks = Announcements(self)

    # -- what the processes see ---------------------------------------------------------------

    def database_time(self, _: Session) -> datetime:
        """The database's own clock; it may be ahead of the world's, or behind."""
        return self.database_time_now()

    def chosen(self, free: Sequence[Process]) -> Process:
        return free[self.dice.randrange(len(free))]

    def note(self, kind: str, tally: Counter[Result]) -> None:
        """Count what a worker's job came to."""
        for result, count in tally.items():
            self.tallies[f"{kind}:{result}"] += count
        if is_progress(tally):
            self.progress += 1

    def tell(self, what: str, **data: Any) -> None:
        """Keep a line for the story."""
        self.lines.append(Line(self.loop.now(), what, data))

    # -- the life of processes ----------------------------------------------------------------

    def restart(self, dead: Process) -> None:
        """The supervisor brings a dead process back, unless everything is down."""
        if self.out:
            self.loop.later_outside(_MINUTE, self.restart, dead)
            return
        fresh = Process(self, dead.name, dead.life + 1)
        if dead in self.workers:
            self.workers[self.workers.index(dead)] = fresh
            self.mail.hand_over()
        elif dead is self.ticker:
            self.ticker = fresh
        elif dead is self.operator:
            self.operator = fresh
        elif dead is self.edge:
            self.edge = fresh
        self.wake()

    def take_database_down(self, seconds: float) -> None:
        """The database is away for so long, from now on."""

        def back() -> None:
            self.database_is_down = False
            self.wake()

        self.database_is_down = True
        self.tell("database down", seconds=round(seconds))
        self.loop.later_outside(seconds, back)

    def kill_all(self) -> None:
        """Everything of ours is down, and stays so until `out` is lifted."""
        self.out = True
        for process in (*self.workers, self.ticker, self.operator, self.edge):
            process.kill()

    # -- beat ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may have become due."""
        self._woken.set()

    def tick(self, name: str) -> None:
        """Run one tick in the tick worker, if there is one."""
        if self.ticker.dead or self.ticks_are_down or self.out:
            return
        self.ticker.start(tick_job(name))
        if self.nemesis.strikes("tick_doubled"):
            self.ticker.start(tick_job(name))

    async def beat(self) -> None:
        """Every minute as a rule; minutes in which nothing is due are passed over."""
        wait, seen, sealed_at = _MINUTE, self.progress, self.loop.time()
        while True:
            due, next_at = self._agenda()
            if self.loop.time() - sealed_at >= _LONGEST_SLEEP:
                sealed_at = self.loop.time()
                self.tick("seal")
            due_now = self.looks_back and self.look_back.is_due()
            if due_now and not self.nemesis.strikes("tick_missed"):
                self.tick("reconcile")
            for name in TICKS:
                useless = name not in due
                if useless and not self.nemesis.strikes("idle_tick"):
                    continue
                if not useless and self.nemesis.strikes("tick_missed"):
                    continue
                self.tick(name)
            if due:
                wait = _MINUTE if self.progress > seen else min(wait * 1.6, _RAREST)
                seen = self.progress
                await asyncio.sleep(_to_the_minute(self.loop.time(), wait))
            else:
                wait = _MINUTE
                await self._sleep_until(next_at)

    @property
    def is_small(self) -> bool:
        """Whether there are so few subscribers that much may be asked about each, often."""
        return self.crowd <= _A_FEW

    @property
    def looks_back(self) -> bool:
        """Whether reconciliation is played: a large book asks about ten thousand keys a day."""
        return self.has_past and self.is_small

    async def _sleep_until(self, moment: datetime | None) -> None:
        self._woken.clear()
        seconds = _LONGEST_SLEEP
        if moment is not None:
            seconds = (moment - self.database_time_now()).total_seconds()
        if self.looks_back:
            until_slot = (self.look_back.next_at - self.loop.now()).total_seconds()
            seconds = min(seconds, until_slot)
        left = min(max(seconds, 0.0), _LONGEST_SLEEP)
        try:
            async with asyncio.timeout(left):
                await self._woken.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(_to_the_minute(self.loop.time(), 1.0))

    def database_time_now(self) -> datetime:
        return self.loop.now() + self.stepped + self.strayed

    def _agenda(self) -> tuple[set[str], datetime | None]:
        """Which ticks have something to do now, and when the next one will."""
        now = self.database_time_now()
        values = {
            "now": now,
            "again": self.policy.lost_after(drained=not self.mail.charges_waiting),
            "soon": self.policy.closing_soon,
        }
        with Session(self.engine) as session, session.begin():
            if not self.is_small:
                by_index(session)
            row = session.execute(_AGENDA, values).one()
        moments = {
            name: at.astimezone(UTC) for name, at in zip(TICKS, row, strict=True) if at is not None
        }
        if not self.has_past:
            # Of a payment that the gateway does not know nothing can be learnt.
            moments.pop("refund", None)
        due = {name for name, at in moments.items() if at <= now}
        return due, min(moments.values(), default=None)

    def is_quiet(self) -> bool:
        """Nothing of ours runs and nothing is on its way."""
        return self.mail.is_empty and not any(
            process.busy for process in (*self.workers, self.ticker, self.edge)
        )

    def run(self, work: Callable[[World], Any]) -> Any:
        """Run `work` to its end."""
        return self.loop.run_until_complete(work(self))


def _to_the_minute(now: float, at_least: float) -> float:
    """Seconds to the first whole minute that is at least so far away."""
    later = now + at_least
    return later + (-later % _MINUTE) - now
