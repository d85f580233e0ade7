"""Where the promtool of the tests comes from. The tools of Debian are played."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests import promtool


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A clone that has fetched none, on a machine that has none."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(promtool, "_KEPT", folder)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return folder


def test_one_is_fetched_and_kept(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    ran: list[tuple[str, ...]] = []

    def run(folder: Path, *command: str) -> str:
        ran.append(command)
        if command[0] == "apt-get":
            (folder / "prometheus_2.42_amd64.deb").touch()
        else:
            program = folder / "unpacked" / "usr" / "bin" / "promtool"
            program.parent.mkdir(parents=True)
            program.touch(mode=0o755)
        return ""

    monkeypatch.setattr(promtool, "_run", run)
    for _ in range(2):
        program = promtool.required()
        assert program == str(kept / "promtool")
        assert os.access(program, os.X_OK)
    assert [command[0] for command in ran] == ["apt-get", "dpkg-deb"]
    assert [one.name for one in kept.iterdir()] == ["promtool"]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(("user", "calls"), [(0, 3), (1000, 1)])
def test_who_can_fetch_none_is_told_how(
    monkeypatch: pytest.MonkeyPatch, user: int, calls: int
) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(promtool, "_run", lambda _, *command: ran.append(command) or "no network")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(promtool.NoPromtool, match=r"apt install prometheus(.|\n)*no network"):
        promtool.required()
    assert len(ran) == calls


def test_one_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    assert promtool.found() is None
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert promtool.required() == "/usr/bin/promtool"
    assert not kept.exists()
