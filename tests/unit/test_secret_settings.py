"""A secret that is set holds something: a blank one would be known to everybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing.domain.errors import InvalidSetting
from billing.settings import PREFIX, Settings, is_secret

SECRETS = sorted(name for name in map(str.upper, Settings.model_fields) if is_secret(name))


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("content", ["", "\n", " \t\r\n"])
def test_an_empty_file_is_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    (tmp_path / "secret").write_text(content)
    monkeypatch.setenv(f"{PREFIX}{name}_FILE", str(tmp_path / "secret"))
    with pytest.raises(InvalidSetting, match=f"{name}=.*empty"):
        Settings.load()


@pytest.mark.parametrize("name", SECRETS)
def test_nor_is_a_space(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(PREFIX + name, " ")
    with pytest.raises(InvalidSetting, match=f"{name}=.*blank"):
        Settings.load()


def test_a_variable_without_a_value_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}API_TOKEN", "")
    assert Settings.load().api_token is None
