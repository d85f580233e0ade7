"""A batch of charges: who waits for whom, what is told, and what a database may hide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import LogCapture

from billing import trail
from billing.domain.errors import GatewayRefused, GatewayUnavailable
from billing.domain.outcome import Outcome
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.portone.client import PortOneClient
from billing.ports import ChargeRequest
from billing.services import asking
from billing.services.answer import Answer, Result
from billing.services.charge import _Hold, charge
from billing.services.desk import Desk
from billing.services.dispatch import dispatch
from billing.services.hold import hold, release
from billing.services.open_cycles import open_cycles
from billing.store import health, installation
from billing.store.session import Book
from tests.builders import execute, query
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
    for name in ("charge", "desk"):
        logger = structlog.wrap_logger(None, [captured])
        monkeypatch.setattr(f"billing.services.{name}._log", logger)
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


def charged(world: World, ids: Sequence[int], change: Callable[[PortOneClient], None]) -> None:
    """Charge them by a client that is not quite itself."""

    async def run(client: PortOneClient) -> None:
        change(client)
        await charge(world.book, client, world.policy, ids)

    world.ask(run)


def test_one_that_ends_with_its_worker_keeps_no_answer_of_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch ends with that error, and not before its neighbour's answer is written down."""
    ids = dispatched(world, "ends", "goes-on")

    async def run(client: PortOneClient) -> None:
        as_ever = client.charge

        async def some_end(request: ChargeRequest) -> Outcome:
            if request.customer_uid == "ends":
                raise asyncio.CancelledError
            await asyncio.sleep(1)
            return await as_ever(request)

        monkeypatch.setattr(client, "charge", some_end)
        with pytest.raises(asyncio.CancelledError):
            await charge(world.book, client, world.policy, ids)
        assert outcomes(world) == {"ends": "unknown", "goes-on": "approved"}

    world.ask(run)


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

    async def run(client: PortOneClient) -> None:
        await asyncio.gather(
            *(
                charge(world.book, client, world.policy, half, desk=desk)
                for half in (ids[:3], ids[3:])
            )
        )

    world.ask(run)
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
    """Redis, which keeps what it was told last."""

    def __init__(self) -> None:
        self.raised: list[tuple[str, int]] = []

    async def seen(self) -> dict[str, int]:
        return dict(self.raised[-1:])

    async def raise_to(self, database: str, number: int) -> None:
        self.raised.append((database, number))


def test_a_database_that_hides_what_it_is_charges_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hosted ones do: then there is nothing to remember its events by."""
    world.watermark = remembers = _Remembers()
    monkeypatch.setattr(installation, "_WHERE", text("SELECT hidden FROM nowhere"))
    # The engine of all tests has been one that tells.
    monkeypatch.setattr(installation, "_READABLE", set())
    ids = dispatched(world, "ada")
    world.charge(ids)
    world.work()
    assert outcomes(world) == {"ada": "approved"}
    assert remembers.raised == []


def test_the_newest_event_is_remembered_before_the_charge_leaves(world: World) -> None:
    """The claim's own: a book that is set back to just before it has lost nothing else."""
    world.watermark = remembers = _Remembers()
    world.charge(dispatched(world, "ada"))
    world.work()
    ((database, number),) = remembers.raised
    assert database
    ((claim,),) = query(world.book, "SELECT id FROM events WHERE kind = 'attempt.sending'")
    assert number == claim < query(world.book, "SELECT max(id) FROM events")[0][0]


def test_a_claim_compares_what_was_seen_of_the_book(world: World) -> None:
    """No tick need have come before it."""
    world.watermark = remembers = _Remembers()
    world.charge(dispatched(world, "ada"))
    world.work()
    ((database, number),) = remembers.raised
    ids = dispatched(world, "bob")
    remembers.raised.append((database, number + 1000))
    world.charge(ids)
    world.work()
    assert world.requests() == 1
    assert f"event {number + 1000} is gone" in (world.hold() or "")


def at_once(world: World, desk: Desk, ids: list[int]) -> None:
    """Charge them with a desk that would make an answer wait for others for an hour."""

    async def run(client: PortOneClient) -> None:
        async with asyncio.timeout(20):
            await charge(world.book, client, world.policy, ids, desk=desk)

    world.ask(run)


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

    async def run(client: PortOneClient) -> None:
        as_ever = client.moment

        async def moment() -> datetime:
            compared.append(None)
            return await as_ever()

        monkeypatch.setattr(client, "moment", moment)
        for one in ids:
            await charge(world.book, client, world.policy, [one])

    world.ask(run)
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

    def change(client: PortOneClient) -> None:
        trail.begin("0123456789abcdef", "a-task")
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

    charged(world, [attempt_id], change)
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


def test_a_book_that_has_what_was_seen_of_it_is_charged(world: World) -> None:
    world.watermark = remembers = _Remembers()
    ids = dispatched(world, "ada", "bob")
    world.charge(ids[:1])
    world.work()
    # To the very number: nothing was lost, and nothing came since.
    ((database, _),) = remembers.raised
    remembers.raised.append((database, query(world.book, "SELECT max(id) FROM events")[0][0]))
    world.charge(ids[1:])
    world.work()
    assert world.hold() is None
    assert set(outcomes(world).values()) == {"approved"}


def test_a_message_that_waits_charges_nothing_from_a_book_that_was_copied(world: World) -> None:
    """Handed out before; the fence is asked again where the claim is made."""
    ids = dispatched(world, "ada")
    execute(world.book, "UPDATE installation SET system_identifier = 'another'")
    world.charge(ids)
    world.work()
    assert world.requests() == 0
    assert outcomes(world) == {"ada": "due"}
    assert world.hold() == "this book was moved or restored to another database"
    assert world.alarms() == ["charging.held"]


# -- what breaks in the worker, before and after the request may have left ---------------------


def breaks(name: str, error: Exception) -> Callable[[PortOneClient], None]:
    async def broken(*_: object) -> Any:
        raise error

    return lambda client: setattr(client, name, broken)


def told(world: World) -> list[tuple[str, bool]]:
    """What was written of attempts, and whether as an alarm."""
    return query(
        world.book,
        "SELECT kind, alarm FROM events WHERE kind LIKE 'attempt.%'"
        " AND kind NOT IN ('attempt.planned', 'attempt.sending') ORDER BY id",
    )


def test_what_breaks_before_the_request_is_not_sent_and_told(world: World) -> None:
    ids = dispatched(world, "ada")
    charged(world, ids, breaks("payments_of_key", RuntimeError("a mistake of ours")))
    assert outcomes(world) == {"ada": "due"}
    assert told(world) == [("attempt.not_sent", True)]
    assert world.requests() == 0


def test_what_breaks_with_the_request_is_unknown(world: World) -> None:
    ids = dispatched(world, "ada")
    charged(world, ids, breaks("charge", RuntimeError("a mistake of ours")))
    assert outcomes(world) == {"ada": "unknown"}
    assert told(world) == [("attempt.unknown", False)]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (GatewayUnavailable("look-up: HTTP 503"), "no usable answer"),
        (GatewayRefused("look-up: HTTP 401"), "it refuses our credentials"),
    ],
)
def test_nothing_is_sent_where_nobody_says_whether_it_is_paid(
    world: World, error: Exception, why: str
) -> None:
    names = [f"customer-{number}" for number in range(health.FAILURES_TO_OPEN)]
    charged(world, dispatched(world, *names), breaks("payments_of_key", error))
    assert world.requests() == 0
    assert outcomes(world) == dict.fromkeys(names, "due")
    assert {kind for kind, _ in told(world)} == {"attempt.not_sent"}
    said = query(world.book, "SELECT data ->> 'why' FROM events WHERE kind = 'gateway.down'")
    assert said == [(why,)]


# -- the last moments -----------------------------------------------------------------------------


def to_the_last_start(world: World, *, seconds_left: float) -> None:
    ((last,),) = query(world.book, "SELECT min(last_start_at) FROM cycles")
    world.clock.move_to(last - timedelta(seconds=seconds_left))


def slow_look(seconds: float, looked: list[str]) -> Callable[[PortOneClient], None]:
    """A gateway whose look-ups take that long."""

    def change(client: PortOneClient) -> None:
        as_ever = client.payments_of_key

        async def slowly(customer_uid: str, since: datetime) -> Sequence[Payment]:
            looked.append(customer_uid)
            await asyncio.sleep(seconds)
            return await as_ever(customer_uid, since)

        client.payments_of_key = slowly

    return change


def test_a_request_whose_time_has_passed_during_the_look_up_does_not_leave(world: World) -> None:
    ids = dispatched(world, "ada")
    to_the_last_start(world, seconds_left=0.5)
    looked: list[str] = []
    charged(world, ids, slow_look(1, looked))
    assert looked == ["ada"]
    assert world.requests() == 0
    # It comes back to be given out in time, which there is none of any more; no try is counted.
    assert told(world) == [("attempt.not_sent", False)]
    assert query(world.book, "SELECT not_sent FROM attempts") == [(0,)]


def test_a_request_that_is_still_in_time_leaves(world: World) -> None:
    ids = dispatched(world, "ada")
    to_the_last_start(world, seconds_left=30)
    charged(world, ids, slow_look(0.1, []))
    assert outcomes(world) == {"ada": "approved"}


def test_one_that_waited_for_its_place_too_long_is_not_even_looked_up(
    book: Book, clock: MovedClock, make_policy: Callable[..., BillingPolicy]
) -> None:
    slow = make_policy(charge_cron="* * * * *", charges_per_second=1, canary_charges=0)
    world = World(book, slow, clock)
    ids = dispatched(world, "ada", "bob")
    to_the_last_start(world, seconds_left=0.5)
    looked: list[str] = []
    charged(world, ids, slow_look(0, looked))
    assert looked == ["ada"]
    assert outcomes(world) == {"ada": "approved", "bob": "due"}


def test_charges_start_one_after_the_other_and_so_do_batches(
    book: Book, clock: MovedClock, make_policy: Callable[..., BillingPolicy]
) -> None:
    rate = 5
    slow = make_policy(charge_cron="* * * * *", charges_per_second=rate, canary_charges=0)
    world = World(book, slow, clock)
    ids = dispatched(world, *(f"customer-{number}" for number in range(4)))
    starts: list[float] = []

    async def run(client: PortOneClient) -> None:
        as_ever = client.payments_of_key

        async def noted(customer_uid: str, since: datetime) -> Sequence[Payment]:
            starts.append(asyncio.get_running_loop().time())
            return await as_ever(customer_uid, since)

        client.payments_of_key = noted
        begun = asyncio.get_running_loop().time()
        # Claimed at one moment: the second finds the first's places taken.
        await charge(world.book, client, slow, ids[:2])
        between = asyncio.get_running_loop().time()
        await charge(world.book, client, slow, ids[2:])
        first, second, third, fourth = starts
        assert first >= begun
        assert second >= begun + 1 / rate
        assert third >= between + 2 / rate
        assert fourth >= between + 3 / rate
        assert second < begun + rate, "nor so many seconds apart"

    world.ask(run)
    assert set(outcomes(world).values()) == {"approved"}


def test_a_request_that_has_too_little_of_its_lease_left_does_not_leave(world: World) -> None:
    ids = dispatched(world, "ada")
    world.policy = replace(world.policy, lease=timedelta(seconds=3), deadline=timedelta(seconds=1))
    assert world.policy.startable == timedelta(seconds=1)
    charged(world, ids, slow_look(1.2, []))
    assert world.requests() == 0
    assert query(
        world.book, "SELECT data ->> 'why' FROM events WHERE kind = 'attempt.not_sent'"
    ) == [("too little of the lease was left",)]


@pytest.mark.parametrize(
    ("error", "tries", "why"),
    [
        (GatewayRefused("getToken: HTTP 401"), 1, "it refuses our credentials"),
        (GatewayUnavailable("getToken: HTTP 503"), 3, "no usable answer"),
    ],
)
def test_nothing_is_sent_by_a_clock_that_nobody_vouches_for(
    world: World, error: Exception, tries: int, why: str
) -> None:
    names = [f"customer-{number}" for number in range(health.FAILURES_TO_OPEN)]
    ids = dispatched(world, *names)
    asked: list[None] = []

    def change(client: PortOneClient) -> None:
        async def refused() -> datetime:
            asked.append(None)
            raise error

        client.moment = refused

    charged(world, ids, change)
    assert len(asked) == tries
    assert world.requests() == 0
    assert outcomes(world) == dict.fromkeys(names, "due")
    said = query(world.book, "SELECT data ->> 'why' FROM events WHERE kind = 'gateway.down'")
    assert said == [(why,)]


# -- a hold in the middle of a batch --------------------------------------------------------------


def test_what_was_claimed_before_a_hold_is_not_sent_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up before the charge takes longer than a hold is known for, and meanwhile somebody
    stops charging."""
    monkeypatch.setattr("billing.services.charge._HOLD_KNOWN_FOR", 0)
    ids, real = dispatched(world, "ada", "bob"), asking.already_there

    async def slowly(*asked: Any) -> Any:
        found = await real(*asked)
        await asyncio.to_thread(hold, world.book, "by hand")
        return found

    monkeypatch.setattr(asking, "already_there", slowly)
    world.charge(ids)
    world.work()
    assert outcomes(world) == {"ada": "due", "bob": "due"}
    told = query(world.book, "SELECT data->>'why' FROM events WHERE kind = 'attempt.not_sent'")
    assert told == [("charging was stopped meanwhile",)] * 2
    assert query(world.book, "SELECT DISTINCT not_sent, lease_until FROM attempts") == [(0, None)]
    monkeypatch.setattr(asking, "already_there", real)
    release(world.book, world.policy)
    world.run(times=3)
    assert set(outcomes(world).values()) == {"approved"}


def test_a_hold_is_looked_for_four_times_a_second_at_most() -> None:
    asked: list[int] = []

    class Away(Book):
        def __init__(self) -> None: ...

        def run(self, *_: Any) -> Any:
            asked.append(1)
            raise OperationalError("SELECT", None, ConnectionError("away"))

    async def looks() -> list[bool]:
        loop = asyncio.get_running_loop()
        fresh, stale = _Hold(Away(), loop.time()), _Hold(Away(), loop.time() - 0.3)
        return [await fresh.stands(), *await asyncio.gather(*(stale.stands() for _ in range(5)))]

    # A book that is away may hold, for all that anybody knows.
    assert asyncio.run(looks()) == [False, *[True] * 5]
    assert len(asked) == 1
