"""The tables. Constraints repeat every rule about money; what they cannot say, triggers do
(`migrations/versions/0001_the_book.py`): facts cannot be updated, events cannot be edited.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Interval,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from billing.domain.attempt import MERCHANT_UID, AttemptStatus
from billing.domain.cycle import CycleStatus
from billing.domain.money import MINIMUM_CHARGE
from billing.domain.reconciliation import DifferenceKind
from billing.domain.refund import RefundStatus
from billing.domain.subscription import SubscriptionStatus


def _one_of(column: str, members: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(member)) for member in members)})"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        str: Text,
        int: BigInteger,
    }


class Installation(Base):
    """The one row that says which book this is, and whether charging is held."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, default=1, autoincrement=False)
    # Keys the customer tags and the seal over the facts; travels with every copy of the book.
    key: Mapped[bytes | None]
    # Which PostgreSQL cluster and which store at the gateway this book was last used with.
    system_identifier: Mapped[str | None]
    timeline: Mapped[str | None]
    imp_key_fingerprint: Mapped[str | None]
    hold_reason: Mapped[str | None]
    held_at: Mapped[datetime | None]
    # Not set by code before 0011, whose holds count as a person's.
    held_by_brake: Mapped[bool] = mapped_column(server_default=text("false"))
    # Zero in production (see billing/clock.py).
    clock_offset: Mapped[timedelta] = mapped_column(Interval, server_default=text("interval '0'"))
    # Events up to `seal_up_to` are sealed once every transaction below `seal_once_past` has ended.
    seal_up_to: Mapped[int | None]
    seal_once_past: Mapped[int | None]
    # The settings by which next months are planned; while they are planned anew, up to which id.
    coming_by: Mapped[str | None]
    coming_up_to: Mapped[int | None]


class GatewayHealth(Base):
    """The one row that all workers share about the gateway: ceiling, pace, circuit, brake, skew."""

    __tablename__ = "gateway_health"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("pace > 0 AND pace <= 1", name="pace"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, default=1, autoincrement=False)
    # The rate ceiling: the next charge may start no earlier than this.
    next_start_at: Mapped[datetime | None]
    # The share of the ceiling that is used, as of `slowed_at`; nothing starts before `pause_until`.
    pace: Mapped[float] = mapped_column(server_default=text("1"))
    slowed_at: Mapped[datetime | None]
    pause_until: Mapped[datetime | None]
    # Consecutive requests without a usable answer; the circuit is open until `open_until`.
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    open_until: Mapped[datetime | None]
    # The brake: the newest 50 verdicts, a letter each, and the suspicious ones since an approval.
    verdicts: Mapped[str] = mapped_column(String(50), server_default=text("''"))
    suspicious: Mapped[int] = mapped_column(server_default=text("0"))
    last_answer_at: Mapped[datetime | None]
    last_approved_at: Mapped[datetime | None]
    # The gateway's clock minus ours.
    clock_skew: Mapped[timedelta | None] = mapped_column(Interval)
    skew_checked_at: Mapped[datetime | None]


class Subscription(Base):
    __tablename__ = "subscriptions"
    __table_args__ = (
        # The target of the cycles' composite key: a cycle's amount is its subscription's.
        UniqueConstraint("id", "amount"),
        CheckConstraint(_one_of("status", SubscriptionStatus), name="status"),
        CheckConstraint(f"amount >= {MINIMUM_CHARGE}", name="amount"),
        CheckConstraint("char_length(customer_uid) BETWEEN 1 AND 80", name="customer_uid"),
        CheckConstraint("char_length(order_name) BETWEEN 1 AND 40", name="order_name"),
        CheckConstraint("(status = 'suspended') <= (status_reason IS NOT NULL)", name="reason"),
        CheckConstraint("next_cycle >= 1", name="next_cycle"),
        # The due scan: reads only what is due, whatever the size of the book.
        Index(
            "ix_subscriptions_due",
            "next_due_at",
            # What is still to come, for people: counted and summed from the index alone.
            postgresql_include=["anchor_on", "amount"],
            postgresql_where=text("status = 'active'"),
        ),
        Index(
            "ix_subscriptions_paused_over",
            "next_closes_at",
            postgresql_where=text("status = 'paused'"),
        ),
        # Lists by status, newest first.
        Index("ix_subscriptions_status", "status", "id"),
        # Search by what a customer_uid or a reference begins with.
        Index(
            "ix_subscriptions_customer_uid_begins",
            "customer_uid",
            postgresql_ops={"customer_uid": "text_pattern_ops"},
        ),
        Index(
            "ix_subscriptions_reference_begins",
            "reference",
            postgresql_ops={"reference": "text_pattern_ops"},
            postgresql_where=text("reference IS NOT NULL"),
        ),
        # Whose registration a payment was, for an enrolment that is sent again.
        Index(
            "ix_subscriptions_initial_imp_uid",
            "initial_imp_uid",
            postgresql_where=text("initial_imp_uid IS NOT NULL"),
        ),
        # One key is followed by at most one.
        Index(
            "uq_subscriptions_previous",
            "previous_id",
            unique=True,
            postgresql_where=text("previous_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    customer_uid: Mapped[str] = mapped_column(String(80), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    status_reason: Mapped[str | None] = mapped_column(String(32))
    # The facts. Nobody can update these (trigger), and `seal` shows a change made all the same.
    amount: Mapped[int]
    order_name: Mapped[str] = mapped_column(String(40))
    anchor_on: Mapped[date]
    initial_paid_at: Mapped[datetime]
    seal: Mapped[bytes]
    # Beside the facts
    tag: Mapped[str] = mapped_column(String(16))
    initial_merchant_uid: Mapped[str | None] = mapped_column(String(40))
    initial_imp_uid: Mapped[str | None] = mapped_column(String(64))
    last_paid_on: Mapped[date | None]
    reference: Mapped[str | None] = mapped_column(String(200))
    enrolled_at: Mapped[datetime]
    next_cycle: Mapped[int]
    next_due_at: Mapped[datetime]
    next_closes_at: Mapped[datetime]
    # The subscription of the same customer that this registration goes on from.
    previous_id: Mapped[int | None] = mapped_column(ForeignKey("subscriptions.id"))
    # When the buyer data was erased on request.
    forgotten_at: Mapped[datetime | None]


class BuyerData(Base):
    """The only table with names, addresses and numbers of people."""

    __tablename__ = "buyers"

    subscription_id: Mapped[int] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(16))
    email: Mapped[str | None] = mapped_column(String(64))
    tel: Mapped[str | None] = mapped_column(String(16))


class Cycle(Base):
    __tablename__ = "cycles"
    __table_args__ = (
        UniqueConstraint("subscription_id", "number"),
        # Exactly one payment belongs in every calendar month.
        UniqueConstraint("subscription_id", "month"),
        ForeignKeyConstraint(
            ["subscription_id", "amount"], ["subscriptions.id", "subscriptions.amount"]
        ),
        CheckConstraint(_one_of("status", CycleStatus), name="status"),
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint("extract(day FROM month) = 1", name="month"),
        CheckConstraint(
            "month <= opens_on AND opens_on <= due_on AND due_on <= closes_on"
            " AND closes_on < month + interval '1 month'",
            name="window_in_month",
        ),
        CheckConstraint("due_on - opens_on <= 5 AND closes_on - due_on <= 5", name="window_width"),
        CheckConstraint(
            "(status IN ('paid', 'refunded')) = (paid_imp_uid IS NOT NULL AND paid_at IS NOT NULL"
            " AND paid_merchant_uid IS NOT NULL)",
            name="paid_with_proof",
        ),
        CheckConstraint(
            "(status IN ('missed', 'skipped')) <= (reason IS NOT NULL)", name="ended_with_reason"
        ),
        CheckConstraint("(status = 'open') = (settled_at IS NULL)", name="settled"),
        Index(
            "uq_cycles_one_open",
            "subscription_id",
            unique=True,
            postgresql_where=text("status = 'open'"),
        ),
        Index("ix_cycles_open_closes", "closes_at", postgresql_where=text("status = 'open'")),
        Index(
            "ix_cycles_paid_at",
            "paid_at",
            # What is counted and summed by day is read from the index alone.
            postgresql_include=["amount", "status"],
            postgresql_where=text("paid_at IS NOT NULL"),
        ),
        # A month at a glance, from the index alone; and lists by status, newest first.
        Index("ix_cycles_month", "month", "status", "due_on", postgresql_include=["amount"]),
        Index(
            "ix_cycles_unpaid",
            "status",
            "id",
            postgresql_where=text("status IN ('missed', 'skipped', 'refunded')"),
        ),
        Index(
            "ix_cycles_held",
            "held",
            postgresql_where=text("status = 'open' AND held IS NOT NULL"),
        ),
        # One payment of the gateway pays one cycle.
        Index(
            "uq_cycles_paid_imp_uid",
            "paid_imp_uid",
            unique=True,
            postgresql_where=text("paid_imp_uid IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    subscription_id: Mapped[int]
    number: Mapped[int]
    month: Mapped[date]
    amount: Mapped[int]
    due_on: Mapped[date]
    opens_on: Mapped[date]
    closes_on: Mapped[date]
    # Requests may start from `band_opens_at` to `last_start_at`; the window is over at `closes_at`.
    band_opens_at: Mapped[datetime]
    last_start_at: Mapped[datetime]
    closes_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    # Set while a person must look: nothing is dispatched or claimed.
    held: Mapped[str | None] = mapped_column(String(32))
    opened_at: Mapped[datetime]
    closing_soon_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    paid_imp_uid: Mapped[str | None] = mapped_column(String(64))
    paid_merchant_uid: Mapped[str | None] = mapped_column(String(40))
    paid_at: Mapped[datetime | None]


class Attempt(Base):
    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("cycle_id", "number"),
        CheckConstraint(_one_of("status", AttemptStatus), name="status"),
        CheckConstraint("number BETWEEN 1 AND 99", name="number"),
        CheckConstraint(f"merchant_uid ~ '{MERCHANT_UID}'", name="merchant_uid"),
        CheckConstraint(
            "(status = 'sending') <= (lease_until IS NOT NULL AND sent_at IS NOT NULL)",
            name="claimed_with_lease",
        ),
        CheckConstraint("(status = 'declined') = (decline_class IS NOT NULL)", name="class"),
        CheckConstraint("(status = 'approved') <= (imp_uid IS NOT NULL)", name="approved_proof"),
        CheckConstraint(
            "(status IN ('approved', 'declined', 'withdrawn')) = (settled_at IS NOT NULL)",
            name="settled",
        ),
        Index(
            "uq_attempts_one_live",
            "cycle_id",
            unique=True,
            postgresql_where=text("status IN ('due', 'sending', 'unknown')"),
        ),
        Index(
            "uq_attempts_one_approved",
            "cycle_id",
            unique=True,
            postgresql_where=text("status = 'approved'"),
        ),
        # Dispatch: earliest window close first, and of those that close together the longest ready.
        Index(
            "ix_attempts_ready",
            "closes_at",
            "ready_at",
            "id",
            postgresql_include=["dispatched_at"],
            postgresql_where=text("status = 'due'"),
        ),
        Index(
            "ix_attempts_outstanding",
            "dispatched_at",
            postgresql_where=text("status IN ('due', 'sending') AND dispatched_at IS NOT NULL"),
        ),
        Index("ix_attempts_leases", "lease_until", postgresql_where=text("status = 'sending'")),
        Index("ix_attempts_asking", "ask_at", postgresql_where=text("status = 'unknown'")),
        # Declines of a day or a month, by class.
        Index(
            "ix_attempts_declined",
            "settled_at",
            postgresql_include=["decline_class"],
            postgresql_where=text("status = 'declined'"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    cycle_id: Mapped[int] = mapped_column(ForeignKey("cycles.id"))
    number: Mapped[int]
    merchant_uid: Mapped[str] = mapped_column(String(40), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    # Copied from the cycle, so that one index serves the dispatch order.
    closes_at: Mapped[datetime]
    # The slot it was planned for, and how early it may go (later than the slot after a back-off).
    planned_at: Mapped[datetime]
    ready_at: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    # When the request may have left: its claim. Not while it is proved that none did anything.
    sent_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(server_default=text("0"))
    not_sent: Mapped[int] = mapped_column(server_default=text("0"))
    settled_at: Mapped[datetime | None]
    # The gateway's refusal text (`code != 0`), waiting for the look-up that proves it.
    refusal: Mapped[str | None]
    # Inquiry: when "no such payment" starts to prove something, how often it was seen since, when
    # to ask next.
    provable_at: Mapped[datetime | None]
    nothing_found: Mapped[int] = mapped_column(server_default=text("0"))
    ask_at: Mapped[datetime | None]
    asked: Mapped[int] = mapped_column(server_default=text("0"))
    decline_class: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str | None] = mapped_column(String(500))
    imp_uid: Mapped[str | None] = mapped_column(String(64))


class Event(Base):
    """One append-only line of what happened."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_subscription", "subscription_id", "id"),
        Index("ix_events_alarms", "id", postgresql_where=text("alarm")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(40))
    subscription_id: Mapped[int | None]
    cycle_id: Mapped[int | None]
    attempt_id: Mapped[int | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    alarm: Mapped[bool] = mapped_column(server_default=text("false"))


class EventSeal(Base):
    """A digest over a run of events, chained to the one before: a later edit shows."""

    __tablename__ = "event_seals"
    __table_args__ = (
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint("after_id < up_to_id", name="range"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        UniqueConstraint("after_id"),
        UniqueConstraint("up_to_id"),
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # Covers the events with after_id < id <= up_to_id.
    after_id: Mapped[int]
    up_to_id: Mapped[int]
    events: Mapped[int]
    digest: Mapped[bytes]
    sealed_at: Mapped[datetime]


class EventArchive(Base):
    """A file that holds the events of some seals; from then on they may leave the book."""

    __tablename__ = "event_archives"
    __table_args__ = (
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint("first_seal <= last_seal AND after_id < up_to_id", name="range"),
        CheckConstraint(
            "octet_length(file_digest) = 32 AND octet_length(kept_digest) = 32", name="digests"
        ),
        UniqueConstraint("first_seal"),
        UniqueConstraint("last_seal"),
        UniqueConstraint("up_to_id"),
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    first_seal: Mapped[int]
    last_seal: Mapped[int]
    # Covers the events with after_id < id <= up_to_id, all of them older than `older_than`.
    after_id: Mapped[int]
    up_to_id: Mapped[int]
    events: Mapped[int]
    older_than: Mapped[datetime]
    # SHA-256 of the file, and of the lines that stay in the book.
    file: Mapped[str] = mapped_column(String(80))
    file_digest: Mapped[bytes]
    kept_digest: Mapped[bytes]
    archived_at: Mapped[datetime]
    # When the last of its events left the book.
    removed_at: Mapped[datetime | None]


class SchemaRules(Base):
    """The one row that says which code this schema serves beside the code that made it."""

    __tablename__ = "schema_rules"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, default=1, autoincrement=False)
    oldest_code: Mapped[str] = mapped_column(String(16))


class Notice(Base):
    """The outbox: news for the merchant's own system, kept until delivered."""

    __tablename__ = "notices"
    __table_args__ = (
        Index(
            "ix_notices_waiting",
            "next_try_at",
            postgresql_where=text("delivered_at IS NULL AND dead_at IS NULL"),
        ),
        # The order of one subscription's notices.
        Index(
            "ix_notices_subscription",
            "subscription_id",
            "id",
            postgresql_where=text("delivered_at IS NULL AND dead_at IS NULL"),
        ),
        Index(
            "ix_notices_give_up",
            "give_up_at",
            postgresql_where=text("delivered_at IS NULL AND dead_at IS NULL"),
        ),
        Index("ix_notices_dead", "id", postgresql_where=text("dead_at IS NOT NULL")),
        CheckConstraint("delivered_at IS NULL OR dead_at IS NULL", name="ended_once"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    subscription_id: Mapped[int | None]
    kind: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    next_try_at: Mapped[datetime]
    # Three days after it was written, or sent again by hand.
    give_up_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    lease_until: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    # Given up, until somebody sends it again; and what was wrong the last time.
    dead_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(200))


class Receiver(Base):
    """The one row about the merchant's system that receives the notices."""

    __tablename__ = "receiver"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, default=1, autoincrement=False)
    # Whoever sends holds this, so that one round runs at a time.
    round_until: Mapped[datetime | None]
    # Tries in a row without an answer, since when, and how long it asked us to wait.
    unanswered: Mapped[int] = mapped_column(server_default=text("0"))
    unanswered_since: Mapped[datetime | None]
    pause_until: Mapped[datetime | None]
    # The newest try: when it was, and what was wrong with it.
    tried_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(200))
    # The newest that was taken, and what was told since then by an alarm.
    delivered_at: Mapped[datetime | None]
    down_told_at: Mapped[datetime | None]
    dead_told_at: Mapped[datetime | None]


class Webhook(Base):
    """What the gateway, or anybody, announced: never believed, only a reason to look."""

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint("(looked_at IS NULL) = (outcome IS NULL)", name="outcome"),
        # A flood about one payment is one look-up.
        Index(
            "uq_webhooks_waiting",
            "imp_uid",
            unique=True,
            postgresql_where=text("looked_at IS NULL"),
        ),
        Index("ix_webhooks_waiting", "look_at", postgresql_where=text("looked_at IS NULL")),
        Index("ix_webhooks_received", "received_at"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    imp_uid: Mapped[str] = mapped_column(String(64))
    merchant_uid: Mapped[str | None] = mapped_column(String(100))
    claimed_status: Mapped[str | None] = mapped_column(String(20))
    received_at: Mapped[datetime]
    times: Mapped[int] = mapped_column(server_default=text("1"))
    look_at: Mapped[datetime]
    looks: Mapped[int] = mapped_column(server_default=text("0"))
    looked_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(40))


class Heartbeat(Base):
    """Who was seen working: a row a process or tick writes through the whole chain."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    at: Mapped[datetime]


class Refund(Base):
    """One payment to be given back through the gateway, with the life of an attempt."""

    __tablename__ = "refunds"
    __table_args__ = (
        CheckConstraint(_one_of("status", RefundStatus), name="status"),
        CheckConstraint("amount >= 1", name="amount"),
        CheckConstraint(
            "(status = 'sending') <= (lease_until IS NOT NULL AND sent_at IS NOT NULL)",
            name="claimed_with_lease",
        ),
        CheckConstraint(
            "(status = 'unknown') <= (provable_at IS NOT NULL AND ask_at IS NOT NULL)",
            name="asked_about",
        ),
        CheckConstraint(
            "(status IN ('done', 'refused')) = (settled_at IS NOT NULL)", name="settled"
        ),
        CheckConstraint("(status = 'done') = (cancelled_at IS NOT NULL)", name="done_proof"),
        # A payment is given back at most once, and one at a time tries to.
        Index(
            "uq_refunds_one_standing",
            "imp_uid",
            unique=True,
            postgresql_where=text("status <> 'refused'"),
        ),
        Index(
            "ix_refunds_open",
            "id",
            postgresql_where=text("status IN ('requested', 'sending', 'unknown')"),
        ),
        Index(
            "ix_refunds_cancelled",
            "cancelled_at",
            postgresql_where=text("cancelled_at IS NOT NULL"),
        ),
        Index("ix_refunds_subscription", "subscription_id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    subscription_id: Mapped[int] = mapped_column(ForeignKey("subscriptions.id"))
    # The cycle that this payment pays; none for a second payment, or one made elsewhere.
    cycle_id: Mapped[int | None] = mapped_column(ForeignKey("cycles.id"))
    imp_uid: Mapped[str] = mapped_column(String(64))
    merchant_uid: Mapped[str] = mapped_column(String(100))
    amount: Mapped[int]
    # Whether its calendar month is left without a payment, so that the chain is at risk.
    breaks_chain: Mapped[bool]
    # From here on the gateway takes nothing back any more.
    refund_by: Mapped[datetime]
    reason: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16))
    requested_at: Mapped[datetime]
    fence: Mapped[int] = mapped_column(server_default=text("0"))
    sent_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    # As for attempts: when "still paid" starts to prove something, how often it was seen since,
    # when to ask (or to send) next, and the gateway's refusal that waits for proof.
    provable_at: Mapped[datetime | None]
    still_paid: Mapped[int] = mapped_column(server_default=text("0"))
    ask_at: Mapped[datetime | None]
    refusal: Mapped[str | None] = mapped_column(String(500))
    cancelled_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    message: Mapped[str | None] = mapped_column(String(500))


class LedgerDifference(Base):
    """A difference that reconciliation has told of: once, not again every day."""

    __tablename__ = "ledger_differences"
    __table_args__ = (
        CheckConstraint(_one_of("kind", DifferenceKind), name="kind"),
        Index("ix_ledger_differences_open", "at", postgresql_where=text("resolved_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    key: Mapped[str] = mapped_column(String(160), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    # The payment's moment: a run over a span that holds it can find it resolved.
    at: Mapped[datetime]
    subscription_id: Mapped[int | None]
    cycle_id: Mapped[int | None]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
