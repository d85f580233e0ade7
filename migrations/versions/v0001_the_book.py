"""The book: subscriptions, cycles, attempts, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


# What no constraint can say: the facts the gateway compares with last month never change, events
# are never edited, and final statuses stay final. A superuser can switch triggers off; the seal on
# the facts (billing/domain/seal.py) shows that too.
_FACTS_ARE_FIXED = """
CREATE FUNCTION refuse_changed_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the facts of an initial payment are never changed: register anew'
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_EVENTS_ARE_FIXED = """
CREATE FUNCTION refuse_changed_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are only ever added'
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_FINAL_IS_FINAL = """
CREATE FUNCTION refuse_changed_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% % cannot become %', TG_TABLE_NAME, OLD.status, NEW.status
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_TRIGGERS = (
    """
    CREATE TRIGGER facts_are_fixed BEFORE UPDATE ON subscriptions FOR EACH ROW
    WHEN ((OLD.customer_uid, OLD.amount, OLD.order_name, OLD.anchor_on, OLD.initial_paid_at,
            OLD.seal)
        IS DISTINCT FROM (NEW.customer_uid, NEW.amount, NEW.order_name, NEW.anchor_on,
            NEW.initial_paid_at, NEW.seal))
    EXECUTE FUNCTION refuse_changed_facts()
    """,
    """
    CREATE TRIGGER buyer_data_is_fixed BEFORE UPDATE ON buyers FOR EACH ROW
    EXECUTE FUNCTION refuse_changed_facts()
    """,
    """
    CREATE TRIGGER events_are_fixed BEFORE UPDATE OR DELETE ON events FOR EACH ROW
    EXECUTE FUNCTION refuse_changed_events()
    """,
    """
    CREATE TRIGGER attempts_end_once BEFORE UPDATE ON attempts FOR EACH ROW
    WHEN (OLD.status IN ('approved', 'declined', 'withdrawn')
        AND NEW.status IS DISTINCT FROM OLD.status)
    EXECUTE FUNCTION refuse_changed_end()
    """,
    """
    CREATE TRIGGER cycles_end_once BEFORE UPDATE ON cycles FOR EACH ROW
    WHEN (NEW.status IS DISTINCT FROM OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('open', 'paid'), ('open', 'missed'), ('open', 'skipped'),
        ('missed', 'paid'), ('paid', 'refunded')))
    EXECUTE FUNCTION refuse_changed_end()
    """,
)


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("subscription_id", sa.BigInteger(), nullable=True),
        sa.Column("cycle_id", sa.BigInteger(), nullable=True),
        sa.Column("attempt_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "data",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("alarm", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(
        "ix_events_alarms",
        "events",
        ["id"],
        unique=False,
        postgresql_where=sa.text("alarm"),
    )
    op.create_index("ix_events_subscription", "events", ["subscription_id", "id"], unique=False)
    op.create_table(
        "gateway_health",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("next_start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspicious", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_answer_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("clock_skew", sa.Interval(), nullable=True),
        sa.Column("skew_checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_gateway_health_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateway_health")),
    )
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("system_identifier", sa.Text(), nullable=True),
        sa.Column("imp_key_fingerprint", sa.Text(), nullable=True),
        sa.Column("hold_reason", sa.Text(), nullable=True),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "clock_offset",
            sa.Interval(),
            server_default=sa.text("interval '0'"),
            nullable=False,
        ),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index(
        "ix_notices_waiting",
        "notices",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("customer_uid", sa.String(length=80), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_reason", sa.String(length=32), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("order_name", sa.String(length=40), nullable=False),
        sa.Column("anchor_on", sa.Date(), nullable=False),
        sa.Column("initial_paid_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.Column("tag", sa.String(length=16), nullable=False),
        sa.Column("initial_merchant_uid", sa.String(length=40), nullable=True),
        sa.Column("initial_imp_uid", sa.String(length=64), nullable=True),
        sa.Column("last_paid_on", sa.Date(), nullable=True),
        sa.Column("reference", sa.String(length=200), nullable=True),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_cycle", sa.BigInteger(), nullable=False),
        sa.Column("next_due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_closes_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(status = 'suspended') <= (status_reason IS NOT NULL)",
            name=op.f("ck_subscriptions_reason"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'paused', 'suspended', 'cancelled')",
            name=op.f("ck_subscriptions_status"),
        ),
        sa.CheckConstraint("amount >= 301", name=op.f("ck_subscriptions_amount")),
        sa.CheckConstraint(
            "char_length(customer_uid) BETWEEN 1 AND 80",
            name=op.f("ck_subscriptions_customer_uid"),
        ),
        sa.CheckConstraint(
            "char_length(order_name) BETWEEN 1 AND 40",
            name=op.f("ck_subscriptions_order_name"),
        ),
        sa.CheckConstraint("next_cycle >= 1", name=op.f("ck_subscriptions_next_cycle")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
        sa.UniqueConstraint("customer_uid", name=op.f("uq_subscriptions_customer_uid")),
        sa.UniqueConstraint("id", "amount", name=op.f("uq_subscriptions_id_amount")),
    )
    op.create_index(
        "ix_subscriptions_due",
        "subscriptions",
        ["next_due_at"],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "ix_subscriptions_paused_over",
        "subscriptions",
        ["next_closes_at"],
        unique=False,
        postgresql_where=sa.text("status = 'paused'"),
    )
    op.create_table(
        "buyers",
        sa.Column("subscription_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=16), nullable=True),
        sa.Column("email", sa.String(length=64), nullable=True),
        sa.Column("tel", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_buyers_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_buyers")),
    )
    op.create_table(
        "cycles",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subscription_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("opens_on", sa.Date(), nullable=False),
        sa.Column("closes_on", sa.Date(), nullable=False),
        sa.Column("band_opens_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_start_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closes_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("held", sa.String(length=32), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closing_soon_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paid_imp_uid", sa.String(length=64), nullable=True),
        sa.Column("paid_merchant_uid", sa.String(length=40), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'open') = (settled_at IS NULL)", name=op.f("ck_cycles_settled")
        ),
        sa.CheckConstraint(
            "(status IN ('missed', 'skipped')) <= (reason IS NOT NULL)",
            name=op.f("ck_cycles_ended_with_reason"),
        ),
        sa.CheckConstraint(
            "(status IN ('paid', 'refunded')) = (paid_imp_uid IS NOT NULL AND paid_at IS NOT NULL"
            " AND paid_merchant_uid IS NOT NULL)",
            name=op.f("ck_cycles_paid_with_proof"),
        ),
        sa.CheckConstraint(
            "month <= opens_on AND opens_on <= due_on AND due_on <= closes_on"
            " AND closes_on < month + interval '1 month'",
            name=op.f("ck_cycles_window_in_month"),
        ),
        sa.CheckConstraint(
            "status IN ('open', 'paid', 'missed', 'skipped', 'refunded')",
            name=op.f("ck_cycles_status"),
        ),
        sa.CheckConstraint(
            "due_on - opens_on <= 5 AND closes_on - due_on <= 5",
            name=op.f("ck_cycles_window_width"),
        ),
        sa.CheckConstraint("extract(day FROM month) = 1", name=op.f("ck_cycles_month")),
        sa.CheckConstraint("number >= 1", name=op.f("ck_cycles_number")),
        sa.ForeignKeyConstraint(
            ["subscription_id", "amount"],
            ["subscriptions.id", "subscriptions.amount"],
            name=op.f("fk_cycles_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cycles")),
        sa.UniqueConstraint(
            "subscription_id", "month", name=op.f("uq_cycles_subscription_id_month")
        ),
        sa.UniqueConstraint(
            "subscription_id", "number", name=op.f("uq_cycles_subscription_id_number")
        ),
    )
    op.create_index(
        "ix_cycles_open_closes",
        "cycles",
        ["closes_at"],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(
        "uq_cycles_one_open",
        "cycles",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(
        "uq_cycles_paid_imp_uid",
        "cycles",
        ["paid_imp_uid"],
        unique=True,
        postgresql_where=sa.text("paid_imp_uid IS NOT NULL"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("cycle_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("merchant_uid", sa.String(length=40), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("closes_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_sent", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("provable_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "nothing_found",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
        ),
        sa.Column("ask_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("decline_class", sa.String(length=32), nullable=True),
        sa.Column("message", sa.String(length=500), nullable=True),
        sa.Column("imp_uid", sa.String(length=64), nullable=True),
        sa.CheckConstraint(
            "(status = 'approved') <= (imp_uid IS NOT NULL)",
            name=op.f("ck_attempts_approved_proof"),
        ),
        sa.CheckConstraint(
            "(status = 'declined') = (decline_class IS NOT NULL)",
            name=op.f("ck_attempts_class"),
        ),
        sa.CheckConstraint(
            "(status = 'sending') <= (lease_until IS NOT NULL AND sent_at IS NOT NULL)",
            name=op.f("ck_attempts_claimed_with_lease"),
        ),
        sa.CheckConstraint(
            "(status IN ('approved', 'declined', 'withdrawn')) = (settled_at IS NOT NULL)",
            name=op.f("ck_attempts_settled"),
        ),
        sa.CheckConstraint(
            "merchant_uid ~ '^[A-Za-z0-9_-]{4,40}$'",
            name=op.f("ck_attempts_merchant_uid"),
        ),
        sa.CheckConstraint(
            "status IN ('due', 'sending', 'approved', 'declined', 'unknown', 'withdrawn')",
            name=op.f("ck_attempts_status"),
        ),
        sa.CheckConstraint("number BETWEEN 1 AND 99", name=op.f("ck_attempts_number")),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"], name=op.f("fk_attempts_cycles")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("cycle_id", "number", name=op.f("uq_attempts_cycle_id_number")),
        sa.UniqueConstraint("merchant_uid", name=op.f("uq_attempts_merchant_uid")),
    )
    op.create_index(
        "ix_attempts_asking",
        "attempts",
        ["ask_at"],
        unique=False,
        postgresql_where=sa.text("status = 'unknown'"),
    )
    op.create_index(
        "ix_attempts_due",
        "attempts",
        ["closes_at", "id"],
        unique=False,
        postgresql_include=["ready_at", "dispatched_at"],
        postgresql_where=sa.text("status = 'due'"),
    )
    op.create_index(
        "ix_attempts_leases",
        "attempts",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("status = 'sending'"),
    )
    op.create_index(
        "ix_attempts_outstanding",
        "attempts",
        ["dispatched_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('due', 'sending') AND dispatched_at IS NOT NULL"),
    )
    op.create_index(
        "uq_attempts_one_approved",
        "attempts",
        ["cycle_id"],
        unique=True,
        postgresql_where=sa.text("status = 'approved'"),
    )
    op.create_index(
        "uq_attempts_one_live",
        "attempts",
        ["cycle_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('due', 'sending', 'unknown')"),
    )
    for statement in (_FACTS_ARE_FIXED, _EVENTS_ARE_FIXED, _FINAL_IS_FINAL, *_TRIGGERS):
        op.execute(statement)
    op.execute("INSERT INTO installation (id) VALUES (1)")
    op.execute("INSERT INTO gateway_health (id) VALUES (1)")
