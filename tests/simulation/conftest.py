"""A throw-away book for simulations, one for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from billing.embedded import Servers
from billing.simulation import stage


@pytest.fixture(scope="session")
def engine(servers: Servers) -> Iterator[Engine]:
    assert servers.database_url is not None
    with stage.database(servers.database_url) as opened:
        yield opened
