"""The doors: what the gateway announced, which key followed which, and notices until delivered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # A customer who registers anew has a new billing key and goes on from the old subscription.
    op.add_column("subscriptions", sa.Column("previous_id", sa.BigInteger(), nullable=True))
    op.add_column(
        "subscriptions", sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_foreign_key(
        op.f("fk_subscriptions_subscriptions"),
        "subscriptions",
        "subscriptions",
        ["previous_id"],
        ["id"],
    )
    # One key is followed by at most one.
    op.create_index(
        "uq_subscriptions_previous",
        "subscriptions",
        ["previous_id"],
        unique=True,
        postgresql_where=sa.text("previous_id IS NOT NULL"),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("imp_uid", sa.String(length=64), nullable=False),
        sa.Column("merchant_uid", sa.String(length=100), nullable=True),
        sa.Column("claimed_status", sa.String(length=20), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("times", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("looks", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=40), nullable=True),
        sa.CheckConstraint(
            "(looked_at IS NULL) = (outcome IS NULL)", name=op.f("ck_webhooks_outcome")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    # A flood about one payment is one look-up.
    op.create_index(
        "uq_webhooks_waiting",
        "webhooks",
        ["imp_uid"],
        unique=True,
        postgresql_where=sa.text("looked_at IS NULL"),
    )
    op.create_index(
        "ix_webhooks_waiting",
        "webhooks",
        ["look_at"],
        postgresql_where=sa.text("looked_at IS NULL"),
    )
    op.create_index("ix_webhooks_received", "webhooks", ["received_at"])
    # Notices: dead after three days of trying, until somebody sends them again.
    op.add_column("notices", sa.Column("dead_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("notices", sa.Column("problem", sa.String(length=200), nullable=True))
    op.add_column("notices", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_notices_waiting", "notices")
    op.create_index(
        "ix_notices_waiting",
        "notices",
        ["next_try_at"],
        postgresql_where=sa.text("delivered_at IS NULL AND dead_at IS NULL"),
    )
    # The order of one subscription's notices.
    op.create_index(
        "ix_notices_subscription",
        "notices",
        ["subscription_id", "id"],
        postgresql_where=sa.text("delivered_at IS NULL AND dead_at IS NULL"),
    )
    op.create_index(
        "ix_notices_dead", "notices", ["id"], postgresql_where=sa.text("dead_at IS NOT NULL")
    )
    # Until now nothing delivered them, and they are in a form that nobody was promised.
    op.execute("DELETE FROM notices")
    op.add_column("notices", sa.Column("give_up_at", sa.DateTime(timezone=True), nullable=False))
    op.create_index(
        "ix_notices_give_up",
        "notices",
        ["give_up_at"],
        postgresql_where=sa.text("delivered_at IS NULL AND dead_at IS NULL"),
    )
    op.create_check_constraint(
        op.f("ck_notices_ended_once"), "notices", "delivered_at IS NULL OR dead_at IS NULL"
    )
    op.create_table(
        "receiver",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("round_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unanswered", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unanswered_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pause_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.String(length=200), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("down_told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dead_told_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_receiver_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receiver")),
    )
    op.execute("INSERT INTO receiver (id) VALUES (1)")
