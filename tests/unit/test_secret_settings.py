"""A secret that is set holds something: a blank one would be known to everybody."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from billing.bootstrap import decline_table
from billing.domain.errors import InvalidSetting
from billing.settings import PREFIX, Settings, is_secret, misspelt

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


WITH_A_MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("content", [WITH_A_MARK + b"s3cret", b"s3cret\r\n", b"\n s3cret \n"])
def test_what_an_editor_puts_around_it_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Windows' Notepad begins a file with a mark that nobody sees, and ends lines its own way."""
    (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv(f"{PREFIX}API_TOKEN_FILE", str(tmp_path / "secret"))
    token = Settings.load().api_token
    assert token is not None
    assert token.get_secret_value() == "s3cret"


@pytest.mark.parametrize("coding", ["utf-16", "cp949"])
def test_another_coding_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    (tmp_path / "secret").write_bytes("비밀번호".encode(coding))
    monkeypatch.setenv(f"{PREFIX}API_TOKEN_FILE", str(tmp_path / "secret"))
    with pytest.raises(InvalidSetting, match=r"API_TOKEN_FILE=.*UTF-8"):
        Settings.load()


def test_a_table_of_declines_may_begin_with_a_mark(tmp_path: Path) -> None:
    built_in = files("billing.domain").joinpath("declines.toml").read_bytes()
    (tmp_path / "declines.toml").write_bytes(WITH_A_MARK + built_in)
    assert decline_table(tmp_path / "declines.toml").classify("0011").code == "0011"


def test_the_file_of_settings_may_begin_with_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its first line would be another setting's, which nobody reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    lines = f"{PREFIX}API_TOKN=x\r\n{PREFIX}API_TOKEN=s3cret\r\n".encode()
    (tmp_path / ".env").write_bytes(WITH_A_MARK + lines)
    token = Settings.load().api_token
    assert token is not None
    assert token.get_secret_value() == "s3cret"
    assert misspelt() == {f"{PREFIX}API_TOKN": f"{PREFIX}API_TOKEN"}


def test_the_file_of_settings_in_another_coding_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    (tmp_path / ".env").write_bytes(f"{PREFIX}API_TOKEN=s3cret".encode("utf-16"))
    with pytest.raises(InvalidSetting, match=r"\.env.*UTF-8"):
        Settings.load()
