"""One sandbox: clock, book, mood, tokens and dice, and everything that happens by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from billing.sandbox.carrier import decide
from billing.sandbox.clock import SandboxClock
from billing.sandbox.faults import Fault
from billing.sandbox.ledger import Ledger
from billing.sandbox.model import BillingKey, Origin, Payment, Schedule, Seen, Status, Terms
from billing.sandbox.mood import Dice, Mood
from billing.sandbox.texts import Decline
from billing.sandbox.tokens import Tokens
from billing.sandbox.webhooks import Webhooks

Sleep = Callable[[float], Awaitable[None]]


class Sandbox:
    """A PortOne V1 of its own.

    `path` keeps its book across restarts (None: in memory); `seed` decides all chance; without
    `imp_key` and `imp_secret` any credentials are good. A simulation passes a manual `clock` and
    a `sleep` of its own, and nothing here waits or reads a clock but through them. Raises
    `LedgerFileError`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        mood: Mood | None = None,
        clock: SandboxClock | None = None,
        path: Path | None = None,
        imp_key: str | None = None,
        imp_secret: str | None = None,
        sleep: Sleep = asyncio.sleep,
        mark: str = "",
    ) -> None:
        self.clock = clock or SandboxClock.real()
        self.ledger = Ledger(path)
        self.mood = mood or Mood()
        self.dice = Dice(seed)
        self.tokens = Tokens(self.clock.unix, seed, imp_key, imp_secret)
        self.sleep = sleep
        # In every `imp_uid`: PortOne never gives one out twice, also not after a new start.
        self.mark = mark
        self.in_hand: Counter[str] = Counter()
        self.webhooks = Webhooks(self)
        if kept := self.ledger.noted("clock_offset"):
            self.clock.offset = timedelta(seconds=float(kept))

    def spell(self) -> Fault | None:
        """What everybody meets now."""
        return self.mood.spell(self.clock.unix())

    def clock_moved(self) -> None:
        """Keep the clock's new offset, and do what fell due on the way."""
        self.ledger.note("clock_offset", str(self.clock.offset.total_seconds()))
        self.settle()

    def settle(self) -> None:
        """Do what happens by itself: the gateway's own schedule, payments that turn out paid."""
        now = self.clock.unix()
        for moment, payment in self.ledger.late_payments(now):
            paid = replace(
                payment,
                status=Status.PAID,
                paid_at=int(moment),
                failed_at=0,
                fail_code="",
                fail_class="",
                fail_reason="",
            )
            self.ledger.put(paid)
            self.webhooks.tell(paid)
        for moment, schedule in self.ledger.planned_payments(now):
            self._run(schedule, moment)

    def _run(self, schedule: Schedule, moment: float) -> None:
        key = self.ledger.key(schedule.customer_uid)
        paid = any(one.paid_at for one in self.ledger.of_order(schedule.merchant_uid))
        if key is None or paid:
            self.ledger.put(replace(schedule, status="executed", payment_status="failed"))
            return
        decline = self.decision(key, schedule, moment)
        payment = self.enter(
            schedule, schedule.merchant_uid, key, moment, Origin.SCHEDULE, decline=decline
        )
        self.webhooks.tell(payment)
        self.ledger.put(
            replace(
                schedule,
                status="executed",
                payment_status=payment.status.value,
                imp_uid=payment.imp_uid,
                executed_at=payment.started_at,
            )
        )

    def decision(self, key: BillingKey, asked: Terms, now: float) -> Decline | None:
        """What the carrier says to a payment now; None to approve."""
        history = self.ledger.of_customer(key.customer_uid)
        return decide(key, history, asked, now, self.mood.rules)

    def enter(
        self,
        terms: Terms,
        merchant_uid: str,
        key: BillingKey,
        now: float,
        origin: Origin,
        *,
        decline: Decline | None = None,
        turns_paid_at: float = 0.0,
        custom_data: str = "",
        notice_url: str = "",
    ) -> Payment:
        """Write a new payment into the book: failed with a `decline`, else paid."""
        number, second = self.ledger.next_number, int(now)
        lag = self.mood.lookup_lag_seconds
        payment = Payment(
            number=number,
            imp_uid=f"imp_{self.mark}{number:012d}",
            merchant_uid=merchant_uid,
            customer_uid=key.customer_uid,
            amount=terms.amount,
            name=terms.name,
            buyer_name=terms.buyer_name,
            buyer_email=terms.buyer_email,
            buyer_tel=terms.buyer_tel,
            origin=origin,
            status=Status.FAILED if decline else Status.PAID,
            started_at=second,
            paid_at=0 if decline else second,
            failed_at=second if decline else 0,
            fail_code=decline.code if decline else "",
            fail_class=decline.klass if decline else "",
            fail_reason=self.mood.fail_reason(decline.code, decline.text) if decline else "",
            custom_data=custom_data,
            sandbox=self.mood.test_mode or key.sandbox,
            visible_at=now + self.dice.of("lag", number).uniform(0, lag) if lag else 0.0,
            turns_paid_at=turns_paid_at,
            notice_url=notice_url,
        )
        self.ledger.put(payment)
        return payment

    def saw(
        self, kind: str, outcome: str, *, order: str = "", customer: str = "", fault: str = ""
    ) -> None:
        """Log a request that is no charge."""
        self.ledger.saw(
            Seen(
                number=len(self.ledger.requests) + 1,
                at=self.clock.unix(),
                kind=kind,
                customer_uid=customer,
                merchant_uid=order,
                amount=0,
                nth=0,
                differs="",
                overlaps="",
                fault=fault,
                outcome=outcome,
                imp_uid="",
            )
        )

    def reset(self) -> None:
        """Forget all payments, keys and requests; the clock and the mood stay."""
        self.ledger.reset()
        self.ledger.note("clock_offset", str(self.clock.offset.total_seconds()))
        self.ledger.commit()

    def close(self) -> None:
        """Let go of the ledger's file."""
        self.ledger.close()
