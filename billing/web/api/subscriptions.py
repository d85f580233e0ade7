"""`/v1/subscriptions`: enrol, read, pause, resume, cancel."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from billing.domain.errors import NotFound
from billing.domain.subscription import SubscriptionStatus
from billing.services import change_status
from billing.services.enrol_payment import enrol_payment
from billing.store import views
from billing.web.api.cursors import Cursor, Limit, cursor_of, row_id_of
from billing.web.api.routes import PREFIX, ApiRoute, CustomerUid, Described
from billing.web.api.shapes import Changed, Enrolment, Subscription, SubscriptionPage
from billing.web.edge import TheEdge
from billing.web.problems import described

router = APIRouter(
    prefix=f"{PREFIX}/subscriptions",
    tags=["subscriptions"],
    route_class=ApiRoute,
    dependencies=[Described],
    responses=described(401, 403, 429, 503),
)
_KIND = "subscription"


@router.post(
    "",
    status_code=201,
    response_model=Subscription,
    response_description="Enrolled.",
    responses={
        200: {"model": Subscription, "description": "It was there, with the same facts."},
        **described(400, 404, 408, 409, 413, 422, 502),
    },
)
async def enrol(asked: Enrolment, edge: TheEdge, response: Response) -> dict[str, Any]:
    """Enrol a subscriber after the initial payment.

    The payment is looked up at the gateway: paid by phone bill, with a billing key that exists, and
    as it was ordered. What the gateway shows is stored. Safe to repeat; when the gateway cannot be
    asked (502) nothing was written."""
    found = await enrol_payment(
        edge.book,
        edge.policy,
        edge.house.installation_key,
        await edge.gateway(),
        asked.imp_uid,
        customer_uid=asked.customer_uid,
        merchant_uid=asked.merchant_uid,
        amount=asked.amount,
        previous=asked.previous,
    )
    response.status_code = 201 if found.added else 200
    return found.subscription


@router.get("", response_model=SubscriptionPage, responses=described(422))
def subscriptions(
    edge: TheEdge,
    status: SubscriptionStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Subscriptions, newest first."""
    before = row_id_of(_KIND, cursor)
    with edge.book.transaction() as tx:
        page = views.subscription_page(
            tx.session, edge.settings.zone, status=status, before=before, limit=limit
        )
    return {"items": page.items, "next": cursor_of(_KIND, page.last_id)}


@router.get("/{customer_uid}", response_model=Subscription, responses=described(404, 422))
def subscription(customer_uid: CustomerUid, edge: TheEdge) -> dict[str, Any]:
    """One subscription."""
    return _one(edge, customer_uid)


@router.post("/{customer_uid}/pause", response_model=Changed, responses=described(404, 409, 422))
def pause(customer_uid: CustomerUid, edge: TheEdge) -> dict[str, Any]:
    """Stop charging until it is resumed. A month without a payment ends the billing key."""
    return _shown(edge, customer_uid, change_status.pause(edge.book, edge.policy, customer_uid))


@router.post(
    "/{customer_uid}/resume", response_model=Changed, responses=described(404, 409, 422, 502)
)
def resume(customer_uid: CustomerUid, edge: TheEdge) -> dict[str, Any]:
    """Charge again. A suspended customer must register anew instead."""
    return _shown(edge, customer_uid, change_status.resume(edge.book, edge.policy, customer_uid))


@router.post("/{customer_uid}/cancel", response_model=Changed, responses=described(404, 409, 422))
def cancel(customer_uid: CustomerUid, edge: TheEdge) -> dict[str, Any]:
    """End the subscription for good. A charge that is under way ends as it ends."""
    return _shown(edge, customer_uid, change_status.cancel(edge.book, edge.policy, customer_uid))


def _shown(edge: TheEdge, customer_uid: str, changed: change_status.Changed) -> dict[str, Any]:
    words = {"en": changed.warning_en, "ko": changed.warning_ko} if changed.warning_en else None
    return {**_one(edge, customer_uid), "warning": words}


def _one(edge: TheEdge, customer_uid: str) -> dict[str, Any]:
    with edge.book.transaction() as tx:
        found = views.subscriptions(tx.session, edge.settings.zone, customer_uid=customer_uid)
    if not found:
        raise NotFound(f"no subscription has the customer_uid {customer_uid!r}")
    return found[0]
