"""A database that vanishes without a word: the kernel must not wait a quarter of an hour for it."""

from __future__ import annotations

import os
import socket

import pytest

from billing.embedded import Servers
from billing.store.session import create_book_engine
from tests.doors import Door, through, to_database


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has the option")
def test_unacknowledged_statements_are_given_up_within_a_minute(servers: Servers) -> None:
    url = str(servers.database_url)
    with Door(to_database(url)).serving() as door:
        engine = create_book_engine(through(url, door))
        with engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            with socket.socket(fileno=os.dup(raw.fileno())) as wire:
                milliseconds = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        engine.dispose()

    assert 0 < milliseconds <= 60_000
