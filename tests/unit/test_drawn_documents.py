"""What is made by a tool is what the tool would make now: the page of settings, the pictures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from pydantic.fields import FieldInfo

from billing.settings import Settings, is_secret

ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("name", ["configuration", "pictures"])
def test_nothing_is_stale(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool(name).main(["--check"]) == 0, capsys.readouterr().err


def test_every_setting_has_its_line() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name in Settings.model_fields:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{name.upper()}` |"))
        assert ("**secret**" in line) == is_secret(name.upper())


def test_a_changed_default_makes_it_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Settings.model_fields["max_attempts"], "default", 9)
    assert tool("configuration").main(["--check"]) == 1
    assert "docs/configuration.md is stale" in capsys.readouterr().err


def test_a_setting_without_a_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {**Settings.model_fields, "new_one": FieldInfo(annotation=int, default=1)}
    monkeypatch.setattr(Settings, "__pydantic_fields__", fields)
    with pytest.raises(ValueError, match="NEW_ONE"):
        tool("configuration").documents()
