"""A promtool for the tests: the one that is there, else one fetched out of Debian's package."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

# Fetched once for this clone. The package itself, which would start a server, is not installed.
_KEPT = Path(__file__).parents[1] / ".promtool"
_PACKAGE = "prometheus"


class NoPromtool(RuntimeError):
    """This machine has no promtool, and none could be fetched; with the remedy."""


def found() -> str | None:
    """The program, where there is one already."""
    kept = _KEPT / "promtool"
    return str(kept) if kept.exists() else shutil.which("promtool")


def required() -> str:
    """The program; fetched where there is none. Raises `NoPromtool` where that is not possible."""
    if there := found():
        return there
    problem = _fetch()
    if there := found():
        return there
    raise NoPromtool(
        "The alerts are checked by promtool, and none could be fetched. Install it (Debian: apt"
        " install prometheus; macOS: brew install prometheus), or leave PROMTOOL unset and its"
        f" checks out.\n{problem}"
    )


def _fetch() -> str:
    """What went wrong, or nothing."""
    with tempfile.TemporaryDirectory(prefix="mw-promtool-") as name:
        folder = Path(name)
        problem = _run(folder, "apt-get", "download", "-qq", _PACKAGE)
        if problem and os.geteuid() == 0:
            # A fresh machine has no list of packages yet.
            _run(folder, "apt-get", "update", "-qq")
            problem = _run(folder, "apt-get", "download", "-qq", _PACKAGE)
        for package in folder.glob("*.deb"):
            problem = _run(folder, "dpkg-deb", "-x", package.name, "unpacked")
        program = folder / "unpacked" / "usr" / "bin" / "promtool"
        if program.exists():
            _KEPT.mkdir(exist_ok=True)
            # Whole or not at all: another run may look for it just now.
            half = _KEPT / f"promtool.{os.getpid()}"
            shutil.copy(program, half)
            half.replace(_KEPT / "promtool")
    return problem


def _run(folder: Path, *command: str) -> str:
    """Run it there; what it complained about, or nothing."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stderr[-400:]}"
