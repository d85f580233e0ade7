"""Stops the programs of a supervisor that was killed, and so could not do it itself.

A supervisor starts this file as a process of its own and tells it, through a pipe, whom it started
(`+pid`) and who has ended (`-pid`). When the pipe closes without a word, its other end has died:
whoever is left is asked to end, then made to. It works wherever there are pipes and signals; Linux
could do it by a flag of the kernel's, macOS could not. Nothing but the standard library is
imported, since it waits as long as the supervisor lives.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

_POLL_SECONDS = 0.1


class Survivors:
    """The supervisor's side: a will that is read out only if nobody dismisses it."""

    def __init__(self, grace_seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(grace_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        self._tell(f"+{pid}")

    def forget(self, pid: int) -> None:
        self._tell(f"-{pid}")

    def dismiss(self) -> None:
        """All have ended: the process ends, too."""
        self._tell("done")
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, word: str) -> None:
        # A watcher that was killed is a loss, but none that may stop the work.
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(OSError):
                stdin.write(f"{word}\n".encode())
                stdin.flush()


def main(grace_seconds: float) -> None:
    """Listen until the pipe closes; then stop whoever is left."""
    left: set[int] = set()
    for line in sys.stdin:
        word = line.strip()
        if word == "done":
            return
        (left.add if word[0] == "+" else left.discard)(int(word[1:]))
    _signal(left, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        left = {pid for pid in left if _is_there(pid)}
    _signal(left, signal.SIGKILL)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # not ours any more: the number was given to somebody else
    return True


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


if __name__ == "__main__":
    main(float(sys.argv[1]))
