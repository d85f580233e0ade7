"""Waits until nobody uses a data folder, then has its servers stopped: for users that were killed.

Run as a script by `membership`. It imports nothing but the standard library until then, because it
lives as long as the servers do and should cost as little memory as it can.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

_POLL_SECONDS = 1.0


def keep(data_dir: Path) -> None:
    """Return when nobody is left, when dismissed, or when another keeper is at work already.

    The last user to leave in good order dismisses the keeper by removing its lock file, and so does
    whoever deletes the folder.
    """
    try:
        keeper, users, setup = (
            os.open(data_dir / f"{name}.lock", os.O_RDWR) for name in ("keeper", "users", "setup")
        )
    except FileNotFoundError:
        return
    if not _take(keeper):
        return
    while _is_wanted(keeper):
        time.sleep(_POLL_SECONDS)
        if _take(setup):
            if _is_wanted(keeper) and _take(users):
                # Resign before newcomers are let in: the first of them appoints a new keeper.
                for lock in (keeper, users, setup):
                    os.close(lock)
                return _stop(data_dir)
            fcntl.flock(setup, fcntl.LOCK_UN)


def _is_wanted(keeper: int) -> bool:
    return os.fstat(keeper).st_nlink > 0


def _take(lock: int) -> bool:
    # Asked again and again rather than waited for: on some systems a waiting exclusive lock
    # keeps new shared ones out, and that would keep new users out.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stop(data_dir: Path) -> None:
    from billing.embedded import stop_abandoned

    stop_abandoned(data_dir)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
