"""Puts the application into the environment it is called with: no build tool, so none to lock.

`python install_app.py FOLDER`: makes the packages in FOLDER importable, writes the command
`maewol`, compiles everything.
"""

from __future__ import annotations

import compileall
import sys
import sysconfig
from pathlib import Path


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    site = Path(sysconfig.get_path("purelib"))
    (site / "maewol.pth").write_text(f"{folder}\n", encoding="utf-8")
    command = Path(sysconfig.get_path("scripts")) / "maewol"
    command.write_text(
        f"#!{sys.executable}\nfrom billing.cli import main\n\nmain()\n", encoding="utf-8"
    )
    command.chmod(0o755)
    for place in (folder, site):
        compileall.compile_dir(place, quiet=2, workers=0)


# Its workers import this file: since Python 3.13 none of them is a fork.
if __name__ == "__main__":
    main()
