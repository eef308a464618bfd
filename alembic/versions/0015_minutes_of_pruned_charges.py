"""Pruned charges keep their minute: it tells whether they used the quota of a former period."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"

UPGRADE = (
    "ALTER TABLE billing.pruned_charges ADD COLUMN bucket_start timestamptz",
    """
COMMENT ON COLUMN billing.pruned_charges.bucket_start IS
  'Null where an earlier version pruned it.'
""",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE billing.pruned_charges DROP COLUMN bucket_start")
