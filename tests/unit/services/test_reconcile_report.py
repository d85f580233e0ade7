"""What a reconciliation's report says as a whole: whether all is well, and what comes first."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from billing.domain.calendar import SEOUL
from billing.domain.errors import RowsUnreadable
from billing.domain.money import Won
from billing.domain.payment import Payment
from billing.domain.reconciliation import Difference, DifferenceKind
from billing.domain.refund import month_after
from billing.ports import PaymentGateway
from billing.services import reconcile
from billing.services.prove import Proofs
from billing.services.reconcile import SCHEDULE_SPAN, Report, Span, in_order
from billing.store.ledger import Scope

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
FOUND = Difference(kind=DifferenceKind.MISSING, at=NOW, imp_uid="imp_1", merchant_uid="mw-1")


def report(**found: Any) -> Report:
    day = date(2026, 11, 20)
    return Report(Span(day, day), NOW, {}, **found)


def test_a_run_that_found_nothing_is_clean() -> None:
    assert report().clean
    assert report(proofs=Proofs(written=["2026-11-19"]), news=1).clean


@pytest.mark.parametrize(
    "found",
    [
        {"differences": [FOUND]},
        {"applied": [FOUND]},
        {"beyond": 1},
        {"failed": 1},
        {"proofs": Proofs(disagree=["2026-11-19"])},
        {"proofs": Proofs(changed=["2026-11-19"])},
    ],
)
def test_each_thing_that_was_found_keeps_it_from_being_clean(found: dict[str, Any]) -> None:
    assert not report(**found).clean


def differing(name: str, days_ago: int, refund_in: float | None = None, **more: Any) -> Difference:
    """One found so many days ago that can be given back for so many seconds more."""
    return replace(
        FOUND,
        merchant_uid=name,
        at=NOW - timedelta(days=days_ago),
        refund_by=None if refund_in is None else NOW + timedelta(seconds=refund_in),
        **more,
    )


def test_the_nearest_deadline_comes_first_then_the_oldest() -> None:
    in_time = [differing("a", 1, 1), differing("b", 9, 60), differing("c", 5, 3600)]
    # Among those a deadline that has passed, at this moment or long ago, is none.
    too_late = [
        differing("d", 8, -86400),
        differing("e", 7),
        differing("f", 6, -3600),
        differing("g", 5, 0),
        differing("h", 4, kind=DifferenceKind.CANCELLED),
        differing("i", 4),
    ]
    expected = [*in_time, *too_late]
    assert in_order(sorted(expected, key=lambda one: one.at), NOW) == expected
    assert in_order(expected[::-1], NOW) == expected


def test_with_one_deadline_it_goes_by_kind_then_by_age() -> None:
    doubles = [
        differing(name, ago, 60, kind=DifferenceKind.DOUBLE) for name, ago in (("a", 3), ("b", 2))
    ]
    expected = [differing("c", 1, 60, kind=DifferenceKind.CANCELLED), *doubles, differing("d", 9)]
    assert in_order(expected[::-1], NOW) == expected


def test_the_schedule_is_asked_about_for_no_more_than_any_three_months() -> None:
    """The gateway refuses more than three months, and the shortest three have 89 days."""
    firsts = [date(2026 + number // 12, number % 12 + 1, 1) for number in range(24)]
    spans = [month_after(month_after(month_after(first))) - first for first in firsts]
    assert min(spans) == SCHEDULE_SPAN


class _Lists:
    """A gateway whose lists have one row that can be read, and some that cannot."""

    def __init__(self, **unreadable: int) -> None:
        self.unreadable = unreadable

    async def payments_between(
        self, status: str, since: datetime, until: datetime
    ) -> AsyncIterator[list[Payment]]:
        one = Payment(f"imp_{status}", "an order", status, Won(1), None, paid_at=NOW)
        yield [one]
        if some := self.unreadable.get(status):
            raise RowsUnreadable({f"imp_{status}_{number}": "amount" for number in range(some)})


@pytest.mark.parametrize(
    ("unreadable", "total"),
    [({}, 0), ({"paid": 2}, 2), ({"cancelled": 3}, 3), ({"paid": 2, "cancelled": 3}, 5)],
)
def test_rows_that_cannot_be_read_are_counted_and_keep_no_other_from_being_read(
    unreadable: dict[str, int], total: int
) -> None:
    scope = Scope(NOW, NOW + timedelta(hours=1), NOW, SEOUL, "mw", sandbox=False)
    spool = io.StringIO()
    gateway = cast(PaymentGateway, _Lists(**unreadable))
    with capture_logs() as lines:
        unread = asyncio.run(reconcile._read(gateway, scope, NOW, timedelta(seconds=30), spool))
    assert unread == total
    assert [line["event"] for line in lines] == len(unreadable) * ["not read"]
    assert [json.loads(line)[0] for line in spool.getvalue().splitlines()] == [
        "imp_paid",
        "imp_cancelled",
    ]
