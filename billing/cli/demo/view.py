"""Shows the story: a live screen on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from billing.cli.demo.watch import Line, Snapshot
from billing.domain.calendar import SEOUL

# As many lines of the past as fit beside the figures on a small terminal.
_REMEMBERED = 14
_PIPE_WIDTH = 110

_TELLING: Mapping[str, str] = {
    "attempt.declined": "declined",
    "attempt.unknown": "no usable answer: asked about, never sent again on a guess",
    "attempt.not_sent": "nothing was sent: the same attempt goes again",
    "payment.found_elsewhere": "paid elsewhere meanwhile: found by the look-up, not charged again",
    "cycle.closing_soon": "closes within a day, unpaid: alarm",
    "cycle.missed": "window over, unpaid: missed",
    "subscription.suspended": "suspended: the customer must register again",
    "gateway.down": "circuit open: the gateway does not answer",
    "charging.held": "all charging held",
    "clock.skewed": "the gateway's clock disagrees with ours",
}


class View:
    """What the audience sees. A context manager: the live screen ends with it."""

    def __init__(self) -> None:
        # A pipe has no width of its own; the tables want this much.
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True, width=width)
        self._lines: deque[str] = deque(maxlen=_REMEMBERED)
        self._snapshot: Snapshot | None = None
        self._shown: tuple[object, ...] = ()
        self._live = (
            Live(console=self.console, auto_refresh=False, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the live screen; what is told from here on stays."""
        if self._live:
            self._live.stop()
            self._live = None

    def tell(self, text: str) -> None:
        """One sentence of the story."""
        if self._live:
            self._lines.append(text)
            self._draw()
        else:
            self.console.print(text, markup=False)

    def show(self, snapshot: Snapshot, events: Sequence[Line]) -> None:
        """The figures of the moment, and what happened since the last ones."""
        self._snapshot = snapshot
        for text in told(events):
            self.tell(text)
        if self._live:
            self._draw()
        elif (figures := _figures(snapshot)) != self._shown:
            self._shown = figures
            self.console.print(_one_line(snapshot), markup=False)

    def _draw(self) -> None:
        if self._live is None:
            return
        parts: list[Text | Table] = [Text("\n".join(self._lines))]
        if self._snapshot is not None:
            parts.insert(0, _numbers(self._snapshot))
        self._live.update(Panel(Group(*parts), title="Maewol 매월"), refresh=True)


def told(events: Sequence[Line]) -> list[str]:
    """Events as sentences; equal ones that came together as one, with their number."""
    found: dict[str, int] = {}
    for event in events:
        if event.kind in _TELLING:
            text = f"{moment(event.at)}  {_TELLING[event.kind]}{_detail(event)}"
            found[text] = found.get(text, 0) + 1
    return [text if count == 1 else f"{text} (×{count})" for text, count in found.items()]


def moment(at: datetime) -> str:
    """A moment as Seoul's clocks show it."""
    return f"{at.astimezone(SEOUL):%d %b %H:%M:%S}"


def _detail(event: Line) -> str:
    for key in ("message", "why", "reason"):
        if value := event.data.get(key):
            return f": {value}"
    return ""


def _figures(snapshot: Snapshot) -> tuple[object, ...]:
    return tuple(sorted(snapshot.cycles.items())), snapshot.in_flight > 0, snapshot.unknown


def _one_line(snapshot: Snapshot) -> str:
    cycles = " ".join(f"{name} {count}" for name, count in sorted(snapshot.cycles.items()))
    return (
        f"{moment(snapshot.at)}  {cycles or 'nothing due yet'}"
        f" · in flight {snapshot.in_flight} · unknown {snapshot.unknown}"
    )


def _numbers(snapshot: Snapshot) -> Table:
    table = Table(box=None, expand=True)
    figures = {
        "Seoul": moment(snapshot.at),
        "open": str(snapshot.cycles.get("open", 0)),
        "in flight": str(snapshot.in_flight),
        "unknown": str(snapshot.unknown),
        "paid": str(snapshot.cycles.get("paid", 0)),
        "missed": str(snapshot.cycles.get("missed", 0)),
        "suspended": str(snapshot.suspended),
    }
    for name in figures:
        table.add_column(name, justify="right")
    table.add_row(*figures.values())
    return table
