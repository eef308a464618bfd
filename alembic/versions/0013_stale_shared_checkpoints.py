"""Shared checkpoints that a run could not write are known, so that a later run writes them."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

UPGRADE = (
    """
CREATE TABLE billing.stale_checkpoints (
  stored_node_id text NOT NULL,
  account_uuid uuid NOT NULL,
  is_stale boolean NOT NULL,
  noted_at timestamp with time zone NOT NULL,
  CONSTRAINT stale_checkpoints_pkey PRIMARY KEY (stored_node_id, account_uuid)
)
""",
    """
COMMENT ON TABLE billing.stale_checkpoints IS
  'Shared checkpoints that a run left, because another session held the account.'
""",
    """
COMMENT ON COLUMN billing.stale_checkpoints.is_stale IS
  'False once a later run has written it.'
""",
    """
CREATE INDEX stale_checkpoints_open ON billing.stale_checkpoints (stored_node_id)
 WHERE is_stale
""",
    # Those that earlier versions left.
    """
INSERT INTO billing.stale_checkpoints (stored_node_id, account_uuid, is_stale, noted_at)
SELECT DISTINCT stream.stored_node_id, stream.account_uuid, true, now()
  FROM billing.streams AS stream
  JOIN billing.pending_usage AS pending USING (stream_id)
 WHERE pending.billed_at IS NULL AND stream.account_uuid IS NOT NULL
""",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE billing.stale_checkpoints")
