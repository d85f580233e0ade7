"""`maewol doctor`: its checks that need the broker and the gateway, and how all are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from billing.bootstrap import House, gateway
from billing.cli.output import say, show
from billing.domain.errors import GatewayError, InvalidSetting
from billing.portone.token import MemoryTokenStore
from billing.store.health import MAX_SKEW

# A person waits for the answer.
_SECONDS = 5
Check = dict[str, Any]


def with_outside(house: House, inside: Sequence[Check]) -> list[Check]:
    """The checks of the book, and whether the broker answers and the gateway takes our credentials.

    The clock skew as it is now takes the place of what a worker measured last.
    """
    credentials, theirs = anyio.run(_gateway, house)
    measured = [] if theirs is None else _skew(house, theirs)
    replaced = {check["name"] for check in measured}
    kept = [check for check in inside if check["name"] not in replaced]
    return [*kept, _broker(house), credentials, *measured]


def worst_first(checks: Iterable[Check]) -> list[Check]:
    """What is wrong stands before what is not, each in the order of the parts."""
    return sorted(checks, key=lambda check: bool(check["ok"]))


def tell(checks: Sequence[Check], effective: Mapping[str, str]) -> None:
    """For people: what is wrong, the other checks, and last what each setting is."""
    every, wrong = len(checks), sum(not check["ok"] for check in checks)
    say(f"{wrong} of {every} checks failed:" if wrong else f"All {every} checks passed.")
    show([_without_values(check) for check in checks], as_json=False)
    given = {name: "" if value == "None" else value for name, value in effective.items()}
    show(given, as_json=False)


def _without_values(check: Check) -> Check:
    """The settings have a table of their own; what is wrong with them stands before the values."""
    if check["name"] != "settings":
        return check
    problem, found, _ = check["detail"].partition("; ")
    return {**check, "detail": problem if found and not check["ok"] else "below, one by one"}


def settings(effective: Iterable[tuple[str, str]], misspelt: Mapping[str, str]) -> Check:
    """What is set, and whether something was meant to be set and is not."""
    wrong = ", ".join(misspelt)
    remedy = ", ".join(f"{name}: did you mean {meant}?" for name, meant in misspelt.items())
    detail = " ".join(f"{name}={value}" for name, value in effective)
    if wrong:
        detail = f"nothing reads {wrong}; {detail}"
    return _check("settings", not wrong, detail, remedy)


def _broker(house: House) -> Check:
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


async def _gateway(house: House) -> tuple[Check, datetime | None]:
    """Whether the credentials are taken, and what time it is over there."""
    try:
        # A store of its own: a token that others fetched would prove nothing about our settings.
        async with gateway(house.settings, MemoryTokenStore()) as client:
            with anyio.fail_after(_SECONDS):
                theirs = await client.moment()
    except InvalidSetting as error:
        return _check("credentials", False, f"{error.field} {error.problem}", error.remedy), None
    except (GatewayError, TimeoutError) as error:
        why = str(error) or f"no answer within {_SECONDS} s"
        remedy = "Check MAEWOL_PORTONE_API_URL, the key, the secret and the console's IP list"
        return _check("credentials", False, why, remedy), None
    return _check("credentials", True, "accepted", ""), theirs


def _skew(house: House, theirs: datetime) -> list[Check]:
    """The gateway's clock against that of billing, which is the database's."""
    try:
        with house.book.transaction() as tx:
            skew = theirs - tx.now
    except SQLAlchemyError:
        return []  # the database's own check says why
    fits = abs(skew) <= MAX_SKEW
    limit = f"charging stops beyond {MAX_SKEW / timedelta(seconds=1):.0f} s"
    detail = f"the gateway's clock is {skew.total_seconds():+.1f} s from ours; {limit}"
    return [
        _check("clock skew", fits, detail, "" if fits else "Set the database host's clock by NTP")
    ]


def _check(name: str, ok: bool, detail: str, remedy: str) -> Check:
    return {"name": name, "ok": ok, "detail": detail, "remedy": remedy}
