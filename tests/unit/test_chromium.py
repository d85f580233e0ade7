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
