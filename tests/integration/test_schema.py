"""The migrations make exactly the tables that the code describes, and a process knows its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from billing.embedded import Servers
from billing.store.session import Book, create_book_engine
from billing.store.tables import Base
from tests.builders import execute


def test_migrations_and_tables_agree(database_url: str) -> None:
    engine = create_book_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


@pytest.mark.parametrize(
    ("revision", "code"), [("0001", 2), ("9999", 0)], ids=["older: refuses", "newer: goes on"]
)
def test_a_daemon_beside_a_schema_of_another_version(
    book: Book, database_url: str, servers: Servers, revision: str, code: int
) -> None:
    execute(book, f"UPDATE alembic_version SET version_num = '{revision}'")
    done = subprocess.run(
        [sys.executable, "-c", "import worker"],
        env={
            "PATH": os.environ["PATH"],
            "MAEWOL_DATABASE_URL": database_url,
            "MAEWOL_BROKER_URL": str(servers.broker_url),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert ("maewol db upgrade" in done.stderr) is (code == 2)
    assert "Traceback" not in done.stderr
