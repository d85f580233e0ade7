"""Create and migrate the schema.

Alembic takes time to load, and a book that is up to date, as it nearly always is, can do without.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, text

import migrations

if TYPE_CHECKING:
    from alembic.config import Config

# Two `db upgrade` at once wait for each other.
_LOCK = 727_801_206


def upgrade(engine: Engine) -> str:
    """Create or migrate the schema; safe to run again. Returns the revision it is at now."""
    from alembic import command

    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        try:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            connection.commit()
    return wanted()


def fits(engine: Engine) -> bool:
    """Whether this code can work with the schema: its own, or a newer one (migrations only add to
    what older code needs, so that old processes go on while new ones start)."""
    there = current(engine)
    return there is not None and there >= wanted()


def current(engine: Engine) -> str | None:
    """The revision the database is at, or None for an empty one."""
    with engine.connect() as connection:
        there = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one()
        if there is None:
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version"))
        revision: str | None = found.scalar_one_or_none()
        return revision


def wanted() -> str:
    """The revision this code was written for: that of the newest file, `v0001_the_book.py`."""
    files = sorted(Path(migrations.__file__).parent.glob("versions/v[0-9]*.py"))
    if not files:
        raise AssertionError("no migration was shipped")
    return files[-1].name[1:].partition("_")[0]


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
