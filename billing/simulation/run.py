"""One run: a scenario in, what happened and what was broken out."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, event, text

from billing import clock
from billing.bootstrap import billing_policy
from billing.services import invariants
from billing.settings import Settings
from billing.simulation import befall, event_judge, ledger_judge, operating, refund_judge, stage
from billing.simulation.cast import Cast, Drawn
from billing.simulation.counters import sometimes
from billing.simulation.evidence import Evidence, History, gather, history, limits_of
from billing.simulation.ledger_judge import Breach, Rules
from billing.simulation.loop import VirtualLoop
from billing.simulation.months import MonthRow, month_rows
from billing.simulation.nemesis import Nemesis, SwarmNemesis
from billing.simulation.people import Person, population, troubles
from billing.simulation.swarm import NOTHING, Swarm, drawn, mood_of
from billing.simulation.world import Line, World
from billing.store import views
from billing.store.session import Book

_MONTH: Final = timedelta(days=30.4375)
# Facts are checked on the way: after every commit that wrote, so that no breach mends itself
# unseen; of a large book once a day. While our processes are down nothing is opened or closed in
# time: I4 is for the end.
_CHECK_EVERY: Final = timedelta(days=1)
_AT_THE_END: Final = ("I4",)
# Hashes over every event cost more than all other facts together: less often.
_HASHES: Final = ("I7 nothing was edited", "I7 archives")
_HASHES_EVERY: Final = 15
_EDITS_SHOW: Final = ("I3 never another amount",)
# After the last fault everything must be settled or under way again within this.
_RECOVERED_AFTER: Final = timedelta(minutes=75)
# What is tried every hour may have to wait for the next day's slot, once.
_COMPARED_AFTER: Final = timedelta(hours=28)
# The clock is compared every five minutes, before charging; a request may be long under way.
_NOTICED_AFTER: Final = timedelta(minutes=8)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides a run. Two equal scenarios are one run, bit for bit."""

    seed: int
    months: float = 12
    subscribers: int = 24
    chaos: bool = True
    start: datetime | None = None
    # What ordinary life does to one subscriber in one month; None: drawn by the seed.
    trouble: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    # A sandbox's faults document, and rates of faults, over what the seed draws.
    faults: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, float] | None = None
    outages: Sequence[tuple[datetime, datetime]] = ()
    # To make a failure smaller: leave kinds of fault out, keep only some subscribers, shuffle the
    # nemesis's dice.
    without: frozenset[str] = frozenset()
    only: tuple[int, ...] = ()
    twist: int = 0
    # Whether the gateway tells our edge of payments; None: with chaos.
    announced: bool | None = None


@dataclass(slots=True)
class Report:
    """What one run came to."""

    scenario: Scenario
    breaches: list[Breach]
    figures: Counter[str]
    struck: Counter[str]
    sometimes: Counter[str]
    digest: str
    days: float
    seconds: float
    months: list[MonthRow]
    lines: list[Line]
    evidence: Evidence
    status: dict[str, Any]
    start: datetime
    end: datetime

    @property
    def ok(self) -> bool:
        return not self.breaches


def simulate(
    scenario: Scenario,
    engine: Engine,
    *,
    settings: Settings | None = None,
    cast: Cast | None = None,
    nemesis: Nemesis | None = None,
) -> Report:
    """Run a scenario in an empty book (what is in it is thrown away).

    `cast` replaces the people that the seed draws, `nemesis` what strikes.
    """
    began = clock.monotonic()
    stage.empty(engine)
    run = _Run(scenario, engine, settings or Settings.load(), cast, nemesis)
    # What nobody looked at is found when it is collected: at the end, not at moments of chance.
    gc.disable()
    try:
        run.loop.run_until_complete(run.play())
    finally:
        run.end()
        gc.enable()
        gc.collect()
    return run.report(clock.monotonic() - began)


class _Run:
    def __init__(
        self,
        scenario: Scenario,
        engine: Engine,
        settings: Settings,
        cast: Cast | None,
        nemesis: Nemesis | None,
    ) -> None:
        self.scenario = scenario
        self.engine = engine
        self.settings = settings
        seed = str(scenario.seed)
        dice = random.Random(f"{seed}/scenario")  # noqa: S311 - repeatable on purpose
        self.start = scenario.start or _some_start(dice)
        self.loop = VirtualLoop(self.start)
        self.finish = self.start + scenario.months * _MONTH
        chaos = scenario.chaos
        self.swarm = drawn(dice).without(scenario.without) if chaos else NOTHING
        if scenario.rates is not None:
            self.swarm = Swarm(scenario.rates)
        calm_at = self.start + (self.finish - self.start) * dice.uniform(0.55, 0.95)
        self.calm_at = calm_at if chaos else self.finish
        drawn_settings = _some_settings(dice) if chaos else {}
        trouble = dice.choice((0.05, 0.15, 0.4)) if chaos else 0.08
        self.policy = billing_policy(
            settings.model_copy(update={**drawn_settings, **scenario.settings})
        )
        mood = {**(mood_of(self.swarm, dice) if chaos else {}), **scenario.faults}
        self.nemesis: Nemesis = nemesis or SwarmNemesis(
            self.loop,
            self.swarm,
            f"{seed}/nemesis/{scenario.twist}",
            (self.calm_at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds(),
        )
        self.world = World(
            self.loop,
            engine,
            self.policy,
            self.nemesis,
            seed=f"{seed}/{scenario.twist}",
            faults=mood,
            announced=chaos if scenario.announced is None else scenario.announced,
        )
        self.cast = cast or Drawn(self._drawn(seed))
        self.people: Sequence[Person] = ()
        self.trouble = trouble if scenario.trouble is None else scenario.trouble
        self.book = Book(engine, self.world.database_time, pause=lambda _: None)
        self.found: list[Breach] = []
        # Of a fact that stays broken only the first look is told.
        self.said: set[str] = set()
        self.before = History(frozenset(), frozenset())
        self.written = False

    def _drawn(self, seed: str) -> list[Person]:
        everybody = population(seed, self.scenario.subscribers, self.start)
        only = self.scenario.only
        return [one for number, one in enumerate(everybody, 1) if not only or number in only]

    async def play(self) -> None:
        world, until = self.world, self.calm_at.timestamp()
        self.people = self.cast.enter(world, self.book)
        world.crowd = len(self.people)
        if world.is_small:
            world.on_commit = self._look_again
            event.listen(self.engine, "after_cursor_execute", self._notice_writing)
        self.before = history(self.engine)
        befalls = troubles(
            str(self.scenario.seed), self.people, self.start, self.finish, self.trouble
        )
        world.loop.outside(befall.drift(world, until))
        for fate in befall.all_of(world, self.people, until):
            world.loop.outside(fate)
        world.loop.outside(befall.lives(world, befalls))
        world.loop.outside(befall.down_between(world, self.scenario.outages))
        world.loop.outside(operating.releases(world))
        world.loop.outside(self._checks())
        beat = world.loop.outside(world.beat())
        await self._until(self.calm_at, beat)
        befall.calm(world)
        if self.scenario.chaos:
            await self._until(self.calm_at + _RECOVERED_AFTER, beat)
            self._alive()
            await self._until(self.finish, beat)
        await self._at_rest(beat)
        world.sandbox.settle()

    async def _until(self, moment: datetime, beat: asyncio.Task[None]) -> None:
        await asyncio.sleep(max((moment - self.loop.now()).total_seconds(), 0.0))
        if beat.done():
            beat.result()

    async def _at_rest(self, beat: asyncio.Task[None]) -> None:
        """Go on until nothing is under way and nothing is unknown that could be known."""
        for _ in range(48):
            if self.world.is_quiet() and not self._count(_UNSETTLED):
                return
            await self._until(self.loop.now() + timedelta(minutes=10), beat)

    async def _checks(self) -> None:
        while True:
            for _ in range(_HASHES_EVERY):
                await asyncio.sleep(_CHECK_EVERY.total_seconds())
                self._look()
            self._note(
                one
                for one in invariants.broken(self.book, self.policy)
                if not one.name.startswith(_AT_THE_END)
            )

    def _notice_writing(self, _: Any, cursor: Any, statement: str, *__: Any) -> None:
        reads = statement.lstrip("( \n").startswith(("SELECT", "SET"))
        self.written = self.written or (not reads and cursor.rowcount != 0)

    def _look_again(self) -> None:
        if self.written:
            self._look()
            self.written = False

    def _look(self) -> None:
        but = (*_AT_THE_END, *_HASHES)
        self._note(invariants.at_once(self.book, self.policy, but=but))

    def _note(self, broken: Iterable[invariants.Checked]) -> None:
        for one in broken:
            if one.name in self.said or self._is_known_edit(one):
                continue
            self.said.add(one.name)
            self.found.append(Breach(one.name, "", f"{one.statement} rows {one.rows[:5]}"))

    def _is_known_edit(self, broken: invariants.Checked) -> bool:
        """Whether the fact tells of nothing but rows that were edited here. (What is charged and
        when is judged by the gateway's ledger all the same.)"""
        if not self.world.edited or not broken.name.startswith(_EDITS_SHOW):
            return False
        with self.engine.begin() as connection:
            query = text("SELECT id FROM subscriptions WHERE customer_uid = ANY(:who)")
            known = connection.execute(query, {"who": sorted(self.world.edited)}).scalars().all()
        return set(broken.rows) <= set(known)

    def _alive(self) -> None:
        """I12: the faults are over; nothing may be left lying."""
        for name, statement in _LEFT.items():
            if count := self._count(statement):
                self.found.append(Breach("I12", "", f"{count} {name} after the faults"))
        if self.world.has_past and (count := self._count(_OPEN_REFUNDS)):
            self.found.append(Breach("I12", "", f"{count} refunds unsettled after the faults"))

    def _not_compared(self, ended_at: datetime) -> Iterator[Breach]:
        """I12: a reconciliation that was wanted is made, once the faults are over."""
        since = self.world.look_back.tried_since
        if since is not None and ended_at - max(since, self.calm_at) > _COMPARED_AFTER:
            yield Breach("I12", "", f"no whole reconciliation since {since:%Y-%m-%d %H:%M}")

    def _count(self, statement: str) -> int:
        now = self.world.database_time_now()
        with self.engine.begin() as connection:
            return int(connection.execute(text(statement), {"now": now}).scalar_one())

    def end(self) -> None:
        """Let go of everything that still runs."""
        if event.contains(self.engine, "after_cursor_execute", self._notice_writing):
            event.remove(self.engine, "after_cursor_execute", self._notice_writing)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.set_exception_handler(lambda *_: None)
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def report(self, seconds: float) -> Report:
        self._note(invariants.broken(self.book, self.policy))
        evidence = gather(self.engine, self.world, self.before)
        ended_at = self.loop.now()
        steps = bool(self.swarm.rate("clock_step_a_month") or self.swarm.rate("clock_drift"))
        slack = timedelta(minutes=8 if steps else 1)
        plan = self.policy.plan
        rules = Rules(
            margin=plan.close_margin,
            slack=slack,
            most_declines=plan.max_attempts,
            most_a_day=plan.attempts_per_day,
            in_flight=self.policy.deadline + timedelta(seconds=30),
        )
        limits = limits_of(
            self.world, steady=not steps, slack=slack, ended_at=ended_at, set_back=self._set_back()
        )
        breaches = [
            *self.found,
            *ledger_judge.judge(
                evidence.anchors,
                evidence.paid,
                evidence.asked,
                evidence.looked,
                evidence.months,
                rules,
            ),
            *event_judge.judge(evidence.told, evidence.asked, evidence.ends, limits),
            *refund_judge.judge(
                evidence.paid,
                evidence.months,
                evidence.told,
                evidence.back,
                self.policy.lease + slack,
            ),
            *self._while_wrong(evidence),
            *self._not_compared(ended_at),
            *(
                Breach("uncaught", "", f"{type(error).__name__}: {error}"[:300])
                for error in (*self.world.surprises, *self.loop.surprises)
            ),
        ]
        return Report(
            scenario=self.scenario,
            breaches=breaches,
            figures=self._figures(evidence),
            struck=self.nemesis.struck,
            sometimes=sometimes(evidence, self.world),
            digest=evidence.digest,
            days=(ended_at - self.start) / timedelta(days=1),
            seconds=seconds,
            months=month_rows(evidence),
            lines=self.world.lines,
            evidence=evidence,
            status=self._status(),
            start=self.start,
            end=ended_at,
        )

    def _set_back(self) -> Iterator[tuple[datetime, datetime]]:
        """From when until when each book that was set back was nobody's: until it was released."""
        released = [at.at for at in self.world.lines if at.what == "released by the operator"]
        for _, since in self.world.forgot:
            yield since, min((at for at in released if at > since), default=self.loop.now())

    def _while_wrong(self, evidence: Evidence) -> Iterator[Breach]:
        """I10: nothing is sent while the book's clock is wrong, once that could be noticed."""
        begins: datetime | None = None
        spans: list[tuple[datetime, datetime]] = []
        for line in self.world.lines:
            if line.what == "database clock wrong":
                begins = line.at + _NOTICED_AFTER
            elif line.what == "database clock right" and begins is not None:
                spans.append((begins, line.at))
        for one in evidence.asked:
            if not one.excused and any(since < one.at < until for since, until in spans):
                yield Breach("I10", one.customer, f"{one.order} asked while the clock was wrong")

    def _status(self) -> dict[str, Any]:
        """The same counts as the command `status`."""
        with self.book.transaction() as tx:
            policy = self.policy
            found = views.status(tx.session, tx.now, policy.closing_soon, policy.plan.zone)
        return {**found, "invariants_broken": len(invariants.broken(self.book, self.policy))}

    def _figures(self, evidence: Evidence) -> Counter[str]:
        ledger = self.world.sandbox.ledger
        return Counter(
            charges=len(evidence.asked),
            requests=len(ledger.requests),
            paid=sum(one.ours for one in evidence.paid),
            won=sum(one.amount for one in evidence.paid if one.ours),
            cycles=len(evidence.months),
            events=len(evidence.told),
            faults=sum(self.nemesis.struck.values())
            + sum(bool(one.fault) for one in ledger.requests),
        )


# Unknown although nobody has to look at it, or claimed and never given up.
_UNSETTLED: Final = """
    SELECT count(*) FROM attempts a JOIN cycles c ON c.id = a.cycle_id
    WHERE a.status IN ('sending', 'unknown') AND c.held IS NULL AND c.status = 'open'
"""
# Due for half an hour, with an hour left, and nothing that forbids to send it.
_LYING: Final = """
    SELECT count(*) FROM attempts a JOIN cycles c ON c.id = a.cycle_id
    JOIN subscriptions s ON s.id = c.subscription_id, installation i
    WHERE a.status = 'due' AND a.ready_at < CAST(:now AS timestamptz) - interval '30 minutes'
    AND c.band_opens_at < CAST(:now AS timestamptz) - interval '30 minutes'
    AND c.last_start_at > CAST(:now AS timestamptz) + interval '1 hour'
    AND c.held IS NULL AND c.status = 'open' AND s.status = 'active' AND i.hold_reason IS NULL
"""
_LEFT: Final = {
    "attempts unsettled": _UNSETTLED,
    "attempts not asked for": _LYING,
    "announcements not looked at": """
        SELECT count(*) FROM webhooks WHERE looked_at IS NULL
        AND look_at < CAST(:now AS timestamptz) - interval '35 minutes'
    """,
}
_OPEN_REFUNDS: Final = """
    SELECT count(*) FROM refunds WHERE status IN ('requested', 'sending', 'unknown')
    AND requested_at < CAST(:now AS timestamptz) - interval '75 minutes'
"""


def _some_start(dice: random.Random) -> datetime:
    """Any minute of five years with a leap year among them."""
    minutes = dice.randrange(5 * 365 * 24 * 60)
    return datetime(2023, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)


def _some_settings(dice: random.Random) -> dict[str, Any]:
    """Settings a merchant might choose."""
    return {
        "charge_batch": dice.choice((1, 5, 50, 50)),
        "charges_per_second": dice.choice((0, 5, 50)),
        "charge_cron": dice.choice(("0 10 * * *", "0 10 * * *", "30 0 * * *", "0 9,21 * * *")),
        "retry_cron": dice.choice(("0 10,18 * * *", "0 8,20 * * *", "*/30 9-22 * * *")),
        "attempts_per_day": dice.choice((1, 2, 3)),
        "max_attempts": dice.choice((3, 8, 8)),
    }
