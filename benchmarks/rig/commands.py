"""The commands of the environment that runs a benchmark."""

from __future__ import annotations

import sys
from pathlib import Path


def found(command: str, *words: str) -> list[str]:
    """The same with the whole path of the command."""
    return [str(Path(sys.executable).with_name(command)), *words]
