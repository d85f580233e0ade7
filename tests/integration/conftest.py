from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import uvicorn

from billing.embedded import Servers
from billing.sandbox import Sandbox, create_app
from tests.called import Call, caller


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    database_url: str,
    servers: Servers,
) -> Call:
    return caller(monkeypatch, capfd, database_url, servers)


@pytest.fixture
def sandbox() -> Iterator[tuple[Sandbox, str]]:
    """A sandbox and its address."""
    made = Sandbox()
    config = uvicorn.Config(create_app(made), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield made, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
