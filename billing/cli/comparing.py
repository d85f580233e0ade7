"""Running a reconciliation by hand, and showing what it found."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from billing.bootstrap import House
from billing.cli.output import err, show
from billing.cli.refunding import ask
from billing.domain.reconciliation import Difference
from billing.domain.remedies import remedy
from billing.services.reconcile import Report, Span, reconcile
from billing.store.views import moment


def run(house: House, first: date, last: date, *, apply: bool, proofs: Path | None) -> Report:
    """Compare the days from `first` to `last`. Raises `BillingError`."""
    span = Span(first, last)
    return ask(
        house,
        lambda client: reconcile(
            house.book, client, house.policy, span, apply=apply, proofs=proofs
        ),
    )


def show_report(house: House, report: Report, *, as_json: bool) -> None:
    """A document for programs; for people a table of the differences, and the rest in words."""
    document = _document(house, report)
    if as_json:
        show(document, as_json=True)
        return
    rows = document["applied"] + document["differences"]
    show([{name: row[name] for name in _SHOWN} for row in rows], as_json=False)
    counts = ", ".join(f"{name} {count}" for name, count in report.counts.items())
    err.print(f"{report.span.first} to {report.span.last}: {counts}", markup=False)
    for name in ("beyond", "unanswered", "proofs_disagree", "proofs_changed"):
        if document[name]:
            err.print(f"{name}: {document[name]}", markup=False)
    if not report.whole:
        err.print(
            "The run is not whole: nothing was ended and no day signed. Run it again", markup=False
        )


_SHOWN = (
    "difference",
    "refund_by",
    "customer_uid",
    "month",
    "imp_uid",
    "merchant_uid",
    "ledger_amount",
    "book_amount",
    "remedy",
    "remedy_ko",
)


def _document(house: House, report: Report) -> dict[str, Any]:
    return {
        "from": report.span.first.isoformat(),
        "to": report.span.last.isoformat(),
        "at": moment(report.at, house.policy.plan.zone),
        "ledger": report.counts,
        "differences": [_row(house, report, found) for found in report.differences],
        "applied": [_row(house, report, found, applied=True) for found in report.applied],
        "beyond": report.beyond,
        "unanswered": report.failed,
        "whole": report.whole,
        "proofs_written": report.proofs.written,
        "proofs_disagree": report.proofs.disagree,
        "proofs_changed": report.proofs.changed,
    }


def _row(
    house: House, report: Report, found: Difference, *, applied: bool = False
) -> dict[str, Any]:
    zone = house.policy.plan.zone
    advice = remedy(found, report.at, zone)
    done = ("Done: the book follows.", "반영되었습니다.")
    return {
        "difference": str(found.kind),
        "refund_by": moment(found.refund_by, zone),
        "customer_uid": found.customer_uid,
        "cycle": found.cycle_number,
        "month": f"{found.month:%Y-%m}" if found.month else None,
        "at": moment(found.at, zone),
        "imp_uid": found.imp_uid,
        "merchant_uid": found.merchant_uid,
        "ledger_amount": found.ledger_amount.amount if found.ledger_amount else None,
        "book_amount": found.book_amount.amount if found.book_amount else None,
        "keep": found.keep,
        "applied": applied,
        "remedy": done[0] if applied else advice.en,
        "remedy_ko": done[1] if applied else advice.ko,
    }
