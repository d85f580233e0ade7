"""Any order of anything that people, ticks, workers, the gateway and time may do (reliability L8).

The real use cases on a real PostgreSQL, the sandbox in the same process. After every step the book
keeps its invariants, the sandbox finds nothing wrong, and the model (months by customer), the book
and the gateway's ledger tell the same. In the end all faults stop, and it is judged what became of
every payment, refund, webhook and difference. The rules are here and in `state_machine/`: `people`,
`money`; `stage` is what they share, `verdict` what must hold.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from billing.bootstrap import billing_policy
from billing.sandbox import LineChange, change
from billing.settings import Settings
from billing.store.session import Book, create_book_engine
from tests.builders import enrolled
from tests.conftest import MovedClock
from tests.integration.state_machine.money import KILLS
from tests.integration.state_machine.people import FAULTS
from tests.integration.state_machine.stage import MOODS, OFF, SCANS, START
from tests.integration.state_machine.verdict import Verdict
from tests.integration.state_machine.wire import DEATHS

STEPS = tuple(
    timedelta(**one)
    for one in (
        {"seconds": 6},
        {"seconds": 70},
        {"minutes": 5},
        {"hours": 1},
        {"hours": 9},
        {"days": 1},
        {"days": 4},
    )
)
# What a long run must have come to at least once, lest a rule stands there for nothing.
MUST_REACH = {
    "cancelled elsewhere, counted",
    "cancelled with a refund",
    "clock off",
    "corrected",
    "corrected, held: facts_changed",
    "enrolled by a payment",
    "enrolled by a payment, going on",
    "let go: contradiction",
    "let go: facts_changed",
    "let go: payment_cancelled",
    "reconciled: cancelled_at_gateway",
    "reconciled: paid_elsewhere",
    "refund done",
    "refund refused",
    "told: double",
    "told: not_enrolled",
    "webhook again",
    "webhook counted",
    "webhook inquired",
    "webhook refunded",
    "webhook unknown_payment",
    *(f"killed {death}" for death in DEATHS),
}


class Machine(Verdict):
    """The gateway, time, ticks and workers."""

    def teardown(self) -> None:
        if hasattr(self, "months"):
            self.come_to_rest()
            self.sandbox.close()

    # -- the gateway and time -------------------------------------------------------------------

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), script=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def change_a_line(self, data: st.DataObject, script: list[str]) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        change(self.sandbox, name, LineChange(script=script))

    @rule(name=st.sampled_from(["well", *MOODS, *OFF]))
    def change_the_mood(self, name: str) -> None:
        self.set_mood(name)

    @rule(by=st.sampled_from(STEPS))
    def let_time_pass(self, by: timedelta) -> None:
        self.clock.move(seconds=by.total_seconds())

    # -- ticks and workers ----------------------------------------------------------------------

    @rule(ticks=st.lists(st.sampled_from([*SCANS, "seal", "reconcile"]), min_size=1), kill=KILLS)
    def tick(self, ticks: list[str], kill: str) -> None:
        for name in ticks:
            self.one_tick(name, kill)

    @rule()
    def tick_all(self) -> None:
        for name in SCANS:
            self.one_tick(name)

    @precondition(lambda self: self.messages)
    @rule(
        data=st.data(),
        keep=st.booleans(),
        kill=st.sampled_from(["", "", "", "before a look", "before a charge", "after a charge"]),
    )
    def deliver(self, data: st.DataObject, keep: bool, kill: str) -> None:
        """Any message, in any order; kept, it comes once more; and a worker may die of it."""
        place = data.draw(st.integers(0, len(self.messages) - 1))
        message = self.messages[place] if keep else self.messages.pop(place)
        self.work(message, kill)

    @precondition(lambda self: self.messages or self.post.under_way)
    @rule()
    def lose_what_is_under_way(self) -> None:
        self.messages.clear()
        self.post.under_way.clear()

    @rule(pauses=st.lists(st.sampled_from([0, 10, 60]), min_size=1, max_size=4))
    def all_is_well_for_a_while(self, pauses: list[int]) -> None:
        for minutes in pauses:
            self.a_good_minute()
            self.clock.move(minutes=minutes)


def run(database_url: str, examples: int, steps: int) -> Counter[str]:
    """Returns what really happened, and how often."""
    engine = create_book_engine(database_url)

    class Here(Machine):
        pass

    Here.engine, Here.reached = engine, Counter()
    enrolled(Book(engine, MovedClock(START).read), billing_policy(Settings.load()))
    try:
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                # A failure tells its few steps; making them fewer takes minutes.
                phases=[Phase.generate] if steps < 50 else [Phase.generate, Phase.shrink],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        engine.dispose()
    return Here.reached


def test_any_order_of_anything(database_url: str) -> None:
    run(database_url, 12, 25)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_any_order_of_anything_for_long(database_url: str) -> None:
    reached = run(database_url, 400, 50)
    assert not MUST_REACH - reached.keys()
