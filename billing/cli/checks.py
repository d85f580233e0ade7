"""The checks of `maewol doctor` that need the broker and the gateway."""

from __future__ import annotations

from typing import Any

import anyio
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from billing.bootstrap import House, gateway
from billing.domain.errors import GatewayError, InvalidSetting

# A person waits for the answer.
_SECONDS = 5


def outside(house: House) -> list[dict[str, Any]]:
    """Whether the broker answers, and the gateway takes our credentials."""
    return [_broker(house), anyio.run(_gateway, house)]


def _broker(house: House) -> dict[str, Any]:
    try:
        with house.celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=_SECONDS)
            # INFO, not CONFIG: hosted servers often forbid the latter.
            eviction = connection.default_channel.client.info("memory")["maxmemory_policy"]
    except (OperationalError, OSError, RedisError) as error:
        remedy = "Start the server, or correct MAEWOL_BROKER_URL"
        return _check("broker", False, f"does not answer ({type(error).__name__})", remedy)
    if eviction != "noeviction":
        remedy = "Set maxmemory-policy to noeviction: the server may drop messages otherwise"
        return _check("broker", False, f"answers, but evicts by {eviction}", remedy)
    return _check("broker", True, "answers, and evicts nothing", "")


async def _gateway(house: House) -> dict[str, Any]:
    try:
        async with gateway(house.settings, broker_url=house.broker_url) as client:
            theirs = await client.moment()
    except InvalidSetting as error:
        return _check("credentials", False, f"{error.field} {error.problem}", error.remedy)
    except GatewayError as error:
        remedy = "Check MAEWOL_PORTONE_API_URL, the key, the secret and the console's IP list"
        return _check("credentials", False, str(error), remedy)
    return _check("credentials", True, f"accepted; the gateway's clock says {theirs:%H:%M:%S}", "")


def _check(name: str, ok: bool, detail: str, remedy: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "remedy": remedy}
