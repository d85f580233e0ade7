"""What the daemons' role may do with each table: what they do, and no more (docs/security.md).

`maewol db upgrade` gives it with every migration to the role that RUN_ROLE names, so that a new
table needs no hand. Who owns nothing can switch off no trigger: what the triggers of the schema
refuse (edited events, changed facts, a second end) is refused to the daemons for good.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from billing.domain.errors import InvalidSetting

_ADD = ("SELECT", "INSERT")
_CHANGE = (*_ADD, "UPDATE")
_CLEAR_UP = (*_CHANGE, "DELETE")
# One row, which the schema brings.
_KEEP = ("SELECT", "UPDATE")

# A privilege that is no longer needed stays here for one version: processes of the one before go on
# beside the newer schema.
GRANTS: dict[str, tuple[str, ...]] = {
    # Payments stay, as books must.
    "subscriptions": _CHANGE,
    "cycles": _CHANGE,
    "attempts": _CHANGE,
    "refunds": _CHANGE,
    "ledger_differences": _CHANGE,
    # Forgotten on request; a trigger takes no change but a correction that is written down.
    "buyers": _CLEAR_UP,
    # Only ever added; a trigger lets go what an archive holds, and nothing else. Such a row is
    # locked first, which only those may do who may change some column: this one never can be.
    "events": (*_ADD, "DELETE", "UPDATE (id)"),
    "event_seals": _ADD,
    # A trigger takes the note that its events have left the book, and nothing else.
    "event_archives": _CHANGE,
    "notices": _CLEAR_UP,
    "webhooks": _CLEAR_UP,
    "heartbeats": _CLEAR_UP,
    "installation": _KEEP,
    "gateway_health": _KEEP,
    "receiver": _KEEP,
    "schema_rules": ("SELECT",),
    "alembic_version": ("SELECT",),
}

_WHO = text(
    "SELECT current_user::text, bool_or(pg_has_role(c.relowner, 'USAGE')) FROM pg_class c"
    " WHERE c.oid = ANY (CAST(:tables AS regclass[]))"
)
_LACKING = text(
    "SELECT w.privilege || ' ON ' || w.name FROM"
    " unnest(CAST(:names AS text[]), CAST(:privileges AS text[])) AS w(name, privilege)"
    " WHERE NOT CASE WHEN w.privilege LIKE '%(%'"
    " THEN has_any_column_privilege(w.name, split_part(w.privilege, ' ', 1))"
    " ELSE has_table_privilege(w.name, w.privilege) END ORDER BY w.name, w.privilege"
)


@dataclass(frozen=True, slots=True)
class Role:
    """A role, whether tables are its own, and which of the daemons' privileges it lacks."""

    name: str
    is_owner: bool
    lacks: tuple[str, ...]


def give(connection: Connection, role: str) -> None:
    """Give `role` just what daemons need, and take from it whatever else it was given on these
    tables. The caller commits: nobody sees it halfway. Raises `InvalidSetting`."""
    _check(connection, role)
    quote = connection.dialect.identifier_preparer.quote
    to = quote(role)
    database, schema = (
        quote(name)
        for name in connection.execute(text("SELECT current_database(), current_schema()")).one()
    )
    # Temporary tables: an import and a reconciliation lay their rows beside the book's.
    statements = [
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {to}",
        f"GRANT USAGE ON SCHEMA {schema} TO {to}",
    ]
    for table, privileges in GRANTS.items():
        statements += [
            f"REVOKE ALL ON {table} FROM {to}",
            f"GRANT {', '.join(privileges)} ON {table} TO {to}",
        ]
    for statement in statements:
        connection.execute(text(statement))


def _check(connection: Connection, role: str) -> None:
    found = connection.execute(
        text("SELECT rolsuper, rolname = current_user FROM pg_roles WHERE rolname = :role"),
        {"role": role},
    ).one_or_none()
    if found is None:
        raise InvalidSetting(
            "RUN_ROLE",
            role,
            "no role of this PostgreSQL",
            "Make it first: deploy/postgres/roles.sql",
        )
    if any(found):
        raise InvalidSetting(
            "RUN_ROLE",
            role,
            "the owner itself, or a superuser, who may do everything as it is",
            "Name the role of the daemons",
        )


def looked_at(connection: Connection) -> Role:
    """What the role that asks may do."""
    name, is_owner = connection.execute(_WHO, {"tables": list(GRANTS)}).one()
    wanted = [(table, one) for table, several in GRANTS.items() for one in several]
    names, privileges = zip(*wanted, strict=True)
    lacks = connection.execute(_LACKING, {"names": list(names), "privileges": list(privileges)})
    return Role(name, bool(is_owner), tuple(lacks.scalars()))
