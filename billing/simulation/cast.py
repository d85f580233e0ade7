"""Who takes part in a run: people that the seed draws, or a copy of the merchant's own book."""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Protocol

import psycopg
from sqlalchemy import Engine, text

from billing.domain.errors import Conflict
from billing.sandbox import HandPayment, pay, register
from billing.services.import_subscriptions import import_subscriptions
from billing.simulation.people import SEOUL, Person, file_of
from billing.simulation.world import World
from billing.store import schema
from billing.store.session import Book

_KEY = b"the installation key of every simulation"
# In the order in which one refers to the other. The outbox stays where it is. The archives, since
# without them the book would lack every line that they hold; and the seals that those lean on.
_COPIED = (
    "subscriptions",
    "buyers",
    "cycles",
    "attempts",
    "refunds",
    "events",
    "event_seals",
    "event_archives",
)


class Cast(Protocol):
    """Fills an empty book and an empty gateway with the same people."""

    def enter(self, world: World, book: Book) -> Sequence[Person]: ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """People drawn by the seed, enrolled by the merchant's file."""

    people: Sequence[Person]

    def enter(self, world: World, book: Book) -> Sequence[Person]:
        register(world.sandbox, [one.at_gateway() for one in self.people])
        report = import_subscriptions(book, world.policy, lambda: _KEY, file_of(self.people))
        if report.added != len(self.people):
            raise AssertionError(f"not everybody was enrolled: {report.rejected[:3]}")
        return self.people


@dataclass(frozen=True, slots=True)
class OwnBook:
    """A copy of a book that is in use: it is only read, in one transaction that cannot write."""

    source: Engine

    def enter(self, world: World, book: Book) -> Sequence[Person]:
        if schema.current(self.source) != schema.wanted():
            raise Conflict("the book's schema is not this version's. Run: maewol db upgrade")
        _copy(self.source, world.engine)
        # The book knows payments of another gateway.
        world.sandbox.mark = "simulated"
        world.has_past = False
        return _known_at_gateway(world)


def _copy(source: Engine, target: Engine) -> None:
    reading = source.raw_connection()
    writing = target.raw_connection()
    try:
        theirs, ours = _driver(reading), _driver(writing)
        with theirs.cursor() as asked, ours.cursor() as told:
            asked.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            asked.execute("SET LOCAL statement_timeout = 0")
            asked.execute("SELECT key FROM installation")
            told.execute("UPDATE installation SET key = %s", asked.fetchone())
            for table in _COPIED:
                names = _columns(told, table)
                with (
                    asked.copy(f"COPY {table} ({names}) TO STDOUT") as rows,
                    told.copy(f"COPY {table} ({names}) FROM STDIN") as copy,
                ):
                    for chunk in rows:
                        copy.write(chunk)
                _go_on_counting(told, table)
        ours.commit()
        theirs.rollback()
    finally:
        reading.close()
        writing.close()


def _driver(connection: Any) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = connection.driver_connection
    return driver


def _columns(cursor: psycopg.Cursor[Any], table: str) -> str:
    cursor.execute(
        "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)"
        " FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name = %s AND is_generated = 'NEVER'",
        (table,),
    )
    row = cursor.fetchone()
    return str(row[0]) if row else ""


def _go_on_counting(cursor: psycopg.Cursor[Any], table: str) -> None:
    """New rows get numbers above those that were copied."""
    cursor.execute(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name = %s AND column_name = 'id' AND is_identity = 'YES'",
        (table,),
    )
    if cursor.fetchone() == (1,):
        cursor.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'),"  # noqa: S608 - our own names
            f" coalesce(max(id), 0) + 1, false) FROM {table}"
        )


def _known_at_gateway(world: World) -> list[Person]:
    """Make the same keys at the gateway, with every payment that the book knows of."""
    with world.engine.connect() as connection:
        people = connection.execute(_PEOPLE).mappings().all()
        payments = connection.execute(_PAYMENTS).mappings().all()
    paid: dict[str, list[Any]] = defaultdict(list)
    for payment in payments:
        paid[payment["customer_uid"]].append(payment)
    found = []
    for row in people:
        person = _person(row)
        register(world.sandbox, [person.at_gateway()])
        for payment in paid[person.customer_uid]:
            hand = HandPayment(
                customer_uid=person.customer_uid,
                merchant_uid=payment["paid_merchant_uid"],
                at=min(payment["paid_at"], world.loop.now()),
            )
            pay(world.sandbox, hand)
        found.append(person)
    return found


def _person(row: Any) -> Person:
    first: date | None = row["first_month"]
    anchor: datetime = row["initial_paid_at"]
    before = None if first is None else _in_month_before(first, anchor)
    return Person(
        customer_uid=row["customer_uid"],
        amount=row["amount"],
        order_name=row["order_name"],
        initial_paid_at=anchor.astimezone(UTC),
        initial_merchant_uid=row["initial_merchant_uid"] or f"initial-{row['id']}",
        last_paid_at=before if before is not None and before > anchor else None,
        tells_last_paid=True,
        buyer_name=row["name"] or "",
        buyer_tel=row["tel"] or "",
        buyer_email=row["email"] or "",
    )


def _in_month_before(month: date, anchor: datetime) -> datetime:
    """The anchor's day in the month before: what was paid before the book was ours."""
    last = month - timedelta(days=1)
    day = min(anchor.astimezone(SEOUL).day, calendar.monthrange(last.year, last.month)[1])
    at = datetime.combine(last.replace(day=day), time(12), SEOUL)
    return at.astimezone(UTC)


_PEOPLE = text(
    """
    SELECT s.*, b.name, b.email, b.tel, (s.anchor_on - (extract(day FROM s.anchor_on)::int - 1)
        + make_interval(months => (SELECT min((e.data ->> 'first_cycle')::int) FROM events e
            WHERE e.subscription_id = s.id AND e.kind = 'subscription.enrolled')))::date
        AS first_month
    FROM subscriptions s LEFT JOIN buyers b ON b.subscription_id = s.id ORDER BY s.id
    """
)
_PAYMENTS = text(
    """
    SELECT s.customer_uid, c.paid_merchant_uid, c.paid_at
    FROM cycles c JOIN subscriptions s ON s.id = c.subscription_id
    WHERE c.status = 'paid' ORDER BY c.id
    """
)
