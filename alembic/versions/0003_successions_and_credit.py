"""Successions, plausibility credit, and a row of every source to lock.

The digest of the samples at the watermark goes: every snapshot is decoded and compared.
"""

from __future__ import annotations

from alembic import op

from billing_cli.database.functions import ENABLE_ALWAYS

revision = "0003"
down_revision = "0002"

SOURCES = """
ALTER TABLE billing.sources
  DROP COLUMN samples_bytes, DROP COLUMN samples_digest,
  ALTER COLUMN env DROP NOT NULL, ALTER COLUMN node_id DROP NOT NULL,
  ALTER COLUMN stored_node_id DROP NOT NULL, ALTER COLUMN contract DROP NOT NULL,
  ALTER COLUMN first_snapshot_at DROP NOT NULL, ALTER COLUMN watermark DROP NOT NULL,
  ADD COLUMN samples_at timestamptz,
  ADD COLUMN restarted_at timestamptz,
  ADD COLUMN debt_bytes bigint NOT NULL DEFAULT 0,
  ADD COLUMN debt_at timestamptz,
  ADD COLUMN credit_since timestamptz,
  ADD COLUMN former_nodes text[] NOT NULL DEFAULT '{}',
  ADD COLUMN moved_to text,
  ADD CONSTRAINT sources_known_check
    CHECK (num_nulls(env, node_id, stored_node_id, contract, first_snapshot_at, watermark)
           IN (0, 6))
"""

# PostgreSQL 18 and later name the constraints of NOT NULL.
RENAME_NOT_NULL = """
DO $rename$ BEGIN
  IF EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'billing.streams'::regclass
                AND conname = 'streams_{old}_not_null') THEN
    ALTER TABLE billing.streams
      RENAME CONSTRAINT streams_{old}_not_null TO streams_{new}_not_null;
  END IF;
END $rename$
"""

STREAMS = (
    RENAME_NOT_NULL.format(old="first_sight", new="origin"),
    "ALTER TABLE billing.streams RENAME COLUMN first_sight TO origin",
    (
        "ALTER TABLE billing.streams RENAME CONSTRAINT streams_first_sight_check "
        "TO streams_origin_check"
    ),
    """
ALTER TABLE billing.streams
  ADD COLUMN before_uplink bigint,
  ADD COLUMN before_downlink bigint,
  ADD COLUMN surplus_uplink bigint,
  ADD COLUMN surplus_downlink bigint,
  ADD COLUMN state text NOT NULL DEFAULT 'active',
  ADD CONSTRAINT streams_before_check
    CHECK ((before_uplink IS NULL) = (before_downlink IS NULL)),
  ADD CONSTRAINT streams_surplus_check
    CHECK ((surplus_uplink IS NULL) = (surplus_downlink IS NULL)),
  ADD CONSTRAINT streams_state_check
    CHECK (state IN ('active', 'continued', 'duplicate', 'ignored'))
""",
)

ACCOUNT_DEBTS = """
CREATE TABLE billing.account_debts (
  stored_node_id text NOT NULL,
  account_key text NOT NULL,
  debt_bytes bigint NOT NULL,
  as_of timestamptz NOT NULL,
  PRIMARY KEY (stored_node_id, account_key)
)
"""

SUCCESSIONS = """
CREATE TABLE billing.successions (
  succession_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source_id text NOT NULL,
  stored_node_id text NOT NULL,
  at timestamptz NOT NULL,
  kind text NOT NULL,
  account_uuid uuid,
  uncertain_bytes bigint NOT NULL DEFAULT 0,
  run_id uuid NOT NULL,
  found_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT successions_kind_check CHECK (kind IN ('renamed', 'restart_revoked'))
)
"""

SUCCESSION_STREAMS = """
CREATE TABLE billing.succession_streams (
  succession_id bigint NOT NULL REFERENCES billing.successions,
  stream_id bigint NOT NULL REFERENCES billing.streams,
  side text NOT NULL,
  uplink_total bigint NOT NULL,
  downlink_total bigint NOT NULL,
  PRIMARY KEY (succession_id, stream_id, side),
  CONSTRAINT succession_streams_side_check CHECK (side IN ('ended', 'continued'))
)
"""

SOURCE_TOTALS = """
CREATE TABLE billing.source_totals (
  source_id text PRIMARY KEY,
  charged_bytes numeric NOT NULL DEFAULT 0,
  charged_amount numeric(30, 9) NOT NULL DEFAULT 0,
  new_streams bigint NOT NULL DEFAULT 0,
  successions bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50)
"""

GAPS = """
ALTER TABLE billing.gaps
  DROP CONSTRAINT gaps_kind_check,
  ADD COLUMN uncertain_bytes bigint NOT NULL DEFAULT 0,
  ADD CONSTRAINT gaps_kind_check
    CHECK (kind IN ('late', 'reset', 'history_lost', 'stalled', 'disorder', 'uncertain'))
"""

HELD_DELTAS = """
ALTER TABLE billing.held_deltas
  ADD COLUMN held_reason text NOT NULL DEFAULT 'account_rate',
  ADD CONSTRAINT held_deltas_held_reason_check
    CHECK (held_reason IN ('account_rate', 'line_rate', 'duplicate'))
"""

USAGE_RECORDS = "ALTER TABLE billing.usage_records ADD COLUMN run_id uuid"

INDEXES = (
    "CREATE INDEX successions_node ON billing.successions (stored_node_id, at)",
    "CREATE INDEX succession_streams_stream ON billing.succession_streams (stream_id)",
    (
        "CREATE INDEX pending_usage_waiting ON billing.pending_usage (stream_id) "
        "WHERE billed_at IS NULL"
    ),
)

# As `billing.lock_accounts`, for rows that no other session holds.
LOCK_AVAILABLE_ACCOUNTS = """
CREATE FUNCTION billing.lock_available_accounts(uuid[]) RETURNS SETOF uuid
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT users.uuid FROM public.users WHERE users.uuid = ANY ($1) ORDER BY users.uuid
     FOR KEY SHARE SKIP LOCKED
$$
"""

COMMENTS = {
    "TABLE billing.sources": "How far each source has been applied. A node belongs to one source. "
    "A run locks the rows of its sources.",
    "COLUMN billing.sources.watermark": "collected_at of the last snapshot applied; "
    "null before the first one.",
    "COLUMN billing.sources.samples_at": "The last snapshot applied that held samples; "
    "null where that is the watermark.",
    "COLUMN billing.sources.restarted_at": "The last restart of the node's process.",
    "COLUMN billing.sources.debt_bytes": "What the node used beyond its plausibility credit.",
    "COLUMN billing.sources.debt_at": "When the debt was this large; it shrinks from then on.",
    "COLUMN billing.sources.credit_since": "The baseline, from which the credit grows; "
    "null where it is full.",
    "COLUMN billing.sources.former_nodes": "Stored node ids whose counters continue "
    "under this node's.",
    "COLUMN billing.sources.moved_to": "The source that carries on what was collected from this.",
    "COLUMN billing.streams.before_uplink": "The total before the last restart, "
    "while that can be revoked.",
    "COLUMN billing.streams.before_downlink": "The total before the last restart, "
    "while that can be revoked.",
    "COLUMN billing.streams.surplus_uplink": "Charged because of a restart that was revoked: "
    "that much growth is not charged.",
    "COLUMN billing.streams.surplus_downlink": "Charged because of a restart that was revoked: "
    "that much growth is not charged.",
    "COLUMN billing.streams.state": "continued: goes on under another name; "
    "duplicate: held until an operator decides; ignored: never charged.",
    "TABLE billing.account_debts": "What accounts used on a node beyond their plausibility credit.",
    "TABLE billing.successions": "Counters that continue under other names, "
    "or after a restart that was none.",
    "TABLE billing.source_totals": "What all runs did together with each source.",
    "TABLE billing.succession_streams": "The totals that each stream handed over or took over.",
    "COLUMN billing.gaps.uncertain_bytes": "Not charged, because another reading charges less.",
    "COLUMN billing.held_deltas.held_reason": "Why it is not charged until an operator decides.",
    "COLUMN billing.usage_records.run_id": "The run that stored it; null before revision 0003.",
    "TABLE billing.pending_usage": "Usage of streams that have no account that can be charged, "
    "until it is.",
}

FORMER_COMMENTS = {
    "TABLE billing.sources": "How far each source has been applied. A node belongs to one source.",
    "COLUMN billing.sources.watermark": "collected_at of the last snapshot applied.",
    "TABLE billing.pending_usage": "Usage of streams whose account is unknown, merged per epoch "
    "until it appears.",
    "COLUMN billing.sources.samples_bytes": "How long the text of the samples at the watermark "
    "was; null where it is not known.",
    "COLUMN billing.sources.samples_digest": "Its SHA-256: what comes again with the same one is "
    "not decoded again.",
}

# The way back. What only this revision can express goes with its tables and columns.
DOWNGRADE = (
    "DROP FUNCTION billing.lock_available_accounts(uuid[])",
    "DROP INDEX billing.pending_usage_waiting",
    "ALTER TABLE billing.usage_records DROP COLUMN run_id",
    "ALTER TABLE billing.held_deltas DROP COLUMN held_reason",
    "DELETE FROM billing.gaps WHERE kind IN ('disorder', 'uncertain')",
    """
ALTER TABLE billing.gaps
  DROP COLUMN uncertain_bytes,
  DROP CONSTRAINT gaps_kind_check,
  ADD CONSTRAINT gaps_kind_check CHECK (kind IN ('late', 'reset', 'history_lost', 'stalled'))
""",
    (
        "DROP TABLE billing.succession_streams, billing.successions, billing.account_debts, "
        "billing.source_totals"
    ),
    """
ALTER TABLE billing.streams
  DROP COLUMN before_uplink, DROP COLUMN before_downlink, DROP COLUMN surplus_uplink,
  DROP COLUMN surplus_downlink, DROP COLUMN state
""",
    (
        "ALTER TABLE billing.streams RENAME CONSTRAINT streams_origin_check "
        "TO streams_first_sight_check"
    ),
    "ALTER TABLE billing.streams RENAME COLUMN origin TO first_sight",
    RENAME_NOT_NULL.format(old="origin", new="first_sight"),
    "DELETE FROM billing.sources WHERE watermark IS NULL",
    """
ALTER TABLE billing.sources
  DROP CONSTRAINT sources_known_check,
  DROP COLUMN samples_at, DROP COLUMN restarted_at, DROP COLUMN debt_bytes, DROP COLUMN debt_at,
  DROP COLUMN credit_since, DROP COLUMN former_nodes, DROP COLUMN moved_to,
  ALTER COLUMN env SET NOT NULL, ALTER COLUMN node_id SET NOT NULL,
  ALTER COLUMN stored_node_id SET NOT NULL, ALTER COLUMN contract SET NOT NULL,
  ALTER COLUMN first_snapshot_at SET NOT NULL, ALTER COLUMN watermark SET NOT NULL,
  ADD COLUMN samples_bytes bigint,
  ADD COLUMN samples_digest bytea,
  ADD CONSTRAINT sources_samples_check
    CHECK ((samples_bytes IS NULL) = (samples_digest IS NULL))
""",
)


def upgrade() -> None:
    for statement in (
        SOURCES,
        *STREAMS,
        ACCOUNT_DEBTS,
        SUCCESSIONS,
        SUCCESSION_STREAMS,
        SOURCE_TOTALS,
        GAPS,
        HELD_DELTAS,
        USAGE_RECORDS,
        *INDEXES,
        ENABLE_ALWAYS,
        LOCK_AVAILABLE_ACCOUNTS,
        "REVOKE ALL ON FUNCTION billing.lock_available_accounts(uuid[]) FROM PUBLIC",
    ):
        op.execute(statement)
    _comment(COMMENTS)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
    _comment(FORMER_COMMENTS)


def _comment(comments: dict[str, str]) -> None:
    for name, comment in comments.items():
        # The text passes through SQLAlchemy, to which a colon before a name is a parameter.
        text = comment.replace("'", "''").replace(":", r"\:")
        op.execute(f"COMMENT ON {name} IS '{text}'")
