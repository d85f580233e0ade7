"""Runs the migrations on the connection that `billing.store.schema` hands over."""

from __future__ import annotations

from alembic import context

from billing.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
