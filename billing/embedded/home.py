"""Where the servers keep their files, and whom they run as.

An ordinary user's servers run as that user, inside the data folder. PostgreSQL refuses to run as
root, so root's servers run as another user, and live elsewhere where that user cannot go.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from billing.domain.errors import EmbeddedServerError

# Existing users that may own a database server, best first: ours, the distribution's, macOS's.
_SERVICE_USERS = ("maewol", "postgres", "_postgres")
# For data folders out of the service user's reach, such as one below /root.
_ROOTS_OWN_FOLDER = Path("/var/lib/maewol")
# Nothing of our own environment reaches the servers: they live long, and it holds secrets.
_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C",
    "TZ": "UTC",
}


@dataclass(frozen=True, slots=True)
class Account:
    """A system user, by numbers: it need not have a name."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds the servers' folders; `account` is None where they run as ourselves."""

    folder: Path
    account: Account | None = None

    def make(self, name: str) -> Path:
        """A folder in here that only the servers' user may enter."""
        return private_folder(self.folder / name, self.account)

    def write(self, path: Path, text: str) -> None:
        """Put a file that only the servers' user may read in place, whole or not at all."""
        fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if self.account is not None:
                os.fchown(file.fileno(), self.account.uid, self.account.gid)
            file.write(text)
        fresh.replace(path)

    def run(
        self, command: Sequence[str | Path], *, cwd: Path, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the servers' user, out of reach of the terminal's Ctrl-C.

        Raises `EmbeddedServerError` when it cannot run or does not end in `timeout` seconds.
        """
        who = self.account
        try:
            return subprocess.run(
                list(command),
                cwd=cwd,
                env=dict(_ENVIRONMENT),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                start_new_session=True,
                umask=0o077,
                user=who.uid if who else None,
                group=who.gid if who else None,
                extra_groups=[] if who else None,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedServerError(f"{command[0]} could not be run: {error}") from error

    def reaches(self, path: Path) -> bool:
        """Whether the servers' user may use a folder or a program."""
        test = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
        return self.account is None or self.run(test, cwd=Path("/")).returncode == 0


def find_home(data_dir: Path) -> Home:
    """The home that a data folder already has; where it has none, where it would be."""
    if os.geteuid() != 0:
        return Home(data_dir)
    for folder in (data_dir, _relocated(data_dir)):
        for server in ("postgres", "valkey"):
            with suppress(FileNotFoundError):
                owner = (folder / server).stat()
                return Home(folder, Account(owner.st_uid, owner.st_gid))
    return Home(data_dir)


def prepare_home(data_dir: Path, announce: Callable[[str], None]) -> Home:
    """The home of a data folder, made when it has none. Raises `EmbeddedServerError`."""
    if os.geteuid() != 0:
        return Home(data_dir)
    known = find_home(data_dir)
    return known if known.account else _roots_home(data_dir, announce)


def private_folder(path: Path, account: Account | None) -> Path:
    """Make a folder that only one user may enter; refuse one that somebody else made."""
    wanted = account.uid if account else os.geteuid()
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        if account is not None:
            os.chown(path, account.uid, account.gid)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != wanted or found.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{path} is not a private folder of the user (uid {wanted}) that the servers run as. "
            "Run as the user that owns it, or set MAEWOL_DATA_DIR to another folder."
        )
    return path


def _roots_home(data_dir: Path, announce: Callable[[str], None]) -> Home:
    account = _owner_with_a_name(data_dir) or _service_account(announce)
    if data_dir.stat().st_uid == 0:
        data_dir.chmod(0o711)  # the service user must pass; what lies inside is private by itself
    home = Home(data_dir, account)
    if home.reaches(data_dir):
        return home
    folder = _relocated(data_dir)
    announce(f"{data_dir} is out of that user's reach, so the servers' files go to {folder}.")
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    return Home(folder, account)


def _relocated(data_dir: Path) -> Path:
    return _ROOTS_OWN_FOLDER / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]


def _owner_with_a_name(data_dir: Path) -> Account | None:
    owner = data_dir.stat()
    if owner.st_uid == 0:
        return None
    try:
        pwd.getpwuid(owner.st_uid)  # initdb wants a name
    except KeyError:
        return None
    return Account(owner.st_uid, owner.st_gid)


def _service_account(announce: Callable[[str], None]) -> Account:
    for name in _SERVICE_USERS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            announce(
                f"PostgreSQL refuses to run as root: the private servers run as '{name}', "
                "an existing system user."
            )
            return Account(entry.pw_uid, entry.pw_gid)
    return _add_service_user(_SERVICE_USERS[0], announce)


def _add_service_user(name: str, announce: Callable[[str], None]) -> Account:
    commands = (
        ("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/false", name),
        ("adduser", "-S", "-D", "-H", "-s", "/bin/false", name),  # BusyBox
    )
    for command in commands:
        if program := shutil.which(command[0], path=f"{_ENVIRONMENT['PATH']}:/usr/sbin:/sbin"):
            announce(
                "PostgreSQL refuses to run as root: adding the system user "
                f"'{name}', which the private servers run as ({' '.join(command)})."
            )
            subprocess.run([program, *command[1:]], check=False, stdin=subprocess.DEVNULL)
            with suppress(KeyError):
                entry = pwd.getpwnam(name)
                return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        f"PostgreSQL refuses to run as root, and no system user '{name}' could be added. "
        f"Add one, or run as an ordinary user, or set MAEWOL_DATABASE_URL."
    )
