"""What people do to subscriptions: customers, the merchant, and whoever can reach the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from sqlalchemy.exc import DBAPIError

from billing.domain.calendar import SEOUL
from billing.domain.errors import Conflict, GatewayError, TransitionRefused, Unconfirmed
from billing.sandbox import NewCustomer, register
from billing.sandbox.model import Payment, Status
from billing.services import change_status, correct
from billing.services.enrol_payment import EnrolledPayment, enrol_payment
from billing.services.hold import hold, release
from billing.services.invariants import broken
from billing.services.let_go import let_go
from billing.services.try_again import try_again
from tests.builders import KEY, enrolled, execute, query
from tests.integration.state_machine.stage import DEAF, Stage

MOST = 8
FAULTS = (
    "ok",
    "declined:0098",  # again soon
    "declined:0031",  # not this month
    "declined:0016",  # the customer must act
    "declined:E",  # never again
    "timeout_before_charge",
    "timeout_after_charge",
    "reset_after_charge",
    "cut_json_after_charge",
    "html_after_charge",
    "http_before_charge:500",
    "too_many:30",
    "unauthorized",
    "wrong_amount",
    "wrong_merchant_uid",
    "ready",
)
SCRIPTS = st.lists(st.sampled_from(FAULTS), max_size=3)
EDITS = (
    "UPDATE subscriptions SET amount = amount + 1",
    "UPDATE subscriptions SET order_name = 'a third'",
    "UPDATE events SET kind = 'nothing'",
    "DELETE FROM events",
)
AROUND = "SET LOCAL session_replication_role = replica; UPDATE subscriptions SET "
# What somebody writes around the triggers, and which fields that makes wrong.
SPOILS = {
    "amount": ("amount = amount + 100", {"amount"}),
    "name": ("order_name = 'another'", {"order_name"}),
    "anchor": (
        # Within its month: what follows from another one is not the gateway's to tell.
        "anchor_on = anchor_on + CASE WHEN extract(day FROM anchor_on) < 28 THEN 1 ELSE -1 END",
        {"anchor_on"},
    ),
    "seal": ("seal = decode(repeat('00', length(seal)), 'hex')", set()),
}
SEALED = "I3 never another amount"
FACTS = (
    "SELECT customer_uid, amount, order_name, initial_paid_at, anchor_on, tag, name, email, tel"
    " FROM subscriptions s LEFT JOIN buyers ON subscription_id = s.id WHERE customer_uid = :who"
)
# All that a correction of one subscription must leave as it is: what is not its facts, what has
# ended, and all that is others'.
APART = (
    "SELECT (SELECT json_agg(s ORDER BY id) FROM subscriptions s WHERE customer_uid <> :who)::text,"
    " (SELECT json_agg(c ORDER BY c.id) FROM cycles c JOIN subscriptions s ON s.id ="
    " c.subscription_id WHERE customer_uid <> :who OR c.status IN ('paid', 'refunded'))::text,"
    " (SELECT json_agg((c.id, c.status, c.number, c.reason, c.settled_at) ORDER BY c.id)"
    " FROM cycles c)::text,"
    " (SELECT json_agg(a ORDER BY a.id) FROM attempts a JOIN cycles c ON c.id = a.cycle_id"
    " JOIN subscriptions s ON s.id = c.subscription_id"
    " WHERE customer_uid <> :who OR c.status <> 'open')::text,"
    " (SELECT json_agg(r ORDER BY id) FROM refunds r)::text,"
    " (SELECT json_agg((s.status, s.status_reason, s.next_cycle, s.previous_id, s.enrolled_at))"
    " FROM subscriptions s WHERE customer_uid = :who)::text"
)


class People(Stage):
    """Enrolling, pausing, resuming, cancelling, holding, letting go, spoiling, correcting."""

    # -- enrolling ------------------------------------------------------------------------------

    @initialize(scripts=st.lists(SCRIPTS, min_size=4, max_size=4), minutes=st.integers(0, 2))
    def begin_with_some(self, scripts: list[list[str]], minutes: int) -> None:
        """So that whatever comes first has somebody, and a message or a payment, to happen to."""
        self.begin()
        for days_ago, script in enumerate(scripts):
            self.enrols(days_ago, script)
        self.clock.move(minutes=6)
        for name in ("open", "dispatch"):
            self.one_tick(name)
        for _ in range(minutes):
            self.a_good_minute()

    @precondition(lambda self: len(self.rows) + len(self.registered) < MOST)
    @rule(days_ago=st.integers(0, 4), script=SCRIPTS)
    def enrol(self, days_ago: int, script: list[str]) -> None:
        self.enrols(days_ago, script)

    def enrols(self, days_ago: int, script: list[str]) -> None:
        payment = self._registers(self._a_month_before(days_ago), script)
        name = payment.customer_uid
        assert enrolled(self.book, self.policy, self._row(payment)).added == 1
        self._is_in(name, payment)

    @precondition(lambda self: len(self.rows) + len(self.registered) < MOST)
    @rule(days_ago=st.sampled_from([None, 0, 1, 4]), script=SCRIPTS)
    def pay_in_the_window(self, days_ago: int | None, script: list[str]) -> None:
        """Just now, so that a month's charge is far away; or a month ago and told of only now."""
        just_now = self.clock.now - timedelta(minutes=30)
        paid_at = just_now if days_ago is None else self._a_month_before(days_ago)
        payment = self._registers(paid_at, script)
        self.registered[payment.customer_uid] = payment

    @precondition(lambda self: self.registered or self.rows)
    @rule(
        data=st.data(),
        lie=st.sampled_from([None, None, None, {"amount": 1}, {"merchant_uid": "another"}]),
        kill=st.sampled_from(["", "", "before a look", "after a look"]),
    )
    def enrol_by_payment(self, data: st.DataObject, lie: dict[str, Any] | None, kill: str) -> None:
        """Once, again, as something that was not ordered, or in going on from another."""
        name = data.draw(st.sampled_from(sorted(self.registered.keys() or self.rows.keys())))
        payment = self._initial(name)
        previous = data.draw(st.sampled_from([None, *self._ended_ones(name)]))
        before = self.statuses()
        try:
            found = self.ask(
                lambda book, client: enrol_payment(
                    book,
                    self.policy,
                    lambda: KEY,
                    client,
                    payment.imp_uid,
                    previous=previous,
                    **(lie or {}),
                ),
                kill,
            )
        except GatewayError:
            assert self.mood in DEAF
            found = None
        except Conflict:
            gone = payment.status is Status.CANCELLED
            assert lie or gone or previous or name in self.spoiled, "refused without a reason"
            found = None
        self._enrolled_or_not(name, payment, previous, before, found)

    def _enrolled_or_not(
        self,
        name: str,
        payment: Payment,
        previous: str | None,
        before: dict[str, str],
        found: EnrolledPayment | None,
    ) -> None:
        """Whole, with the end of the one before, or not at all."""
        after = self.statuses()
        new = after.keys() - before.keys()
        assert (found is not None and found.added) == bool(new) == (new == {name})
        if previous is not None and before[previous] != "cancelled":
            assert (after[previous] == "cancelled") == (found is not None)
        if new:
            self.registered.pop(name)
            self._is_in(name, payment)
            self.reached["enrolled by a payment" + (", going on" if previous else "")] += 1

    def _registers(self, paid_at: datetime, script: list[str]) -> Payment:
        customer = NewCustomer(
            customer_uid=f"customer-{len(self.rows) + len(self.registered)}",
            amount=9900,
            name="plan",
            paid_at=paid_at,
            script=script,
        )
        return register(self.sandbox, [customer])[0]

    def _a_month_before(self, days_ago: int) -> datetime:
        anchor = (self.clock.now.astimezone(SEOUL) - timedelta(days=days_ago)).day
        last_month = self.clock.now.astimezone(SEOUL).replace(day=1) - timedelta(days=1)
        return last_month.replace(day=min(anchor, 28), hour=12, minute=0, second=0, microsecond=0)

    def _row(self, payment: Payment) -> str:
        paid_at = datetime.fromtimestamp(payment.paid_at, SEOUL)
        return f"{payment.customer_uid},9900,plan,{paid_at.isoformat()},,"

    def _is_in(self, name: str, payment: Payment) -> None:
        self.rows[name] = self._row(payment)
        self.facts[name] = query(self.book, FACTS, who=name)[0]

    def _initial(self, name: str) -> Payment:
        return self.sandbox.ledger.of_customer(name)[0]

    def _ended_ones(self, name: str) -> list[str]:
        ended = [
            one for one, status in self.statuses().items() if status in ("suspended", "cancelled")
        ]
        return sorted(set(ended) - {name})

    @precondition(lambda self: self.rows.keys() - self.spoiled.keys())
    @rule(data=st.data(), statement=st.sampled_from(EDITS))
    def do_what_changes_nothing(self, data: st.DataObject, statement: str) -> None:
        """The same import again, one with another amount, and an edit of the book."""
        name = data.draw(st.sampled_from(sorted(self.rows.keys() - self.spoiled.keys())))
        assert enrolled(self.book, self.policy, self.rows[name]).unchanged == 1
        changed = self.rows[name].replace("9900", "8800")
        report = enrolled(self.book, self.policy, changed)
        assert (report.added, report.unchanged, len(report.rejected)) == (0, 0, 1)
        with pytest.raises(DBAPIError):
            execute(self.book, statement)

    # -- by hand --------------------------------------------------------------------------------

    @precondition(lambda self: self.rows)
    @rule(
        data=st.data(),
        what=st.sampled_from(
            ["pause", "resume", "resume", "cancel", "hold", "release", "release", "try"]
        ),
    )
    def type_a_command(self, data: st.DataObject, what: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.rows)))
        match what:
            case "hold":
                hold(self.book, "a drill")
            case "release":
                release(self.book, self.policy)
            case "try":
                self._try_once_more(name)
            case _:
                self._change_the_status(name, what)

    def _change_the_status(self, name: str, what: str) -> None:
        try:
            getattr(change_status, what)(self.book, self.policy, name)
        except (TransitionRefused, Conflict):
            assert self.statuses()[name] in ("cancelled", "suspended"), "refused without a reason"

    def _try_once_more(self, name: str) -> None:
        """One attempt more, or none, and a reason."""
        before = len(self._attempts_of(name))
        found = try_again(self.book, self.policy, name)
        planned = found.at is not None and found.why_not is None
        assert len(self._attempts_of(name)) == before + planned
        self.reached["tried again" if planned else f"not tried: {found.why_not}"] += 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_a_month_go(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        found = let_go(self.book, self.policy, name)
        assert name not in self._held_ones()
        self.reached[f"let go: {found.held}"] += 1
        with pytest.raises(Conflict):
            let_go(self.book, self.policy, name)

    def _held_ones(self) -> set[str]:
        found = query(
            self.book,
            "SELECT customer_uid FROM cycles c JOIN subscriptions s ON s.id = subscription_id"
            " WHERE c.status = 'open' AND held IS NOT NULL",
        )
        return {name for (name,) in found}

    def _attempts_of(self, name: str) -> list[tuple[Any, ...]]:
        return query(
            self.book,
            "SELECT a.id FROM attempts a JOIN cycles c ON c.id = cycle_id JOIN subscriptions s"
            " ON s.id = subscription_id WHERE customer_uid = :who",
            who=name,
        )

    # -- behind our back ------------------------------------------------------------------------

    @precondition(lambda self: self.rows.keys() - self.spoiled.keys())
    @rule(data=st.data(), what=st.sampled_from(sorted(SPOILS)))
    def spoil_the_book(self, data: st.DataObject, what: str) -> None:
        """As nobody may, by going around the triggers and the foreign keys."""
        name = data.draw(st.sampled_from(sorted(self.rows.keys() - self.spoiled.keys())))
        change, fields = SPOILS[what]
        execute(self.book, f"{AROUND}{change} WHERE customer_uid = '{name}'")
        self.spoiled[name] = fields

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), kill=st.sampled_from(["", "", "after a look"]))
    def correct_the_book(self, data: st.DataObject, kill: str) -> None:
        names = st.sampled_from(sorted(self.rows))
        self.correct(
            data.draw(st.sampled_from(sorted(self.spoiled)) if self.spoiled else names), kill
        )

    def correct(self, name: str, kill: str = "") -> None:
        """By the initial payment, and in nothing but what that says."""
        try:
            proposal = self.ask(
                lambda book, client: correct.propose(book, client, self.policy, name), kill
            )
        except Unconfirmed:
            assert self._initial(name).status is Status.CANCELLED, "refused without a reason"
            return
        except GatewayError:
            assert self.mood in DEAF
            return
        if proposal is None:
            return
        assert {one.field for one in proposal.differs} == self.spoiled.get(name, set())
        before, asked = query(self.book, APART, who=name), len(self.sandbox.ledger.requests)
        try:
            done = correct.correct(self.book, self.policy, proposal)
        except Conflict:
            assert self.in_flight(name) or not proposal.is_needed, "refused without a reason"
            return
        assert query(self.book, APART, who=name) == before
        assert query(self.book, FACTS, who=name)[0] == self.facts[name]
        assert len(self.sandbox.ledger.requests) == asked
        self.spoiled.pop(name, None)
        self.only_the_spoiled_are_unsealed()
        self.reached["corrected" + (f", held: {done.was_held}" if done.was_held else "")] += 1

    def only_the_spoiled_are_unsealed(self) -> None:
        """I3 is broken where somebody spoiled the book, and there alone."""
        found = broken(self.book, self.policy)
        ids = [row for one in found if one.name == SEALED for row in one.rows]
        named = query(self.book, "SELECT customer_uid FROM subscriptions WHERE id = ANY(:i)", i=ids)
        assert {name for (name,) in named} == self.spoiled.keys()

    def in_flight(self, name: str) -> bool:
        return bool(
            query(
                self.book,
                "SELECT FROM attempts a JOIN cycles c ON c.id = cycle_id JOIN subscriptions s"
                " ON s.id = subscription_id WHERE a.status IN ('sending', 'unknown')"
                " AND customer_uid = :who",
                who=name,
            )
        )
