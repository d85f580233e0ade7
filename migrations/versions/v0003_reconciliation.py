"""Refunds, and the differences that reconciliation has told of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# What a refund is for never changes, and one that ended stays as it ended.
_REFUNDS_ARE_FIXED = """
CREATE FUNCTION refuse_changed_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what a refund is for, and how it ended, is never changed'
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_TRIGGERS = (
    """
    CREATE TRIGGER refunds_end_once BEFORE UPDATE ON refunds FOR EACH ROW
    WHEN ((OLD.status IN ('done', 'refused') AND NEW.status IS DISTINCT FROM OLD.status)
        OR (OLD.subscription_id, OLD.imp_uid, OLD.merchant_uid, OLD.amount, OLD.refund_by)
        IS DISTINCT FROM
        (NEW.subscription_id, NEW.imp_uid, NEW.merchant_uid, NEW.amount, NEW.refund_by))
    EXECUTE FUNCTION refuse_changed_refund()
    """,
    """
    CREATE TRIGGER refunds_stay BEFORE DELETE ON refunds FOR EACH ROW
    EXECUTE FUNCTION refuse_changed_refund()
    """,
)


def upgrade() -> None:
    op.create_table(
        "refunds",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.BigInteger(), nullable=False),
        sa.Column("cycle_id", sa.BigInteger(), nullable=True),
        sa.Column("imp_uid", sa.String(length=64), nullable=False),
        sa.Column("merchant_uid", sa.String(length=100), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("breaks_chain", sa.Boolean(), nullable=False),
        sa.Column("refund_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provable_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("still_paid", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("ask_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refusal", sa.String(length=500), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.String(length=500), nullable=True),
        sa.CheckConstraint(
            "status IN ('requested', 'sending', 'unknown', 'done', 'refused')",
            name=op.f("ck_refunds_status"),
        ),
        sa.CheckConstraint("amount >= 1", name=op.f("ck_refunds_amount")),
        sa.CheckConstraint(
            "(status = 'sending') <= (lease_until IS NOT NULL AND sent_at IS NOT NULL)",
            name=op.f("ck_refunds_claimed_with_lease"),
        ),
        sa.CheckConstraint(
            "(status = 'unknown') <= (provable_at IS NOT NULL AND ask_at IS NOT NULL)",
            name=op.f("ck_refunds_asked_about"),
        ),
        sa.CheckConstraint(
            "(status IN ('done', 'refused')) = (settled_at IS NOT NULL)",
            name=op.f("ck_refunds_settled"),
        ),
        sa.CheckConstraint(
            "(status = 'done') = (cancelled_at IS NOT NULL)", name=op.f("ck_refunds_done_proof")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_refunds_subscriptions")
        ),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"], name=op.f("fk_refunds_cycles")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refunds")),
    )
    op.create_index(
        "uq_refunds_one_standing",
        "refunds",
        ["imp_uid"],
        unique=True,
        postgresql_where=sa.text("status <> 'refused'"),
    )
    op.create_index(
        "ix_refunds_open",
        "refunds",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('requested', 'sending', 'unknown')"),
    )
    op.create_index(
        "ix_refunds_cancelled",
        "refunds",
        ["cancelled_at"],
        unique=False,
        postgresql_where=sa.text("cancelled_at IS NOT NULL"),
    )
    op.create_index("ix_refunds_subscription", "refunds", ["subscription_id"], unique=False)
    op.create_table(
        "ledger_differences",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subscription_id", sa.BigInteger(), nullable=True),
        sa.Column("cycle_id", sa.BigInteger(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('double', 'late_paid', 'paid_elsewhere', 'not_in_book', 'paid_not_due',"
            " 'not_enrolled', 'stranger', 'cancelled_at_gateway', 'failed_at_gateway',"
            " 'missing_at_gateway', 'not_final_at_gateway', 'amount_differs', 'customer_differs',"
            " 'partly_cancelled', 'refund_not_at_gateway', 'sandbox_mixed',"
            " 'scheduled_at_gateway')",
            name=op.f("ck_ledger_differences_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_differences")),
        sa.UniqueConstraint("key", name=op.f("uq_ledger_differences_key")),
    )
    op.create_index(
        "ix_ledger_differences_open",
        "ledger_differences",
        ["at"],
        unique=False,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    # Reconciliation lays the days of the ledger beside those of the book.
    op.create_index(
        "ix_cycles_paid_at",
        "cycles",
        ["paid_at"],
        unique=False,
        postgresql_where=sa.text("paid_at IS NOT NULL"),
    )
    for statement in (_REFUNDS_ARE_FIXED, *_TRIGGERS):
        op.execute(statement)
