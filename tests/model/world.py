"""What the model is made of: the gateway's habits, the rules under test, and one state.

A state is an immutable tuple of everything that matters for one cycle. Time is counted in ticks, by
timers that run down, so that there are finitely many states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# A charge request has DEADLINE to leave and be answered; its bytes may arrive up to DEADLINE after
# they left (TCP_USER_TIMEOUT); a payment may stay hidden from look-ups for VISIBILITY.
DEADLINE, VISIBILITY = 1, 1
# settings.py `_relations`: a lease holds a deadline and the record; settling a deadline and the
# visibility.
LEASE, SETTLE = DEADLINE + 1, DEADLINE + VISIBILITY
# record.py `LOOKS_THAT_PROVE`.
LOOKS = 2


@dataclass(frozen=True)
class Gateway:
    """What the gateway's documents leave open. Always: an order that is paid is refused."""

    strict: bool = False  # an order that failed is refused; else it is taken again
    racy: bool = False  # "is it paid already?" is asked first, the money moved later
    laggy: bool = False  # a new payment stays hidden from look-ups for a while
    late: bool = False  # a payment that failed may turn paid, while no request is in hand
    any_time: bool = False  # ... and may do so at the worst moment, too


@dataclass(frozen=True)
class Spec:
    """The protocol. Each field switches one of its rules off, to see that it is needed."""

    no_fence: bool = False
    claim_without_status: bool = False
    no_settle: bool = False
    settle_from_claim: bool = False
    new_order_on_unknown: bool = False
    absence_believed_at_once: bool = False
    one_look: bool = False
    no_look_before_charge: bool = False
    close_before_settled: bool = False
    look_counts_when_recorded: bool = False


class Request(NamedTuple):
    """A charge request on its way: it arrives within `air` ticks, or never."""

    order: int
    air: int
    checked: bool = False  # a racy gateway has found it unpaid, and will charge


NO_REQUEST = Request(0, 0)


class Worker(NamedTuple):
    """What one worker is at. Steps: idle; claimed, cleared, paused, sent, answered; asked."""

    job: str = ""
    order: int = 0
    newest: bool = True  # no later claim has a higher fence
    step: str = "idle"
    # claimed: of the lease; cleared, sent: of the deadline; asked: 0 if late enough for a proof.
    left: int = 0
    holds: str = ""
    request: Request = NO_REQUEST


IDLE = Worker()


class Attempt(NamedTuple):
    """The cycle's live or last attempt. There is a second one only when the first was declined."""

    order: int = 1
    status: str = "due"
    lease: int = 0
    provable: int = 0
    looks: int = 0
    refusal: str = ""


class Row(NamedTuple):
    """A payment in the gateway's book, `hidden` from look-ups for so many ticks.

    Its status is paid, failed, or late: one that failed and will turn paid.
    """

    order: int
    status: str
    hidden: int = 0


class State(NamedTuple):
    attempt: Attempt = Attempt()
    cycle: str = "open"
    held: bool = False
    over: bool = False  # the band's last start has passed; the window may close
    workers: tuple[Worker, ...] = (IDLE, IDLE)
    orphans: tuple[Request, ...] = ()  # requests for whose answer nobody waits
    rows: tuple[Row, ...] = ()
    faults: int = 0  # crashes and pauses that may still happen
    duplicates: int = 0  # messages that may still come twice
    lies: int = 0  # look-ups that may still miss a payment
    woken: bool = False  # a worker was paused past its lease, and sent all the same
    alarm: bool = False  # ... and its record told the operator


class Step(NamedTuple):
    story: str
    state: State
    fault: bool = False
    broken: str = ""  # a rule that this very step breaks


def paid(state: State) -> int:
    """How often the customer was charged."""
    return sum(row.status == "paid" for row in state.rows)


def in_the_air(state: State, order: int = 0) -> bool:
    """Whether a request (of this order) may still be carried out."""
    flying = (*state.orphans, *(one.request for one in state.workers))
    return any(one.order and order in (0, one.order) for one in flying)


def with_worker(state: State, place: int, worker: Worker) -> State:
    workers = list(state.workers)
    workers[place] = worker
    return state._replace(workers=tuple(workers))


def hung_up(state: State, place: int) -> State:
    """Nobody waits for this worker's request any more; it may arrive all the same."""
    request = state.workers[place].request
    return state._replace(orphans=(*state.orphans, request)) if request.order else state


def is_newest(state: State, worker: Worker) -> bool:
    """record.py `_is_newest`; `worker.newest` stands for the fence."""
    attempt = state.attempt
    waiting = attempt.status in ("sending", "unknown") and attempt.order == worker.order
    return waiting and worker.newest


def normal(state: State, spec: Spec) -> State:
    """The same situation, told in one way only: the two workers are alike, and an answer that is
    too late changes nothing but to raise an alarm (record.py `apply`)."""
    workers, alarm = state.workers, state.alarm
    if not spec.no_fence:
        late = [one.step in ("answered", "asked") and not is_newest(state, one) for one in workers]
        workers = tuple(IDLE if gone else one for gone, one in zip(late, workers, strict=True))
        alarm = alarm or (state.woken and any(late))
    return state._replace(
        alarm=alarm,
        workers=tuple(sorted(workers)),
        orphans=tuple(sorted(state.orphans)),
        rows=tuple(sorted(state.rows)),
    )
