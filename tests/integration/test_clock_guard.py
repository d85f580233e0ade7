"""Nothing ends, and nothing opens, by a clock that nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.domain.errors import GatewayUnavailable
from billing.domain.policy import BillingPolicy
from billing.domain.webhook import announced
from billing.sandbox import HandPayment, NewCustomer, mood, pay, register
from billing.services import change_status
from billing.services import charge as charging
from billing.services.check import check
from billing.services.clock_guard import ClockGuard, compare_clocks
from billing.services.close_cycles import close_cycles
from billing.services.desk import Desk
from billing.services.dispatch import dispatch
from billing.services.enrol_payment import enrol_payment
from billing.services.inquire import find_unknown
from billing.services.invariants import broken
from billing.services.look_at_webhooks import look_at_webhooks
from billing.services.open_cycles import open_cycles
from billing.services.receive_webhook import receive_webhook
from billing.store.session import Book, create_book_engine
from tests.builders import KEY, enrolled, execute, query
from tests.conftest import MovedClock
from tests.world import PAID_AT, World

LEAP = timedelta(days=40)
NAMES = [f"customer-{number}" for number in range(10)]


@dataclass
class Clocks(MovedClock):
    """True time, the database's, and that of the ticks' host."""

    database_ahead: timedelta = field(default_factory=timedelta)
    host_ahead: timedelta = field(default_factory=timedelta)

    def read(self, _: object) -> datetime:
        return self.now + self.database_ahead

    def host(self) -> datetime:
        return self.now + self.host_ahead


@pytest.fixture
def clock() -> Clocks:
    return Clocks()


@pytest.fixture
def book(database_url: str, clock: Clocks) -> Iterator[Book]:
    opened = Book(create_book_engine(database_url), clock.read)
    yield opened
    opened.close()


@pytest.fixture
def world(book: Book, make_policy: Callable[..., BillingPolicy], clock: Clocks) -> World:
    """20 November 2026, 10:00 in Seoul: ten subscribers are due today."""
    policy = make_policy(charge_cron="* * * * *", charges_per_second=0, canary_charges=0)
    made = World(book, policy, clock)
    made.guard = a_guard(clock)
    made.enrol(*NAMES)
    return made


def a_guard(clock: Clocks) -> ClockGuard:
    """As a process that has just started."""
    return ClockGuard(clock.host, lambda: clock.now.timestamp())


def gateway_away(world: World) -> None:
    spell = {"from": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2028, 1, 1, tzinfo=UTC)}
    world.sandbox.mood = mood({"spells": [{**spell, "does": "http:503"}]})


def gateway_back(world: World) -> None:
    world.sandbox.mood = mood({})


def unpaid_and_over(world: World) -> None:
    """Ten months that are open, were charged in vain, and whose window is over."""
    assert world.open() == 10
    world.clock.move(days=6)


# -- a leap -------------------------------------------------------------------------------------


def test_a_clock_that_leaps_by_forty_days_for_one_tick_ends_nothing(
    world: World, clock: Clocks
) -> None:
    world.tick()
    assert world.statuses("cycles") == {"paid": 10}
    clock.move_to(datetime(2026, 12, 19, 16, 0, tzinfo=UTC))
    # Due, opened, and not yet charged when it happens.
    assert world.open() == 10
    clock.database_ahead = LEAP
    world.tick()
    clock.database_ahead = timedelta(0)
    assert world.statuses("cycles") == {"paid": 10, "open": 10}
    assert world.statuses("subscriptions") == {"active": 10}
    assert world.alarms() == ["clock.skewed"]
    assert query(world.book, "SELECT count(*) FROM cycles WHERE closing_soon_at IS NOT NULL") == [
        (0,)
    ]
    world.run(times=4)
    assert world.statuses("cycles") == {"paid": 20}
    assert world.alarms() == ["clock.skewed"]
    assert broken(world.book, world.policy) == []


def test_a_leap_after_the_comparison_counts(world: World, clock: Clocks) -> None:
    """Looked at in the transaction that ends something, not before it."""
    assert world.open() == 10
    clock.database_ahead = LEAP
    assert close_cycles(world.book, world.policy, world.guard) == 0
    assert open_cycles(world.book, world.policy, world.guard) == 0
    assert world.statuses("cycles") == {"open": 10}


def test_a_leap_opens_nothing_and_warns_of_nothing(world: World, clock: Clocks) -> None:
    clock.move_to(datetime(2026, 11, 10, tzinfo=UTC))
    clock.database_ahead = timedelta(days=12)
    assert world.open() == 0
    clock.database_ahead = timedelta(0)
    clock.move(days=11)
    assert world.open() == 10
    clock.database_ahead = timedelta(days=4)
    assert world.close() == 0
    assert set(world.alarms()) == {"clock.skewed"}, "none that closes soon"


def test_by_a_clock_that_was_found_wrong_no_fact_is_found_broken(
    world: World, clock: Clocks
) -> None:
    """By it every open month was forgotten, and the daily reconciliation late."""
    assert world.open() == 10
    clock.database_ahead = LEAP
    world.close()
    assert check(world.book, world.policy) == 0
    assert world.alarms() == ["clock.skewed"]
    clock.database_ahead = timedelta(0)
    execute(world.book, "UPDATE cycles SET closes_at = :at", at=clock.now - LEAP)
    assert check(world.book, world.policy) == 1
    assert world.alarms() == ["clock.skewed", "invariant.broken"]


def test_a_leap_skips_no_paused_month(world: World, clock: Clocks) -> None:
    for name in NAMES:
        change_status.pause(world.book, world.policy, name)
    clock.database_ahead = LEAP
    assert world.close() == 0
    clock.database_ahead = timedelta(0)
    assert world.statuses("cycles") == {}
    clock.move(days=6)
    assert world.close() == 10
    assert world.statuses("cycles") == {"skipped": 10}


def test_a_leap_suspends_nobody_whose_decline_is_not_confirmed(world: World, clock: Clocks) -> None:
    world.enrol("unknown-here", known=False)
    while not query(world.book, "SELECT 1 FROM cycles WHERE held = 'unconfirmed'"):
        world.tick()
        clock.move(seconds=20)
    clock.database_ahead = LEAP
    world.close()
    assert world.statuses("subscriptions") == {"active": 11}
    clock.database_ahead = timedelta(0)
    clock.move(minutes=2)
    world.close()
    assert world.statuses("subscriptions") == {"active": 10, "suspended": 1}


def test_a_clock_that_was_found_wrong_tells_nobodys_first_month(
    world: World, clock: Clocks
) -> None:
    """The months before it would be nobody's to charge, and the billing key gone with them."""
    newcomer = f"newcomer,9900,plan,{PAID_AT.isoformat()},,"
    clock.database_ahead = LEAP
    world.tick()
    with pytest.raises(GatewayUnavailable, match="clock"):
        enrolled(world.book, world.policy, newcomer)
    clock.database_ahead = timedelta(0)
    # Also where no tick has compared anew; and a minute decides of nobody's month.
    enrolled(world.book, world.policy, newcomer)
    clock.database_ahead = timedelta(minutes=30)
    world.close()
    assert enrolled(world.book, world.policy, newcomer.replace("newcomer", "another")).added == 1
    first = "SELECT next_cycle FROM subscriptions WHERE customer_uid = 'newcomer'"
    assert query(world.book, first) == [(1,)]


def test_who_enrols_by_a_payment_asks_for_the_gateways_clock_where_nobody_did(
    world: World, clock: Clocks
) -> None:
    """Ticks ask for it only when something is due, which may be next week."""
    wish = NewCustomer(
        customer_uid="newcomer", amount=9900, name="plan", paid_at=clock.now - timedelta(minutes=1)
    )
    (payment,) = register(world.sandbox, [wish])

    def enrol() -> bool:
        return world.ask(
            lambda client: enrol_payment(
                world.book, world.policy, lambda: KEY, client, payment.imp_uid
            )
        ).added

    clock.database_ahead = LEAP
    with pytest.raises(GatewayUnavailable, match="clock"):
        enrol()
    clock.database_ahead = timedelta(0)
    assert enrol()


def test_by_a_clock_that_was_found_wrong_no_month_is_tried_again_by_hand(
    world: World, clock: Clocks
) -> None:
    """By it every band was over: those who were resumed had no attempt, and lost their month."""
    assert world.open() == 10
    for name in NAMES:
        change_status.pause(world.book, world.policy, name)
    clock.database_ahead = LEAP
    world.close()
    for name in NAMES:
        with pytest.raises(GatewayUnavailable, match="clock"):
            change_status.resume(world.book, world.policy, name)
    clock.database_ahead = timedelta(0)
    for name in NAMES:
        change_status.resume(world.book, world.policy, name)
    clock.move(hours=8)
    world.run(times=4)
    assert world.statuses("cycles") == {"paid": 10}


@pytest.mark.parametrize("lost", ["timeout_after_charge", "timeout_before_charge"])
@pytest.mark.parametrize("delivered", [True, False])
def test_a_leap_puts_no_question_off(
    world: World, clock: Clocks, lost: str, delivered: bool
) -> None:
    """Until that time came again none was asked, and its month ended unproven meanwhile."""
    world.enrol("asked", script=[lost])
    world.tick()
    assert world.statuses("attempts") == {"approved": 10, "unknown": 1}
    clock.move(minutes=3)
    clock.database_ahead = LEAP
    find_unknown(world.book, world, world.policy)
    if not delivered:
        world.inquiries.clear()
    world.work()
    clock.database_ahead = timedelta(0)
    world.run(times=10)
    assert world.statuses("cycles") == {"paid": 11}
    assert world.requests() == (11 if lost == "timeout_after_charge" else 12)
    assert broken(world.book, world.policy) == []


def test_a_leap_between_the_comparison_and_the_claim_counts(
    world: World, clock: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back into a band that is over: the gateway would refuse it, or take it for another month."""
    assert world.open() == 10
    clock.move(days=6)
    ids = [row[0] for row in query(world.book, "SELECT id FROM attempts")]

    async def compared(*answered: Any) -> bool:
        agrees = await compare_clocks(*answered)
        clock.database_ahead = timedelta(days=-6)
        return agrees

    with monkeypatch.context() as leaping:
        leaping.setattr(charging, "compare_clocks", compared)
        world.charge(ids)
        world.work()
    assert world.requests() == 0
    assert world.statuses("attempts") == {"due": 10}


def test_what_was_handed_out_in_a_leap_and_lost_is_handed_out_again(
    world: World, clock: Clocks
) -> None:
    """It was with nobody, and yet counted as on its way until that time came again."""
    assert world.open() == 10
    clock.database_ahead = timedelta(days=2)
    assert dispatch(world.book, world, world.policy) == 10
    world.charges.clear()
    clock.database_ahead = timedelta(0)
    world.policy = replace(world.policy, max_outstanding=10)
    world.run(every=timedelta(minutes=1), times=3)
    assert world.statuses("cycles") == {"paid": 10}


def test_a_leap_proves_nothing(world: World, clock: Clocks) -> None:
    """A look that shows no payment is late enough by it alone; the request may be on its way."""
    world.enrol("asked", script=["timeout_before_charge"])
    world.tick()
    assert world.statuses("attempts") == {"approved": 10, "unknown": 1}
    clock.database_ahead = timedelta(minutes=10)
    for _ in range(3):
        find_unknown(world.book, world, world.policy)
        world.work()
        clock.move(seconds=31)
    clock.database_ahead = timedelta(0)
    assert world.statuses("attempts") == {"approved": 10, "unknown": 1}
    world.run(times=20)
    assert world.statuses("cycles") == {"paid": 11}


Leaping = Callable[[World, timedelta], None]


@pytest.fixture
def leaping(clock: Clocks, monkeypatch: pytest.MonkeyPatch) -> Leaping:
    """One tick: the clock leaps when its answers are there, and is right again after it."""
    as_ever = Desk.hand_in

    def tick(world: World, by: timedelta) -> None:
        def hand_in(desk: Desk, *answer: Any) -> Any:
            clock.database_ahead = by
            return as_ever(desk, *answer)

        with monkeypatch.context() as wrong:
            wrong.setattr(Desk, "hand_in", hand_in)
            world.tick()
        clock.database_ahead = timedelta(0)

    return tick


def test_a_leap_keeps_back_nothing_that_was_not_sent(world: World, leaping: Leaping) -> None:
    """It would wait until that time came again, long after its month."""
    gateway_away(world)
    leaping(world, LEAP)
    assert world.statuses("attempts") == {"due": 10}
    gateway_back(world)
    world.run(times=10)
    assert world.statuses("cycles") == {"paid": 10}


@pytest.mark.parametrize("by", [LEAP, -LEAP], ids=["ahead", "back"])
@pytest.mark.parametrize("code", ["0031", "0011"])
def test_a_decline_that_is_written_down_in_a_leap_is_followed_as_ever(
    world: World, clock: Clocks, leaping: Leaping, code: str, by: timedelta
) -> None:
    """By its moment the band was over, and no retry was planned, nor anybody suspended; or it was
    to come, and the customer was asked again at once."""
    world.enrol("refused", script=[f"declined:{code}"])
    leaping(world, by)
    assert world.statuses("attempts") == {"approved": 10, "declined": 1} | (
        {"due": 1} if code == "0031" else {}
    )
    clock.move(minutes=3)
    world.tick()
    if code == "0011":
        assert world.statuses("subscriptions") == {"active": 10, "suspended": 1}
        return
    assert world.requests() == 11, "one try a day"
    clock.move(days=1)
    world.run(times=4)
    assert world.statuses("cycles") == {"paid": 11}
    assert broken(world.book, world.policy) == []


@pytest.mark.parametrize("by", [LEAP, -LEAP], ids=["ahead", "back"])
@pytest.mark.parametrize("refusal", [None, "[0031] refused"])
def test_what_looks_prove_is_followed_as_ever_where_it_is_written_down_in_a_leap(
    world: World, clock: Clocks, leaping: Leaping, refusal: str | None, by: timedelta
) -> None:
    """Nothing was charged: by that moment it could go again, or be tried again, only after its
    month."""
    world.enrol("asked", script=["timeout_before_charge"])
    world.tick()
    execute(world.book, "UPDATE attempts SET refusal = :refusal WHERE status = 'unknown'",
            refusal=refusal)  # fmt: skip
    clock.move(seconds=world.policy.settle.total_seconds() + 1)
    for _ in range(3):
        leaping(world, by)
        clock.move(seconds=31)
    assert world.statuses("attempts").get("unknown") is None
    assert world.requests() == (11 if refusal else 12)
    clock.move(days=1)
    world.run(times=4)
    assert world.statuses("cycles") == {"paid": 11}
    assert broken(world.book, world.policy) == []


@pytest.mark.parametrize("found", [False, True])
def test_a_late_proof_that_is_written_down_in_a_leap_takes_the_suspension_back(
    world: World, clock: Clocks, leaping: Leaping, found: bool
) -> None:
    """By that moment the next month, too, had passed without a payment."""
    world.enrol("asked", script=["timeout_after_charge"])
    world.tick()
    world.sandbox.mood = mood({"chances": {"lookup": {"http:503": 1.0}}})
    clock.move_to(datetime(2026, 11, 28, tzinfo=UTC))
    world.run(times=2)
    assert world.statuses("subscriptions") == {"active": 10, "suspended": 1}
    gateway_back(world)
    clock.move(minutes=10)
    if found:
        clock.database_ahead = LEAP
        world.tick()
    else:
        leaping(world, LEAP)
    assert world.statuses("cycles") == {"paid": 11}
    assert world.statuses("subscriptions") == {"active": 11}


@pytest.mark.parametrize("by", [LEAP, -LEAP], ids=["ahead", "back"])
def test_what_was_announced_is_looked_at_when_the_clock_is_right_again(
    world: World, clock: Clocks, by: timedelta
) -> None:
    """By a clock far behind the payment was yet to come, and the book agreed."""
    assert world.open() == 10
    payment = pay(world.sandbox, HandPayment(customer_uid=NAMES[0]))
    clock.move(minutes=10)
    receive_webhook(world.book, announced(payment.imp_uid, payment.merchant_uid, "paid"))

    def look() -> dict[str, int]:
        return dict(world.ask(lambda client: look_at_webhooks(world.book, client, world.policy)))

    clock.database_ahead = by
    assert look() == {}
    clock.database_ahead = timedelta(0)
    assert look() == {"counted": 1}
    assert world.statuses("cycles") == {"open": 9, "paid": 1}


def test_what_a_leap_says_of_a_lost_answer_is_forgotten_after_two_hours(
    world: World, clock: Clocks, leaping: Leaping
) -> None:
    """Whatever the truth was, a request of before is over by then, and shows."""
    world.enrol("asked", script=["timeout_before_charge"])
    leaping(world, LEAP)
    world.run(times=4)
    assert world.statuses("attempts") == {"approved": 10, "unknown": 1}
    clock.move(hours=2)
    world.run(times=10)
    assert world.statuses("cycles") == {"paid": 11}
    assert world.requests() == 12


def proved_no_sooner(world: World, clock: Clocks, late_enough: datetime) -> None:
    """The one without an answer stays unknown until then, and is charged after all."""
    while clock.now < late_enough:
        assert world.statuses("attempts") == {"approved": 10, "unknown": 1}
        world.run(every=timedelta(seconds=20))
    world.run(times=12)
    assert world.statuses("cycles") == {"paid": 11}


def test_what_a_leap_back_says_of_a_lost_answer_proves_nothing_sooner(
    world: World, clock: Clocks, leaping: Leaping
) -> None:
    world.enrol("asked", script=["timeout_before_charge"])
    leaping(world, -LEAP)
    proved_no_sooner(world, clock, clock.now + world.policy.settle)


def test_a_look_that_is_made_in_a_leap_back_proves_nothing_sooner_after_it(
    world: World, clock: Clocks
) -> None:
    """By that clock the moment from which on nothing proves something seemed to lie far ahead."""
    world.enrol("asked", script=["timeout_before_charge"])
    world.tick()
    late_enough = clock.now + world.policy.settle
    clock.database_ahead = -LEAP
    find_unknown(world.book, world, world.policy)
    world.work()
    clock.database_ahead = timedelta(0)
    proved_no_sooner(world, clock, late_enough)


def test_a_clock_that_stays_wrong_is_compared_until_it_is_right(
    world: World, clock: Clocks
) -> None:
    """Told once; and the first tick after it was set right goes on."""
    clock.database_ahead = LEAP
    world.run(times=5)
    assert world.alarms() == ["clock.skewed"]
    assert world.statuses("cycles") == {}
    clock.database_ahead = timedelta(0)
    assert world.open() == 10


# -- a gateway that cannot be asked -------------------------------------------------------------


def test_closing_waits_for_the_gateway_and_tells_once(world: World, clock: Clocks) -> None:
    unpaid_and_over(world)
    gateway_away(world)
    for _ in range(40):
        assert world.close() == 0
        clock.move(minutes=10)
    assert world.alarms() == ["clock.not_compared"]
    ((data,),) = query(world.book, "SELECT data FROM events WHERE kind = 'clock.not_compared'")
    assert data["hours"] == 2.0
    assert "503" in data["why"]
    gateway_back(world)
    assert world.close() == 10
    assert world.statuses("cycles") == {"missed": 10}


def test_after_a_day_alone_the_hosts_own_clock_is_believed(world: World, clock: Clocks) -> None:
    unpaid_and_over(world)
    gateway_away(world)
    began = clock.now
    while not world.close():
        clock.move(minutes=30)
    assert clock.now - began == timedelta(hours=24)
    assert world.statuses("cycles") == {"missed": 10}


@pytest.mark.parametrize("host_ahead", [timedelta(0), timedelta(minutes=-2)])
def test_alone_with_a_clock_that_the_host_contradicts_nothing_ends(
    world: World, clock: Clocks, host_ahead: timedelta
) -> None:
    assert world.open() == 10
    gateway_away(world)
    clock.database_ahead, clock.host_ahead = LEAP, LEAP * bool(host_ahead) + host_ahead
    for _ in range(60):
        assert (world.open(), world.close()) == (0, 0)
        clock.move(minutes=30)
    assert world.statuses("cycles") == {"open": 10}


def test_a_machine_whose_clock_leaps_whole_ends_nothing_at_once(
    world: World, clock: Clocks
) -> None:
    """Database and ticks on one host, started with a wrong clock and no network: the day alone is
    counted by the clock that only goes forward."""
    assert world.open() == 10
    gateway_away(world)
    clock.database_ahead = clock.host_ahead = LEAP
    world.guard = a_guard(clock)
    for _ in range(20):
        assert world.close() == 0
        clock.move(hours=1)
    gateway_back(world)
    assert world.close() == 0
    assert "clock.skewed" in world.alarms()
    assert world.statuses("cycles") == {"open": 10}


def test_a_clock_that_was_found_wrong_is_not_believed_alone(world: World, clock: Clocks) -> None:
    unpaid_and_over(world)
    clock.database_ahead = clock.host_ahead = timedelta(minutes=5)
    assert world.close() == 0
    gateway_away(world)
    for _ in range(60):
        assert (world.open(), world.close()) == (0, 0)
        clock.move(minutes=30)


def test_only_a_day_of_trying_counts(world: World, clock: Clocks) -> None:
    """Away once, then nothing to do for a week: the next failure begins a new day."""
    assert world.open() == 10
    clock.move(minutes=10)
    gateway_away(world)
    clock.move_to(datetime(2026, 11, 24, 15, 30, tzinfo=UTC))
    world.close()
    assert "cycle.closing_soon" in world.alarms(), "warned of all the same"
    clock.move(days=6)
    assert world.close() == 0
    clock.move(hours=23)
    assert world.close() == 0


def test_opening_goes_on_where_the_host_agrees(world: World) -> None:
    gateway_away(world)
    assert world.open() == 10


def test_without_anything_to_do_the_gateway_is_not_asked(world: World, clock: Clocks) -> None:
    clock.move_to(datetime(2026, 11, 10, tzinfo=UTC))
    execute(world.book, "UPDATE gateway_health SET skew_checked_at = NULL")
    assert (world.open(), world.close()) == (0, 0)
    assert query(world.book, "SELECT skew_checked_at FROM gateway_health") == [(None,)]
