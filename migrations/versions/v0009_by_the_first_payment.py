"""By the first payment: whose registration a payment was is found by an index.

An enrolment that is sent again is answered from the book; without an index that read it whole.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
# An index more is nothing to the code before.
works_with = "0005"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # One that broke off is left behind INVALID.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_subscriptions_initial_imp_uid")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_subscriptions_initial_imp_uid"
            " ON subscriptions (initial_imp_uid) WHERE initial_imp_uid IS NOT NULL"
        )
