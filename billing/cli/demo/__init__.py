"""`maewol demo`: the whole system on this machine, through the last days of a February.

Reading order: `cast` (who takes part, and how each must end), `till` (the way to the sandbox),
`stage` (starts everything), `story` (the clock, and a worker's death), `watch` and `view` (what the
audience sees), `reckoning` (the book beside the sandbox's ledger), `follow` (whoever moves the
sandbox's clock moves ours).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from billing import clock
from billing.cli.demo import stage as stages
from billing.cli.demo import watch
from billing.cli.demo.cast import Member, members
from billing.cli.demo.reckoning import by_kind, comparison, reckon
from billing.cli.demo.stage import Stage
from billing.cli.demo.story import play
from billing.cli.demo.view import View
from billing.cli.supervisor import stop_signals
from billing.flower import USER

# Where the machine is slow the story takes longer than it was given: it is played to its end all
# the same, because half of it proves nothing. This much longer it may take; it never has.
LONGEST_EXTRA_SECONDS = 900.0
# Below this there is no time to wait for a killed worker's leases.
SECONDS_FOR_A_DEATH = 60.0
_LOG_LINES = 20


def run(seconds: float | None) -> int:
    """Play the demo; returns 0 only if every month ended as it should and both records agree.

    Ends by itself once the story is over, but not before `seconds`; or runs on until Ctrl-C when
    None. Whatever it started is stopped. Raises `EmbeddedServerError`.
    """
    began = clock.monotonic()
    cast = list(members())
    with stop_signals() as asked, View() as view, stages.set_up(cast, view.tell) as stage:
        if not stages.raise_curtain(stage, asked):
            if asked.is_set():
                view.tell("It was asked to stop before it began.")
                return 1
            log = stage.log.read_text(encoding="utf-8").splitlines()
            view.tell("\n".join(["Not started; the last lines of the log:", *log[-_LOG_LINES:]]))
            return 1
        view.tell(f"Ready after {clock.monotonic() - began:.0f} s. {_where(stage)}")
        until = None if seconds is None else began + seconds + LONGEST_EXTRA_SECONDS
        death = seconds is None or seconds >= SECONDS_FOR_A_DEATH
        given_up = play(stage, view, asked, until=until, with_a_death=death)
        view.close()
        good = _tell_the_end(cast, stage, view) and given_up is None
        view.tell(f"The story took {clock.monotonic() - began:.0f} s.")
        if given_up is not None:
            view.tell(f"It did not reach its end: {given_up}.")
        if not good and not asked.is_set():
            view.tell(f"The log is kept: {stage.keep_log()}")
        _stay(stage, view, asked, None if seconds is None else began + seconds - clock.monotonic())
    view.tell("Everything that was started is stopped, and its addresses answer no more.")
    return 0 if good else 1


def _stay(stage: Stage, view: View, asked: threading.Event, left: float | None) -> None:
    """The audience looks around, for so many seconds or until Ctrl-C."""
    if asked.is_set() or (left is not None and left < 1):
        return
    span = "until Ctrl-C" if left is None else f"for another {left:.0f} s"
    view.tell(f"Everything runs on {span}: {_where(stage)}")
    asked.wait(left)


def _tell_the_end(cast: Sequence[Member], stage: Stage, view: View) -> bool:
    sandbox = stage.sandbox
    found = reckon(
        cast,
        watch.months(stage.book),
        sandbox.payments(),
        sandbox.charges(),
        sandbox.complaints(),
    )
    view.console.print(by_kind(cast, found))
    view.console.print(comparison(found))
    for uid in found.wrong[:10]:
        view.tell(f"not as it should be: {uid} {found.months.get(uid)}")
    for complaint in found.complaints[:10]:
        view.tell(f"against the rules: {complaint}")
    return found.is_clean


def _where(stage: Stage) -> str:
    return (
        "\n"
        f"  console             http://127.0.0.1:{stage.web_port}\n"
        f"  subscribe yourself  http://127.0.0.1:{stage.web_port}/checkout\n"
        f"  travel in time      {stage.sandbox.url}  (the sandbox: its clock, ledger, moods)\n"
        f"  Flower              http://127.0.0.1:{stage.flower_port}"
        f"  ({USER} / {stage.flower_password})\n"
        f"  log: {stage.log}"
    )
