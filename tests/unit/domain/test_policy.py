"""How long a lost message or answer is waited for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from billing.domain.pace import Ceiling
from billing.domain.policy import RECORD_BUDGET, BillingPolicy


@pytest.mark.parametrize(("lease", "again"), [(120, 60), (60, 60), (15, 15)])
def test_a_lost_message_is_waited_for_a_minute_or_a_shorter_lease(
    make_policy: Callable[..., BillingPolicy], lease: float, again: float
) -> None:
    policy = make_policy(
        portone_timeout_seconds=2,
        gateway_visibility_seconds=1,
        lease_seconds=lease,
        charges_per_second=0,
    )

    assert policy.ask_again_after == timedelta(seconds=again)
    assert policy.dispatch_again_after == timedelta(seconds=again)
    # A lease must be so much longer than a request.
    assert timedelta(seconds=10) == RECORD_BUDGET


@pytest.mark.parametrize(
    ("most", "rate", "outstanding", "again"),
    [
        # What goes out in a minute, however low the ceiling is; half as long again is no loss.
        (2000, 50, 2000, 60),
        (2000, 10, 600, 90),
        (2000, 1, 60, 90),
        (2000, 0.01, 1, 150),
        (100, 2, 100, 75),
        # Without a ceiling nothing waits.
        (2000, 0, 2000, 60),
    ],
)
def test_no_more_is_dispatched_than_goes_out_in_a_minute(
    make_policy: Callable[..., BillingPolicy],
    most: int,
    rate: float,
    outstanding: int,
    again: float,
) -> None:
    policy = make_policy(max_outstanding=most, charges_per_second=rate)
    assert policy.outstanding == outstanding
    assert policy.dispatch_again_after == timedelta(seconds=again)


def test_the_policy_holds_the_ceiling_of_the_settings(
    make_policy: Callable[..., BillingPolicy],
) -> None:
    policy = make_policy(charges_per_second=7, canary_charges=3)
    assert policy.ceiling == Ceiling(7, 3)


@pytest.mark.parametrize(
    ("deadline", "lease", "startable"),
    # The usual one; the shortest that the contract allows, for a quick gateway and for a slow one.
    [(60, 120, 50), (2, 12, 4), (120, 130, 130 / 3)],
)
def test_even_the_shortest_lease_leaves_time_to_start(
    make_policy: Callable[..., BillingPolicy], deadline: float, lease: float, startable: float
) -> None:
    policy = make_policy(
        portone_timeout_seconds=deadline,
        lease_seconds=lease,
        inquiry_settle_seconds=deadline + 30,
        close_margin_minutes=30,
    )
    assert policy.startable == pytest.approx(timedelta(seconds=startable), abs=timedelta(0.001))
    assert policy.startable < policy.lease, "what settle counts from is the end of the lease"
    assert policy.over_after == policy.startable + timedelta(seconds=deadline + 30)
