"""A primary dies and a standby takes over, for real: streaming replication, kill -9, promotion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date

import pytest

from billing.domain.policy import BillingPolicy
from billing.sandbox.model import Origin
from billing.services.hold import release
from billing.services.invariants import broken
from billing.services.reconcile import Span, reconcile
from billing.store import schema
from billing.store.session import Book, create_book_engine
from tests.conftest import MovedClock
from tests.lasting.clusters import Cluster, a_folder, a_primary, a_standby, multi_host
from tests.world import World

NAMES = [f"customer-{number}" for number in range(12)]
MONTH = Span(date(2026, 11, 1), date(2026, 11, 30))
IN_SYNC = "SELECT coalesce(max(sync_state), '') FROM pg_stat_replication"
FOLLOWING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary with the schema, and a standby that follows it."""
    with a_folder() as folder, a_primary(folder / "a") as primary:
        engine = create_book_engine(primary.url)
        schema.upgrade(engine)
        engine.dispose()
        with a_standby(primary, folder / "b") as standby:
            primary.until(FOLLOWING, 1)
            yield primary, standby


@pytest.fixture
def make_world(
    pair: tuple[Cluster, Cluster], make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> Iterator[Callable[..., World]]:
    """A shop whose book knows both clusters by one address."""
    books = []

    def make(**settings: object) -> World:
        book = Book(create_book_engine(multi_host(pair)), clock.read)
        books.append(book)
        options = {"charge_cron": "* * * * *", "charges_per_second": 0, "charge_batch": 3}
        return World(book, make_policy(**{**options, **settings}), clock)

    yield make
    for book in books:
        book.close()


class Remembering:
    """As Redis does: the highest event number that was seen of each database."""

    def __init__(self) -> None:
        self.highest: dict[str, int] = {}

    async def seen(self) -> dict[str, int]:
        return dict(self.highest)

    async def raise_to(self, database: str, number: int) -> None:
        self.highest[database] = max(number, self.highest.get(database, 0))


def payments(world: World) -> Counter[str]:
    """What the gateway's own ledger says of this month, by customer."""
    rows = world.sandbox.ledger.payments
    return Counter(one.customer_uid for one in rows if one.origin is Origin.AGAIN and one.paid_at)


def _writable(order: Sequence[Cluster]) -> None:
    """Whatever the order: a standby that answers is not taken for the primary."""
    engine = create_book_engine(multi_host(order))
    with engine.connect() as connection:
        assert not connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one()
    engine.dispose()


def test_where_every_commit_is_on_the_standby_charging_goes_on_by_itself(
    pair: tuple[Cluster, Cluster], make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary is killed while claimed charges are at the gateway; their answers are written
    down by the standby, the claims of which nobody knows are waited for, then all goes on."""
    primary, standby = pair
    primary.set(synchronous_standby_names="*", synchronous_commit="remote_apply")
    primary.until(IN_SYNC, "sync")
    for order in (pair, pair[::-1]):
        _writable(order)
    world = make_world(database_failover="go_on")
    world.watermark = Remembering()
    world.enrol(*NAMES[:3], script=["slow:1500"])
    world.enrol(*NAMES[3:])
    dead = False

    async def primary_dies(_: float) -> None:
        nonlocal dead
        if not dead:
            dead = True
            primary.kill()
            standby.promote()

    monkeypatch.setattr(world.sandbox, "sleep", primary_dies)
    world.tick()
    assert dead
    assert world.tally["approved"] >= 3
    at_first = world.requests()
    world.run(times=1)
    assert world.requests() == at_first, "requests that may be on their way are waited for"
    world.run(times=8)

    assert world.hold() is None
    assert world.alarms() == ["database.failed_over"]
    assert payments(world) == Counter(NAMES)
    assert world.requests() == len(NAMES)
    assert world.statuses("cycles") == {"paid": len(NAMES)}
    assert broken(world.book, world.policy) == []


@pytest.mark.parametrize(
    ("failover", "why"),
    [("hold", "went back in time, or failed over"), ("go_on", "is gone")],
)
def test_commits_that_a_promotion_lost_are_noticed_and_nobody_pays_twice(
    pair: tuple[Cluster, Cluster],
    make_world: Callable[..., World],
    failover: str,
    why: str,
) -> None:
    """An asynchronous standby that had fallen behind is promoted: the book forgot payments."""
    primary, standby = pair
    world = make_world(database_failover=failover, charge_batch=50, canary_charges=0)
    if failover == "go_on":
        world.watermark = Remembering()
    world.enrol(*NAMES[:2])
    world.run()
    world.enrol(*NAMES[2:10])
    standby.until("SELECT count(*) FROM subscriptions", 10)
    standby.set(primary_conninfo="")
    primary.until("SELECT count(*) FROM pg_stat_replication", 0)
    # The standby hears no more: ten charges, and two customers, are the primary's alone.
    world.run()
    world.enrol(*NAMES[10:])
    world.run()
    paid = payments(world)
    assert paid == Counter(NAMES)
    primary.kill()
    standby.promote()

    world.clock.move(minutes=10)
    world.run(times=3)

    assert why in (world.hold() or "")
    assert payments(world) == paid
    assert world.statuses("cycles").get("paid", 0) == 2

    # The customers whom the book has lost were enrolled by somebody who can do it again.
    world.enrol(*NAMES[10:], known=False)
    report = world.ask(
        lambda client: reconcile(world.book, client, world.policy, MONTH, apply=True)
    )
    release(world.book, world.policy)
    world.run(times=4)
    assert world.hold() is None
    assert payments(world) == paid
    assert world.statuses("cycles") == {"paid": len(NAMES)}
    # Found by their names at the gateway, also of months that nobody had opened again yet.
    assert report.applied
    assert not report.differences
    assert broken(world.book, world.policy) == []
