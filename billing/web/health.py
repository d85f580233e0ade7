"""Is this process alive; can it do its work? For whoever restarts it or sends it requests."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from billing.store import schema
from billing.web.edge import TheEdge

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    ok: bool = True


@router.get("/healthz", response_model=Alive)
async def healthz() -> Alive:
    """Liveness: this process answers. Says nothing of the database: a restart would not mend it."""
    return Alive()


@router.get("/readyz", response_model=Alive, responses={503: {"model": Alive}})
def readyz(edge: TheEdge) -> Response:
    """Readiness: the book can be reached and its schema fits this code."""
    try:
        ready = schema.fits(edge.house.engine)
    except SQLAlchemyError:
        ready = False
    return JSONResponse({"ok": ready}, status_code=200 if ready else 503)
