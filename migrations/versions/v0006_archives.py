"""Archives: events that were sealed long ago may leave the book for a file; nothing else may."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
# The oldest code that can work with this schema (docs/rolling.md).
works_with = "0005"

# Only what an archive covers may be deleted, and of that never what tells of a subscription: those
# lines are few, and the book is rebuilt from them.
_EVENTS_ARE_FIXED = """
CREATE OR REPLACE FUNCTION refuse_changed_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'events' AND TG_OP = 'DELETE' THEN
        IF OLD.kind NOT LIKE 'subscription.%'
            AND OLD.id <= (SELECT max(up_to_id) FROM event_archives) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'events are only ever added'
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_ARCHIVES_ARE_FIXED = """
CREATE FUNCTION refuse_changed_archives() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.removed_at IS NULL AND to_jsonb(NEW) - 'removed_at' = to_jsonb(OLD) - 'removed_at'
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'archives are only ever added'
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_TRIGGER = """
CREATE TRIGGER event_archives_are_fixed BEFORE UPDATE OR DELETE ON event_archives FOR EACH ROW
EXECUTE FUNCTION refuse_changed_archives()
"""


def upgrade() -> None:
    op.create_table(
        "event_archives",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_seal", sa.BigInteger(), nullable=False),
        sa.Column("last_seal", sa.BigInteger(), nullable=False),
        sa.Column("after_id", sa.BigInteger(), nullable=False),
        sa.Column("up_to_id", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("older_than", sa.DateTime(timezone=True), nullable=False),
        sa.Column("file", sa.String(length=80), nullable=False),
        sa.Column("file_digest", sa.LargeBinary(), nullable=False),
        sa.Column("kept_digest", sa.LargeBinary(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("number >= 1", name=op.f("ck_event_archives_number")),
        sa.CheckConstraint(
            "first_seal <= last_seal AND after_id < up_to_id", name=op.f("ck_event_archives_range")
        ),
        sa.CheckConstraint(
            "octet_length(file_digest) = 32 AND octet_length(kept_digest) = 32",
            name=op.f("ck_event_archives_digests"),
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_event_archives")),
        sa.UniqueConstraint("first_seal", name=op.f("uq_event_archives_first_seal")),
        sa.UniqueConstraint("last_seal", name=op.f("uq_event_archives_last_seal")),
        sa.UniqueConstraint("up_to_id", name=op.f("uq_event_archives_up_to_id")),
    )
    op.execute(_ARCHIVES_ARE_FIXED)
    op.execute(_TRIGGER)
    op.execute(_EVENTS_ARE_FIXED)
    op.create_table(
        "schema_rules",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("oldest_code", sa.String(length=16), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_rules_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_rules")),
    )
    op.execute("INSERT INTO schema_rules (id, oldest_code) VALUES (1, '0001')")
