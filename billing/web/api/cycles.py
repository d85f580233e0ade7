"""`/v1/cycles`: what became of each month."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from billing.domain.cycle import CycleStatus
from billing.store import views
from billing.web.api.cursors import Cursor, Limit, cursor_of, row_id_of
from billing.web.api.routes import PREFIX, ApiRoute, Described
from billing.web.api.shapes import CustomerName, CyclePage
from billing.web.edge import TheEdge
from billing.web.problems import described

router = APIRouter(
    prefix=f"{PREFIX}/cycles",
    tags=["cycles"],
    route_class=ApiRoute,
    dependencies=[Described],
    responses=described(401, 403, 429, 503),
)
_KIND = "cycle"


@router.get("", response_model=CyclePage, responses=described(422))
def cycles(
    edge: TheEdge,
    status: CycleStatus | None = None,
    customer_uid: Annotated[CustomerName | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Cycles with their attempts, newest first."""
    before = row_id_of(_KIND, cursor)
    with edge.book.transaction() as tx:
        page = views.cycle_page(
            tx.session,
            edge.settings.zone,
            status=status,
            customer_uid=customer_uid,
            before=before,
            limit=limit,
        )
    return {"items": page.items, "next": cursor_of(_KIND, page.last_id)}
