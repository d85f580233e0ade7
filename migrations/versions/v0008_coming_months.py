"""Coming months: by which settings the next month of every subscription was planned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
# The code before leaves what is stored as it is, and so does not miss the columns.
works_with = "0005"


def upgrade() -> None:
    op.add_column("installation", sa.Column("coming_by", sa.Text(), nullable=True))
    op.add_column("installation", sa.Column("coming_up_to", sa.BigInteger(), nullable=True))
