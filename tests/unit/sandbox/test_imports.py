"""The judge imports nothing of ours, so that a mistake of ours cannot be in both."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import billing.sandbox

ALLOWED = {"starlette", "uvicorn", "pydantic", "pydantic_core", "jinja2", "httpx"}
PACKAGE = "billing.sandbox"


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=module, level=0) if module:
                yield module
            case ast.ImportFrom():
                yield "a relative import"


def is_foreign(name: str) -> bool:
    if name == PACKAGE or name.startswith(f"{PACKAGE}."):
        return False
    root = name.split(".")[0]
    return root not in ALLOWED and root not in sys.stdlib_module_names


def test_only_the_standard_library_the_server_and_what_makes_pages_and_webhooks() -> None:
    folder = Path(billing.sandbox.__path__[0])
    sources = sorted(folder.rglob("*.py"))
    assert len(sources) > 15
    foreign = [
        f"{path.name}: {name}"
        for path in sources
        for name in imported(path.read_text("utf-8"))
        if is_foreign(name)
    ]
    assert foreign == []


def test_the_scan_finds_what_is_planted() -> None:
    planted = "def f():\n    from billing.domain.money import Won\n    import celery\nimport json\n"
    assert [name for name in imported(planted) if is_foreign(name)] == [
        "billing.domain.money",
        "celery",
    ]
    assert is_foreign("billing.sandboxed")
    assert is_foreign("a relative import")
