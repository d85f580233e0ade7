"""A call that many ask for and that one answers: made at once, and then not again for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Spaced:
    """Calls `action` where it was not called for `seconds`, and else once those are over, for all
    who have asked meanwhile. Whoever asks is answered by a call that begins afterwards.

    What `action` raises when it is called later, by a thread of its own, goes to `lost`.
    """

    def __init__(
        self,
        action: Callable[[], None],
        seconds: float,
        monotonic: Callable[[], float],
        lost: Callable[[Exception], None],
        later: Callable[[float, Callable[[], None]], None] | None = None,
    ) -> None:
        self._action = action
        self._seconds = seconds
        self._monotonic = monotonic
        self._lost = lost
        self._later = later or _in_a_thread
        self._lock = threading.Lock()
        self._called_at: float | None = None
        self._is_planned = False

    def __call__(self) -> None:
        with self._lock:
            if self._is_planned:
                return
            now = self._monotonic()
            wait = 0.0 if self._called_at is None else self._called_at + self._seconds - now
            if wait > 0:
                self._is_planned = True
            else:
                self._called_at = now
        if wait > 0:
            self._plan(wait)
        else:
            self._action()

    def _plan(self, wait: float) -> None:
        try:
            self._later(wait, self._planned)
        except RuntimeError as error:
            # No thread to spare just now. Whoever asks next plans anew, or nobody ever would.
            with self._lock:
                self._is_planned = False
            self._lost(error)

    def _planned(self) -> None:
        with self._lock:
            self._is_planned = False
            self._called_at = self._monotonic()
        try:
            self._action()
        except Exception as error:
            self._lost(error)


def _in_a_thread(seconds: float, action: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, action)
    # Nobody waits for it when the process ends.
    timer.daemon = True
    timer.start()
