"""The OpenAPI document is true: made-up calls, good and bad, answered as it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from limits import RateLimitItemPerMinute
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from billing.bootstrap import billing_policy
from billing.sandbox import NewCustomer, register
from billing.services.open_cycles import open_cycles
from billing.web.api.reference import description
from billing.web.limiting import Limiter
from tests.builders import enrolled
from tests.integration.web.conftest import Edge

TOKEN = "the-token-of-the-merchant"
EXAMPLES = 6


def test_the_description_is_true(make_edge: Callable[..., Edge]) -> None:
    """Every route, by schemathesis: no 5xx, each status and document as described, nothing let in
    that the description forbids, and nothing without the credential."""
    edge = make_edge(api_token=TOKEN)
    some_life(edge)
    # Many calls without the credential are part of it.
    many = RateLimitItemPerMinute(100_000)
    edge.app.state.edge.refusals = Limiter(many, many)
    schema = schemathesis.openapi.from_dict(description(edge.app))
    schema.app = edge.app
    seen: Counter[str] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        call_often(operation, GenerationMode.POSITIVE, seen)
        if operation.body or list(operation.iter_parameters()):
            call_often(operation, GenerationMode.NEGATIVE, seen)
    assert {"get 200", "get 422", "post 404"} <= set(seen)
    assert seen.total() > 60


def call_often(operation: Any, mode: GenerationMode, seen: Counter[str]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Case) -> None:
        # A made-up cursor has the right form and leads nowhere all the same.
        excluded = [positive_data_acceptance] if "cursor" in (case.query or {}) else None
        answer = case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=excluded
        )
        seen[f"{case.method.lower()} {answer.status_code}"] += 1

    call()


def some_life(edge: Edge) -> None:
    """A few rows to find, and a payment to enrol."""
    policy = billing_policy(edge.app.state.edge.settings)
    rows = [f"customer-{one},9900,plan,2026-10-20T14:30:00+09:00,," for one in range(1, 4)]
    enrolled(edge.book, policy, *rows)
    open_cycles(edge.book, policy)
    new = NewCustomer(
        customer_uid="customer-9",
        amount=9900,
        name="plan",
        paid_at=edge.clock.now - timedelta(minutes=1),
    )
    register(edge.sandbox, [new])
