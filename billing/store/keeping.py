"""Whether PostgreSQL keeps what it acknowledged (docs/reliability.md, A5)."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

# The cluster's name of a server that tests and the demo throw away.
THROW_AWAY: Final = "maewol throw-away"
# Without one of these a commit that was told may be gone after a crash or a power cut.
_KEEPING: Final = ("fsync", "full_page_writes", "synchronous_commit")


def switched_off(connection: Connection) -> list[str]:
    """Those settings that are off, as this connection has them: a role or database may have its
    own."""
    return [name for name in _KEEPING if _shown(connection, name) == "off"]


def is_thrown_away(connection: Connection) -> bool:
    """Whether nobody means to keep anything on this server."""
    return _shown(connection, "cluster_name") == THROW_AWAY


def _shown(connection: Connection, setting: str) -> str:
    return str(connection.execute(text(f"SHOW {setting}")).scalar_one())
