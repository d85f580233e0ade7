"""A batch of charges: who waits for whom, what is told, and what a database may hide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import LogCapture

from billing import trail
from billing.domain.outcome import Outcome
from billing.domain.policy import BillingPolicy
from billing.ports import ChargeRequest
from billing.services.answer import Answer, Result
from billing.services.charge import charge
from billing.services.desk import Desk
from billing.services.dispatch import dispatch
from billing.services.open_cycles import open_cycles
from billing.store import installation
from billing.store.session import Book
from tests.builders import query
from tests.conftest import MovedClock
from tests.world import World


@pytest.fixture
def policy(make_policy: Callable[..., BillingPolicy]) -> BillingPolicy:
    return make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)


@pytest.fixture
def world(book: Book, policy: BillingPolicy, clock: MovedClock) -> World:
    return World(book, policy, clock)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    captured = LogCapture()
    monkeypatch.setattr("billing.services.charge._log", structlog.wrap_logger(None, [captured]))
    return captured.entries


def dispatched(world: World, *names: str) -> list[int]:
    """Attempts that wait for a worker."""
    world.enrol(*names)
    open_cycles(world.book, world.policy)
    dispatch(world.book, world, world.policy)
    return [one for _ in range(len(world.charges)) for one in world.charges.popleft()]


def outcomes(world: World) -> dict[str, str]:
    return dict(
        query(
            world.book,
            "SELECT subscriptions.customer_uid, attempts.status FROM attempts"
            " JOIN cycles ON cycles.id = cycle_id"
            " JOIN subscriptions ON subscriptions.id = subscription_id",
        )
    )


def test_one_that_ends_with_its_worker_keeps_no_answer_of_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch ends with that error, and not before its neighbour's answer is written down."""
    ids = dispatched(world, "ends", "goes-on")

    async def run() -> None:
        client = world.client()
        as_ever = client.charge

        async def some_end(request: ChargeRequest) -> Outcome:
            if request.customer_uid == "ends":
                raise asyncio.CancelledError
            await asyncio.sleep(1)
            return await as_ever(request)

        monkeypatch.setattr(client, "charge", some_end)
        try:
            with pytest.raises(asyncio.CancelledError):
                await charge(world.book, client, world.policy, ids)
            assert outcomes(world) == {"ends": "unknown", "goes-on": "approved"}
        finally:
            await client.aclose()

    asyncio.run(run())


class _Counting(Desk):
    """Counts the answers that are written down together."""

    def __init__(self, book: Book, policy: BillingPolicy) -> None:
        super().__init__(book, policy)
        self.groups: list[int] = []

    def _recorded(self, answers: Sequence[Answer]) -> Sequence[Result]:
        self.groups.append(len(answers))
        return super()._recorded(answers)


def test_tasks_of_one_process_share_a_desk(world: World) -> None:
    """The answers of two tasks that end together are recorded together."""
    ids = dispatched(world, *(f"customer-{number}" for number in range(6)))
    desk = _Counting(world.book, world.policy)

    async def run() -> None:
        client = world.client()
        try:
            await asyncio.gather(
                *(
                    charge(world.book, client, world.policy, half, desk=desk)
                    for half in (ids[:3], ids[3:])
                )
            )
        finally:
            await client.aclose()

    asyncio.run(run())
    assert set(outcomes(world).values()) == {"approved"}
    assert sum(desk.groups) == 6


def test_what_was_claimed_and_recorded_is_told_by_number(world: World, logged: list[Any]) -> None:
    ids = dispatched(world, "ada", "bob")
    world.charge(ids)
    world.work()
    assert [(entry["event"], entry.get("attempts")) for entry in logged] == [
        ("claimed", ids),
        ("recorded", None),
    ]
    assert logged[1]["counts"] == {"approved": 2}
    logged.clear()
    # The same message once more: nothing is claimed, and nothing said.
    world.charge(ids)
    world.work()
    assert logged == []


class _Remembers:
    """Redis, for a database that tells what it is."""

    def __init__(self) -> None:
        self.raised: list[tuple[str, int]] = []

    async def seen(self) -> dict[str, int]:
        return {}

    async def raise_to(self, database: str, number: int) -> None:
        self.raised.append((database, number))


def test_a_database_that_hides_what_it_is_charges_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hosted ones do: then there is nothing to remember its events by."""
    world.watermark = remembers = _Remembers()
    ids = dispatched(world, "ada")
    monkeypatch.setattr(installation, "_WHERE", text("SELECT hidden FROM nowhere"))
    world.charge(ids)
    world.work()
    assert outcomes(world) == {"ada": "approved"}
    assert remembers.raised == []


def test_the_newest_event_is_remembered_before_the_charge_leaves(world: World) -> None:
    world.watermark = remembers = _Remembers()
    world.charge(dispatched(world, "ada"))
    world.work()
    ((database, number),) = remembers.raised
    assert database
    assert 0 < number < query(world.book, "SELECT max(id) FROM events")[0][0]


def at_once(world: World, desk: Desk, ids: list[int]) -> None:
    """Charge them with a desk that would make an answer wait for others for an hour."""

    async def run() -> None:
        client = world.client()
        try:
            async with asyncio.timeout(20):
                await charge(world.book, client, world.policy, ids, desk=desk)
        finally:
            await client.aclose()

    asyncio.run(run())


def test_a_batch_whose_answers_are_all_in_waits_for_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.services.desk._GATHERING_SECONDS", 3600)
    desk = Desk(world.book, world.policy)
    ids = dispatched(world, "ada", "bob", "eve")
    at_once(world, desk, ids[:2])
    at_once(world, desk, ids[2:])
    assert set(outcomes(world).values()) == {"approved"}


class _ToldToStop(Desk):
    """Its worker is told to stop between the claim and the first look-up."""

    def expect(self, answers: int) -> None:
        super().expect(answers)
        if answers > 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()


def test_nobody_waits_for_answers_that_will_not_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.services.desk._GATHERING_SECONDS", 3600)
    desk = _ToldToStop(world.book, world.policy)
    ids = dispatched(world, "ada", "bob")
    with pytest.raises(asyncio.CancelledError):
        at_once(world, desk, ids[:1])
    # What was claimed keeps its lease, and is asked about when that is over.
    assert outcomes(world) == {"ada": "sending", "bob": "due"}
    monkeypatch.setattr(desk, "expect", lambda answers: Desk.expect(desk, answers))
    at_once(world, desk, ids[1:])
    assert outcomes(world) == {"ada": "sending", "bob": "approved"}


def test_no_more_is_claimed_than_can_start_in_time(
    book: Book, clock: MovedClock, make_policy: Callable[..., BillingPolicy], logged: list[Any]
) -> None:
    """By the time that a place under the ceiling comes up, the look-ups must still fit in."""
    slow = make_policy(charge_cron="* * * * *", charges_per_second=1, canary_charges=0)
    world = World(book, slow, clock)
    ids = dispatched(world, *(f"customer-{number:02d}" for number in range(30)))

    async def run() -> None:
        world.charge(ids)
        work = asyncio.create_task(world._work())
        while not logged:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(run())
    # A lease of 120 s, less 60 for the request and 10 for its record: half of 50 s, one a second.
    assert len(logged[0]["attempts"]) == 25


def test_clocks_are_not_compared_for_every_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = dispatched(world, "ada", "bob")
    compared: list[None] = []

    async def run() -> None:
        client = world.client()
        as_ever = client.moment

        async def moment() -> datetime:
            compared.append(None)
            return await as_ever()

        monkeypatch.setattr(client, "moment", moment)
        try:
            for one in ids:
                await charge(world.book, client, world.policy, [one])
        finally:
            await client.aclose()

    asyncio.run(run())
    assert set(outcomes(world).values()) == {"approved"}
    assert len(compared) == 1


class _AwayOnce(Desk):
    """The database is away when the first answers are to be written down."""

    away = True

    def _recorded(self, answers: Sequence[Answer]) -> Sequence[Result]:
        if self.away:
            self.away = False
            raise OperationalError("commit", None, ConnectionError("away"))
        return super()._recorded(answers)


def test_a_database_that_is_away_is_waited_for_while_the_lease_lasts(world: World) -> None:
    at_once(world, _AwayOnce(world.book, world.policy), dispatched(world, "ada"))
    assert outcomes(world) == {"ada": "approved"}


def test_by_the_time_a_request_leaves_the_book_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (attempt_id,) = dispatched(world, "ada")
    claimed_at = world.clock.now
    seen: list[Any] = []

    async def run() -> None:
        trail.begin("0123456789abcdef", "a-task")
        client = world.client()
        as_ever = client.charge

        async def looks(request: ChargeRequest) -> Outcome:
            seen.extend(
                query(
                    world.book,
                    "SELECT attempts.status, lease_until, events.at, events.data"
                    " FROM attempts JOIN events ON attempt_id = attempts.id"
                    " WHERE events.kind = 'attempt.sending'",
                )
            )
            return await as_ever(request)

        monkeypatch.setattr(client, "charge", looks)
        try:
            await charge(world.book, client, world.policy, [attempt_id])
        finally:
            await client.aclose()

    asyncio.run(run())
    ((status, lease_until, at, data),) = seen
    assert status == "sending"
    assert lease_until == claimed_at + world.policy.lease
    assert at == claimed_at
    ((merchant_uid, fence),) = query(world.book, "SELECT merchant_uid, fence FROM attempts")
    assert data == {
        "merchant_uid": merchant_uid,
        "fence": fence,
        "correlation": "0123456789abcdef",
    }
