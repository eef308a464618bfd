"""Repaired balances, the arrears flags that are ours, and suspended accounts.

A flag that an earlier version set is recognised by our newest ledger row of the account: it left
a balance below zero. A role that may not read the shared tables leaves such flags as they are.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

REPAIRS = """
CREATE TABLE billing.repairs (
  account_uuid uuid NOT NULL,
  after_id uuid NOT NULL,
  repair_id uuid NOT NULL UNIQUE,
  ledger_ids uuid[] NOT NULL,
  amount_delta numeric(30, 9) NOT NULL,
  balance_before numeric(30, 9) NOT NULL,
  balance_after numeric(30, 9) NOT NULL,
  quota_before bigint NOT NULL,
  quota_after bigint NOT NULL,
  reason text NOT NULL,
  run_id uuid NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (account_uuid, after_id)
)
"""

ARREARS = """
CREATE TABLE billing.arrears (
  account_uuid uuid PRIMARY KEY,
  since timestamptz NOT NULL,
  cleared_at timestamptz
)
"""

SUSPENSIONS = """
CREATE TABLE billing.suspensions (
  suspension_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account_uuid uuid NOT NULL,
  arrears_since timestamptz NOT NULL,
  suspended_at timestamptz NOT NULL,
  balance numeric(30, 9) NOT NULL,
  run_id uuid NOT NULL,
  released_at timestamptz,
  release_balance numeric(30, 9),
  release_run_id uuid
)
"""

SUSPENSIONS_OPEN = """
CREATE UNIQUE INDEX suspensions_open ON billing.suspensions (account_uuid)
 WHERE released_at IS NULL
"""

FLAGS_OF_EARLIER_VERSIONS = """
DO $flags$ BEGIN
IF has_table_privilege('public.account_quota_states', 'SELECT')
   AND has_table_privilege('public.billing_ledger', 'SELECT') THEN
INSERT INTO billing.arrears (account_uuid, since)
SELECT state.account_uuid, now()
  FROM public.account_quota_states AS state
 CROSS JOIN LATERAL (
       SELECT entry.balance_after
         FROM public.billing_ledger AS entry
        WHERE entry.account_uuid = state.account_uuid
          AND entry.entry_type IN ('traffic_charge', 'traffic_adjustment')
        ORDER BY entry.created_at DESC
        LIMIT 1) AS newest
 WHERE state.arrears AND newest.balance_after < 0;
END IF; END $flags$
"""

COMMENTS = {
    "TABLE billing.repairs": "Balances that were corrected after a stale write had undone charges:"
    " once for each.",
    "COLUMN billing.repairs.after_id": "The last entry of ours before the stale write: a charge,"
    " or a repair.",
    "COLUMN billing.repairs.ledger_ids": "The charges that were lost, in order.",
    "COLUMN billing.repairs.amount_delta": "What the balance changed by.",
    "TABLE billing.arrears": "The accounts whose arrears flag we set: only such a flag is cleared"
    " by us.",
    "COLUMN billing.arrears.since": "When we first saw the balance below zero.",
    "COLUMN billing.arrears.cleared_at": "When we cleared the flag; null while it is ours.",
    "TABLE billing.suspensions": "The accounts that `billing suspend` suspended, and when they"
    " were released.",
    "COLUMN billing.suspensions.balance": "At that time.",
    "COLUMN billing.suspensions.release_run_id": "Null where another service released the account"
    " before us.",
}


def upgrade() -> None:
    for statement in (REPAIRS, ARREARS, SUSPENSIONS, SUSPENSIONS_OPEN, FLAGS_OF_EARLIER_VERSIONS):
        op.execute(statement)
    for thing, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")


def downgrade() -> None:
    for table in ("repairs", "arrears", "suspensions"):
        op.execute(f"DROP TABLE billing.{table}")
