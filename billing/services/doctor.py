"""Is everything there that charging needs? One check per part, each with its remedy."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.domain.notice import NoticeStatus
from billing.services import reconciled
from billing.store import health, heartbeats, notices, receiver, schema
from billing.store.session import Book
from billing.store.tables import Receiver
from billing.store.trouble import why

SEEN_WITHIN = timedelta(minutes=5)
OLDEST_POSTGRESQL = 140_000


def examine(book: Book, engine: Engine) -> dict[str, Any]:
    """Every check; `ok` only when all are. Raises nothing for a part that is away."""
    try:
        checks = [_database(engine), _schema(engine)]
        if all(check["ok"] for check in checks):
            checks += _in_the_book(book)
    except DBAPIError as error:
        checks = [_away(error)]
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


def _check(name: str, ok: bool, detail: str, remedy: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "remedy": "" if ok else remedy}


def _away(error: DBAPIError) -> dict[str, Any]:
    detail = f"could not be used: {why(error)}"
    return _check("database", False, detail, "Start the server, or correct MAEWOL_DATABASE_URL")


def _database(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        replica = bool(connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one())
    detail = f"PostgreSQL {version // 10_000}{', a read-only copy' if replica else ''}"
    fits = version >= OLDEST_POSTGRESQL and not replica
    return _check("database", fits, detail, "Point MAEWOL_DATABASE_URL at a primary, 14 or newer")


def _schema(engine: Engine) -> dict[str, Any]:
    found, wanted = schema.current(engine), schema.wanted()
    detail = f"at {found or 'nothing'}, the code wants {wanted}"
    return _check("schema", schema.fits(engine), detail, "Run: maewol db upgrade")


def _in_the_book(book: Book) -> list[dict[str, Any]]:
    with book.transaction() as tx:
        now, state = tx.now, health.read(tx.session)
        held, seen = health.hold_reason(tx.session), heartbeats.seen(tx.session)
        asked = receiver.read(tx.session)
        dead = notices.count(tx.session, NoticeStatus.DEAD)
        unreconciled, ever = reconciled.age(tx), reconciled.last_whole(tx) is not None
    skew = state.clock_skew
    return [
        _check("hold", held is None, held or "charging is on", "Run: maewol release"),
        _check(
            "gateway",
            health.is_up(state, now),
            f"{state.failures} failures in a row",
            "Look at the workers' log, and at PORTONE_API_URL",
        ),
        _check(
            "clock skew",
            skew is None or abs(skew) <= health.MAX_SKEW,
            "not measured yet" if skew is None else f"{skew.total_seconds():.1f} s",
            "Set the database host's clock by NTP",
        ),
        _notices(asked, dead),
        _reconciliation(unreconciled, ever=ever),
        _seen("workers seen", now, [at for name, at in seen.items() if "charge" in name]),
        _seen("last tick", now, [at for name, at in seen.items() if ".tick." in name]),
    ]


def _notices(asked: Receiver, dead: int) -> dict[str, Any]:
    """What the merchant's own system answered the last time, and what it never took."""
    last = "nothing was sent yet" if asked.tried_at is None else asked.problem or "taken"
    return _check(
        "notices",
        asked.problem is None and not dead,
        f"the last one: {last}" + (f"; dead letters: {dead}" if dead else ""),
        "Look at the receiver, then: maewol notices test, maewol notices resend --dead",
    )


def _reconciliation(age: timedelta | None, *, ever: bool) -> dict[str, Any]:
    """Of its own: among all ticks the one that stays away is not seen."""
    hours = 0 if age is None else age / timedelta(hours=1)
    return _check(
        "reconciliation",
        age is None or age <= reconciled.LATE_AFTER,
        f"the last whole one {hours:.0f} h ago" if ever else "none was made yet",
        "Look at the ticks worker's log, then: maewol reconcile --from DATE --to DATE",
    )


def _seen(name: str, now: datetime, moments: list[datetime]) -> dict[str, Any]:
    last = max(moments, default=None)
    detail = "never" if last is None else f"{(now - last).total_seconds():.0f} s ago"
    ok = last is not None and now - last <= SEEN_WITHIN
    return _check(name, ok, detail, "Start the daemons: maewol up")
