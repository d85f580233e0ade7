"""`maewol subscription correct`: say in what the book and the gateway differ, ask, put it right."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from billing.bootstrap import House
from billing.cli.output import err
from billing.cli.refunding import ask, is_asked
from billing.domain.cycle import HoldReason
from billing.services import correct
from billing.services.correct import Corrected, Proposal
from billing.store import views


def run(house: House, customer_uid: str, *, yes: bool, as_json: bool) -> tuple[dict[str, Any], int]:
    """The document to print, and the exit code: 1 where something is wrong and stays so.

    Raises `BillingError`: then nothing was written."""
    proposal = ask(
        house, lambda client: correct.propose(house.book, client, house.policy, customer_uid)
    )
    if not proposal.is_needed:
        _say_nothing_is_wrong(proposal)
        return _document(house, proposal, None), 0
    _say_what_differs(proposal)
    if not yes and not _is_confirmed(as_json=as_json):
        return _document(house, proposal, None), 1
    return _document(house, proposal, correct.correct(house.book, house.policy, proposal)), 0


def _is_confirmed(*, as_json: bool) -> bool:
    if is_asked(yes=False, as_json=as_json):
        return typer.confirm("Write the gateway's facts? 결제사의 정보로 바로잡을까요?", err=True)
    _say(
        "Nothing was written; to correct it, add --yes.",
        "아무것도 바꾸지 않았습니다. 바로잡으려면 --yes를 붙이십시오.",
    )
    return False


def _say_nothing_is_wrong(proposal: Proposal) -> None:
    _say(
        f"The book agrees with the initial payment ({proposal.imp_uid}).",
        f"장부가 최초 결제({proposal.imp_uid})와 일치합니다.",
    )
    if proposal.held == HoldReason.FACTS_MISMATCH:
        _say(
            "The carrier refused it all the same: ask PortOne's support, then run"
            " `maewol release CUSTOMER_UID`.",
            "그런데도 통신사가 거절했습니다. 포트원에 문의한 다음"
            " `maewol release CUSTOMER_UID`를 실행하십시오.",
        )


def _say_what_differs(proposal: Proposal) -> None:
    for one in proposal.differs:
        _say(
            f"{one.field}: {one.book!r} in the book, {one.gateway!r} in the initial payment.",
            f"{one.field}: 장부 {one.book!r}, 최초 결제 {one.gateway!r}.",
        )
    if not proposal.book.is_sealed:
        _say(
            "The seal is broken: somebody changed the book by hand.",
            "봉인이 깨졌습니다. 누군가 장부를 직접 고쳤습니다.",
        )


def _say(english: str, korean: str) -> None:
    for text in (english, korean):
        err.print(text, markup=False, highlight=False, soft_wrap=True)


def _document(house: House, proposal: Proposal, done: Corrected | None) -> dict[str, Any]:
    held = proposal.held
    return {
        "customer_uid": proposal.customer_uid if done is None else done.customer_uid,
        "imp_uid": proposal.imp_uid,
        "merchant_uid": proposal.merchant_uid,
        "differs": [asdict(one) for one in proposal.differs],
        "seal": "intact" if proposal.book.is_sealed else "broken",
        "corrected": done is not None,
        "was_held": held if done is None else done.was_held,
        "held": held if done is None else done.held,
        "next_attempt_at": None if done is None else views.moment(done.at, house.settings.zone),
        "why_not": None if done is None else done.why_not,
    }
