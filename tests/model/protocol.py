"""The exactly-once protocol of one cycle as steps between states; each names the code it mirrors.

Left out, because other tests hold them: pause and cancel, amounts and seals, the rate and the
circuit (a claim may be refused at any time anyway), rows that are `ready`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.gateway import find, gateway_steps
from tests.model.world import (
    DEADLINE,
    IDLE,
    LEASE,
    LOOKS,
    NO_REQUEST,
    SETTLE,
    VISIBILITY,
    Attempt,
    Gateway,
    Request,
    Spec,
    State,
    Step,
    Worker,
    hung_up,
    in_the_air,
    is_newest,
    paid,
    with_worker,
)


def steps(state: State, spec: Spec, gateway: Gateway) -> Iterator[Step]:
    """Everything that may happen next. `{0}` and `{1}` in a story stand for the workers."""
    yield from _ticks(state, spec)
    yield from gateway_steps(state, gateway)
    for place, worker in enumerate(state.workers):
        if worker is not IDLE or IDLE not in state.workers[:place]:
            yield from _worker_steps(state, place, worker, spec)


# -- time, and the ticks of the scheduler ------------------------------------------------------


def _ticks(state: State, spec: Spec) -> Iterator[Step]:
    attempt = state.attempt
    if not any(one.step in ("cleared", "sent") and one.left == 0 for one in state.workers):
        # client.py `charge`: a deadline does not pass unnoticed, except in a pause.
        yield Step("time passes", _later(state))
    if not state.over:
        yield Step("the band's last start passes", state._replace(over=True))
    if attempt.status == "sending" and attempt.lease < 0:
        # inquire.py `_give_up_on_expired`: provable_at = lease_until + settle.
        yield Step("tick: the lease ran out", _became_unknown(state, spec, attempt.lease + SETTLE))
    if state.cycle == "open" and state.over:
        # close_cycles.py `_close_batch`, `_still_settling`.
        settling = attempt.status in ("sending", "unknown")
        gave_up = not in_the_air(state) and attempt.provable == 0
        if not settling or gave_up or spec.close_before_settled:
            yield _closed(state, settling, gave_up)


def _closed(state: State, settling: bool, gave_up: bool) -> Step:
    """close_cycles.py `_end`, `_verdict`."""
    attempt, broken = state.attempt, ""
    if settling:
        reason = "unproven"
    elif state.held:
        reason = "held"
    elif attempt.order > 1 or attempt.status == "declined":
        reason = "declined"
    else:
        reason = "not_attempted"
    if settling and not gave_up:
        broken = "I4: called unproven while it could still be proved"
    elif not settling and (paid(state) or in_the_air(state)) and not state.woken:
        broken = f"I4: called missed ({reason}), and the gateway has the money or a request"
    if attempt.status == "due":
        attempt = attempt._replace(status="withdrawn")
    when = "48 hours after the close" if settling and gave_up else "the window is over"
    ended = state._replace(attempt=attempt, cycle="missed")
    return Step(f"tick: {when}, the cycle is missed ({reason})", ended, broken=broken)


def _later(state: State) -> State:
    attempt = state.attempt
    if attempt.status == "sending":
        attempt = attempt._replace(lease=max(attempt.lease - 1, -SETTLE))
    elif attempt.provable:
        attempt = attempt._replace(provable=attempt.provable - 1)
    return state._replace(
        attempt=attempt,
        workers=tuple(
            one._replace(left=max(one.left - 1, 0), request=_aged(one.request))
            if one.step in ("claimed", "cleared", "sent")
            else one
            for one in state.workers
        ),
        orphans=tuple(one for one in map(_aged, state.orphans) if one.order),
        rows=tuple(row._replace(hidden=max(row.hidden - 1, 0)) for row in state.rows),
    )


def _aged(request: Request) -> Request:
    """One that has not arrived in time never does."""
    return request._replace(air=request.air - 1) if request.air else NO_REQUEST


# -- a worker ----------------------------------------------------------------------------------


def _worker_steps(state: State, place: int, worker: Worker, spec: Spec) -> Iterator[Step]:
    who = f"worker {{{place}}}"
    match worker.step:
        case "idle":
            yield from _takes_a_message(state, place, who, spec)
        case "claimed":
            yield from _before_sending(state, place, worker, who, spec)
        case "cleared":
            yield from _sends(state, place, worker, who)
        case "paused":
            yield Step(f"{who} WAKES and sends order {worker.order}", _wakes(state, place, worker))
        case "sent":
            # client.py `charge`: the deadline or a broken connection. The bytes may still arrive.
            told = worker._replace(step="answered", left=0, holds="unknown", request=NO_REQUEST)
            yield Step(f"{who} gets no answer", with_worker(hung_up(state, place), place, told))
        case "answered" | "asked":
            yield from _records(state, place, worker, who, spec)
    if worker.step not in ("idle", "paused") and state.faults:
        dead = with_worker(hung_up(state, place), place, IDLE)
        yield Step(f"{who} is KILLED", dead._replace(faults=state.faults - 1), fault=True)


def _takes_a_message(state: State, place: int, who: str, spec: Spec) -> Iterator[Step]:
    """A message may come at any time, old or new. One whose claim loses does nothing."""
    attempt = state.attempt
    chargeable = state.cycle == "open" and not state.held and not state.over
    again = spec.claim_without_status and attempt.status in ("sending", "unknown")
    if chargeable and (attempt.status == "due" or (again and state.duplicates)):
        # attempts.py `claim`: due → sending, the fence one higher, refusal and looks forgotten.
        older = tuple(one._replace(newest=one is IDLE) for one in state.workers)
        claimed = state._replace(attempt=Attempt(attempt.order, "sending", LEASE), workers=older)
        mine = Worker("charge", attempt.order, True, "claimed", LEASE)
        after = with_worker(claimed, place, mine)
        twice = attempt.status != "due"
        after = after._replace(duplicates=state.duplicates - twice)
        yield Step(f"{who} claims attempt {attempt.order}", after, fault=twice)
    if attempt.status == "unknown":
        twice = any(one.job == "ask" for one in state.workers)
        if not twice or state.duplicates:
            # inquire.py `inquire`, asking.py `what_became`.
            for found, lie, lies in _looks(state, attempt.order):
                late_enough = min(attempt.provable, 1)
                mine = Worker("ask", attempt.order, True, "asked", late_enough, found)
                after = with_worker(state, place, mine)
                after = after._replace(lies=lies, duplicates=state.duplicates - twice)
                story = f"{who} asks about attempt {attempt.order}: {found}{lie}"
                yield Step(story, after, fault=bool(lie) or twice)


def _looks(state: State, order: int) -> Iterator[tuple[str, str, int]]:
    """What a look-up shows; one that misses a payment is a fault."""
    yield find(state, order), "", state.lies
    if state.lies and find(state, order) != "nothing":
        yield "nothing", " (MISSED IT)", state.lies - 1


def _before_sending(
    state: State, place: int, worker: Worker, who: str, spec: Spec
) -> Iterator[Step]:
    """charge.py `_before_sending`: too late? already there?"""
    back = with_worker(state, place, worker._replace(step="answered", left=0, holds="not_sent"))
    if worker.left < DEADLINE or state.over:
        # GivenBack has the same end as NotSent.
        yield Step(f"{who} finds that it is too late to send", back)
        return
    yield Step(f"{who} cannot look up, so it does not send", back)
    cleared = worker._replace(step="cleared", left=DEADLINE)
    if spec.no_look_before_charge:
        yield Step(f"{who} does not look", with_worker(state, place, cleared))
        return
    for found, lie, lies in _looks(state, worker.order):
        told = worker._replace(step="answered", left=0, holds=found)
        after = with_worker(state, place, cleared if found == "nothing" else told)
        story = f"{who} looks before sending order {worker.order}: {found}{lie}"
        yield Step(story, after._replace(lies=lies), fault=bool(lie))


def _sends(state: State, place: int, worker: Worker, who: str) -> Iterator[Step]:
    """client.py `charge`: the request leaves, or provably does not; or all stops just before."""
    broken = ""
    if in_the_air(state) and not state.woken:
        broken = "I5: sent while another request may still arrive"
    elif paid(state) and not state.woken:
        broken = "I5: sent although the gateway has the money"
    sent = worker._replace(step="sent", request=Request(worker.order, DEADLINE))
    yield Step(f"{who} sends order {worker.order}", with_worker(state, place, sent), broken=broken)
    kept = worker._replace(step="answered", left=0, holds="not_sent")
    yield Step(f"{who} cannot connect: nothing left", with_worker(state, place, kept))
    if state.faults:
        paused = with_worker(state, place, worker._replace(step="paused", left=0))
        story = f"{who} is PAUSED just before the bytes leave"
        yield Step(story, paused._replace(faults=state.faults - 1), fault=True)


def _wakes(state: State, place: int, worker: Worker) -> State:
    """Up to the end of its lease the settling covers what it sends; after that, nothing does."""
    attempt = state.attempt
    in_time = worker.newest and attempt.status == "sending" and attempt.lease >= 0
    sent = worker._replace(step="sent", left=0, request=Request(worker.order, DEADLINE))
    return with_worker(state, place, sent)._replace(woken=state.woken or not in_time)


# -- the record: record.py ---------------------------------------------------------------------


def _records(state: State, place: int, worker: Worker, who: str, spec: Spec) -> Iterator[Step]:
    story = f"{who} records: {worker.holds}"
    done = with_worker(state, place, IDLE)
    if not is_newest(state, worker._replace(newest=worker.newest or spec.no_fence)):
        # `Recorder.apply`: changes nothing, raises an alarm.
        yield Step(f"{story}; too late, an alarm", done._replace(alarm=state.woken))
        return
    after, broken = _applied(done, worker, spec)
    if not worker.newest and after != done:
        broken = "I6: an old claim recorded over a newer one"
    yield Step(story, after, broken=broken)


def _applied(state: State, worker: Worker, spec: Spec) -> tuple[State, str]:
    """`Recorder.apply`, one case for each kind of answer; with the rule that it breaks."""
    attempt, is_unknown = state.attempt, state.attempt.status == "unknown"
    # `_is_provable`: it counts when the question was asked, not when the answer is recorded.
    proves = attempt.provable == 0
    if worker.job == "ask" and not spec.look_counts_when_recorded:
        proves = proves and worker.left == 0
    match worker.holds:
        case "approved":
            return state._replace(attempt=Attempt(attempt.order, "approved"), cycle="paid"), ""
        case "paid_by_other" if is_unknown and not proves:
            return state, ""
        case "paid_by_other":
            withdrawn = state._replace(attempt=Attempt(attempt.order, "withdrawn"), cycle="paid")
            return withdrawn, _unproved(state, "not sent")
        case "declined" if worker.job == "ask" and is_unknown and not proves:
            # `_found_failed`: a paid row under the same name may be the last to show.
            return state, ""
        case "declined":
            return _declined(state, "")
        case "not_sent":
            return (state, "") if is_unknown else (_back_to_due(state), "")
        case "unknown":
            return _to_unknown(state, spec, SETTLE, ""), ""
        case "refused" | "already_paid" as said:
            return _to_unknown(state, spec, VISIBILITY, said), ""
    # "nothing": `_nothing_found`.
    if not proves and not spec.absence_believed_at_once:
        return state, ""
    if attempt.refusal:
        return _declined(state, attempt.refusal)
    looks = attempt.looks + 1
    if looks < LOOKS and not (spec.one_look or spec.absence_believed_at_once):
        # The next look proves something only if it is asked a while after this one.
        gap = 0 if spec.look_counts_when_recorded else VISIBILITY
        return state._replace(attempt=attempt._replace(looks=looks, provable=gap)), ""
    return _back_to_due(state), _unproved(state, "not sent")


def _to_unknown(state: State, spec: Spec, over: int, refusal: str) -> State:
    """`_unknown`; told after the lease ran out, it puts the proof off once more."""
    before = state.attempt
    state = _became_unknown(state, spec, max(over, before.provable))
    if state.attempt.order != before.order:
        return state  # a new order, where the rule against that is switched off
    return state._replace(attempt=state.attempt._replace(refusal=refusal))


def _became_unknown(state: State, spec: Spec, provable: int) -> State:
    attempt = state.attempt
    if spec.new_order_on_unknown:
        return _next_attempt(state)
    if spec.no_settle:
        provable = 0
    elif spec.settle_from_claim:
        provable = attempt.lease - LEASE + SETTLE
    return state._replace(attempt=Attempt(attempt.order, "unknown", 0, max(provable, 0)))


def _declined(state: State, refusal: str) -> tuple[State, str]:
    """`_declined`, `follow`: a new order, unless "already paid" is what was said."""
    broken = _unproved(state, "declined")
    over = state._replace(attempt=Attempt(state.attempt.order, "declined"))
    if refusal == "already_paid":
        return over._replace(held=state.cycle == "open"), broken
    return (_next_attempt(state) if state.cycle == "open" else over), broken


def _next_attempt(state: State) -> State:
    """`_plan_retry`; no more than two in the model."""
    if state.attempt.order == 2:
        return state._replace(attempt=Attempt(2, "declined"))
    return state._replace(attempt=Attempt(2))


def _back_to_due(state: State) -> State:
    """`_back_to_due`: the same order again; withdrawn when the cycle ended meanwhile."""
    status = "due" if state.cycle == "open" else "withdrawn"
    return state._replace(attempt=Attempt(state.attempt.order, status))


def _unproved(state: State, called: str) -> str:
    """Whether the attempt is called declined or not sent without proof."""
    order = state.attempt.order
    if state.woken:
        return ""
    if any(row.order == order and row.status == "paid" for row in state.rows):
        return f"I5: called {called}, and it is paid"
    if in_the_air(state, order):
        return f"I5: called {called}, and its request may still arrive"
    return ""
