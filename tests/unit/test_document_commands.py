"""Every command in README.md and docs/ is one that exists: programs, subcommands and options; and
both languages of a page tell to type the same.

What can be run is run elsewhere: docs/quickstart.md by `tests/integration/test_quickstart.py`,
docs/sandbox.md by `test_sandbox_page.py`, the others by `test_pages.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main

from billing.cli.commands import app
from tests.console_blocks import steps
from tests.containers import ROOT, SERVICES

DOCUMENTS = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])

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
    "backup.md": "tests/lasting/test_backup.py runs its blocks, in its own order",
    "deploying.md": "needs Docker, systemd or Kubernetes: test_deployment runs what Compose would"
    " run in its containers, and starts the same processes",
    "mutants.md": "takes minutes; tests/mutation has tests of its own",
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
_SHELL = frozenset({"until", "do", "done", "while", "then", "fi", "!", "time", "{", "}"})
_ASSIGNED = re.compile(r"[A-Za-z_]+=.*", re.DOTALL)
_INLINE = re.compile(r"`((?:maewol|celery|make|promtool|python|sh|docker compose) [^`\n]+)`")


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
    return f"without {missing}" if whole and missing else None


def problem(words: list[str]) -> str | None:
    """What is wrong with one call; None when nothing is."""
    match words[0]:
        case "maewol":
            return problem_of(words, whole=True)
        case "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
            asked = [word for word in words[1:] if "=" not in word]
            return None if set(asked) <= set(targets) else f"no target in {asked}"
        case "celery":
            return celery_problem(words[1:])
        case "sh" | "python":
            path = words[1] if words[1] != "-m" else words[2].replace(".", "/")
            found = any((ROOT / name).exists() for name in (path, f"{path}.py"))
            return None if found else f"no file {path}"
        case "promtool":
            files = [word for word in words if word.endswith(".yml")]
            return None if files and all(map(_exists, files)) else f"no file in {files}"
        case "docker" if words[1] == "compose":
            return compose_problem(words[2:])
        case name:
            return None if name in FOREIGN else "a program that this test does not know"


def _exists(path: str) -> bool:
    return (ROOT / path).exists()


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
    wrong = [
        (words, found)
        for step in steps(document.read_text(encoding="utf-8"))
        for words in calls(step.command)
        if (found := problem(words)) is not None
    ]
    assert wrong == []


def spoken_problem(words: list[str]) -> str | None:
    """What is wrong with a call in the middle of a sentence, which need not be a whole one."""
    return problem_of(words, whole=False) if words[0] == "maewol" else problem(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_spoken_of_exists(document: Path) -> None:
    wrong = []
    for text in _INLINE.findall(document.read_text(encoding="utf-8")):
        # `[--option]` may be left out, `a\|b` and `a|b` are two.
        words = re.sub(r"\\?\|\w+|[\[\]]", " ", text)
        try:
            split = shlex.split(words)
        except ValueError:
            split = words.split()
        if (found := spoken_problem(split)) is not None:
            wrong.append((text, found))
    assert wrong == []


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
        "make tests",
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
