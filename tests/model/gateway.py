"""What the gateway may do, and what it shows: the personalities of docs/protocol.md."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.world import (
    NO_REQUEST,
    VISIBILITY,
    Gateway,
    Request,
    Row,
    State,
    Step,
    in_the_air,
    paid,
    with_worker,
)


def gateway_steps(state: State, gateway: Gateway) -> Iterator[Step]:
    """A request is carried out, its answer comes or is lost; a failed payment turns paid."""
    for place, request in enumerate(state.orphans):
        rest = (*state.orphans[:place], *state.orphans[place + 1 :])
        for story, after, _, still in _arrives(state, request, gateway):
            left = after._replace(orphans=(*rest, still) if still.order else rest)
            yield Step(f"gateway {story}; nobody waits for the answer", left)
    for place, worker in enumerate(state.workers):
        for story, after, answer, still in _arrives(state, worker.request, gateway):
            if still.order:
                waiting = worker._replace(request=still)
                yield Step(f"gateway {story}", with_worker(after, place, waiting))
                continue
            for heard, lost in ((answer, ""), ("unknown", "; the answer is lost")):
                told = worker._replace(step="answered", left=0, holds=heard, request=NO_REQUEST)
                yield Step(f"gateway {story}{lost}", with_worker(after, place, told))
    if gateway.any_time or (gateway.late and _is_quiet(state)):
        for place, row in enumerate(state.rows):
            if row.status == "late":
                turned = (*state.rows[:place], Row(row.order, "paid"), *state.rows[place + 1 :])
                story = f"gateway: order {row.order}, which had failed, TURNS PAID"
                yield Step(story, state._replace(rows=turned))


def _is_quiet(state: State) -> bool:
    """No look-up or request is under way, and another attempt is still to be made."""
    return (
        not in_the_air(state)
        and not paid(state)
        and not state.over
        and state.attempt.status in ("due", "sending", "unknown")
        and all(one.step in ("idle", "claimed") for one in state.workers)
    )


def _arrives(
    state: State, request: Request, gateway: Gateway
) -> Iterator[tuple[str, State, str, Request]]:
    """What happens to a request: a story, the state, the answer, the request if still in hand."""
    order = request.order
    if not order:
        return
    rows = [row for row in state.rows if row.order == order]
    if not request.checked:
        if any(row.status == "paid" for row in rows):
            yield f"refuses order {order}: it is paid already", state, "already_paid", NO_REQUEST
            return
        if gateway.strict and rows:
            yield f"refuses order {order}: it was used already", state, "refused", NO_REQUEST
            return
        yield f"refuses order {order} without trying it", state, "refused", NO_REQUEST
        if gateway.racy:
            yield f"finds order {order} not paid yet", state, "", request._replace(checked=True)
            return
    for hidden in {0, VISIBILITY if gateway.laggy else 0}:
        unseen = ", hidden from look-ups at first" if hidden else ""
        made = state._replace(rows=(*state.rows, Row(order, "paid", hidden)))
        yield f"CHARGES order {order}{unseen}", made, "approved", NO_REQUEST
        for status in ("failed", "late") if gateway.late or gateway.any_time else ("failed",):
            failed = _with_failed(state, Row(order, status, hidden))
            yield f"tries order {order}, which fails{unseen}", failed, "declined", NO_REQUEST


def _with_failed(state: State, row: Row) -> State:
    """A second failed payment of the same kind says nothing new."""
    return state if row in state.rows else state._replace(rows=(*state.rows, row))


def find(state: State, order: int) -> str:
    """finding.py `find`: money outranks everything else.

    PaidByThis has the same end as Approved, and FailedThis as Declined. PaidByEarlier and
    PaidElsewhere are one here.
    """
    seen = [row for row in state.rows if row.hidden == 0]
    if any(row.status == "paid" and row.order == order for row in seen):
        return "approved"
    if any(row.status == "paid" for row in seen):
        return "paid_by_other"
    if any(row.order == order for row in seen):
        return "declined"
    return "nothing"
