"""The migrations make exactly the tables that the code describes."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from billing.store.session import create_book_engine
from billing.store.tables import Base


def test_migrations_and_tables_agree(database_url: str) -> None:
    engine = create_book_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()
