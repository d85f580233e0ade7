"""Runs the tests of a module against each of its mutants, in forks of one warm pytest session.

pytest collects once, starts the servers once and runs every test once, while it is noted which
lines each reaches. Then for every mutant the process forks, the child exchanges the code of the
functions concerned and runs the tests that reach the line, up to the first that fails: the last to
notice a mistake first, then the quickest. No file is changed, nothing is imported again.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

from tests.mutation.mutants import Mutant, mutants_of

# A mutant may need so many times what its tests need without it, and so many seconds more.
_PATIENCE = 4
_AT_LEAST = 10.0
_KILLED, _SURVIVED, _NOT_MADE = 1, 0, 3


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one mutant: killed, endless (so killed), survived, unreached, not made."""

    file: str
    number: int
    mutant: Mutant
    became: str
    tests: int


# pytest keeps plugins in sets where folders have a conftest of their own.
@dataclass(eq=False)
class Runner:
    """A pytest plugin that takes the place of pytest's own loop over the tests."""

    root: Path
    files: Sequence[str]
    wanted: Callable[[int], bool]
    told: Callable[[Result], None]
    finished: Callable[[str, list[Result]], None]
    # Tests that take more seconds than this are not run against mutants.
    longest: float
    results: list[Result] = field(default_factory=list)
    functions: Sequence[FunctionType] = ()
    failed: bool = False
    in_child: bool = False
    left_out: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    reached: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    # By test, the higher the later it noticed a mistake.
    noticed: dict[str, int] = field(default_factory=dict)

    # -- hooks of pytest ------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> pytest.TestReport | None:
        """In a child nobody reads why a test failed, and telling it takes long."""
        if (
            not self.in_child
            or not call.excinfo
            or isinstance(call.excinfo.value, pytest.skip.Exception)
        ):
            return None
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", "", call.when)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        self._run_once(items)
        if len(self.left_out) == len(items):
            pytest.exit("no test passes without a mutant", 1)
        self.failed = False
        # `tests/conftest.py` hides what was loaded before the tests, our own modules among it.
        gc.unfreeze()
        # What is here now stays: children that do not touch it do not copy it either.
        self.functions = [one for one in gc.get_objects() if isinstance(one, FunctionType)]
        gc.collect()
        gc.freeze()
        for file in self.files:
            self._try_all(file, items)
            self.finished(file, [one for one in self.results if one.file == file])
        return True

    def pytest_configure(self) -> None:
        """The same examples every time, and none that fails for being slow."""
        from hypothesis import settings

        settings.register_profile(
            "mutation", max_examples=25, deadline=None, derandomize=True, database=None
        )
        settings.load_profile("mutation")

    def _try_all(self, file: str, items: Sequence[pytest.Item]) -> None:
        path = str(self.root / file)
        ours = [one for one in self.functions if one.__code__.co_filename == path]
        for number, mutant in enumerate(mutants_of(Path(path).read_text(encoding="utf-8")), 1):
            if self.wanted(number):
                result = Result(file, number, mutant, *self._try(path, mutant, items, ours))
                self.results.append(result)
                self.told(result)

    # -- without a mutant -----------------------------------------------------------------------

    def _run_once(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            self._run_watched(item)
            if self.seconds[item.nodeid] > self.longest and not self.failed:
                # It may have started the servers, or the machine was busy with something else.
                self._run_watched(item)
            if self.failed:
                # It would kill every mutant. Some cannot bear to be watched on a busy machine.
                self.left_out.append(item.nodeid)
                self.failed = False

    def _run_watched(self, item: pytest.Item) -> None:
        began = time.perf_counter()
        with self._noting(self.reached[item.nodeid]):
            _run(item)
        self.seconds[item.nodeid] = time.perf_counter() - began

    def _noting(self, lines: set[tuple[str, int]]) -> Any:
        names = {str(self.root / file) for file in self.files}

        def inside(frame: FrameType, event: str, _: Any) -> Any:
            lines.add((frame.f_code.co_filename, frame.f_lineno))
            return inside

        def entered(frame: FrameType, event: str, argument: Any) -> Any:
            return inside(frame, event, argument) if frame.f_code.co_filename in names else None

        return _Traced(entered)

    # -- with one -------------------------------------------------------------------------------

    def _try(
        self,
        path: str,
        mutant: Mutant,
        items: Sequence[pytest.Item],
        functions: Sequence[FunctionType],
    ) -> tuple[str, int]:
        lines = lines_of(mutant)
        # What noticed the last mistakes is likely to notice the next one, a word further on.
        tests = sorted(
            (one for one in items if self._is_quick(one) and self._reaches(one, path, lines)),
            key=lambda one: (-self.noticed.get(one.nodeid, 0), self.seconds[one.nodeid]),
        )
        if mutant.at_import:
            return "not made", 0
        if not tests:
            return "unreached", 0
        patience = _AT_LEAST + _PATIENCE * sum(self.seconds[one.nodeid] for one in tests)
        sys.stdout.flush()
        heard, told = os.pipe()
        child = os.fork()
        if not child:
            self.in_child = True
            plugins = items[0].config.pluginmanager
            plugins.unregister(name="terminalreporter")
            os._exit(self._judge(path, mutant, tests, functions, told))
        os.close(told)
        became = _waited(child, patience)
        # A grandchild may live on and hold the other end.
        os.set_blocking(heard, False)
        with contextlib.suppress(BlockingIOError):
            if killer := os.read(heard, 1000).decode():
                self.noticed[killer] = max(self.noticed.values(), default=0) + 1
        os.close(heard)
        return became, len(tests)

    def _is_quick(self, item: pytest.Item) -> bool:
        fails = item.nodeid in self.left_out
        return not fails and self.seconds[item.nodeid] <= self.longest

    def _reaches(self, item: pytest.Item, path: str, lines: Collection[int] | None) -> bool:
        reached = self.reached[item.nodeid]
        return lines is None or any((path, line) in reached for line in lines)

    def _judge(
        self,
        path: str,
        mutant: Mutant,
        tests: Sequence[pytest.Item],
        functions: Sequence[FunctionType],
        told: int,
    ) -> int:
        """Runs in the child; writes which test noticed."""
        try:
            if not planted(mutant, path, functions):
                return _NOT_MADE
            for item in tests:
                _run(item)
                if self.failed:
                    os.write(told, item.nodeid.encode())
                    return _KILLED
            return _SURVIVED
        except BaseException:
            return _KILLED


def _run(item: pytest.Item) -> None:
    """Run one test, and let go of everything but what the session holds."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=_Another(item.session))


@dataclass
class _Another:
    """The next test, of which nothing is known but its session."""

    session: pytest.Session

    def listchain(self) -> list[pytest.Session]:
        return [self.session]


class _Traced:
    def __init__(self, trace: Any) -> None:
        self.trace = trace

    def __enter__(self) -> None:
        sys.settrace(self.trace)
        threading.settrace(self.trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


def _waited(child: int, seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return {_SURVIVED: "survived", _NOT_MADE: "not made"}.get(code, "killed")
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "endless"


# -- planting ---------------------------------------------------------------------------------


def planted(mutant: Mutant, file: str, functions: Sequence[FunctionType]) -> bool:
    """Make the mutant real in this process; false where that cannot be done."""
    module = next(
        one for one in list(sys.modules.values()) if getattr(one, "__file__", None) == file
    )
    try:
        if mutant.name:
            return _renew_constant(mutant, module)
        codes = dict(_codes(compile(mutant.tree, file, "exec")))
    except Exception:
        return False
    changed = False
    for function in functions:
        old = function.__code__
        new = codes.get(_key(old), old)
        if new != old and new.co_freevars == old.co_freevars:
            function.__code__ = new
            changed = True
    for one in functions:
        _forget(getattr(module, one.__name__, None))
    return changed


def _forget(cached: Any) -> None:
    if hasattr(cached, "cache_clear"):
        cached.cache_clear()


def _codes(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """All code of a module."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield _key(one), one
            yield from _codes(one)


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _renew_constant(mutant: Mutant, module: ModuleType) -> bool:
    """Work out a module's constant anew, and all that is made of it, in other modules too."""
    waiting = [(module, mutant.tree, {mutant.name})]
    while waiting:
        where, tree, names = waiting.pop()
        renewed = _renew(where, tree, names)
        waiting += users(where, renewed)
    return True


def _renew(module: ModuleType, tree: ast.Module, names: set[str]) -> set[str]:
    """Work out some constants anew, and those of the same module that are made of them, and give
    them to everybody who imported them; returns the names of all."""
    names = set[str]().union(*(dependents(tree, name) for name in names))
    scratch = dict(module.__dict__)
    for statement in tree.body:
        name = _constant(statement)
        if name not in names:
            continue
        exec(  # noqa: S102 - our own module
            compile(ast.Module([statement], []), str(module.__file__), "exec"), scratch
        )
        old, new = getattr(module, name), scratch[name]
        for one in list(sys.modules.values()):
            if getattr(one, "__dict__", {}).get(name) is old:
                setattr(one, name, new)
        _fill(old, new)
    return names


def users(module: ModuleType, names: set[str]) -> Iterator[tuple[ModuleType, ast.Module, set[str]]]:
    """Other modules of the same package with the constants that they made of a module's constants
    when they were imported."""
    package = module.__name__.partition(".")[0]
    for title, other in list(sys.modules.items()):
        path = getattr(other, "__file__", None)
        if title.partition(".")[0] != package or other is module or not path:
            continue
        source = Path(path).read_text(encoding="utf-8")
        if any(name in source for name in names):
            tree = ast.parse(source)
            if made := {_constant(one) for one in tree.body if _uses(one, other, module, names)}:
                yield other, tree, made


def _uses(statement: ast.stmt, here: ModuleType, module: ModuleType, names: set[str]) -> bool:
    """Whether a constant of one module is made of another's: of `module.NAME`, or of `NAME`."""
    if not _constant(statement):
        return False
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=ast.Name(id=known), attr=name):
                if name in names and getattr(here, known, None) is module:
                    return True
            case ast.Name(id=name) if name in names and hasattr(here, name):
                if getattr(here, name) is getattr(module, name):
                    return True
    return False


def _constant(statement: ast.stmt) -> str:
    """The module-level name that a statement gives a value; empty for any other statement."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def dependents(tree: ast.Module, name: str) -> set[str]:
    """A constant's name, and those of the constants that it goes into."""
    names = {name}
    for statement in tree.body:
        if made := _constant(statement):
            used = {one.id for one in ast.walk(statement) if isinstance(one, ast.Name)}
            if used & names:
                names.add(made)
    return names


def lines_of(mutant: Mutant) -> Collection[int] | None:
    """The lines of which a test must reach one to notice; None for a constant that other modules
    may have."""
    if not mutant.name:
        return range(mutant.line, mutant.last_line + 1)
    names = dependents(mutant.tree, mutant.name)
    if not all(name.startswith("_") for name in names):
        return None
    used = {
        one.lineno
        for function in ast.walk(mutant.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for one in ast.walk(function)
        if isinstance(one, ast.Name) and one.id in names
    }
    return used or None


def _fill(old: Any, new: Any) -> None:
    """What already holds the old value sees the new one too, where it can be changed."""
    if isinstance(old, dict):
        old.clear()
        old.update(new)
    elif isinstance(old, list):
        old[:] = new
    elif hasattr(old, "__dict__") and not isinstance(old, type | FunctionType):
        old.__dict__.update(new.__dict__)
