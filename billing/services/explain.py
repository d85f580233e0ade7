"""Why is it as it is? One answer for one cycle: the rule, what was tried, what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from billing.domain import brake
from billing.domain.attempt import AttemptStatus
from billing.domain.calendar import CycleDates, cycle_dates
from billing.domain.cycle import CORRECTABLE, CycleReason, CycleStatus, HoldReason
from billing.domain.errors import NotFound
from billing.domain.plan import first_attempt_at, last_start
from billing.domain.policy import BillingPolicy
from billing.domain.refund import REFUSED_NEXT_MONTH
from billing.domain.subscription import CHAIN_AT_RISK, SubscriptionStatus
from billing.services.coming import next_dates
from billing.services.open_cycles import rules_of
from billing.store import health, subscriptions, views
from billing.store.session import Book, Transaction
from billing.store.tables import Attempt, Cycle, Subscription

# English, Korean.
Text = tuple[str, str]

_RULE = (
    "Same amount, once a calendar month, within 5 days of the initial payment's day;"
    " a month without a payment ends the billing key."
)
_NOTHING = ("Nothing.", "없습니다.")
_REGISTER_ANEW = ("The customer must register again.", "고객이 다시 등록해야 합니다.")
_RELEASE = (
    "Correct the cause, then run: maewol release",
    "원인을 바로잡은 뒤 maewol release를 실행하십시오.",
)
_LOOK_AND_LET_GO = (
    "Compare the gateway's console with the book; then `maewol release CUSTOMER_UID` charges it.",
    "포트원 콘솔의 결제 내역과 장부를 비교한 다음 `maewol release CUSTOMER_UID`로 결제를"
    " 계속하십시오.",
)
_LOOK_AT_OURSELVES = (
    "Check the store's keys and its contract at the gateway. Where the fault was ours, correct it;"
    " then `maewol release CUSTOMER_UID` charges this one after all.",
    "결제사의 API 키와 계약이 맞는지 확인하십시오. 우리 쪽 오류였다면 바로잡은 다음"
    " `maewol release CUSTOMER_UID`로 결제를 계속하십시오.",
)
_LOOK_AND_ASK_AGAIN = (
    "Money may have been taken. Compare the gateway's console with the book: `maewol reconcile`"
    " names a payment of another amount, and `maewol refund MERCHANT_UID` gives it back within its"
    " calendar month. `maewol release CUSTOMER_UID` asks once more what became of it.",
    "대금이 빠져나갔을 수 있습니다. 포트원 콘솔의 결제 내역과 장부를 비교하십시오. 금액이 다른"
    " 결제는 `maewol reconcile`이 알려 주며, 결제한 달 안에는 `maewol refund MERCHANT_UID`로"
    " 환불할 수 있습니다. `maewol release CUSTOMER_UID`는 결과를 다시 조회합니다.",
)
_CORRECT = (
    "`maewol subscription correct CUSTOMER_UID` compares the book with the initial payment at the"
    " gateway, says in what they differ and, after a yes, puts the book right and charges it. Where"
    " nothing differs, ask PortOne's support; then `maewol release CUSTOMER_UID`.",
    "`maewol subscription correct CUSTOMER_UID`는 장부를 결제사의 최초 결제와 비교해 다른 점을"
    " 보여 주고, 확인하면 바로잡아 결제를 계속합니다. 다른 점이 없으면 포트원에 문의한 다음"
    " `maewol release CUSTOMER_UID`를 실행하십시오.",
)
_AT_RISK = (
    f"A payment was given back, and its month has none (chain_at_risk). {REFUSED_NEXT_MONTH[0]}"
    " It is tried all the same: if the carrier takes it, the chain is whole again.",
    f"환불로 결제 없는 달이 생겼습니다(chain_at_risk). {REFUSED_NEXT_MONTH[1]} 그래도 결제를"
    " 시도하며, 승인되면 결제 이력이 다시 이어집니다.",
)
_REGISTER_AND_CANCEL = (
    "Ask the customer to register again, with a new customer_uid; then"
    " `maewol subscription cancel CUSTOMER_UID` ends this one.",
    "고객에게 새 customer_uid로 다시 등록하도록 안내한 다음"
    " `maewol subscription cancel CUSTOMER_UID`로 이 구독을 끝내십시오.",
)
_WHO_CHARGED = (
    "Find out who else charges this key; two chargers pay twice some day.",
    "이 빌링키로 결제하는 다른 주체를 확인하십시오. 언젠가 이중 결제가 됩니다.",
)


def why(
    book: Book, policy: BillingPolicy, customer_uid: str, number: int | None = None
) -> dict[str, Any]:
    """Explain a subscription's cycle, the newest when `number` is None. Raises `NotFound`."""
    zone = policy.plan.zone
    with book.transaction() as tx:
        found = views.subscriptions(tx.session, zone, customer_uid=customer_uid)
        row = subscriptions.found(tx.session, customer_uid)
        if not found or row is None:
            raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
        cycles = views.cycles(tx.session, zone, customer_uid=customer_uid, number=number, limit=1)
        subscription, cycle = found[0], cycles[0] if cycles else None
        wanted = number or (cycle["cycle"] if cycle else row.next_cycle)
        dates, last = _dates(tx, policy, row, wanted)
        coming = next_dates(row, tx.now, policy.plan)
        case = _Case(
            policy=policy,
            subscription=subscription,
            dates=dates,
            now=tx.now,
            hold=health.hold_reason(tx.session),
            last_start=last,
            next_opens_at=first_attempt_at(coming, policy.plan),
            resume_until=_open_until(tx, row) or last_start(coming, policy.plan),
            ready_at=_ready_at(tx, row, wanted),
            believed=brake.are_believed(health.read(tx.session).verdicts),
        )
    following, people = _not_there(case) if cycle is None else _what_next(case, cycle)
    if subscription["reason"] == CHAIN_AT_RISK:
        following = _both(following, _AT_RISK)
        people = _REGISTER_AND_CANCEL if people is _NOTHING else _both(people, _REGISTER_AND_CANCEL)
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
        "next": following[0],
        "next_ko": following[1],
        "what_a_person_can_do": people[0],
        "what_a_person_can_do_ko": people[1],
    }


def _both(first: Text, second: Text) -> Text:
    return f"{first[0]} {second[0]}", f"{first[1]} {second[1]}"


def _dates(
    tx: Transaction, policy: BillingPolicy, subscription: Subscription, number: int
) -> tuple[CycleDates, datetime]:
    """A month's dates and last moment: as it was opened, or as the next is going to be."""
    query = select(Cycle).where(Cycle.subscription_id == subscription.id, Cycle.number == number)
    cycle = tx.session.execute(query).scalar_one_or_none()
    if cycle is not None:
        return rules_of(subscription, cycle, policy)[0], cycle.last_start_at
    dates = cycle_dates(subscription.anchor_on, number, policy.plan.calendar)
    if number == subscription.next_cycle:
        dates = next_dates(subscription, tx.now, policy.plan)
    return dates, last_start(dates, policy.plan)


def _open_until(tx: Transaction, subscription: Subscription) -> datetime | None:
    """The last moment of the open month, if there is one."""
    query = select(Cycle.last_start_at).where(
        Cycle.subscription_id == subscription.id, Cycle.status == CycleStatus.OPEN
    )
    return tx.session.execute(query).scalar_one_or_none()


def _ready_at(tx: Transaction, subscription: Subscription, number: int) -> datetime | None:
    """How early the month's attempt may go that waits, if one does: later than its slot where it
    came back."""
    query = (
        select(Attempt.ready_at)
        .join(Cycle, Cycle.id == Attempt.cycle_id)
        .where(
            Cycle.subscription_id == subscription.id,
            Cycle.number == number,
            Attempt.status == AttemptStatus.DUE,
        )
    )
    return tx.session.execute(query).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class _Case:
    policy: BillingPolicy
    subscription: dict[str, Any]
    dates: CycleDates
    now: datetime
    hold: str | None
    last_start: datetime
    next_opens_at: datetime
    # Until when a paused one must be resumed, whatever month is asked about.
    resume_until: datetime
    ready_at: datetime | None
    # Whether declines that end a subscription are believed just now.
    believed: bool

    @property
    def opens_at(self) -> str | None:
        return views.moment(self.next_opens_at, self.policy.plan.zone)

    @property
    def last(self) -> str | None:
        return views.moment(self.last_start, self.policy.plan.zone)

    @property
    def until(self) -> str | None:
        return views.moment(self.resume_until, self.policy.plan.zone)


def _not_there(case: _Case) -> tuple[Text, Text]:
    """The book has no such cycle: it is still to come, or never was ours."""
    number, following = case.dates.number, case.subscription["next_cycle"]
    month, opens_at = f"{case.dates.month:%Y-%m}", case.opens_at
    if number < following:
        return (
            f"Cycle {number} ({month}) came before the enrolment: it is not Maewol's to charge.",
            f"{number}회차({month})는 등록 이전이므로 Maewol이 결제하지 않습니다.",
        ), _NOTHING
    if (stopped := _stopped(case)) is not None:
        return stopped
    if number > following:
        return (
            f"Cycle {number} ({month}) is not there yet: the next is {following},"
            f" which opens at {opens_at}.",
            f"{number}회차({month})는 아직 없습니다."
            f" 다음은 {following}회차이며 {opens_at}에 열립니다.",
        ), _NOTHING
    if case.now > case.last_start:
        return (
            f"Too late for cycle {number} ({month}): the last moment was {case.last}.",
            f"{number}회차({month})를 결제하기에 늦었습니다. 마지막 시각: {case.last}.",
        ), _NOTHING
    if case.next_opens_at <= case.now:
        return (
            "It is due: the cycle opens at the next tick, once the month before has ended.",
            "열릴 시각이 되었습니다. 앞 회차가 끝나면 그다음 틱에 열립니다.",
        ), _NOTHING
    return (f"The cycle opens at {opens_at}.", f"{opens_at}에 회차가 열립니다."), _NOTHING


def _what_next(case: _Case, cycle: dict[str, Any]) -> tuple[Text, Text]:
    if cycle["status"] != CycleStatus.OPEN:
        return _ended(case, cycle)
    if cycle["attempts"]:
        last = cycle["attempts"][-1]
        number, status = last["number"], last["status"]
    else:
        number, status = 0, None
    if status == AttemptStatus.SENDING:
        return (
            f"Attempt {number} is at the gateway now.",
            f"{number}번째 시도를 결제사에 보냈고 응답을 기다립니다.",
        ), _NOTHING
    if cycle["held"] == HoldReason.UNCONFIRMED:
        return _unconfirmed(case, cycle, number)
    if cycle["held"]:
        return (
            f"Held ({cycle['held']}): nothing is sent until a person has looked.",
            f"보류 중({cycle['held']})입니다. 사람이 확인할 때까지 요청을 보내지 않습니다.",
        ), _of_held(cycle["held"], status)
    if status == AttemptStatus.UNKNOWN:
        return (
            f"The gateway is asked what became of attempt {number}.",
            f"{number}번째 시도의 결과를 결제사에 조회하고 있습니다.",
        ), _NOTHING
    if (stopped := _stopped(case)) is not None:
        return stopped
    if status == AttemptStatus.DUE:
        return _waiting(case, cycle, number)
    return (
        f"No further attempt; the window closes on {cycle['closes_on']}.",
        f"더 시도하지 않습니다. 결제 가능 기간은 {cycle['closes_on']}에 끝납니다.",
    ), _advice(case, cycle)


def _unconfirmed(case: _Case, cycle: dict[str, Any], number: int) -> tuple[Text, Text]:
    """A decline that ends a subscription waits for what the other charges say (`confirm`)."""
    told = (
        f"Attempt {number} was declined for good.",
        f"{number}번째 시도가 되돌릴 수 없는 사유로 거절되었습니다.",
    )
    if case.hold is not None:
        held = (
            f"All charging is held ({case.hold}), and nobody is suspended meanwhile.",
            f"모든 결제가 멈춰 있으며({case.hold}), 그동안 아무도 정지하지 않습니다.",
        )
        return _both(told, held), _RELEASE
    if case.believed:
        follows = (
            "Unless charging is stopped, it is suspended within a minute.",
            "결제가 멈추지 않으면 1분 안에 정지됩니다.",
        )
        return _both(told, follows), _advice(case, cycle)
    doubted = (
        "So were others, and nobody was approved: it may be our own mistake, and stands until"
        " somebody is approved; then it is suspended.",
        "다른 고객도 거절되었고 승인된 고객이 없어 우리 쪽 오류일 수 있습니다. 승인된 고객이 나올"
        " 때까지 기다렸다가 정지합니다.",
    )
    return _both(told, doubted), _LOOK_AT_OURSELVES


def _of_held(held: str, status: str | None) -> Text:
    if held in CORRECTABLE:
        return _CORRECT
    # A release never sends over an open question; it has it asked at once.
    return _LOOK_AND_ASK_AGAIN if status == AttemptStatus.UNKNOWN else _LOOK_AND_LET_GO


def _waiting(case: _Case, cycle: dict[str, Any], number: int) -> tuple[Text, Text]:
    if case.hold is not None:
        return (
            f"Attempt {number} waits: all charging is held ({case.hold}).",
            f"{number}번째 시도가 대기 중입니다. 모든 결제가 멈춰 있습니다({case.hold}).",
        ), _RELEASE
    if case.now > case.last_start:
        return (
            f"Too late for attempt {number}: the last moment was {case.last}.",
            f"{number}번째 시도를 하기에 늦었습니다. 마지막 시각: {case.last}.",
        ), _advice(case, cycle)
    if case.ready_at is None or case.ready_at <= case.now:
        return (
            f"Attempt {number} is due and goes out as soon as a worker takes it.",
            f"{number}번째 시도의 예정 시각이 되었습니다. 워커가 받는 대로 보냅니다.",
        ), _advice(case, cycle)
    at = views.moment(case.ready_at, case.policy.plan.zone)
    if case.ready_at > case.last_start:
        return (
            f"Too late for attempt {number}: it may go again at {at}, and the last moment is"
            f" {case.last}.",
            f"{number}번째 시도를 하기에 늦었습니다. 다시 보낼 수 있는 시각은 {at}이고,"
            f" 마지막 시각은 {case.last}입니다.",
        ), _advice(case, cycle)
    return (
        f"Attempt {number} goes out at {at}.",
        f"{at}에 {number}번째 시도를 보냅니다.",
    ), _advice(case, cycle)


def _stopped(case: _Case) -> tuple[Text, Text] | None:
    """What is said of a subscription that is not charged any more, or not now."""
    match SubscriptionStatus(case.subscription["status"]):
        case SubscriptionStatus.ACTIVE:
            return None
        case SubscriptionStatus.PAUSED:
            return _paused(case)
        case SubscriptionStatus.SUSPENDED:
            reason = case.subscription["reason"]
            return (
                f"Suspended ({reason}): nothing more is sent.",
                f"정지({reason}) 상태이므로 더 보내지 않습니다.",
            ), _REGISTER_ANEW
        case SubscriptionStatus.CANCELLED:
            return ("Cancelled: nothing more is sent.", "해지되어 더 보내지 않습니다."), _NOTHING


def _paused(case: _Case) -> tuple[Text, Text]:
    if case.now > case.resume_until:
        return (
            f"Paused, and the last moment for this charge ({case.until}) has passed.",
            f"일시 중지 상태이며, 결제할 수 있는 마지막 시각({case.until})이 지났습니다.",
        ), _REGISTER_ANEW
    return ("Paused: nothing is sent.", "일시 중지 상태이므로 요청을 보내지 않습니다."), (
        f"Resume it before {case.until}, or the billing key is lost.",
        f"{case.until} 전에 재개하지 않으면 빌링키를 잃습니다.",
    )


_ENDED_KO = {
    CycleStatus.PAID: "결제 완료",
    CycleStatus.MISSED: "미결제 마감",
    CycleStatus.SKIPPED: "건너뜀",
    CycleStatus.REFUNDED: "환불",
}


def _ended(case: _Case, cycle: dict[str, Any]) -> tuple[Text, Text]:
    status, reason = cycle["status"], cycle["reason"]
    shown = f"{status}, {reason}" if reason else status
    people = _NOTHING
    if reason == CycleReason.PAID_ELSEWHERE:
        people = _WHO_CHARGED
    elif case.subscription["status"] == SubscriptionStatus.SUSPENDED:
        people = _REGISTER_ANEW
    ended = f"{_ENDED_KO[status]}({reason})" if reason else _ENDED_KO[status]
    told = (f"The cycle ended: {shown}.", f"회차가 끝났습니다: {ended}.")
    if case.subscription["status"] == SubscriptionStatus.PAUSED:
        # The month that was asked about has ended; the one that the pause endangers comes.
        stopped, resume = _paused(case)
        return _both(told, stopped), resume if people is _NOTHING else _both(people, resume)
    return told, people


def _advice(case: _Case, cycle: dict[str, Any]) -> Text:
    """What the newest decline asks of a person."""
    declined = [one for one in cycle["attempts"] if one["status"] == AttemptStatus.DECLINED]
    if not declined:
        return _NOTHING
    found = case.policy.declines.classify(declined[-1]["message"])
    return found.advice_en, found.advice_ko
