"""Seals of transactions, and the log that they are appended to.

Nothing is read: `billing migrate` seals the facts of earlier versions afterwards, by month.
"""

from __future__ import annotations

from alembic import op

from billing_cli.database.functions import SEAL_TRIGGERS

revision = "0007"
down_revision = "0006"

FACTS = (
    "ALTER TABLE billing.usage_records ADD COLUMN step integer NOT NULL DEFAULT 0",
    """
ALTER TABLE billing.charges
  ADD COLUMN step integer NOT NULL DEFAULT 0,
  ADD COLUMN ordinal integer
""",
)

TABLES = (
    """
CREATE TABLE billing.seals (
  run_id uuid NOT NULL,
  step integer NOT NULL,
  job text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  first_bucket timestamptz NOT NULL,
  last_bucket timestamptz NOT NULL,
  records bigint NOT NULL,
  records_sha256 bytea NOT NULL,
  charges bigint NOT NULL,
  charges_sha256 bytea NOT NULL,
  record_checks bytea,
  charge_checks bytea,
  leaf_number bigint UNIQUE,
  appended_at timestamptz,
  PRIMARY KEY (run_id, step),
  CONSTRAINT seals_facts_check CHECK (records + charges > 0),
  CONSTRAINT seals_leaf_check CHECK ((leaf_number IS NULL) = (appended_at IS NULL))
)
""",
    """
CREATE INDEX seals_waiting ON billing.seals (created_at, run_id, step) WHERE leaf_number IS NULL
""",
    """
CREATE TABLE billing.sealed_days (
  day date PRIMARY KEY,
  accounts bigint NOT NULL,
  salts_sha256 bytea NOT NULL,
  root bytea NOT NULL,
  leaf_number bigint NOT NULL UNIQUE,
  sealed_at timestamptz NOT NULL
)
""",
    """
CREATE TABLE billing.day_leaves (
  day date NOT NULL,
  account_uuid uuid NOT NULL,
  position bigint NOT NULL,
  salt bytea NOT NULL,
  PRIMARY KEY (day, account_uuid)
)
""",
    """
CREATE TABLE billing.tree_nodes (
  tree integer NOT NULL,
  level smallint NOT NULL,
  position bigint NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (tree, level, position)
)
""",
    """
CREATE TABLE billing.log_head (
  is_only boolean PRIMARY KEY DEFAULT true,
  is_adopted boolean NOT NULL DEFAULT false,
  tree_size bigint NOT NULL DEFAULT 0,
  note text,
  signed_at timestamptz,
  CONSTRAINT log_head_is_only_check CHECK (is_only)
)
""",
    """
INSERT INTO billing.log_head (is_adopted)
SELECT NOT EXISTS (SELECT FROM billing.usage_records) AND NOT EXISTS (SELECT FROM billing.charges)
""",
)

COMMENTS = {
    "COLUMN billing.usage_records.step": "Which of its run''s seals covers it; 0 before revision"
    " 0007.",
    "COLUMN billing.charges.step": "Which of its run''s seals covers it; 0 before revision 0007.",
    "COLUMN billing.charges.ordinal": "Its place among the ledger entries of the step.",
    "TABLE billing.seals": "What each transaction wrote: numbers and hashes of its facts.",
    "COLUMN billing.seals.step": "Counts the run''s transactions that wrote facts, from 1; the"
    " month as YYYYMM for facts of earlier versions.",
    "COLUMN billing.seals.records_sha256": "Over the canonical lines in key order.",
    "COLUMN billing.seals.charges_sha256": "Over the canonical lines in key order.",
    "COLUMN billing.seals.record_checks": "CRC-32 of each line: names what was changed, proves"
    " nothing.",
    "COLUMN billing.seals.charge_checks": "CRC-32 of each line: names what was changed, proves"
    " nothing.",
    "COLUMN billing.seals.leaf_number": "Its leaf of the log; null until it is appended.",
    "TABLE billing.sealed_days": "Days of booking whose root is a leaf of the log.",
    "COLUMN billing.sealed_days.salts_sha256": "Over the lines of the day''s accounts and salts.",
    "COLUMN billing.sealed_days.root": "Of the tree of the day''s account leaves.",
    "TABLE billing.day_leaves": "Which accounts had anything booked in a day.",
    "COLUMN billing.day_leaves.position": "In the order of account_uuid.",
    "COLUMN billing.day_leaves.salt": "Hashed with the leaf; disclosed to its account only.",
    "TABLE billing.tree_nodes": "Complete subtrees of the log and of each day''s tree (RFC 6962).",
    "COLUMN billing.tree_nodes.tree": "0 is the log, else the day as YYYYMMDD.",
    "TABLE billing.log_head": "The newest signed checkpoint. Whoever appends locks its row.",
    "COLUMN billing.log_head.is_adopted": "Whether the facts of earlier versions are sealed.",
}


def upgrade() -> None:
    for statement in (*FACTS, *TABLES, *SEAL_TRIGGERS):
        op.execute(statement)
    for thing, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")


def downgrade() -> None:
    for table in ("log_head", "tree_nodes", "day_leaves", "sealed_days", "seals"):
        op.execute(f"DROP TABLE billing.{table}")
    op.execute("ALTER TABLE billing.charges DROP COLUMN ordinal, DROP COLUMN step")
    op.execute("ALTER TABLE billing.usage_records DROP COLUMN step")
