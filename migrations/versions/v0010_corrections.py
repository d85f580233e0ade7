"""Corrections: facts may change in a transaction that has already written down that they do.

Only the initial payment at the gateway can say what is right (`services/correct.py`). The event
line comes first, so that no fact changes without a trace, whoever changes it; and the new seal
needs the installation's key, as ever.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
# The code before changes no facts, and is refused nothing that it was allowed.
works_with = "0005"

_FACTS_ARE_FIXED = """
CREATE OR REPLACE FUNCTION refuse_changed_facts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    whose bigint;
BEGIN
    IF TG_TABLE_NAME = 'buyers' THEN
        whose := OLD.subscription_id;
    ELSE
        whose := OLD.id;
    END IF;
    IF EXISTS (
        SELECT FROM events e
        WHERE e.subscription_id = whose AND e.kind = 'subscription.corrected'
            AND e.xmin = pg_current_xact_id()::xid
    ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION
        'the facts of an initial payment are never changed: register anew, or correct them'
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""


def upgrade() -> None:
    op.execute(_FACTS_ARE_FIXED)
