"""An operator at the console, in this process: follows forms as a browser would."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

import httpx2 as httpx
from sqlalchemy import Connection, event
from starlette.testclient import TestClient

from billing.sandbox import NewCustomer, register
from billing.store import installation
from tests import lived_in
from tests.builders import enrolled
from tests.integration.web.conftest import Edge
from tests.world import PAID_AT, World

PASSWORD = "correct horse battery staple"


class Page(HTMLParser):
    """What a page holds: its links, and each form with its hidden fields."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: dict[str, dict[str, str]] = {}
        self.ids: list[str] = []
        self._form: dict[str, str] = {}
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" and "href" in found else []
        if tag == "form":
            self._form = self.forms[found.get("action", "")] = {}
        if tag == "input" and found.get("type") == "hidden":
            self._form[found["name"]] = found["value"]


class Operator:
    """A browser with its cookies."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def token(self, path: str = "/system/stop") -> str:
        (form, *_) = Page(self.get(path)).forms.values()
        return form["token"]

    def submit(
        self, page: str, action: str | None = None, *, headers: Any = None, **fields: str
    ) -> httpx.Response:
        """Open a page and send its form, with what was typed into it."""
        form = Page(self.get(page)).forms[action or page]
        return self.client.post(action or page, data={**form, **fields}, headers=headers)

    def message(self, path: str) -> str:
        """What a page says on top, after an action."""
        found = re.search(
            r'<div class="notice notice-(\w+)" role="status">(.*?)</div>',
            _flat(self.get(path).text),
        )
        assert found is not None, "no message"
        return f"{found.group(1)}: {re.sub('<[^>]+>', '', found.group(2))}"

    def sign_in(self, password: str = PASSWORD, **fields: str) -> httpx.Response:
        return self.submit("/sign-in", password=password, **fields)


def _flat(text: str) -> str:
    return text.replace("\n", " ")


@contextmanager
def an_operator(edge: Edge, **where: Any) -> Iterator[Operator]:
    with edge.browse(**where) as client:
        yield Operator(client)


def a_world(edge: Edge) -> World:
    """Subscribers and workers behind this edge, with its gateway."""
    world = World(edge.book, edge.app.state.edge.policy, edge.clock)
    world.sandbox = edge.sandbox
    return world


def subscribe(edge: Edge, *names: str, script: tuple[str, ...] = ()) -> None:
    """Register at the gateway and enrol, with the buyer's data."""
    for name in names:
        register(
            edge.sandbox,
            [
                NewCustomer(
                    customer_uid=name,
                    amount=9900,
                    name="plan",
                    paid_at=PAID_AT,
                    buyer_name="홍길동",
                    buyer_tel="010-1234-5678",
                    script=list(script),
                )
            ],
        )
    rows = [
        f"{quoted(name)},9900,plan,{PAID_AT.isoformat()},홍길동,010-1234-5678" for name in names
    ]
    assert enrolled(edge.book, edge.app.state.edge.policy, *rows).added == len(names)


def quoted(text: str) -> str:
    """As a cell of a CSV file."""
    return '"' + text.replace('"', '""') + '"'


@contextmanager
def only_reading(edge: Edge) -> Iterator[None]:
    """The database takes nothing that is written."""
    edge.book.run(lambda tx: installation.key(tx.session, lambda: b"k" * 32))
    engine = edge.book._engine
    event.listen(engine, "begin", _only_reads)
    try:
        yield
    finally:
        event.remove(engine, "begin", _only_reads)


def _only_reads(connection: Connection) -> None:
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def number_of(edge: Edge, name: str) -> int:
    return lived_in.number_of(edge.book, name)
