"""Who held: whether charging was stopped by the brake, or by a person or the fence.

`maewol release` asks customers again only after the brake's own hold. It used to tell that by the
end of the sentence that says why.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
# The code before says nothing of it when it holds: such a hold counts as a person's, after which
# nobody is asked again.
works_with = "0005"

# The brake's sentences until now.
_BY_THEIR_ENDS = """
UPDATE installation SET held_by_brake = true
WHERE hold_reason LIKE '%answers without an approval point at our own configuration'
    OR hold_reason LIKE '%customers without an approval are unknown to the gateway'
    OR hold_reason LIKE '%of the last 50 charges were declined as by our own fault'
"""


def upgrade() -> None:
    op.execute("ALTER TABLE installation ADD COLUMN held_by_brake boolean NOT NULL DEFAULT false")
    op.execute(_BY_THEIR_ENDS)
