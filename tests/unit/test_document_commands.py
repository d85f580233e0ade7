"""Every command in README.md and docs/ is one that exists: programs, subcommands, targets, options
and what they are given; none hides where no test reads it; and both languages of a page tell to
type the same.

What can be run is run elsewhere: docs/quickstart.md by `tests/integration/test_quickstart.py`,
docs/sandbox.md by `test_sandbox_page.py`, the others by `test_pages.py`.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main

from billing.cli.commands import app
from tests.console_blocks import BLOCK, blocks, steps
from tests.containers import ROOT, SERVICES

DOCUMENTS = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")])

# Typed whole, in order, with their exit codes checked; but for the commands of other systems.
RUN = {
    "README.md",
    "api.md",
    "checkout.md",
    "notices.md",
    "operating.md",
    "quickstart.md",
    "sandbox.md",
    "simulation.md",
}
# Typed in part or elsewhere, and why.
READ = {
    "capacity.md": "takes an hour",
    "chaos.md": "takes minutes; tests/chaos has tests of its own",
    "backup.md": "tests/lasting/test_backup.py runs its blocks, in its own order",
    "deploying.md": "needs Docker, systemd or Kubernetes: test_deployment runs what Compose would"
    " run in its containers, and starts the same processes",
    "mutants.md": "takes minutes; tests/mutation has tests of its own",
    "performance.md": "takes minutes; CI ends with `make bench-floor`",
    "security.md": "test_run_role makes the roles of the page and migrates",
    "upgrading.md": "needs Docker; test_run_role runs the script on a database of before",
}
# Programs that are not ours, and why they are not looked into.
FOREIGN = {
    "docker": "no container engine in the tests",
    "kubectl": "no cluster in the tests",
    "systemctl": "no systemd in the tests",
    "curl": "run where the page is run; test_document_ports looks at every address",
    "pg_dump": "run by tests/lasting/test_backup.py",
    "pg_restore": "run by tests/lasting/test_backup.py",
    "again": "a function that sandbox.md makes of curl",
    "maewol-prod": "a script that deploying.md makes; what it is given is read as `maewol`'s",
    "systemd-run": "no systemd in the tests",
    "pip": "not ours",
    **dict.fromkeys(
        (
            "cat",
            "cd",
            "cp",
            "date",
            "echo",
            "export",
            "grep",
            "mkdir",
            "openssl",
            "printf",
            "python3",
            "rm",
            "sleep",
        ),
        "a tool of every system",
    ),
}
_ON_SERVICES = frozenset({"up", "restart", "stop", "logs", "exec", "run"})
_SHELL = frozenset({"exec", "until", "do", "done", "while", "then", "fi", "!", "time", "{", "}"})
_ASSIGNED = re.compile(r"[A-Za-z_]+=.*", re.DOTALL)
_OURS = ("celery", "maewol", "make", "promtool", "python", "sh")
# Of the tools of every system only those that no sentence begins with: `date` is a column, too.
_PROGRAMS = {*_OURS, *FOREIGN} - {"again", "date", "echo", "export", "printf", "sleep"}
# In the middle of a sentence; it may be broken once, where the line of the page ends.
_INLINE = re.compile(r"(?<!`)`(?!`)([^`]+)`(?!`)")
# What Markdown shows as it is typed, without a fence.
_INDENTED = re.compile(r"^(?: {4}|\t)(.*)$", re.MULTILINE)
# A command line of the Makefile sets them, and `make` hands them down to another `make`.
_OF_ANOTHER_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL")


def with_blocks() -> list[Path]:
    return [path for path in DOCUMENTS if next(steps(path.read_text("utf-8")), None) is not None]


def calls(command: str) -> Iterator[list[str]]:
    """The single calls of a shell command, each as its words; without redirections, assignments and
    the shell's own words."""
    head, _, _ = command.partition("<<")
    lexer = shlex.shlex(head, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    target = False
    for word in [*lexer, ";"]:
        if set(word) <= set("();|&"):
            if words:
                yield words
            words = []
        elif set(word) <= set("<>"):
            target = True
        elif target:
            target = False
        elif words or not (word in _SHELL or _ASSIGNED.fullmatch(word)):
            words.append(word)


@cache
def tree() -> Any:
    return typer.main.get_command(app)


def problem_of(words: list[str], *, whole: bool) -> str | None:
    """What is wrong with a call of `maewol`; None when nothing is. One that is not `whole` leaves
    out what the reader knows, or stands for several."""
    command, rest = tree(), words[1:]
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    typed = rest
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    given, places = set(), 0
    while rest:
        name, rest = rest[0], rest[1:]
        name, _, value = name.partition("=")
        if name in ("--help", "…", "..."):
            continue
        if not name.startswith("--"):
            places += 1
        elif name not in options:
            return f"no option {name}"
        else:
            given.add(options[name].name)
            if not options[name].is_flag and not value:
                rest = rest[1:]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    if places > len(arguments):
        return "too many words"
    if whole and places < sum(one.required for one in arguments):
        return "an argument is missing"
    missing = [
        one.opts[0]
        for one in command.params
        if one.required and one.param_type_name == "option" and one.name not in given
    ]
    if missing:
        return f"without {missing}" if whole else None
    return unread(command, typed) if whole else None


def unread(command: Any, words: list[str]) -> str | None:
    """What the command's own parser says against the values. What the reader's shell puts in, and
    whether his file is there, is not known here."""
    if "--help" in words or any("$" in word for word in words) or hasattr(command, "commands"):
        return None
    try:
        command.make_context(command.name, list(words))
    except Exception as error:  # of the click that Typer brings along
        return None if "does not exist" in str(error) else str(error)
    return None


def problem(words: list[str], *, whole: bool = True) -> str | None:
    """What is wrong with one call; None when nothing is."""
    match words[0].removeprefix(".venv/bin/"):
        case "maewol" | "maewol-prod":
            return problem_of(words, whole=whole)
        case "make":
            return make_problem(words[1:], whole=whole)
        case "celery":
            return celery_problem(words[1:])
        case "python":
            return python_problem(words[1:], whole=whole)
        case "sh":
            return None if _exists(words[1]) else f"no file {words[1]}"
        case "promtool":
            files = [word for word in words if word.endswith(".yml")]
            return None if files and all(map(_exists, files)) else f"no file in {files}"
        case "docker" if words[1] == "compose":
            return compose_problem(words[2:])
        case name:
            return None if name in FOREIGN else "a program that this test does not know"


def _exists(path: str) -> bool:
    return (ROOT / path).exists()


@cache
def makefile() -> tuple[frozenset[str], frozenset[str]]:
    """Its targets, and what may be set for them."""
    text = (ROOT / "Makefile").read_text("utf-8")
    names = {*re.findall(r"\$\(([A-Z]+)\)", text), "PYTHON"}  # the last for tools/setup.sh
    return frozenset(re.findall(r"^([a-z-]+):", text, re.MULTILINE)), frozenset(names)


def make_problem(words: list[str], *, whole: bool) -> str | None:
    """A target or a variable that is not there, or something wrong with what would be run."""
    targets, names = makefile()
    if strangers := [word for word in words if "=" not in word and word not in targets]:
        return f"no target in {strangers}"
    if strangers := [word for word in words if "=" in word and word.partition("=")[0] not in names]:
        return f"nothing reads {strangers}"
    if not whole:
        return None
    kept = {name: text for name, text in os.environ.items() if name not in _OF_ANOTHER_MAKE}
    would_run = subprocess.run(
        ["make", "-n", *words], cwd=ROOT, env=kept, capture_output=True, text=True, check=True
    ).stdout.replace("\\\n", " ")
    for line in would_run.splitlines():
        for call in calls(line):
            ours = call[0] in (".venv/bin/python", ".venv/bin/maewol")
            if ours and (found := problem(call)) is not None:
                return f"{found}: {call}"
    return None


def python_problem(words: list[str], *, whole: bool) -> str | None:
    """A script or module of ours that is not there, or does not take what it is given."""
    module = words[0] == "-m"
    name, given = (words[1], words[2:]) if module else (words[0], words[1:])
    if module and name.partition(".")[0] in ("pip", "pytest"):
        return None
    path = name.replace(".", "/") if module else name
    found = [one for one in (path, f"{path}.py", f"{path}/__main__.py") if (ROOT / one).is_file()]
    if not found:
        return f"no file {path}"
    source = (ROOT / found[0]).read_text("utf-8")
    if "ArgumentParser(" in source:
        return refused(str(ROOT / found[0]), given) if whole else None
    # Without a parser: what it looks for stands in it.
    strangers = [word for word in given if word.startswith("-") and f'"{word}"' not in source]
    return f"no option in {strangers}" if strangers else None


class _Parsed(BaseException):
    """Its words were taken; nothing more of it is run."""


def refused(script: str, given: list[str]) -> str | None:
    """What the script's own parser says against these words."""
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self: argparse.ArgumentParser, *arguments: Any) -> None:
        # A reader learns the whole name.
        self.allow_abbrev = False
        parse(self, *arguments)
        raise _Parsed

    said = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said):
        patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        patch.setattr(sys, "argv", [script, *given])
        patch.syspath_prepend(str(Path(script).parent))
        try:
            runpy.run_path(script, run_name="__main__")
        except _Parsed:
            return None
        except SystemExit:
            return said.getvalue()
    return "it parsed nothing"


def compose_problem(words: list[str]) -> str | None:
    """A file that a call names, or a service, and that is not there."""
    place = next((at for at, word in enumerate(words) if word in _ON_SERVICES), len(words))
    files = [after for word, after in pairwise(words[:place]) if word == "-f"]
    if missing := [path for path in files if not _exists(path)]:
        return f"no file {missing}"
    # `NAME` stands for any of them.
    named = [word for word in words[place + 1 :] if word[:1].isalpha() and word.islower()]
    if words[place : place + 1] in (["exec"], ["run"]):
        # What is run in it is its own.
        named = named[:1]
    strangers = {word.partition("=")[0] for word in named} - set(SERVICES)
    return f"no service {sorted(strangers)}" if strangers else None


def celery_problem(words: list[str]) -> str | None:
    from celery.bin.celery import celery
    from flower.command import flower  # noqa: F401 - its import defines the options
    from tornado.options import options as of_flower

    if words[0] != "-A" or words[1] not in ("scheduler", "worker"):
        return "not one of our applications"
    if words[2] == "flower":
        names = [word.partition("=")[0].removeprefix("--") for word in words[3:]]
        known = {name.replace("_", "-") for name in of_flower}
        return None if set(names) <= known else f"no option in {names}"
    command = celery.commands.get(words[2])
    if command is None:
        return f"no command {words[2]}"
    known = {name for one in command.params for name in one.opts}
    asked = {word.partition("=")[0] for word in words[3:] if word.startswith("-")}
    return None if asked <= known else f"no option in {asked - known}"


@pytest.mark.parametrize("document", with_blocks(), ids=lambda path: path.name)
def test_every_command_exists(document: Path) -> None:
    page = document.read_text(encoding="utf-8")
    wrong = [
        (words, found)
        for command in [*(step.command for step in steps(page)), *scripts(page)]
        for words in calls(command)
        if (found := problem(words)) is not None
    ]
    assert wrong == []


def scripts(page: str) -> Iterator[str]:
    """The lines of files that the reader makes for a shell."""
    for kind, text in blocks(page):
        if kind == "sh":
            lines = text.replace("\\\n", " ").splitlines()
            yield from (line for line in lines if not line.startswith("#"))


def spoken(page: str) -> Iterator[tuple[str, list[str]]]:
    """The calls in the middle of a sentence, each as it stands there and as its words."""
    for text in _INLINE.findall(BLOCK.sub("", page)):
        if not text.split()[1:]:
            continue  # a name alone, as `maewol[otel]`
        # `[--option]` may be left out, `a\|b` and `a|b` are two.
        words = re.sub(r"\\?\|\w+|[\[\]]", " ", text)
        try:
            split = shlex.split(words)
        except ValueError:
            split = words.split()
        while split and _ASSIGNED.fullmatch(split[0]):
            split = split[1:]
        if split and split[0].removeprefix(".venv/bin/") in _PROGRAMS:
            yield text, split


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_spoken_of_exists(document: Path) -> None:
    wrong = [
        (text, found)
        for text, words in spoken(document.read_text(encoding="utf-8"))
        if (found := problem(words, whole=False)) is not None
    ]
    assert wrong == []


def hidden(page: str) -> Iterator[str]:
    """Command lines that are in no `console` block, where nobody would read them."""
    for kind, text in blocks(page):
        if kind not in ("console", "sh"):
            yield from text.replace("\\\n", " ").splitlines()
    yield from _INDENTED.findall(BLOCK.sub("", page))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_command_hides_outside_of_the_blocks_that_are_read(document: Path) -> None:
    found = [
        call
        for line in hidden(document.read_text(encoding="utf-8"))
        if re.match(r"(\$ )?([A-Z_]+=\S* )*[./\w-]+( |$)", line)
        for call in calls(line.removeprefix("$ "))
        if call[0].rpartition("/")[2] in _PROGRAMS
    ]
    assert found == []


def test_every_page_with_commands_is_run_or_has_a_reason_not_to_be() -> None:
    english = {path.name for path in with_blocks() if not path.name.endswith(".ko.md")}
    assert english == RUN | set(READ)


KOREAN = [path for path in with_blocks() if path.name.endswith(".ko.md")]


@pytest.mark.parametrize("korean", KOREAN, ids=lambda path: path.name)
def test_both_languages_tell_to_type_the_same(korean: Path) -> None:
    english = korean.with_name(korean.name.replace(".ko.md", ".md"))
    assert typed(korean) == typed(english)


def typed(document: Path) -> list[list[str]]:
    """Its commands, without comments and the language asked for."""
    found = [shlex.split(one.command, comments=True) for one in steps(document.read_text("utf-8"))]
    return [["en" if word == "ko" else word for word in words] for words in found]


@pytest.mark.parametrize(
    "command",
    [
        "maewol recon",
        "maewol reconcile --from 2026-11-01",
        "maewol reconcile --form 2026-11-01 --to 2026-11-30",
        "maewol why",
        "maewol status now",
        "maewol simulate --months several",
        "maewol reconcile --from 2026-11 --to 2026-11-30",
        "make tests",
        "make chaos KILL=200",
        "make chaos SEED=many",
        "make chaos ARGS='--log chaos-logs'",
        "make bench ARGS='--widths 600'",
        "make simulate SEEDS=1000 ARGS='--subscription 24'",
        "python benchmarks/due_scan.py --size 1000",
        ".venv/bin/python benchmarks/capacity.py --nothing",
        ".venv/bin/python tools/configuration.py --chek",
        "python -m tests.nothing",
        "celery -A workers worker",
        "celery -A worker work",
        "celery -A worker worker --queue-of charges",
        "celery -A worker flower --adress=127.0.0.1",
        "python tools/nothing.py",
        "true && maewol recon",
        "X=$(date) maewol recon",
        "until maewol recon > file.txt; do sleep 2; done",
        "podman ps",
        "promtool test rules deploy/prometheus/alarms_test.yml",
        "docker compose up -d --no-deps charge",
        "docker compose -f deploy/compose.sandboxes.yml up -d",
    ],
)
def test_a_mistake_is_found(command: str) -> None:
    assert [found for words in calls(command) if (found := problem(words)) is not None]
