"""What answers say of the gateway and of ourselves: the circuit, the pace and the brake that all
workers share learn it here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from billing.domain.brake import Verdict, verdict_of
from billing.domain.declines import DeclineClass
from billing.domain.outcome import Approved, Declined, NotSent, Unknown
from billing.services.answer import Answer, Result
from billing.services.hold import stop
from billing.store import events, health
from billing.store.session import Transaction
from billing.store.tables import Attempt


def note_gateway(
    tx: Transaction,
    answers: Sequence[Answer],
    results: Sequence[Result],
    claimed: Mapping[int, datetime | None],
) -> None:
    """Feed the circuit, the pace and the brake with answers and what became of each. `claimed`:
    when each attempt was that was not plainly approved."""
    usable = sum(_is_usable(answer) for answer in answers)
    useless = [
        claimed.get(answer.attempt_id) or tx.now
        for answer, result in zip(answers, results, strict=True)
        # Of a claim that was lost meanwhile, by a worker that stood still: it says nothing of now.
        if _is_useless(answer) and result is not Result.TOO_LATE
    ]
    if health.note_answers(tx.session, tx.now, usable=usable, useless=useless):
        refused = any(isinstance(one.learnt, NotSent) and one.learnt.credentials for one in answers)
        data = {"why": "it refuses our credentials" if refused else "no usable answer"}
        events.add(tx.session, at=tx.now, kind="gateway.down", data=data, alarm=True)
    _slow_down(tx, answers)
    why = health.note_verdicts(tx.session, tx.now, _verdicts(tx, answers, results))
    if why is not None:
        stop(tx, why, by_brake=True)


def _slow_down(tx: Transaction, answers: Sequence[Answer]) -> None:
    asked = [
        answer.learnt.retry_after_seconds or 0.0
        for answer in answers
        if isinstance(answer.learnt, Unknown) and answer.learnt.slow_down
    ]
    if asked:
        health.slow_down(tx.session, tx.now, max(asked))
        data = {"answers": len(asked), "seconds": max(asked)}
        events.add(tx.session, at=tx.now, kind="gateway.slow_down", data=data)


def _is_usable(answer: Answer) -> bool:
    match answer.learnt:
        case Approved() | Declined():
            return True
        case Unknown(refusal=refusal):
            return refusal is not None
    return False


def _is_useless(answer: Answer) -> bool:
    match answer.learnt:
        case NotSent(our_fault=our_fault):
            return not our_fault
        case Unknown(refusal=refusal, slow_down=slow_down):
            # "Too many requests" comes from a gateway that is well.
            return refusal is None and not slow_down
    return False


def _verdicts(
    tx: Transaction, answers: Sequence[Answer], results: Sequence[Result]
) -> list[Verdict]:
    """What the answers say about us, in their order."""
    found = []
    for answer, result in zip(answers, results, strict=True):
        if result is Result.APPROVED:
            found.append(Verdict.APPROVED)
        elif result is Result.DECLINED:
            attempt = tx.session.get_one(Attempt, answer.attempt_id)
            declined = DeclineClass(str(attempt.decline_class))
            found.append(verdict_of(declined, first=attempt.number == 1))
        elif isinstance(answer.learnt, Unknown) and answer.learnt.other_mode:
            # Charged for real where we take test payments, or the other way round: everybody is.
            found.append(Verdict.OPERATOR)
    return found
