"""What would be charged when: planned attempts and every month to come inside the span."""

from __future__ import annotations

from billing.domain.policy import BillingPolicy
from billing.services.forecast import due
from billing.services.open_cycles import open_cycles
from billing.store.session import Book
from tests.builders import a_row, enrolled


def test_months_to_come_are_all_there(book: Book, policy: BillingPolicy) -> None:
    enrolled(book, policy, a_row(1), a_row(2, "2026-10-31T14:30:00+09:00"))
    open_cycles(book, policy)
    found = due(book, policy, None, 100, 1000)
    assert [(one["customer_uid"], one["cycle"], one["at"]) for one in found] == [
        ("customer-1", 1, "2026-11-20T10:00:00+09:00"),
        ("customer-2", 1, "2026-11-27T10:00:00+09:00"),
        ("customer-1", 2, "2026-12-20T10:00:00+09:00"),
        ("customer-2", 2, "2026-12-28T10:00:00+09:00"),
        ("customer-1", 3, "2027-01-20T10:00:00+09:00"),
        ("customer-2", 3, "2027-01-28T10:00:00+09:00"),
        ("customer-1", 4, "2027-02-20T10:00:00+09:00"),
        ("customer-2", 4, "2027-02-26T10:00:00+09:00"),
    ]
    assert sum(one["amount"] for one in found) == 4 * 1001 + 4 * 1002
