"""What every answer carries, and the two questions of whoever keeps the process running."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import execute
from tests.integration.web.conftest import Edge


def test_alive_and_ready(edge: Edge) -> None:
    with edge.browse() as client:
        assert client.get("/healthz").json() == {"ok": True}
        ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ok": True})


def test_ready_beside_a_newer_schema(edge: Edge) -> None:
    execute(edge.book, "UPDATE alembic_version SET version_num = '9999'")
    with edge.browse() as client:
        assert client.get("/readyz").status_code == 200


def test_not_ready_with_an_older_schema(edge: Edge) -> None:
    execute(edge.book, "UPDATE alembic_version SET version_num = '0001'")
    with edge.browse() as client:
        ready = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
    assert (ready.status_code, ready.json()) == (503, {"ok": False})


@pytest.mark.parametrize("path", ["/healthz", "/no-such-page", "/readyz"])
def test_every_answer_tells_the_browser_what_it_may_do(edge: Edge, path: str) -> None:
    with edge.browse() as client:
        headers = client.get(path).headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_an_unknown_path_is_a_problem_document(edge: Edge) -> None:
    with edge.browse() as client:
        found = client.get("/no-such-page")
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
    }


def test_a_database_that_is_away_is_said_without_its_address(
    make_edge: Callable[..., Edge],
) -> None:
    edge = make_edge(database_url="postgresql+psycopg://user:hunter2@127.0.0.1:9/none")
    with edge.browse() as client:
        ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ok": False})
