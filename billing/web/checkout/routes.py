"""From the form to the thank-you: each route reads, calls one use case, and shows the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from limits import parse
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.responses import JSONResponse, RedirectResponse, Response

from billing.domain.errors import Conflict, GatewayError, InvalidInput
from billing.domain.order import Offer, Order
from billing.services.begin_order import begin_order
from billing.services.finish_order import (
    NothingShown,
    NotPaid,
    NotShown,
    Subscribed,
    finish_order,
)
from billing.services.show_order import show_order
from billing.web.checkout import buyer
from billing.web.checkout.pages import file, headers_with_sdk, page
from billing.web.checkout.signing import Orders
from billing.web.edge import Edge, TheEdge
from billing.web.limiting import Limiter, peer_of
from billing.web.texts import texts_for

_log = logging.getLogger(__name__)

router = APIRouter(prefix="/checkout", include_in_schema=False)

# Nobody orders faster by hand. The second is for all visitors of one process together: each of
# these calls costs the gateway a few.
_ORDERS = ("12 per minute", "300 per minute")
_ENDINGS = ("40 per minute", "600 per minute")


_OFF = (
    "the checkout page is off: set MAEWOL_PORTONE_IMP_CODE to the store's identification code,"
    " MAEWOL_CHECKOUT_AMOUNT and MAEWOL_CHECKOUT_ORDER_NAME (docs/checkout.md)"
)


class Asked(BaseModel):
    """The form."""

    buyer_name: str = Field("", max_length=200, repr=False)
    buyer_email: str = Field("", max_length=200, repr=False)
    buyer_tel: str = Field("", max_length=200, repr=False)


class Ended(BaseModel):
    """What the browser says once the window is closed."""

    order: str = Field(max_length=1000)
    imp_uid: str | None = Field(None, max_length=64)


def _open(edge: TheEdge) -> None:
    _offer(edge)


def _limited(name: str) -> Any:
    def check(request: Request) -> None:
        limiter: Limiter = getattr(request.app.state, name)
        if (seconds := limiter.wait(peer_of(request))) is not None:
            raise HTTPException(429, "too many requests", {"Retry-After": str(seconds)})

    return Depends(check)


def install(app: Any) -> None:
    """Add the routes to an application, with counts of its own."""
    app.state.checkout_orders = Limiter(*map(parse, _ORDERS))
    app.state.checkout_endings = Limiter(*map(parse, _ENDINGS))
    app.include_router(router, dependencies=[Depends(_open)])


@router.get("")
def shop(request: Request, edge: TheEdge) -> Response:
    """What is sold, and the form."""
    settings, offer = edge.settings, _offer(edge)
    shown = page(
        request,
        "checkout.html",
        sdk_url=settings.portone_sdk_url,
        imp_code=settings.portone_imp_code,
        amount=offer.amount.amount,
        order_name=offer.order_name,
    )
    shown.headers.update(headers_with_sdk(settings.portone_sdk_url))
    return shown


@router.post("/order", dependencies=[_limited("checkout_orders")])
async def order(request: Request, asked: Asked, edge: TheEdge) -> Response:
    """A new order, and what `IMP.request_pay` is to be asked."""
    form = asked.model_dump()
    if wrong := buyer.problems(form):
        t = texts_for(request)
        problems = {name: t(f"checkout.{name}_wrong") for name in wrong}
        return JSONResponse({"problems": problems}, 422)
    made = await begin_order(await edge.gateway(), _offer(edge))
    return JSONResponse(
        {"order": _orders(edge).signed(made), "request": _request(edge, made, buyer.read(form))}
    )


@router.post("/complete", dependencies=[_limited("checkout_endings")])
async def complete(request: Request, ended: Ended, edge: TheEdge) -> Response:
    """After the window, on a PC: what became of the order, for the page's script."""
    state, values, status = await _ending(edge, ended.order, ended.imp_uid)
    t = texts_for(request)
    kept = {"order": ended.order, **({"imp_uid": ended.imp_uid} if ended.imp_uid else {})}
    where = "/checkout/done" if state == "subscribed" else "/checkout/return"
    told = "nothing_shown" if state == "nothing_shown" else "nothing_charged"
    text = values.get("said") or t(f"checkout.{told}")
    return JSONResponse({"state": state, "to": f"{where}?{urlencode(kept)}", "text": text}, status)


@router.get("/return")
async def come_back(
    request: Request,
    edge: TheEdge,
    order: Annotated[str, Field(max_length=1000)] = "",
    imp_uid: Annotated[str, Field(max_length=64)] = "",
) -> Response:
    """After the window, on a phone; and to look again. Even who asks too often has paid, perhaps,
    and is told to wait."""
    if request.app.state.checkout_endings.wait(peer_of(request)) is None:
        state, values, status = await _ending(edge, order, imp_uid)
    else:
        state, values, status = "away", {"said": None}, 429
    if state == "subscribed":
        return RedirectResponse(f"/checkout/done?{urlencode({'order': order})}", 303)
    again = f"/checkout/return?{urlencode({'order': order, 'imp_uid': imp_uid})}"
    return page(request, "ended.html", status, state=state, again=again, **values)


@router.get("/done")
async def done(
    request: Request, edge: TheEdge, order: Annotated[str, Field(max_length=1000)] = ""
) -> Response:
    """Thank you: what was bought, and what the customer must know."""
    orders = _orders(edge)
    try:
        read = orders.read(order)
    except InvalidInput:
        return page(request, "ended.html", 400, state="unknown", again="", said=None)
    sold = await asyncio.to_thread(show_order, edge.book, edge.policy, read)
    if sold is None:
        return RedirectResponse(f"/checkout/return?{urlencode({'order': order})}", 303)
    return page(request, "done.html", sold=sold)


@router.get("/static/{name}")
def static(name: str) -> Response:
    """The checkout's own script and style."""
    found = file(name)
    if found is None:
        raise HTTPException(404)
    return found


async def _ending(
    edge: Edge, signed: str, imp_uid: str | None
) -> tuple[str, dict[str, str | None], int]:
    """What became of an order: its state, what the gateway said, and the HTTP status."""
    said: dict[str, str | None] = {"said": None}
    orders, gateway = _orders(edge), await edge.gateway()
    try:
        read = orders.read(signed)
    except InvalidInput:
        return "unknown", said, 400
    try:
        found = await finish_order(
            edge.book,
            edge.policy,
            edge.house.installation_key,
            gateway,
            read,
            imp_uid or None,
        )
    except (Conflict, InvalidInput) as error:
        # Somebody may have paid for it. The words of the error may hold what the buyer wrote.
        _log.warning("order %s was refused (%s)", read.merchant_uid, type(error).__name__)
        return "refused", said, 409
    except (GatewayError, OperationalError):
        return "away", said, 503
    match found:
        case Subscribed():
            return "subscribed", said, 200
        case NotPaid(reason):
            return "not_paid", {"said": reason}, 200
        case NotShown():
            return "not_shown", said, 202
        case NothingShown():
            return "nothing_shown", said, 200


def _offer(edge: Edge) -> Offer:
    offer = edge.settings.offer
    if offer is None:
        raise HTTPException(404, _OFF)
    return offer


def _orders(edge: Edge) -> Orders:
    return Orders(edge.settings.portone_imp_secret)


def _request(edge: Edge, order: Order, customer: buyer.CheckoutBuyer) -> dict[str, Any]:
    """The call of the SDK; the page adds where a phone comes back to, which only it knows."""
    return {
        "pg": edge.settings.checkout_pg,
        "pay_method": "phone",
        "merchant_uid": order.merchant_uid,
        "customer_uid": order.customer_uid,
        "name": order.order_name,
        "amount": order.amount.amount,
        "buyer_name": customer.name,
        "buyer_email": customer.email,
        "buyer_tel": customer.tel,
    }
