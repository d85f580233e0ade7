"""A Chromium for the tests: the one that is there, else one that is installed now."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MACOS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# What a browser asks of the world outside, switched off: tests speak to this machine alone.
ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


class NoBrowser(RuntimeError):
    """This machine has no browser, and who runs the tests cannot install one; with the remedy."""


def check_driver() -> None:
    """See that Playwright's own program starts, which asks for a library that a small system lacks.
    Installs that, or raises `NoBrowser`."""
    command = (sys.executable, "-m", "playwright", "--version")
    problem = _run(*command)
    if problem and _may_install():
        with _one_at_a_time():
            _install("libatomic1")
        problem = _run(*command)
    if problem:
        raise NoBrowser(f"Playwright does not start (Debian: apt install libatomic1). {problem}")


def executable(bundled: str) -> str:
    """The program to start. `bundled` is where Playwright keeps its own. Installs one where there
    is none; raises `NoBrowser` with the remedy where that is not possible either."""
    if found := _found(bundled):
        return found
    with _one_at_a_time():
        return _installed(bundled)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Test processes that run side by side would be refused by apt while one of them installs."""
    with (Path(tempfile.gettempdir()) / f"maewol-chromium-{os.getuid()}.lock").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


def _installed(bundled: str) -> str:
    if found := _found(bundled):
        return found
    problems = [_run(sys.executable, "-m", "playwright", "install", "chromium")]
    if not _found(bundled) and _may_install():
        problems += _install("chromium")
    if found := _found(bundled):
        return found
    raise NoBrowser(
        "The browser tests need Chromium, and none could be installed. Install it (Debian: apt"
        " install chromium; macOS: brew install --cask chromium), or name one: CHROMIUM=/path."
        f"\n{' | '.join(filter(None, problems))}"
    )


def _may_install() -> bool:
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def _install(package: str) -> list[str]:
    # Somebody else may be installing something.
    patience = ("-o", "DPkg::Lock::Timeout=300")
    return [
        _run("apt-get", "update", "-qq"),
        _run("apt-get", "install", *patience, "-y", "-qq", "--no-install-recommends", package),
    ]


def _found(bundled: str) -> str | None:
    if named := os.environ.get("CHROMIUM"):
        return named
    if Path(bundled).exists():
        return bundled
    if _MACOS.exists():
        return str(_MACOS)
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def _run(*command: str) -> str:
    """Run it; what it complained about, or nothing."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stderr[-400:]}"
