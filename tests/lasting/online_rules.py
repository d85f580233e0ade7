"""What a migration may do while charging goes on, as docs/rolling.md lays it down."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_CREATED = re.compile(r'CREATE TABLE (?:IF NOT EXISTS )?"?(\w+)', re.IGNORECASE)
_INDEX_ON = re.compile(r'CREATE (?:UNIQUE )?INDEX .*? ON (?:ONLY )?"?(\w+)', re.IGNORECASE | re.S)
_ALTERED = re.compile(r'ALTER TABLE (?:IF EXISTS )?(?:ONLY )?"?(\w+)', re.IGNORECASE)
_WRITTEN = re.compile(r'^(?:UPDATE|DELETE FROM) "?(\w+)', re.IGNORECASE)
# Rows that are one, or belong to the machinery.
_SMALL = frozenset(
    {"alembic_version", "installation", "gateway_health", "receiver", "schema_rules"}
)


def problems(statements: Sequence[str], *, contracts: bool = False) -> Iterator[str]:
    """Every statement of one migration that would stop charging, or break the code before it.
    `contracts` allows what takes away: the code that used it is gone."""
    new = {found[1].lower() for one in statements if (found := _CREATED.match(one.strip()))}
    for one in (" ".join(statement.split()) for statement in statements):
        yield from (f"{why}: {one}" for why in _problems(one, new | _SMALL, contracts))


def _problems(one: str, free: frozenset[str] | set[str], contracts: bool) -> Iterator[str]:
    upper = one.upper()
    if (on := _INDEX_ON.match(one)) and on[1].lower() not in free and "CONCURRENTLY" not in upper:
        yield "an index on a table in use is made CONCURRENTLY"
    if upper.startswith("DROP INDEX") and "CONCURRENTLY" not in upper:
        yield "an index is dropped CONCURRENTLY"
    if (of := _WRITTEN.match(one)) and of[1].lower() not in free:
        yield "rows are changed by a tick, in batches, not by a migration"
    if re.search(r"\bLOCK TABLE\b", upper):
        yield "no table is locked by hand"
    takes_away = upper.startswith(("DROP TABLE", "DROP FUNCTION", "DROP TRIGGER"))
    if (altered := _ALTERED.match(one)) and altered[1].lower() not in free:
        takes_away |= re.search(r"\b(DROP COLUMN|DROP CONSTRAINT|RENAME)\b", upper) is not None
        yield from _alterations(upper)
    if takes_away and not contracts:
        yield "what older code uses is taken away by a later release (`contracts`)"


def _alterations(upper: str) -> Iterator[str]:
    if "ADD COLUMN" in upper and "NOT NULL" in upper and "DEFAULT" not in upper:
        yield "older code does not fill a new column: NULL, or a constant DEFAULT"
    if re.search(r"ALTER COLUMN \S+ (SET DATA )?TYPE\b", upper):
        yield "a type that changes writes the table anew"
    if re.search(r"ALTER COLUMN \S+ SET NOT NULL", upper):
        yield "NOT NULL reads the whole table: a CHECK … NOT VALID, validated later"
    if "ADD CONSTRAINT" in upper and "USING INDEX" not in upper and "NOT VALID" not in upper:
        yield "a constraint is added NOT VALID and validated later, or USING INDEX"
