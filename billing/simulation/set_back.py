"""A copy of the whole book, and the book set back to it: a restored dump, a volume's snapshot."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, text

from billing.store.tables import Base

_KEPT: Final = "kept"
# What a dump that is restored elsewhere finds where the book remembers its database.
_ANOTHER_PLACE: Final = "another cluster/1"


def copy(engine: Engine) -> None:
    """Keep the book as it is now; an earlier copy goes."""
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {_KEPT} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {_KEPT}"))
        for table in Base.metadata.tables:
            connection.execute(text(f"CREATE TABLE {_KEPT}.{table} AS TABLE public.{table}"))
            if sequence := _sequence(connection, table):
                connection.execute(
                    text(
                        f"CREATE TABLE {_KEPT}.{table}_numbers AS"  # noqa: S608 - our own names
                        f" SELECT last_value, is_called FROM {sequence}"
                    )
                )


def put_back(engine: Engine) -> None:
    """Everything since the copy is gone, numbers that were given included: they come again."""
    with engine.begin() as connection:
        # As a restore does: no trigger is asked.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)}"))
        for table in Base.metadata.tables:
            connection.execute(
                text(
                    f"INSERT INTO public.{table} OVERRIDING SYSTEM VALUE"  # noqa: S608 - our own
                    f" SELECT * FROM {_KEPT}.{table}"
                )
            )
            if sequence := _sequence(connection, table):
                connection.execute(
                    text(
                        f"SELECT setval('{sequence}', last_value, is_called)"  # noqa: S608 - our own
                        f" FROM {_KEPT}.{table}_numbers"
                    )
                )


def move(engine: Engine) -> bool:
    """The book finds itself in another database than it remembers. False where it remembers none:
    no tick had ever worked on it."""
    with engine.begin() as connection:
        moved = connection.execute(
            text(
                "UPDATE installation SET system_identifier = :place"
                " WHERE system_identifier IS NOT NULL"
            ),
            {"place": _ANOTHER_PLACE},
        )
        return moved.rowcount == 1


def newest_event(engine: Engine) -> int:
    """The number of the newest event of the copy."""
    with engine.begin() as connection:
        query = text(f"SELECT coalesce(max(id), 0) FROM {_KEPT}.events")  # noqa: S608 - our own
        return int(connection.execute(query).scalar_one())


def _sequence(connection: Connection, table: str) -> str | None:
    """That which numbers the rows of a table, where there is one."""
    if "id" not in Base.metadata.tables[table].columns:
        return None
    found = connection.execute(text(f"SELECT pg_get_serial_sequence('public.{table}', 'id')"))
    sequence: str | None = found.scalar_one()
    return sequence
