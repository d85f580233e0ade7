"""The commands of a document, as its `console` blocks show them to a reader."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# In a list it is indented as the list is.
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass
class Step:
    """A command of the page and the lines it shows below it; `…` stands for anything."""

    command: str
    shown: list[str]


def terminal() -> dict[str, str]:
    """The environment of a reader who has followed the set-up: our programs are found, nothing is
    set. A test's own terminal has a width; a pipe has none."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MAEWOL_")}
    kept.pop("COLUMNS", None)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": programs, "LC_ALL": "C.UTF-8"}


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Every block of the page: its kind, "" where none is named, and its text."""
    for _, kind, text in BLOCK.findall(page):
        yield kind, textwrap.dedent(text)


def steps(page: str) -> Iterator[Step]:
    """Every command of the page in order. It begins with `$ ` and goes on with `> `, or where a
    line ends with a backslash."""
    step: Step | None = None
    for kind, text in blocks(page):
        for line in text.splitlines() if kind == "console" else ():
            if line.startswith("$ "):
                if step is not None:
                    yield step
                step = Step(line[2:], [])
            elif step is not None and (line.startswith("> ") or step.command.endswith("\\")):
                step.command += "\n" + line.removeprefix("> ")
            elif step is not None:
                step.shown.append(line)
    if step is not None:
        yield step
