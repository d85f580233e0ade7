"""The one place an outcome is applied: to the attempt, its cycle and its subscription, with the
event lines and notices that tell of it, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from billing.domain.cycle import CycleReason
from billing.domain.outcome import Approved
from billing.domain.payment import Payment
from billing.domain.policy import BillingPolicy
from billing.services import news
from billing.services.answer import Answer, Result
from billing.services.note_gateway import note_gateway
from billing.services.recorder import Recorder, follow_declines
from billing.store import attempts, events, settled
from billing.store.session import Transaction, by_index, by_index_impatiently


def record(tx: Transaction, policy: BillingPolicy, answers: Sequence[Answer]) -> list[Result]:
    """Apply answers. One whose claim is not the newest any more changes nothing (fencing)."""
    if len(answers) > 1:
        by_index_impatiently(tx.session)
    else:
        by_index(tx.session)
    approved = _plain_approvals(tx, answers)
    others = [answer.attempt_id for answer in answers if answer.attempt_id not in approved]
    rows = attempts.lock_with_cycle(tx.session, others) if others else {}
    # Before it is forgotten of what was not sent.
    claimed = {attempt_id: attempt.sent_at for attempt_id, (attempt, _, _) in rows.items()}
    results = []
    recorders = []
    for answer in answers:
        if (cycle := approved.get(answer.attempt_id)) is not None:
            _tell(tx, cycle)
            results.append(Result.APPROVED)
        else:
            recorder = Recorder(tx, policy, *rows[answer.attempt_id], answer.asked_at)
            results.append(recorder.apply(answer))
            recorders.append(recorder)
    follow_declines(tx, recorders)
    note_gateway(tx, answers, results, claimed)
    return results


def adopt(
    tx: Transaction, policy: BillingPolicy, cycle_id: int, payment: Payment, reason: CycleReason
) -> Result:
    """Count a payment that nobody waited for as its cycle's: the ledger shows it, a look-up by name
    confirmed it, and the month is its own.

    `ELSEWHERE` when it counts now. Nothing is changed when the cycle is settled otherwise by now
    (`TOO_LATE`), or when a charge of its own is on its way (`UNKNOWN`): that is settled first.
    """
    newest = attempts.newest_of(tx.session, cycle_id)
    if newest is None:
        return Result.TOO_LATE
    rows = attempts.lock_with_cycle(tx.session, [newest])
    # With the month locked nobody can plan another attempt; until then somebody may have.
    while (again := attempts.newest_of(tx.session, cycle_id)) != newest and again is not None:
        newest = again
        rows = attempts.lock_with_cycle(tx.session, [newest])
    return Recorder(tx, policy, *rows[newest]).adopt(payment, reason)


def _plain_approvals(tx: Transaction, answers: Sequence[Answer]) -> Mapping[int, settled.Approved]:
    """Settle what most answers are, approvals of claims that nothing has happened to meanwhile, all
    of them at once. It does what `Recorder` does, and a test compares the two."""
    told = Counter(answer.attempt_id for answer in answers)
    approvals = [
        settled.Told(answer.attempt_id, answer.fence, answer.learnt.imp_uid, answer.learnt.paid_at)
        for answer in answers
        if isinstance(answer.learnt, Approved) and told[answer.attempt_id] == 1
    ]
    named = Counter(one.imp_uid for one in approvals)
    plain = [one for one in approvals if named[one.imp_uid] == 1]
    return settled.approve(tx.session, tx.now, plain) if plain else {}


def _tell(tx: Transaction, cycle: settled.Approved) -> None:
    for kind, data in (
        ("attempt.approved", {"merchant_uid": cycle.paid_merchant_uid}),
        (
            "cycle.paid",
            {"imp_uid": cycle.paid_imp_uid, "merchant_uid": cycle.paid_merchant_uid},
        ),
    ):
        events.add(
            tx.session,
            at=tx.now,
            kind=kind,
            subscription_id=cycle.subscription_id,
            cycle_id=cycle.cycle_id,
            attempt_id=cycle.attempt_id,
            data=data,
        )
    told = news.paid(cycle, cycle.paid_at)
    events.notify(tx.session, at=tx.now, subscription_id=cycle.subscription_id, news=told)
