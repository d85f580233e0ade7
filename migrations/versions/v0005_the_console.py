"""The console: indexes for what people look at. No rule about money rests on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_index("ix_subscriptions_status", "subscriptions", ["status", "id"])
    op.create_index(
        "ix_subscriptions_customer_uid_begins",
        "subscriptions",
        ["customer_uid"],
        postgresql_ops={"customer_uid": "text_pattern_ops"},
    )
    op.create_index(
        "ix_subscriptions_reference_begins",
        "subscriptions",
        ["reference"],
        postgresql_ops={"reference": "text_pattern_ops"},
        postgresql_where=sa.text("reference IS NOT NULL"),
    )
    op.drop_index("ix_subscriptions_due", "subscriptions")
    op.create_index(
        "ix_subscriptions_due",
        "subscriptions",
        ["next_due_at"],
        postgresql_include=["anchor_on", "amount"],
        postgresql_where=sa.text("status = 'active'"),
    )
    op.drop_index("ix_cycles_paid_at", "cycles")
    op.create_index(
        "ix_cycles_paid_at",
        "cycles",
        ["paid_at"],
        postgresql_include=["amount", "status"],
        postgresql_where=sa.text("paid_at IS NOT NULL"),
    )
    op.create_index(
        "ix_cycles_month", "cycles", ["month", "status", "due_on"], postgresql_include=["amount"]
    )
    op.create_index(
        "ix_cycles_unpaid",
        "cycles",
        ["status", "id"],
        postgresql_where=sa.text("status IN ('missed', 'skipped', 'refunded')"),
    )
    op.create_index(
        "ix_attempts_declined",
        "attempts",
        ["settled_at"],
        postgresql_include=["decline_class"],
        postgresql_where=sa.text("status = 'declined'"),
    )
