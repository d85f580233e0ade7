"""What only a webhook, reconciliation or a refund brings into the book, in a run without faults but
for that; and the same twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from billing.settings import Settings
from billing.simulation.run import Scenario, simulate

GIVEN_BACK = Scenario(
    seed=1,
    months=1.2,
    subscribers=6,
    rates={
        "refund_a_month": 30,
        "payment_cancelled_a_month": 6,
        "gateway_cancel_faults": 0.4,
        "refunds_refused": 0.4,
    },
)


@pytest.mark.timeout(300)
def test_what_goes_back_is_followed_and_is_one_run_bit_for_bit(engine: Engine) -> None:
    first, second = (simulate(GIVEN_BACK, engine, settings=Settings.load()) for _ in range(2))
    assert first.digest == second.digest
    assert first.breaches == []
    assert first.evidence.back.asked_back
    assert first.evidence.back.whole
    assert first.sometimes["given back by us"]
    assert first.sometimes["refund refused"]
    assert {month.status for month in first.evidence.months} >= {"refunded"}


@pytest.mark.timeout(300)
def test_a_payment_by_hand_is_counted_by_a_webhook(engine: Engine) -> None:
    rates = {"hand_payment_a_month": 20, "webhook_forged_a_month": 20}
    scenario = replace(GIVEN_BACK, seed=3, rates=rates)
    report = simulate(scenario, engine, settings=Settings.load())
    assert report.breaches == []
    assert [month for month in report.evidence.months if month.order.startswith("hand-")]
    assert report.sometimes["webhook: counted"]
    assert report.sometimes["webhook: unreadable"]


@pytest.mark.timeout(300)
def test_without_webhooks_reconciliation_follows_what_went_back(engine: Engine) -> None:
    scenario = replace(GIVEN_BACK, rates={"payment_cancelled_a_month": 20}, announced=False)
    report = simulate(scenario, engine, settings=Settings.load())
    assert report.breaches == []
    assert report.sometimes["reconciled: applied"]
    assert report.sometimes["given back elsewhere, followed"]
    assert not report.sometimes["webhook: counted"]
