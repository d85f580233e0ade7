from __future__ import annotations

import pytest

from billing.embedded import Servers
from tests.called import Call, caller


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    database_url: str,
    servers: Servers,
) -> Call:
    return caller(monkeypatch, capfd, database_url, servers)
