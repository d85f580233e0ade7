"""Why is it as it is? One answer for one cycle: the rule, what was tried, what comes next."""

from __future__ import annotations

from typing import Any

from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import cycle_dates
from billing.domain.cycle import CycleStatus
from billing.domain.errors import NotFound
from billing.domain.policy import BillingPolicy
from billing.domain.subscription import SubscriptionStatus
from billing.store import views
from billing.store.session import Book

_RULE = (
    "Same amount, once a calendar month, within 5 days of the initial payment's day;"
    " a month without a payment ends the billing key."
)
_REGISTER_ANEW = ("The customer must register again.", "고객이 다시 등록해야 합니다.")


def why(
    book: Book, policy: BillingPolicy, customer_uid: str, number: int | None = None
) -> dict[str, Any]:
    """Explain a subscription's cycle, the newest when `number` is None. Raises `NotFound`."""
    zone = policy.plan.zone
    with book.transaction() as tx:
        found = views.subscriptions(tx.session, zone, customer_uid=customer_uid)
        if not found:
            raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
        cycles = views.cycles(tx.session, zone, customer_uid=customer_uid)
        anchor_on = views.anchor_on(tx.session, customer_uid)
    subscription = found[0]
    wanted = number or (cycles[0]["cycle"] if cycles else subscription["next_cycle"])
    cycle = next((one for one in cycles if one["cycle"] == wanted), None)
    dates = cycle_dates(anchor_on, wanted, policy.plan.calendar)
    message, people = _what_next(policy, subscription, cycle)
    return {
        "customer_uid": customer_uid,
        "subscription": subscription["status"],
        "subscription_reason": subscription["reason"],
        "rule": _RULE,
        "cycle": wanted,
        "status": cycle["status"] if cycle else "not opened",
        "reason": cycle["reason"] if cycle else None,
        "held": cycle["held"] if cycle else None,
        "due_on": dates.due_on.isoformat(),
        "window": [dates.window.opens_on.isoformat(), dates.window.closes_on.isoformat()],
        "band": [dates.band.opens_on.isoformat(), dates.band.closes_on.isoformat()],
        "attempts": cycle["attempts"] if cycle else [],
        "next": message,
        "what_a_person_can_do": people[0],
        "what_a_person_can_do_ko": people[1],
    }


def _what_next(
    policy: BillingPolicy, subscription: dict[str, Any], cycle: dict[str, Any] | None
) -> tuple[str, tuple[str, str]]:
    nothing = ("Nothing.", "없습니다.")
    if cycle is None:
        return f"The cycle opens at {subscription['next_due_at']}.", nothing
    if cycle["status"] != CycleStatus.OPEN:
        stopped = subscription["status"] == SubscriptionStatus.SUSPENDED
        ended = f"The cycle ended: {cycle['status']}."
        return ended, _REGISTER_ANEW if stopped else nothing
    if cycle["held"]:
        return (
            f"Held ({cycle['held']}): nothing is sent until a person has looked.",
            (
                "Compare the gateway's console with the book.",
                "콘솔의 결제 내역과 장부를 비교하십시오.",
            ),
        )
    return _live(policy, cycle)


def _live(policy: BillingPolicy, cycle: dict[str, Any]) -> tuple[str, tuple[str, str]]:
    last = cycle["attempts"][-1] if cycle["attempts"] else None
    declined = [one for one in cycle["attempts"] if one["status"] == AttemptStatus.DECLINED]
    people = ("Nothing.", "없습니다.")
    if declined:
        advice = policy.declines.classify(declined[-1]["message"])
        people = (advice.advice_en, advice.advice_ko)
    nobody = f"No further attempt; the window closes on {cycle['closes_on']}."
    if last is None:
        return nobody, people
    number = last["number"]
    following = {
        AttemptStatus.DUE: f"Attempt {number} goes out at {last['planned_at']}.",
        AttemptStatus.SENDING: f"Attempt {number} is at the gateway now.",
        AttemptStatus.UNKNOWN: f"The gateway is asked what became of attempt {number}.",
    }
    return following.get(last["status"], nobody), people
