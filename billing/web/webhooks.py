"""`POST /webhooks/portone`: from the gateway, or anybody. Kept, counted, never believed."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel

from billing.portone import webhook
from billing.portone.answer import Unreadable
from billing.services.receive_webhook import receive_webhook
from billing.web.bodies import read_at_most
from billing.web.edge import TheEdge
from billing.web.limiting import peer_of
from billing.web.problems import described

router = APIRouter(tags=["webhooks"])

# A webhook of the gateway has some 200 bytes.
LARGEST = 4096
# When the rows that wait were looked at, there is room again.
_ROOM_AGAIN_SECONDS = "120"
_FIELDS = {
    "type": "object",
    "required": ["imp_uid"],
    "properties": {
        "imp_uid": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        # Of any type, since neither is believed.
        "merchant_uid": {"examples": ["order-1"]},
        "status": {"examples": ["paid", "ready", "failed", "cancelled"]},
    },
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _FIELDS,
                "example": {"imp_uid": "imp_1", "merchant_uid": "order-1", "status": "paid"},
            },
            "application/x-www-form-urlencoded": {"schema": _FIELDS},
        },
    }
}


class Received(BaseModel):
    """It was kept; what it says will be looked up."""

    ok: bool = True


@router.post(
    "/webhooks/portone",
    response_model=Received,
    responses=described(400, 408, 413, 503),
    openapi_extra=_BODY,
)
async def portone(request: Request, edge: TheEdge) -> Received:
    """PortOne's webhook. No credential: only its `imp_uid` is used, to ask the gateway.

    Answered at once. 503 for too many: sent again later, or found by reconciliation."""
    wait = edge.webhooks.wait(peer_of(request))
    if wait is not None:
        # The gateway sends again after a 5xx, and after nothing else (docs/gateway.md §7).
        raise HTTPException(503, "too many webhooks", {"Retry-After": str(wait)})
    try:
        body = await read_at_most(request, LARGEST)
        one = webhook.read(request.headers.get("content-type", ""), body)
    except Unreadable as error:
        raise HTTPException(400, str(error)) from None
    if not await asyncio.to_thread(receive_webhook, edge.book, one):
        raise HTTPException(503, "too many webhooks wait", {"Retry-After": _ROOM_AGAIN_SECONDS})
    return Received()
