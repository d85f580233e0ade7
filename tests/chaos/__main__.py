"""`python -m tests.chaos --seed 7 --kills 40`: chaos on real processes; `make chaos` runs it.

Exit 0 when every promise held, 1 when one did not, 2 when nobody can be charged today.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from tests.chaos.campaign import Size, run
from tests.chaos.cast import NotToday

_INSIDE = "MAEWOL_CHAOS_NAMESPACE"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides all chance")
    parser.add_argument("--kills", type=int, default=40, help="how many processes are killed")
    parser.add_argument("--logs", type=Path, help="keep what the processes printed, in this folder")
    parser.add_argument("--quick", action="store_true", help="a minute, for `make test`")
    given = parser.parse_args()
    _in_a_namespace_of_our_own()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    size = (
        Size(given.kills, 80, 8, (0.6, 1.6), charging=2, long_blows=False)
        if given.quick
        else Size(given.kills, 16 * given.kills, 8, (1.5, 4.0), charging=3, long_blows=True)
    )
    try:
        return 0 if run(given.seed, size, given.logs) else 1
    except NotToday as reason:
        print(f"chaos: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return 130


def _leave(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _in_a_namespace_of_our_own() -> None:
    """As root: mounts made from here on (the small disk) end with the last of our processes."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None or _INSIDE in os.environ:
        return
    command = [unshare, "--mount"]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
        again = [*command, sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
        os.execvpe(unshare, again, {**os.environ, _INSIDE: "1"})  # noqa: S606 - our own program


if __name__ == "__main__":
    sys.exit(main())
