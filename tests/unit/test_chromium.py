"""On a fresh machine several test processes want a browser at once, and one installs it."""

from __future__ import annotations

import threading
import time

import pytest

from tests.browser import chromium


def test_one_installs_it_and_the_others_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    ran: list[str] = []

    def run(*command: str) -> str:
        ran.append(command[0])
        time.sleep(0.05)
        installed.append("/usr/bin/chromium")
        return ""

    monkeypatch.setattr(chromium, "_found", lambda bundled: installed[0] if installed else None)
    monkeypatch.setattr(chromium, "_run", run)
    found: list[str] = []
    many = [threading.Thread(target=lambda: found.append(chromium.executable("x"))) for _ in "abc"]
    for one in many:
        one.start()
    for one in many:
        one.join()
    assert found == ["/usr/bin/chromium"] * 3
    assert len(ran) == 1


@pytest.mark.parametrize("may_install", [True, False])
def test_a_driver_that_lacks_a_library_gets_it_where_that_may_be_installed(
    monkeypatch: pytest.MonkeyPatch, may_install: bool
) -> None:
    installed: list[str] = []

    def install(package: str) -> list[str]:
        installed.append(package)
        return []

    monkeypatch.setattr(chromium, "_run", lambda *_: "" if installed else "libatomic.so.1: none")
    monkeypatch.setattr(chromium, "_may_install", lambda: may_install)
    monkeypatch.setattr(chromium, "_install", install)
    if may_install:
        chromium.check_driver()
        assert installed == ["libatomic1"]
    else:
        with pytest.raises(chromium.NoBrowser, match=r"apt install libatomic1.*libatomic\.so\.1"):
            chromium.check_driver()


def test_the_driver_of_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        asked.append(command)
        return ""

    monkeypatch.setattr(chromium, "_run", run)
    chromium.check_driver()
    assert [command[1:] for command in asked] == [("-m", "playwright", "--version")]


def test_who_cannot_install_a_browser_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "_found", lambda _: None)
    monkeypatch.setattr(chromium, "_run", lambda *_: "no network")
    monkeypatch.setattr(chromium, "_may_install", lambda: False)
    with pytest.raises(chromium.NoBrowser, match=r"apt install chromium(.|\n)*no network"):
        chromium.executable("x")
