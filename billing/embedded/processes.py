"""Is that process still ours? Process ids are used again, so a number alone says nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def runs(pid_file: Path, marker: str) -> int | None:
    """The process id in the file's first line, if its command line holds `marker`; else None.

    A process that ended but was not collected (a container without an init) has no command line.
    """
    try:
        pid = int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if marker in _command_line(pid) else None


def _command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
        except OSError:
            return ""
    answer = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a server's log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-count:])
