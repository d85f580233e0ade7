"""What the client allows its connections, by the deadlines that it is given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from billing import bootstrap
from billing.portone import client
from billing.portone.token import MemoryTokenStore
from billing.settings import Settings


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each pool of connections was built with: of charges first, then of all others."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(client, "AiohttpTransport", lambda **given: found.append(given))
    return found


def build(charge_timeout: float, **limits: Any) -> None:
    client.PortOneClient(
        "https://api.example.com",
        "key",
        "secret",
        tokens=MemoryTokenStore(),
        now=lambda: datetime.now(UTC),
        monotonic=lambda: 0.0,
        charge_timeout=charge_timeout,
        include_sandbox=False,
        **limits,
    )


@pytest.mark.parametrize(
    ("charge", "lookup", "connect"), [(60, 20, 10), (19, 20, 9.5), (60, 8, 4), (6, 8, 3)]
)
def test_connecting_takes_no_more_than_half_of_either_deadline(
    built: list[dict[str, Any]], charge: float, lookup: float, connect: float
) -> None:
    build(charge, lookup_timeout=lookup)
    assert [one["connect_timeout"] for one in built] == [connect, connect]


def test_a_page_has_twenty_seconds_unless_it_is_given_fewer(built: list[dict[str, Any]]) -> None:
    build(60)
    # Half of them, were it fewer than twenty, would be what connecting is given.
    assert built[0]["connect_timeout"] == client.LOOKUP_SECONDS / 2 == 10


def test_only_charges_have_connections_that_drop_what_was_not_sent(
    built: list[dict[str, Any]],
) -> None:
    build(60, max_connections=7)
    charges, others = built
    assert charges.pop("socket_factory") is not None
    assert others.pop("socket_factory") is None
    assert charges == others
    assert charges["max_connections"] == 7


@pytest.mark.anyio
@pytest.mark.parametrize(("charge", "page"), [(60, 20), (8, 8), (3, 5)])
async def test_a_page_is_not_waited_for_longer_than_a_charge_but_five_seconds_always(
    monkeypatch: pytest.MonkeyPatch, charge: int, page: int
) -> None:
    asked: dict[str, Any] = {}

    class Built(client.PortOneClient):
        def __init__(self, *given: Any, **named: Any) -> None:
            asked.update(named)
            super().__init__(*given, **named)

    monkeypatch.setattr(client, "PortOneClient", Built)
    settings = Settings.load(
        portone_imp_key="key", portone_imp_secret="secret", portone_timeout_seconds=charge
    )
    async with bootstrap.gateway(settings, MemoryTokenStore()):
        assert asked["lookup_timeout"] == page
        # Every charge of sixteen tasks may be on its way at once.
        assert asked["max_connections"] == settings.charge_batch * 16
