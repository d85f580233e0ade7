"""Who is using a data folder: shared file locks, which the kernel drops however a process ends."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from billing.domain.errors import EmbeddedServerError

# A first start with crash recovery may take a minute on a slow disk; twice that is a hang.
_SETUP_PATIENCE_SECONDS = 150.0
_POLL_SECONDS = 0.02

Stop = Callable[[Path], None]


class Membership:
    """One user's hold on a data folder, by three files in it.

    `setup.lock` is held while servers are started or stopped, `users.lock` is shared by all who
    use them, `keeper.lock` is held by the one process that tidies up after users that were killed.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._owner = os.getpid()
        self._users: int | None = None

    @classmethod
    def of(cls, data_dir: Path) -> Membership:
        """The hold on a folder, not yet taken. Makes no folder."""
        return cls(data_dir.expanduser().resolve())

    @contextmanager
    def joining(self, *, stop: Stop) -> Iterator[None]:
        """Become a user; the block starts what is missing, alone. If it fails, nobody joined."""
        self._make_folder()
        with self._setting_up():
            users = _open_lock(self.data_dir / "users.lock")
            fcntl.flock(users, fcntl.LOCK_SH)
            self._users = users
            _held.add(self)
            try:
                yield
                self._ensure_keeper()
            except BaseException:
                self._leave_alone(stop)
                raise

    def leave(self, *, stop: Stop) -> None:
        """Stop being a user, and stop the servers as the last one. Nothing in a forked child."""
        if self._users is None or self._owner != os.getpid():
            return
        try:
            if self.data_dir.exists():  # else it was deleted meanwhile, and the servers with it
                with self._setting_up():
                    self._leave_alone(stop)
        finally:
            self._release()

    def without_users(self, stop: Stop) -> bool:
        """Call `stop` if nobody uses the folder, keeping newcomers out meanwhile."""
        if not (self.data_dir / "users.lock").exists():
            return True
        with self._setting_up():
            return _with_exclusive(self.data_dir / "users.lock", lambda: stop(self.data_dir))

    def _leave_alone(self, stop: Stop) -> None:
        """Leave while no other process can join or leave."""
        self._release()
        if _with_exclusive(self.data_dir / "users.lock", lambda: stop(self.data_dir)):
            (self.data_dir / "keeper.lock").unlink(missing_ok=True)  # which dismisses the keeper

    def _release(self) -> None:
        users, self._users = self._users, None
        if users is not None:
            # Unlocking reaches copies of the descriptor that a fork may hold; closing would not.
            fcntl.flock(users, fcntl.LOCK_UN)
            os.close(users)

    def forget_in_child(self) -> None:
        """Close a forked child's copy, so that it does not count as a user by accident."""
        users, self._users = self._users, None
        if users is not None:
            os.close(users)

    def _make_folder(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedServerError(
                f"The data folder {self.data_dir} cannot be made ({error.strerror}). "
                "Set MAEWOL_DATA_DIR to a folder that this user may write."
            ) from error

    @contextmanager
    def _setting_up(self) -> Iterator[None]:
        lock = _open_lock(self.data_dir / "setup.lock")
        try:
            _wait_for(lock, self.data_dir)
            yield
        finally:
            os.close(lock)

    def _ensure_keeper(self) -> None:
        """Start the keeper unless one is there. The shell in between makes it nobody's child."""
        if _with_exclusive(self.data_dir / "keeper.lock", lambda: None):
            keeper = str(Path(__file__).with_name("keeper.py"))
            command = [sys.executable, "-P", keeper, str(self.data_dir)]
            subprocess.run(
                ["/bin/sh", "-c", '"$@" &', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                check=False,
            )


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise EmbeddedServerError(
            f"{path} belongs to another user. Run as that user, or set MAEWOL_DATA_DIR to a "
            "folder of your own."
        ) from error


def _wait_for(lock: int, data_dir: Path) -> None:
    deadline = time.monotonic() + _SETUP_PATIENCE_SECONDS
    while not _try_exclusive(lock):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"Another process has been starting or stopping the servers of {data_dir} for "
                f"{_SETUP_PATIENCE_SECONDS:.0f} seconds. Stop it and try again."
            )
        time.sleep(_POLL_SECONDS)


def _try_exclusive(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _with_exclusive(path: Path, action: Callable[[], None]) -> bool:
    lock = _open_lock(path)
    try:
        if not _try_exclusive(lock):
            return False
        action()
        return True
    finally:
        os.close(lock)


# exec closes the descriptors by itself (Python opens them so); a bare fork, as of a Celery
# prefork pool, does not, and its child would hold the servers up after its parent was killed.
_held: weakref.WeakSet[Membership] = weakref.WeakSet()


def _forget_all_in_child() -> None:
    for membership in list(_held):
        with suppress(OSError):
            membership.forget_in_child()


os.register_at_fork(after_in_child=_forget_all_in_child)
