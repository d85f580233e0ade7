"""Money that comes without us and money that goes back: by hand, by us, in the gateway's console;
and how the book hears of it, by webhooks and by reconciliation."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from billing.domain.errors import Conflict, GatewayError, NotFound
from billing.portone.client import PortOneClient
from billing.sandbox import HandPayment, pay
from billing.sandbox.cancelling import cancel_in_console
from billing.sandbox.model import Payment
from billing.services import change_status, refund
from billing.services.reconcile import Report, Span, reconcile
from billing.store.session import Book
from tests.builders import query
from tests.integration.state_machine.stage import (
    BEGAN,
    DEAF,
    Stage,
    day_of,
    month_of,
    no_sleep,
)
from tests.integration.state_machine.wire import DEATHS, arrives

KILLS = st.sampled_from(["", "", "", "", *(one for one in DEATHS if "charge" not in one)])
# What a request to give back may meet beside what the mood has for it.
LOST = (
    "timeout_before_cancel",
    "timeout_after_cancel",
    "reset_before_cancel",
    "cut_json_after_cancel",
    "http_before_cancel:500",
    "refused:0043",
)
# All of the book but what is known of the gateway itself.
WHOLE_BOOK = " || ".join(
    f"(SELECT coalesce(md5(string_agg(t::text, ',' ORDER BY id)), '') FROM {table} t)"
    for table in (
        "subscriptions",
        "cycles",
        "attempts",
        "refunds",
        "events",
        "notices",
        "ledger_differences",
    )
)


class Money(Stage):
    """Payments by hand, refunds, cancellations elsewhere, webhooks, reconciliation."""

    # -- without us -----------------------------------------------------------------------------

    @precondition(lambda self: self.rows or self.registered)
    @rule(data=st.data(), amount=st.sampled_from([None, None, None, 8800]))
    def pay_by_hand(self, data: st.DataObject, amount: int | None) -> None:
        name = data.draw(st.sampled_from(sorted([*self.rows, *self.registered])))
        pay(self.sandbox, HandPayment(customer_uid=name, amount=amount))
        # Longer than any look-up lags: what happens within that is a race nobody can win.
        self.clock.move(seconds=31)

    @precondition(lambda self: self._of_this_month())
    @rule(data=st.data())
    def cancel_elsewhere(self, data: st.DataObject) -> None:
        """In the gateway's console."""
        payment = self._drawn(data)
        counted = payment.imp_uid in self.counted()
        cancel_in_console(self.sandbox, payment.imp_uid, "a customer called")
        self.reached["cancelled elsewhere" + (", counted" if counted else "")] += 1

    # -- refunds --------------------------------------------------------------------------------

    @precondition(lambda self: self._of_this_month())
    @rule(data=st.data(), meets=st.sampled_from(["", "ok", *LOST]), kill=KILLS)
    def give_back(self, data: st.DataObject, meets: str, kill: str) -> None:
        """As the command, which stays with it for a while; or the console, which leaves it to the
        ticks: then its request meets nothing as yet."""
        payment, mood = self._drawn(data), self.sandbox.mood
        if meets:
            chances = mood.chances.model_copy(update={"cancel": {meets: 1.0}})
            self.sandbox.mood = mood.model_copy(update={"chances": chances})

        async def typed(book: Book, client: PortOneClient) -> int:
            named = payment.merchant_uid, payment.imp_uid
            proposal = await refund.propose(book, client, self.policy, *named)
            made = await asyncio.to_thread(refund.request, book, proposal, "a customer called")
            if meets:
                await refund.work_on(book, client, self.policy, made)
            return made

        try:
            self.ask(typed, kill)
        except GatewayError:
            assert self.mood in DEAF
        except NotFound:
            assert payment.visible_at > self.clock.now.timestamp(), "refused without a reason"
        except Conflict:
            assert self._is_over(payment), "refused without a reason"
        else:
            self.reached["refund asked for"] += 1
        finally:
            self.sandbox.mood = mood

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), kill=KILLS)
    def cancel_and_give_back(self, data: st.DataObject, kill: str) -> None:
        """Both, or neither."""
        name = data.draw(st.sampled_from(sorted(self.rows)))
        if self.statuses()[name] == "cancelled":
            return

        async def typed(book: Book, client: PortOneClient) -> int:
            named = await asyncio.to_thread(refund.payment_of_month, book, self.policy, name)
            assert named.merchant_uid is not None
            proposal = await refund.propose(
                book, client, self.policy, named.merchant_uid, named.imp_uid
            )
            return await asyncio.to_thread(
                refund.request,
                book,
                proposal,
                "a customer called",
                lambda tx: change_status.end(tx, self.policy, change_status.found_one(tx, name)),
            )

        try:
            made = self.ask(typed, kill)
        except (NotFound, Conflict, GatewayError):
            made = None
        assert (self.statuses()[name] == "cancelled") == (made is not None)
        if made is not None:
            self.reached["cancelled with a refund"] += 1

    def _of_this_month(self) -> list[Payment]:
        month = day_of(self.clock.now.timestamp()).replace(day=1)
        return [one for one in self.held_by_gateway() if month_of(one) == month]

    def _drawn(self, data: st.DataObject) -> Payment:
        """One of this month's, or the oldest, of which the gateway gives nothing back any more."""
        found = [*self._of_this_month(), self.held_by_gateway()[-1]]
        return found[data.draw(st.integers(0, len(found) - 1))]

    def _is_over(self, payment: Payment) -> bool:
        """Whether the payment's month is, by the gateway's clock or the book's."""
        nows = (self.clock.now, self.clock.now + self.off)
        return any(day_of(now.timestamp()).replace(day=1) != month_of(payment) for now in nows)

    # -- webhooks -------------------------------------------------------------------------------

    @rule(data=st.data(), true=st.booleans(), keep=st.booleans())
    def a_webhook_arrives(self, data: st.DataObject, true: bool, keep: bool) -> None:
        """One of the gateway's, in any order, however late; kept, it comes once more. Or a lie."""
        if not true or not self.post.under_way:
            self._lies(data)
        place = data.draw(st.integers(0, len(self.post.under_way) - 1)) if true else -1
        body = self.post.under_way[place]
        if not keep:
            del self.post.under_way[place]
        self._arrives(body)

    def _lies(self, data: st.DataObject) -> None:
        """About a payment that there is, or is not, under a name of ours, or none."""
        made = [*sorted(self.counted())[-3:], self.sandbox.ledger.payments[-1].imp_uid]
        orders = [name for (name,) in query(self.book, _NEWEST_ORDERS)]
        self.post.send(
            imp_uid=data.draw(st.sampled_from([*made, "imp_900000000000", ["no"]])),
            merchant_uid=data.draw(st.sampled_from(["none", *orders])),
            status=data.draw(st.sampled_from(["cancelled", "paid", "failed", 7])),
        )

    def _arrives(self, body: bytes) -> None:
        """Kept, and nothing more: nothing of it is believed."""
        before = query(self.book, f"SELECT {WHOLE_BOOK}")
        if arrives(self.book, body):
            self.reached["webhook kept"] += 1
        assert query(self.book, f"SELECT {WHOLE_BOOK}") == before

    # -- reconciliation -------------------------------------------------------------------------

    @rule(days=st.sampled_from([0, 1, 40]), apply=st.booleans(), kill=KILLS)
    def reconcile_by_hand(self, days: int, apply: bool, kill: str) -> None:
        before = query(self.book, f"SELECT {WHOLE_BOOK}")
        try:
            report = self.reconciled(days, apply=apply, kill=kill)
        except GatewayError:
            assert self.mood in DEAF
            report = None
        assert report is None or report.whole or self.mood in DEAF
        if not apply:
            assert query(self.book, f"SELECT {WHOLE_BOOK}") == before

    def reconciled(self, days: int, *, apply: bool, kill: str = "") -> Report | None:
        """So many days, today the last; none before this world began."""
        today = day_of((self.clock.now + self.off).timestamp())
        span = Span(max(today - timedelta(days=days), BEGAN), today)
        report = self.ask(
            lambda book, client: reconcile(
                book, client, self.policy, span, apply=apply, sleep=no_sleep
            ),
            kill,
        )
        self.note(report)
        return report


_NEWEST_ORDERS = "SELECT merchant_uid FROM attempts ORDER BY id DESC LIMIT 3"
