"""Answers of many tasks share a transaction; one that cannot be written keeps nobody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from billing.domain.money import Won
from billing.domain.outcome import Approved, NotSent
from billing.domain.policy import BillingPolicy
from billing.services.answer import Answer, Result
from billing.services.desk import Desk
from billing.services.dispatch import dispatch
from billing.services.open_cycles import open_cycles
from billing.store import attempts
from billing.store.session import Book, Transaction, create_book_engine
from tests.builders import execute, plain, query
from tests.conftest import MovedClock
from tests.world import World

T = TypeVar("T")

MANY = 40
LEASE = 30.0


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock) -> World:
    policy = make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)
    made = World(book, policy, clock)
    made.enrol(*(f"somebody-{number:02}" for number in range(MANY)))
    open_cycles(book, policy)
    dispatch(book, made, policy)
    return made


def claimed(world: World) -> list[attempts.Claim]:
    ids = [row[0] for row in query(world.book, "SELECT id FROM attempts ORDER BY id")]

    def step(tx: Transaction) -> list[attempts.Claim]:
        return list(attempts.claim(tx.session, ids, tx.now, tx.now + timedelta(seconds=LEASE)))

    return world.book.run(step)


def approval(world: World, claim: attempts.Claim) -> Answer:
    told = Approved(
        imp_uid=f"imp_{claim.attempt_id:012}", amount=Won(9900), paid_at=world.clock.now
    )
    return Answer(claim.attempt_id, claim.fence, told)


async def handed_in(desk: Desk, *tasks: list[Answer], lease: float = LEASE) -> list[Result]:
    """Each task says how many it has, then all hand in."""
    ends = asyncio.get_running_loop().time() + lease
    for answers in tasks:
        desk.expect(len(answers))
    written = (desk.hand_in(one, ends) for answers in tasks for one in answers)
    return await within_seconds(asyncio.gather(*written))


async def within_seconds(told: Awaitable[T]) -> T:
    """Nobody waits for ever: a test that does fails, and says where."""
    return await asyncio.wait_for(told, 20)


class Counting(Book):
    """Counts transactions; may lose the answer of a commit, or break before it."""

    def __init__(self, engine: Engine, clock: MovedClock, lose: int = 0) -> None:
        super().__init__(engine, clock.read)
        self.transactions = 0
        self.lose = lose
        self.broken: Exception | None = None

    def run(self, step: Callable[[Transaction], Any], tries: int = 1) -> Any:
        self.transactions += 1
        if self.broken:
            raise self.broken
        done = super().run(step, tries)
        if self.lose:
            self.lose -= 1
            lost = psycopg.OperationalError("the connection was closed")
            raise OperationalError("COMMIT", {}, lost)
        return done


@pytest.fixture
def counting(world: World, database_url: str) -> Iterator[Counting]:
    made = Counting(create_book_engine(database_url), world.clock)
    yield made
    made.close()


def test_answers_of_several_tasks_are_one_transaction(world: World, counting: Counting) -> None:
    async def run() -> list[Result]:
        desk = Desk(counting, world.policy)
        answers = [approval(world, claim) for claim in claimed(world)]
        return await handed_in(desk, answers[:25], answers[25:])

    assert asyncio.run(run()) == [Result.APPROVED] * MANY
    assert counting.transactions == 1
    assert world.statuses("cycles") == {"paid": MANY}


def test_one_that_is_alone_does_not_wait_for_others(world: World, counting: Counting) -> None:
    async def run() -> float:
        desk = Desk(counting, world.policy)
        loop = asyncio.get_running_loop()
        answer = approval(world, claimed(world)[0])
        desk.expect(1)
        desk.hand_in(answer, loop.time() + LEASE)
        return float(len(desk._writing))

    assert asyncio.run(run()) == 1, "it is being written at once"


def test_an_answer_does_not_wait_for_a_slow_neighbour(world: World, counting: Counting) -> None:
    """The other's request is still under way, for up to half a minute."""

    async def run() -> Result:
        desk = Desk(counting, world.policy)
        answer, *_ = (approval(world, claim) for claim in claimed(world))
        desk.expect(2)
        return await within_seconds(desk.hand_in(answer, asyncio.get_running_loop().time() + LEASE))

    assert asyncio.run(run()) is Result.APPROVED


def test_a_crowd_is_written_in_groups_and_nothing_of_it_is_kept(
    world: World, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A desk lives as long as its process: what is written is let go of."""
    monkeypatch.setattr("billing.services.desk._AT_MOST", 4)

    async def run() -> None:
        desk = Desk(counting, world.policy)
        await handed_in(desk, [approval(world, claim) for claim in claimed(world)])
        await asyncio.sleep(0)
        assert not desk._writing

    asyncio.run(run())
    assert counting.transactions == MANY / 4
    assert world.statuses("cycles") == {"paid": MANY}


def test_a_row_that_somebody_holds_keeps_only_its_own_answer(
    world: World, counting: Counting, database_url: str
) -> None:
    """An open psql with a lock: the others are written within seconds, this one when it can be."""
    claims = claimed(world)

    async def run() -> None:
        desk = Desk(counting, world.policy)
        answers = [approval(world, claim) for claim in claims]
        desk.expect(len(answers))
        ends = asyncio.get_running_loop().time() + LEASE
        written = [desk.hand_in(one, ends) for one in answers]
        others = [one for number, one in enumerate(written) if number != 17]
        assert set(await within_seconds(asyncio.gather(*others))) == {Result.APPROVED}
        assert not written[17].done()
        await asyncio.to_thread(connection.rollback)
        assert await within_seconds(written[17]) is Result.APPROVED

    with psycopg.connect(plain(database_url)) as connection:
        connection.execute(
            "SELECT FROM subscriptions WHERE id = %s FOR UPDATE", [claims[17].subscription_id]
        )
        asyncio.run(run())
    assert world.statuses("cycles") == {"paid": MANY}


def test_an_answer_that_cannot_be_written_is_told_alone(world: World, counting: Counting) -> None:
    async def run() -> list[Result]:
        desk = Desk(counting, world.policy)
        answers = [approval(world, claim) for claim in claimed(world)[:7]]
        wrong = Approved(imp_uid="x" * 100, amount=Won(9900), paid_at=world.clock.now)
        answers[5] = Answer(answers[5].attempt_id, answers[5].fence, wrong)
        told = await handed_in(desk, answers, lease=0.6)
        await within_seconds(asyncio.wait(desk._writing))
        return told

    with capture_logs() as lines:
        results = asyncio.run(run())
    assert results.count(Result.APPROVED) == 6
    assert results[5] is Result.UNRECORDED
    told = [line for line in lines if line["event"] == "unrecorded"]
    assert [line["error"] for line in told] == ["DataError"], "and of the others nothing"
    assert world.statuses("attempts") == {"approved": 6, "sending": MANY - 6}


def test_a_commit_whose_answer_was_lost_is_no_alarm(world: World, counting: Counting) -> None:
    """It is done, and found done when the group is recorded again."""
    counting.lose = 1

    async def run() -> list[Result]:
        desk = Desk(counting, world.policy)
        claims = claimed(world)
        answers = [approval(world, claim) for claim in claims[:-1]]
        not_sent = NotSent("no connection")
        answers.append(Answer(claims[-1].attempt_id, claims[-1].fence, not_sent))
        return await handed_in(desk, answers)

    assert asyncio.run(run()) == [Result.TOO_LATE] * MANY
    assert counting.transactions == 2, "the whole group once more"
    assert world.statuses("cycles") == {"paid": MANY - 1, "open": 1}
    assert world.alarms() == []


def test_a_late_answer_to_an_older_claim_is_an_alarm(world: World, counting: Counting) -> None:
    async def run() -> list[Result]:
        desk = Desk(counting, world.policy)
        claim = claimed(world)[0]
        execute(world.book, f"UPDATE attempts SET fence = 2 WHERE id = {claim.attempt_id}")
        return await handed_in(desk, [approval(world, claim)])

    assert asyncio.run(run()) == [Result.TOO_LATE]
    assert world.alarms() == ["answer.too_late"]


def test_what_is_not_written_by_the_end_of_its_lease_is_given_up(
    world: World, counting: Counting
) -> None:
    counting.lose = 1_000

    async def run() -> list[Result]:
        desk = Desk(counting, world.policy)
        claims = claimed(world)[:2]
        ends = asyncio.get_running_loop().time()
        desk.expect(2)
        first, second = (approval(world, claim) for claim in claims)
        written = desk.hand_in(first, ends), desk.hand_in(second, ends + 0.8)
        return await within_seconds(asyncio.gather(*written))

    assert asyncio.run(run()) == [Result.UNRECORDED] * 2
    assert counting.transactions in (2, 3, 4), "the second is tried for as long as its lease lasts"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(KeyError("of ours"), id="a mistake of ours"),
        pytest.param(IntegrityError("UPDATE", {}, Exception()), id="refused by the database"),
    ],
)
def test_what_would_fail_again_is_not_tried_until_the_lease_ends(
    world: World, counting: Counting, error: Exception
) -> None:
    """Its claim is asked about as soon as the lease is over, and nobody waits for it until then."""
    counting.broken = error

    async def run() -> list[Result]:
        return await handed_in(Desk(counting, world.policy), [approval(world, claimed(world)[0])])

    assert asyncio.run(run()) == [Result.UNRECORDED]
    assert counting.transactions == 1
    assert world.statuses("attempts") == {"sending": MANY}


class Forgetful(Counting):
    """A mistake of ours: one result too few."""

    def run(self, step: Callable[[Transaction], Any], tries: int = 1) -> Any:
        return super().run(step, tries)[:-1]


def test_a_mistake_while_telling_reaches_all_who_still_wait(
    world: World, database_url: str
) -> None:
    forgetful = Forgetful(create_book_engine(database_url), world.clock)

    async def run() -> list[Result | BaseException]:
        desk = Desk(forgetful, world.policy)
        answers = [approval(world, claim) for claim in claimed(world)[:2]]
        desk.expect(2)
        ends = asyncio.get_running_loop().time() + LEASE
        written = [desk.hand_in(one, ends) for one in answers]
        (writing,) = desk._writing
        told = await within_seconds(asyncio.gather(*written, return_exceptions=True))
        # Those who wait have it; the loop itself would print it, with whatever row it names.
        assert (await asyncio.wait({writing}))[0].pop().exception() is None
        return told

    first, second = asyncio.run(run())
    forgetful.close()
    assert first is Result.APPROVED
    assert isinstance(second, ValueError)


def test_a_process_that_stops_leaves_nobody_waiting(world: World, counting: Counting) -> None:
    """The database is away, and the loop cancels what it still does."""
    counting.lose = 1_000

    async def run() -> None:
        desk = Desk(counting, world.policy)
        first, second = (approval(world, claim) for claim in claimed(world)[:2])
        ends = asyncio.get_running_loop().time()
        desk.expect(2)
        given_up, waiting = desk.hand_in(first, ends), desk.hand_in(second, ends + LEASE)
        assert await within_seconds(given_up) is Result.UNRECORDED
        (writing,) = desk._writing
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within_seconds(waiting)
        assert (await asyncio.wait({writing}))[0].pop().cancelled()

    asyncio.run(run())
