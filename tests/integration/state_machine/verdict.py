"""What must hold after every step, and what everything has come to when the faults are over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from hypothesis.stateful import invariant

from billing.domain.reconciliation import DifferenceKind
from billing.sandbox import LineChange, change, judge
from billing.sandbox.model import Origin, Payment, Status
from billing.services.invariants import at_once
from tests.builders import query
from tests.integration.state_machine.money import Money
from tests.integration.state_machine.people import People
from tests.integration.state_machine.stage import BEGAN, day_of, month_of

# Never another way; several in one step.
FOLLOWS = {
    "open": {"paid", "missed", "skipped", "refunded"},
    "missed": {"paid", "refunded"},
    "paid": {"refunded"},
}
# Told of a payment that stands and has no place in the book.
NO_PLACE = {
    DifferenceKind.DOUBLE,
    DifferenceKind.LATE_PAID,
    DifferenceKind.PAID_ELSEWHERE,
    DifferenceKind.NOT_IN_BOOK,
    DifferenceKind.PAID_NOT_DUE,
    DifferenceKind.NOT_ENROLLED,
    DifferenceKind.STRANGER,
    DifferenceKind.AMOUNT,
}


class Verdict(People, Money):
    """The judge, who sees both sides."""

    @invariant()
    def the_book_keeps_its_rules(self) -> None:
        """All but I4, which is about what ticks must have done by now: they come when they come."""
        if hasattr(self, "months"):
            assert at_once(self.book, self.policy, but=("I4",)) == []

    @invariant()
    def the_gateway_finds_nothing_wrong(self) -> None:
        if hasattr(self, "months"):
            book = self.sandbox.ledger
            found = judge(book.payments, book.keys, book.requests, self.sandbox.clock.unix())
            assert not found.problems
            assert not self.journal.blind, "asked back again without a look"

    @invariant()
    def model_book_and_ledger_agree(self) -> None:
        if not hasattr(self, "months"):
            return
        self.held.clear()
        ours = {one.merchant_uid: one for one in self.paid(Origin.AGAIN)}
        assert len(ours) == len(self.paid(Origin.AGAIN))
        for name, month, status, held, amount, imp_uid, attempts in query(
            self.book,
            "SELECT s.customer_uid, c.month, c.status, c.held, c.amount, c.paid_imp_uid,"
            " (SELECT json_object_agg(a.merchant_uid, a.status) FROM attempts a"
            " WHERE a.cycle_id = c.id) FROM cycles c JOIN subscriptions s"
            " ON s.id = c.subscription_id",
        ):
            if status == "open" and held:
                self.held.add(name)
            before = self.months.get((name, month), "open")
            assert status == before or status in FOLLOWS.get(before, ()), (
                f"{before} became {status}"
            )
            self.months[name, month] = status
            if imp_uid is not None:
                assert self.pays.setdefault((name, month), imp_uid) == imp_uid
                self._pays(imp_uid, name, month, status, amount)
            for merchant_uid, state in (attempts or {}).items():
                assert state in _known(ours.get(merchant_uid), imp_uid), f"{merchant_uid}: {state}"
        assert len(self.pays) == len(self.counted()), "one payment pays two months"
        self.never |= {
            one.imp_uid
            for one in self.sandbox.ledger.payments
            if one.status is Status.CANCELLED
            # Ours may go back while its own answer is still in question.
            and one.origin is not Origin.AGAIN
            and one.imp_uid not in self.counted()
        }

    def _pays(self, imp_uid: str, name: str, month: date, status: str, amount: int) -> None:
        """The payment that a month counts: this customer's, this month's, and never given back
        before it was counted."""
        payment = self.sandbox.ledger.by_imp_uid(imp_uid)
        assert payment is not None
        assert payment.paid_at
        assert payment.origin in (Origin.AGAIN, Origin.HAND)
        assert (payment.customer_uid, month_of(payment)) == (name, month)
        assert payment.amount == amount
        assert imp_uid not in self.never
        assert status == "paid" or payment.status is Status.CANCELLED

    @invariant()
    def what_is_called_given_back_is(self) -> None:
        if not hasattr(self, "months"):
            return
        for (imp_uid,) in query(self.book, "SELECT imp_uid FROM refunds WHERE status = 'done'"):
            assert self.is_cancelled(imp_uid)

    def is_cancelled(self, imp_uid: str) -> bool:
        payment = self.sandbox.ledger.by_imp_uid(imp_uid)
        return payment is not None and payment.status is Status.CANCELLED

    def paid(self, origin: Origin) -> list[Payment]:
        """Whatever was ever paid so, given back since or not."""
        found = self.sandbox.ledger.payments
        return [one for one in found if one.paid_at and one.origin is origin]

    # -- at rest --------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """No more faults, and people who do what is left to them: within hours nothing is open that
        could be known (I8, I12), and everything that was told is so."""
        self.set_mood("well")
        for name in self.sandbox.ledger.keys:
            change(self.sandbox, name, LineChange(script=[]))
        # Whoever did not hear by webhook hears by reconciliation.
        self.messages.clear()
        self.post.under_way.clear()
        self._minutes(4)
        for name in sorted(self.spoiled):
            self.correct(name)
        self.reconciled(60, apply=True)
        # What they were about to send, or what kept a payment in question, is over by the second.
        self._minutes(3)
        self._both_sides_agree()
        self.model_book_and_ledger_agree()
        self.what_is_called_given_back_is()
        assert at_once(self.book, self.policy) == []
        self.only_the_spoiled_are_unsealed()
        # Whom nobody can put right: the payment that tells what is right went back, or the days are
        # wrong of a month whose charge is still in question.
        for name, fields in self.spoiled.items():
            in_question = "anchor_on" in fields and self.in_flight(name)
            assert in_question or self._initial(name).status is Status.CANCELLED
        self._every_question_is_answered()
        self._every_payment_has_its_place()
        self._every_refund_has_ended()
        self._every_webhook_was_looked_at()

    def _minutes(self, number: int) -> None:
        for _ in range(number):
            self.a_good_minute()
            self.clock.move(minutes=10)

    def _both_sides_agree(self) -> None:
        """A second comparison finds nothing to apply, and what it tells is what is written."""
        self.reconciled(60, apply=True)
        report = self.reconciled(60, apply=True)
        assert report is not None
        assert (report.whole, report.applied, report.news) == (True, [], 0)
        open_ones = query(self.book, "SELECT key FROM ledger_differences WHERE resolved_at IS NULL")
        assert {key for (key,) in open_ones} == {one.key for one in report.differences}

    def _every_question_is_answered(self) -> None:
        """But for those that only a person can answer: a payment of the month that does not fit, or
        one that somebody else made and took back."""
        for name, month, held in query(
            self.book,
            "SELECT s.customer_uid, c.month, c.held FROM attempts a JOIN cycles c"
            " ON c.id = a.cycle_id JOIN subscriptions s ON s.id = c.subscription_id"
            " WHERE a.status IN ('sending', 'unknown')",
        ):
            assert held in ("contradiction", "payment_cancelled"), f"{name} {month}: {held}"
            assert any(
                one.amount != 9900 or one.status is Status.CANCELLED
                for one in self._of_month(name, month)
            )

    def _of_month(self, name: str, month: date) -> list[Payment]:
        made = self.sandbox.ledger.of_customer(name)
        return [one for one in made if one.paid_at and month_of(one) == month]

    def _every_payment_has_its_place(self) -> None:
        """I8, either way round: what stands is counted or told of, what went back is refunded, and
        nothing else is told."""
        status = {self.pays[key]: self.months[key] for key in self.pays}
        told = dict(self._told())
        for one in self.sandbox.ledger.payments:
            if not one.paid_at:
                continue
            cancelled = one.status is Status.CANCELLED
            if one.imp_uid in status:
                assert status[one.imp_uid] == ("refunded" if cancelled else "paid")
                assert told.get(one.imp_uid) not in NO_PLACE
            elif cancelled:
                assert told.get(one.imp_uid, "cancelled_at_gateway") == "cancelled_at_gateway"
            elif one.imp_uid not in told:
                assert one.origin is not Origin.AGAIN
                assert one.imp_uid in self._nobodys_business(), "neither counted nor told of"

    def _told(self) -> Iterator[tuple[str, str]]:
        """What a person is still told of each payment."""
        for kind, key in query(
            self.book, "SELECT kind, key FROM ledger_differences WHERE resolved_at IS NULL"
        ):
            yield key.partition(":")[2], kind

    def _nobodys_business(self) -> set[str]:
        """Payments that began a subscription of the book, or came before any month of it; and of a
        month whose first payment went back, the one that keeps it."""
        found = set()
        for name in self.rows.keys() | self.registered.keys():
            initial, *others = self.sandbox.ledger.of_customer(name)
            if name in self.rows or day_of(initial.paid_at) < BEGAN:
                found.add(initial.imp_uid)
            in_its_month = [one for one in others if month_of(one) == month_of(initial)]
            if initial.status is Status.CANCELLED:
                found |= {one.imp_uid for one in in_its_month}
        return found

    def _every_refund_has_ended(self) -> None:
        """Done, or refused with a reason that is so."""
        for status, message, over in query(
            self.book, "SELECT status, message, refund_by <= settled_at FROM refunds"
        ):
            assert status in ("done", "refused")
            self.reached[f"refund {status}"] += 1
            if status == "refused":
                assert over or message.startswith("[0043]"), message

    def _every_webhook_was_looked_at(self) -> None:
        """By an outcome that is so; what is not there is looked at again for longer than this."""
        counted = self.counted()
        for imp_uid, outcome in query(self.book, "SELECT imp_uid, outcome FROM webhooks"):
            there = self.sandbox.ledger.by_imp_uid(imp_uid)
            if there is None:
                assert outcome in (None, "not_found")
                continue
            assert outcome not in (None, "not_found", "failed")
            if outcome in ("counted", "refunded"):
                assert imp_uid in counted or self.is_cancelled(imp_uid)


def _known(charged: Payment | None, pays: str | None) -> set[str]:
    """What an attempt may be called, by what the gateway charged under its name; `pays` is what its
    month counts."""
    if charged is None:
        return {"due", "sending", "unknown", "declined", "withdrawn"}
    known = {"approved", "sending", "unknown"}
    if charged.status is Status.CANCELLED and pays not in (None, charged.imp_uid):
        # Given back before it was known, in a month that another payment pays.
        known.add("withdrawn")
    return known
