"""The fence: which database this is, a brake on our own mistakes, a pace, sealed events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# A seal is only ever added: one that could be changed would prove nothing.
_SEALS_ARE_FIXED = """
CREATE TRIGGER event_seals_are_fixed BEFORE UPDATE OR DELETE ON event_seals FOR EACH ROW
EXECUTE FUNCTION refuse_changed_events()
"""


def upgrade() -> None:
    op.add_column("installation", sa.Column("timeline", sa.Text(), nullable=True))
    op.add_column("installation", sa.Column("seal_up_to", sa.BigInteger(), nullable=True))
    op.add_column("installation", sa.Column("seal_once_past", sa.BigInteger(), nullable=True))
    op.add_column(
        "gateway_health",
        sa.Column("pace", sa.Double(), server_default=sa.text("1"), nullable=False),
    )
    op.add_column(
        "gateway_health", sa.Column("slowed_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "gateway_health", sa.Column("pause_until", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "gateway_health",
        sa.Column("verdicts", sa.String(length=50), server_default=sa.text("''"), nullable=False),
    )
    op.create_check_constraint(
        op.f("ck_gateway_health_pace"), "gateway_health", "pace > 0 AND pace <= 1"
    )
    op.create_index(
        "ix_cycles_held",
        "cycles",
        ["held"],
        unique=False,
        postgresql_where=sa.text("status = 'open' AND held IS NOT NULL"),
    )
    op.create_table(
        "event_seals",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("after_id", sa.BigInteger(), nullable=False),
        sa.Column("up_to_id", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_event_seals_number")),
        sa.CheckConstraint("after_id < up_to_id", name=op.f("ck_event_seals_range")),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_event_seals_digest")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_event_seals")),
        sa.UniqueConstraint("after_id", name=op.f("uq_event_seals_after_id")),
        sa.UniqueConstraint("up_to_id", name=op.f("uq_event_seals_up_to_id")),
    )
    op.execute(_SEALS_ARE_FIXED)
