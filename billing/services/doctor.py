"""Is everything there that charging needs? One check per part, each with its remedy.

A check names its texts and what is filled in; the edges put them into the reader's language
(`billing.presenting.told`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.domain.notice import NoticeStatus
from billing.services import reconciled
from billing.store import grants, health, heartbeats, notices, receiver, schema
from billing.store.heartbeats import SEEN_WITHIN
from billing.store.session import Book
from billing.store.tables import Receiver
from billing.store.trouble import servers, why

OLDEST_POSTGRESQL = 140_000


@dataclass(frozen=True, slots=True)
class Said:
    """A text by its name, and what is filled in."""

    text: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One part: whether it is as it must be, what was found there, and what to do if not."""

    name: str
    ok: bool
    detail: tuple[Said, ...]
    remedy: Said


def examine(book: Book, engine: Engine, *, notices_wanted: bool = True) -> list[Check]:
    """Every check; none misses notices that nobody wants. Raises nothing for what is away."""
    try:
        checks = [_database(engine), _schema(engine)]
        if all(check.ok for check in checks):
            checks.append(_role(engine))
        if all(check.ok for check in checks):
            checks += _in_the_book(book, notices_wanted)
    except DBAPIError as error:
        checks = [_away(error, engine)]
    return checks


def _check(name: str, ok: bool, remedy: str, *detail: Said) -> Check:
    return Check(name, ok, detail, Said(remedy))


def _away(error: DBAPIError, engine: Engine) -> Check:
    where = servers(engine.url) or "DATABASE_URL"
    found = Said("check_detail.database_away", {"where": where, "why": why(error)})
    return _check("database", False, "check_remedy.database_away", found)


def _database(engine: Engine) -> Check:
    with engine.connect() as connection:
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        replica = bool(connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one())
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    values = {"version": version // 10_000, "encoding": encoding}
    if encoding != "UTF8":
        # Names in all of Unicode come from the gateway, and some could not be written down.
        found = Said("check_detail.database_encoding", values)
        return _check("database", False, "check_remedy.database_encoding", found)
    found = Said("check_detail.database_copy" if replica else "check_detail.database", values)
    fits = version >= OLDEST_POSTGRESQL and not replica
    return _check("database", fits, "check_remedy.database", found)


def _schema(engine: Engine) -> Check:
    found, wanted = schema.current(engine), schema.wanted()
    detail = (
        Said("check_detail.schema", {"found": found, "wanted": wanted})
        if found
        else Said("check_detail.schema_none", {"wanted": wanted})
    )
    return _check("schema", schema.fits(engine), "check_remedy.schema", detail)


def _role(engine: Engine) -> Check:
    """A role that lacks something fails in the middle of the work that needs it."""
    with engine.connect() as connection:
        role = grants.looked_at(connection)
    if role.lacks:
        lacks = ", ".join(role.lacks)
        found = Said("check_detail.role_lacks", {"role": role.name, "lacks": lacks})
    elif role.is_owner:
        found = Said("check_detail.role_owner", {"role": role.name})
    else:
        found = Said("check_detail.role", {"role": role.name})
    return _check("database role", not role.lacks, "check_remedy.role", found)


def _in_the_book(book: Book, notices_wanted: bool) -> list[Check]:
    with book.transaction() as tx:
        now, state = tx.now, health.read(tx.session)
        held, seen = health.hold_reason(tx.session), heartbeats.seen(tx.session)
        asked = receiver.read(tx.session)
        dead = notices.count(tx.session, NoticeStatus.DEAD)
        unreconciled, ever = reconciled.age(tx), reconciled.last_whole(tx) is not None
    return [
        _hold(held),
        _check(
            "gateway",
            health.is_up(state, now),
            "check_remedy.gateway",
            Said("check_detail.gateway", {"failures": state.failures}),
        ),
        _skew(state.clock_skew),
        _notices(asked, dead) if notices_wanted else _no_notices(),
        _reconciliation(unreconciled, ever=ever),
        _seen("workers seen", now, [at for name, at in seen.items() if "charge" in name]),
        _seen("last tick", now, [at for name, at in seen.items() if heartbeats.is_tick(name)]),
    ]


def _hold(held: str | None) -> Check:
    found = Said("check_detail.on") if held is None else Said("check_detail.held", {"why": held})
    return _check("hold", held is None, "check_remedy.hold", found)


def _skew(skew: timedelta | None) -> Check:
    if skew is None:
        return _check("clock skew", True, "check_remedy.skew", Said("check_detail.skew_unknown"))
    found = Said("check_detail.skew", {"seconds": skew.total_seconds()})
    return _check("clock skew", abs(skew) <= health.MAX_SKEW, "check_remedy.skew", found)


def _notices(asked: Receiver, dead: int) -> Check:
    """What the merchant's own system answered the last time, and what it never took."""
    if asked.tried_at is None:
        last = Said("check_detail.notices_none")
    elif asked.problem is None:
        last = Said("check_detail.notices_taken")
    else:
        last = Said("check_detail.notices_problem", {"problem": asked.problem})
    letters = [Said("check_detail.notices_dead", {"dead": dead})] if dead else []
    fine = asked.problem is None and not dead
    return _check("notices", fine, "check_remedy.notices", last, *letters)


def _no_notices() -> Check:
    found = Said("check_detail.notices_unwanted")
    return _check("notices", True, "check_remedy.notices", found)


def _reconciliation(age: timedelta | None, *, ever: bool) -> Check:
    """Of its own: among all ticks the one that stays away is not seen."""
    hours = 0 if age is None else age / timedelta(hours=1)
    found = (
        Said("check_detail.reconciled", {"hours": hours})
        if ever
        else Said("check_detail.reconciled_never")
    )
    on_time = age is None or age <= reconciled.LATE_AFTER
    return _check("reconciliation", on_time, "check_remedy.reconciliation", found)


def _seen(name: str, now: datetime, moments: list[datetime]) -> Check:
    last = max(moments, default=None)
    found = (
        Said("check_detail.never")
        if last is None
        else Said("check_detail.seen", {"seconds": (now - last).total_seconds()})
    )
    ok = last is not None and now - last <= SEEN_WITHIN
    return _check(name, ok, "check_remedy.seen", found)
