"""An arrears flag that another service raised stays, also where the balance fell below 0 since."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"

UPGRADE = (
    "ALTER TABLE billing.arrears ADD COLUMN is_flag_ours boolean DEFAULT true NOT NULL",
    """
COMMENT ON COLUMN billing.arrears.is_flag_ours IS
  'Whether we set the account''s flag: only such a flag is cleared by us.'
""",
    "COMMENT ON TABLE billing.arrears IS 'The accounts whose balance we saw below zero.'",
    """
COMMENT ON COLUMN billing.arrears.cleared_at IS
  'When it was 0 or more again; null while it is below.'
""",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE billing.arrears DROP COLUMN is_flag_ours")
