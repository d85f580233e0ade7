"""The revision that file names tell is the one that Alembic finds."""

from __future__ import annotations

from alembic.script import ScriptDirectory

from billing.store import schema


def test_the_newest_file_is_the_head() -> None:
    script = ScriptDirectory.from_config(schema._config())
    assert script.get_heads() == [schema.wanted()]
