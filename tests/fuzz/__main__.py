"""`make fuzz`: one target after the other, guided by coverage (atheris), each in its own process.

`python -m tests.fuzz SECONDS [NAME …]`; exit 1 when a target raised what it must not.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

_CHILD = "--child"


def child(name: str, arguments: list[str]) -> None:
    """Runs inside a process of its own: atheris ends it."""
    import atheris  # type: ignore[import-not-found,unused-ignore]

    # Only what reads the bytes: instrumenting everything takes minutes.
    with atheris.instrument_imports(include=["billing.portone", "billing.domain", "csv_lines"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def main(seconds: int, names: list[str]) -> int:
    """Fuzz each target; print how many executions, and what was found."""
    from tests.fuzz.targets import SEEDS, TARGETS

    failed = 0
    for name in names or TARGETS:
        with tempfile.TemporaryDirectory(prefix="mw-fuzz-") as folder:
            for number, data in enumerate(SEEDS[name]):
                (Path(folder) / str(number)).write_bytes(data)
            limits = [f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={folder}/"]
            command = [sys.executable, "-m", "tests.fuzz", _CHILD, name, *limits, folder]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        runs = re.findall(r"Done (\d+) runs|^#(\d+)", ended.stderr, re.MULTILINE)
        count = max((int(one or two) for one, two in runs), default=0)
        print(f"{name:22} {count:>12,} executions  {'FOUND' if ended.returncode else 'nothing'}")
        if ended.returncode:
            failed += 1
            print(ended.stderr[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1] == _CHILD:
        child(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
