"""Every pair of statuses is either in the table or refused; every status has its row."""

from __future__ import annotations

from enum import StrEnum

import pytest

from billing.domain.attempt import ATTEMPT_TRANSITIONS, AttemptStatus
from billing.domain.cycle import CYCLE_TRANSITIONS, CycleStatus
from billing.domain.errors import TransitionRefused
from billing.domain.refund import REFUND_TRANSITIONS, RefundStatus
from billing.domain.status import Transitions
from billing.domain.subscription import SUBSCRIPTION_TRANSITIONS, SubscriptionStatus

TABLES = [
    (ATTEMPT_TRANSITIONS, AttemptStatus),
    (CYCLE_TRANSITIONS, CycleStatus),
    (SUBSCRIPTION_TRANSITIONS, SubscriptionStatus),
    (REFUND_TRANSITIONS, RefundStatus),
]

# Written out a second time, so that a slip in a table shows.
ALLOWED = {
    "due sending",
    "due withdrawn",
    "sending approved",
    "sending declined",
    "sending unknown",
    "sending due",
    "unknown approved",
    "unknown declined",
    "unknown due",
    "open paid",
    "open missed",
    "open skipped",
    "paid refunded",
    "missed paid",
    "active paused",
    "active suspended",
    "active cancelled",
    "paused active",
    "paused suspended",
    "paused cancelled",
    "suspended active",
    "suspended cancelled",
    "requested sending",
    "requested done",
    "requested refused",
    "sending done",
    "sending requested",
    "unknown done",
    "unknown refused",
    "unknown requested",
}


NAMES = [statuses.__name__ for _, statuses in TABLES]


@pytest.mark.parametrize(("table", "statuses"), TABLES, ids=NAMES)
def test_every_pair_is_allowed_or_refused(
    table: Transitions[StrEnum], statuses: type[StrEnum]
) -> None:
    for before in statuses:
        for after in statuses:
            if f"{before} {after}" in ALLOWED:
                table.check(before, after)
            else:
                with pytest.raises(TransitionRefused, match=f"{before} cannot become {after}"):
                    table.check(before, after)


@pytest.mark.parametrize(("table", "statuses"), TABLES, ids=NAMES)
def test_a_new_status_cannot_be_forgotten(
    table: Transitions[StrEnum], statuses: type[StrEnum]
) -> None:
    reachable = set().union(*(table.after(status) for status in statuses))
    beginnings = {
        AttemptStatus.DUE,
        CycleStatus.OPEN,
        SubscriptionStatus.ACTIVE,
        RefundStatus.REQUESTED,
    }
    assert reachable | (beginnings & set(statuses)) == set(statuses)
