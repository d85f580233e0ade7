"""Whoever starts Flower starts the same one, and nobody an open one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from billing import flower
from billing.domain.errors import InvalidSetting
from billing.settings import Settings

COMMAND = ("celery", "-A", "worker", "flower")
PASSWORD = "eight-or-more"


def prepared(
    tmp_path: Path, *options: str, password: str | None = PASSWORD, **environ: str
) -> dict[str, str]:
    settings = Settings.load(data_dir=tmp_path / "data", flower_password=password)
    flower.prepare(settings, [*COMMAND, *options], environ)
    return environ


def test_what_it_gets(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "flower"
    assert prepared(tmp_path) == {
        "FLOWER_BASIC_AUTH": f"maewol:{PASSWORD}",
        "FLOWER_CONF": "/dev/null",
        "FLOWER_READ_ONLY": "true",
        "FLOWER_LOGGING": "none",
        "FLOWER_MAX_TASKS": "10000",
        "FLOWER_PERSISTENT": "true",
        "FLOWER_DB": str(folder / "history"),
        "FLOWER_STATE_SAVE_INTERVAL": "60000",
    }
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("option", ["--basic-auth=a:b", "--basic_auth=a:b", "--auth=x@example.org"])
def test_its_own_authentication_goes_before(tmp_path: Path, option: str) -> None:
    assert "FLOWER_BASIC_AUTH" not in prepared(tmp_path, option)
    assert "FLOWER_ADDRESS" not in prepared(tmp_path, option, password=None)
    assert prepared(tmp_path, FLOWER_BASIC_AUTH="a:b")["FLOWER_BASIC_AUTH"] == "a:b"


@pytest.mark.parametrize("option", ["--basic-auth=", "--basic_auth=", "--auth=", "--auth"])
@pytest.mark.parametrize("password", [PASSWORD, None])
def test_a_blank_authentication_is_none(tmp_path: Path, option: str, password: str | None) -> None:
    with pytest.raises(InvalidSetting, match=r"auth='': blank"):
        prepared(tmp_path, option, password=password)


def test_its_own_variables_go_before(tmp_path: Path) -> None:
    assert prepared(tmp_path, FLOWER_READ_ONLY="false")["FLOWER_READ_ONLY"] == "false"


def test_without_a_password_it_is_for_this_machine_only(tmp_path: Path) -> None:
    assert prepared(tmp_path, password=None)["FLOWER_ADDRESS"] == "127.0.0.1"
    assert "FLOWER_BASIC_AUTH" not in prepared(tmp_path, "--address=::1", password=None)
    for options in (["--address=0.0.0.0"], ["--address=example.org"], ["--unix-socket=/tmp/x"]):
        with pytest.raises(InvalidSetting, match="FLOWER_PASSWORD"):
            prepared(tmp_path, *options, password=None)
    with pytest.raises(InvalidSetting, match="FLOWER_PASSWORD"):
        prepared(tmp_path, password=None, FLOWER_ADDRESS="0.0.0.0")  # noqa: S104 - refused


# What Flower itself does with its settings before it listens.
READ = (
    "import sys; from flower import command;"
    " command.apply_env_options(); command.apply_options('celery', sys.argv[1:]);"
    " print(command.options.basic_auth, command.options.read_only)"
)


def read_by_flower(folder: Path, *options: str, **environ: str) -> str:
    command = [sys.executable, "-c", READ, *options]
    run = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout.strip()


def test_a_file_that_lies_in_its_working_folder_opens_nothing(tmp_path: Path) -> None:
    """Flower would run such a file, somebody else's perhaps, and give it the last word."""
    opening = "basic_auth = []\nread_only = False\n"
    (tmp_path / "flowerconfig.py").write_text(opening, encoding="utf-8")
    environ = prepared(tmp_path)
    assert read_by_flower(tmp_path, **environ) == f"['maewol:{PASSWORD}'] True"
    # Named, it is meant.
    assert read_by_flower(tmp_path, "--conf=flowerconfig.py", **environ) == "[] False"


def test_the_open_api_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="FLOWER_UNAUTHENTICATED_API"):
        prepared(tmp_path, FLOWER_UNAUTHENTICATED_API="true")


def test_without_a_place_for_it_there_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder", encoding="utf-8")
    assert "FLOWER_PERSISTENT" not in prepared(tmp_path)


@pytest.mark.parametrize("wrong", ["sh0rt", "with,comma in it", "with a space"])
def test_a_password_that_flower_would_read_otherwise_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Settings.load(flower_password=wrong)
    assert wrong not in str(refused.value)


def test_only_flower_is_flower() -> None:
    assert flower.is_flower(["/bin/celery", "-A", "worker", "flower", "--port=1"])
    assert not flower.is_flower(["/bin/celery", "-A", "worker", "worker", "-Q", "charges"])
