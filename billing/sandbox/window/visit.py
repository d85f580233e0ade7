"""One customer in one payment window, from opening it to its end."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from billing.sandbox.gateway import Sandbox
from billing.sandbox.window.order import Order, OrderRefused, check_unpaid
from billing.sandbox.window.payment import (
    Failure,
    Later,
    Now,
    approve,
    fail,
    refuse,
    told,
)
from billing.sandbox.words import Language

# By the sandbox's clock, as everything in it.
WINDOW_SECONDS = 15 * 60
CODE_SECONDS = 3 * 60
TRIES = 3
_MOST_VISITS = 2000


class Step(StrEnum):
    """Which page the window shows."""

    LINE = "line"
    CODE = "code"
    DONE = "done"


@dataclass
class Visit:
    """A window that is open, or was. `shop` is the origin of the page that opened it."""

    id: str
    order: Order
    shop: str
    phone: bool
    language: Language
    opened_at: float
    step: Step = Step.LINE
    now: Now = Now.APPROVED
    later: Later = Later.PAID
    number: str = field(default="", repr=False)
    code: str = field(default="", repr=False)
    code_sent_at: float = 0.0
    codes_sent: int = 0
    wrong: int = 0
    rsp: dict[str, Any] | None = None
    silent: bool = False
    """Whether the shop's page is never told."""

    @property
    def paid(self) -> bool:
        return bool(self.rsp and self.rsp["success"])


class Visits:
    """All windows of a sandbox. Nothing that a customer typed is kept but the masked number."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._visits: dict[str, Visit] = {}

    def open(self, order: Order, *, shop: str, phone: bool, language: Language) -> Visit:
        """A new window."""
        while len(self._visits) >= _MOST_VISITS:
            del self._visits[next(iter(self._visits))]
        visit = Visit(
            id=secrets.token_urlsafe(16),
            order=order,
            shop=shop,
            phone=phone,
            language=language,
            opened_at=self._sandbox.clock.unix(),
        )
        self._visits[visit.id] = visit
        return visit

    def get(self, name: str) -> Visit | None:
        """A window by its id, ended first if its time is up."""
        visit = self._visits.get(name)
        if visit and visit.step is not Step.DONE:
            # Moved back, too: a window does not outlive a journey in time.
            age = self._sandbox.clock.unix() - visit.opened_at
            if not -1 <= age <= WINDOW_SECONDS:
                self.give_up(visit, Failure.EXPIRED)
        return visit

    def identify(self, visit: Visit, number: str, now: Now, later: Later) -> None:
        """The line is named, and its code on the way."""
        visit.number, visit.now, visit.later, visit.step = number, now, later, Step.CODE
        self.send_code(visit)

    def send_code(self, visit: Visit) -> None:
        """A new code; the old one is worth nothing."""
        visit.codes_sent += 1
        dice = self._sandbox.dice.of("code", visit.id, visit.codes_sent)
        visit.code, visit.code_sent_at = f"{dice.randrange(10**6):06}", self._sandbox.clock.unix()

    def confirm(self, visit: Visit, code: str) -> str:
        """Pay with a code; the name of a text when it is not accepted, else ""."""
        if self._sandbox.clock.unix() - visit.code_sent_at > CODE_SECONDS:
            return "code_expired"
        if code != visit.code:
            visit.wrong += 1
            if visit.wrong < TRIES:
                return "code_wrong"
            self.give_up(visit, Failure.WRONG_CODE)
            return ""
        self._pay(visit)
        return ""

    def give_up(self, visit: Visit, failure: Failure) -> None:
        """End without a payment. A window that has ended stays as it ended."""
        if visit.step is not Step.DONE:
            payment = fail(self._sandbox, visit.order, failure)
            _end(visit, told(payment, failure))

    def _pay(self, visit: Visit) -> None:
        try:
            # Another window of the same order may have been faster.
            check_unpaid(self._sandbox, visit.order)
        except OrderRefused as refused:
            _end(visit, refused_rsp(refused, visit.order.merchant_uid))
            return
        match visit.now:
            case Now.EXPIRED:
                self.give_up(visit, Failure.EXPIRED)
            case Now.APPROVED | Now.LOST:
                visit.silent = visit.now is Now.LOST
                _end(visit, told(approve(self._sandbox, visit.order, visit.later)))
            case Now.LIMIT | Now.BLOCKED | Now.CARRIER:
                _end(visit, told(refuse(self._sandbox, visit.order, visit.now.value)))


def refused_rsp(refused: OrderRefused, merchant_uid: str) -> dict[str, object]:
    """The SDK's `rsp` where no payment came to be at all."""
    return {
        "success": False,
        "imp_success": False,
        "merchant_uid": merchant_uid,
        "error_code": refused.code,
        "error_msg": str(refused),
    }


def _end(visit: Visit, rsp: dict[str, Any]) -> None:
    visit.rsp, visit.step, visit.code = rsp, Step.DONE, ""
