"""Where the last clean audit ended, so that the next one goes on from there; archived months."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"

TABLES = (
    """
CREATE TABLE billing.audits (
  audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id uuid NOT NULL,
  at timestamptz NOT NULL,
  is_full boolean NOT NULL,
  violations bigint NOT NULL,
  notices bigint NOT NULL,
  since timestamptz
)
""",
    """
CREATE TABLE billing.archives (
  month timestamptz PRIMARY KEY,
  run_id uuid NOT NULL,
  archived_at timestamptz NOT NULL,
  directory text NOT NULL,
  records bigint NOT NULL,
  charges bigint NOT NULL,
  seals bigint NOT NULL
)
""",
    """
CREATE TABLE billing.audited_seals (
  run_id uuid NOT NULL,
  step integer NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (run_id, step)
)
""",
    """
CREATE TABLE billing.audited_streams (
  stream_id bigint PRIMARY KEY,
  reset_epoch integer NOT NULL,
  seen_at timestamptz NOT NULL,
  uplink_total bigint NOT NULL,
  downlink_total bigint NOT NULL,
  state text NOT NULL
)
""",
    """
CREATE TABLE billing.audited_accounts (
  account_uuid uuid PRIMARY KEY,
  balance double precision,
  quota bigint
)
""",
)

COMMENTS = {
    "TABLE billing.audits": "The audits of all accounts, and what they found.",
    "COLUMN billing.audits.since": "The first minute that was read; null where all were.",
    "TABLE billing.archives": "Months that were archived and verified: only these are pruned.",
    "COLUMN billing.archives.month": "Its first instant, UTC.",
    "TABLE billing.audited_seals": "Seals of the last days that a clean audit has proven.",
    "TABLE billing.audited_streams": "The checkpoints of streams at the last clean audit.",
    "TABLE billing.audited_accounts": "The funds of accounts at the last clean audit.",
}


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    for thing, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")


def downgrade() -> None:
    for table in ("audits", "archives", "audited_seals", "audited_streams", "audited_accounts"):
        op.execute(f"DROP TABLE billing.{table}")
