"""Own tables beside the shared ones.

Written in SQL, as a migration stays what it was while the declaration in
`billing_cli/database/metadata.py` moves on; a test holds that both still lead to the same schema.
"""

from __future__ import annotations

from alembic import op

from billing_cli.database.shared_metadata import create_if_missing, shared_metadata

revision = "0001"
down_revision = None

SOURCES = """
CREATE TABLE billing.sources (
  source_id text PRIMARY KEY,
  env text NOT NULL,
  node_id text NOT NULL,
  stored_node_id text NOT NULL UNIQUE,
  contract text NOT NULL CHECK (contract IN ('window', 'latest')),
  first_snapshot_at timestamptz NOT NULL,
  watermark timestamptz NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT sources_watermark_check CHECK (first_snapshot_at <= watermark)
) WITH (fillfactor = 50)
"""

STREAMS = """
CREATE TABLE billing.streams (
  stream_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stored_node_id text NOT NULL,
  inbound_tag text NOT NULL,
  sample_uuid uuid NOT NULL,
  account_uuid uuid,
  first_sight text NOT NULL CHECK (first_sight IN ('baseline', 'new', 'taken_over')),
  first_seen_at timestamptz NOT NULL,
  first_uplink_total bigint NOT NULL,
  first_downlink_total bigint NOT NULL,
  seen_at timestamptz NOT NULL,
  uplink_total bigint NOT NULL CHECK (uplink_total >= 0),
  downlink_total bigint NOT NULL CHECK (downlink_total >= 0),
  reset_epoch integer NOT NULL DEFAULT 0,
  absent_since timestamptz,
  UNIQUE (stored_node_id, inbound_tag, sample_uuid)
) WITH (
  fillfactor = 45, autovacuum_vacuum_scale_factor = 1, autovacuum_vacuum_cost_delay = 0
)
"""

# Minutes come in order, so that a key that begins with the minute grows at its right edge; one that
# begins with the stream would touch a page of the index for each stream and minute.
USAGE_RECORDS = """
CREATE TABLE billing.usage_records (
  bucket_start timestamptz NOT NULL,
  stream_id bigint NOT NULL,
  from_at timestamptz NOT NULL,
  revision integer NOT NULL DEFAULT 0,
  reset_epoch integer NOT NULL,
  to_at timestamptz NOT NULL,
  uplink_start bigint NOT NULL,
  uplink_end bigint NOT NULL,
  downlink_start bigint NOT NULL,
  downlink_end bigint NOT NULL,
  account_uuid uuid NOT NULL,
  kind text NOT NULL DEFAULT 'delta'
    CHECK (kind IN ('delta', 'pending', 'released', 'correction')),
  PRIMARY KEY (bucket_start, stream_id, from_at, revision),
  CONSTRAINT usage_records_growth_check CHECK (
    kind = 'correction' OR (uplink_end >= uplink_start AND downlink_end >= downlink_start)
  )
) PARTITION BY RANGE (bucket_start)
"""

PENDING_USAGE = """
CREATE TABLE billing.pending_usage (
  stream_id bigint NOT NULL REFERENCES billing.streams,
  from_at timestamptz NOT NULL,
  reset_epoch integer NOT NULL,
  to_at timestamptz NOT NULL,
  uplink_start bigint NOT NULL,
  uplink_end bigint NOT NULL,
  downlink_start bigint NOT NULL,
  downlink_end bigint NOT NULL,
  billed_at timestamptz,
  PRIMARY KEY (stream_id, from_at)
) WITH (fillfactor = 60)
"""

HELD_DELTAS = """
CREATE TABLE billing.held_deltas (
  held_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream_id bigint NOT NULL REFERENCES billing.streams,
  bucket_start timestamptz NOT NULL,
  from_at timestamptz NOT NULL,
  reset_epoch integer NOT NULL,
  to_at timestamptz NOT NULL,
  uplink_start bigint NOT NULL,
  uplink_end bigint NOT NULL,
  downlink_start bigint NOT NULL,
  downlink_end bigint NOT NULL,
  found_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'released', 'rejected')),
  decided_at timestamptz,
  reason text NOT NULL DEFAULT '',
  UNIQUE (stream_id, from_at)
)
"""

CHARGES = """
CREATE TABLE billing.charges (
  bucket_start timestamptz NOT NULL,
  included_bytes bigint NOT NULL,
  rated_bytes bigint NOT NULL,
  quota_before bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  account_uuid uuid NOT NULL,
  ledger_id uuid NOT NULL,
  run_id uuid NOT NULL,
  adjusts uuid,
  entry_type text NOT NULL CHECK (entry_type IN ('traffic_charge', 'traffic_adjustment')),
  stored_node_id text NOT NULL,
  region text NOT NULL,
  line_code text NOT NULL,
  price_per_byte numeric NOT NULL,
  multiplier numeric NOT NULL,
  amount_delta numeric(30, 9) NOT NULL,
  balance_before numeric(30, 9) NOT NULL,
  pricing_rule_version text NOT NULL,
  reason text NOT NULL DEFAULT '',
  PRIMARY KEY (bucket_start, account_uuid, ledger_id)
) PARTITION BY RANGE (bucket_start)
"""

GAPS = """
CREATE TABLE billing.gaps (
  gap_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source_id text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('late', 'reset', 'history_lost', 'stalled')),
  from_at timestamptz NOT NULL,
  to_at timestamptz,
  streams integer NOT NULL DEFAULT 0,
  found_at timestamptz NOT NULL DEFAULT now(),
  resolved_at timestamptz,
  resolution text NOT NULL DEFAULT '',
  UNIQUE (source_id, kind, from_at)
)
"""

RUNS = """
CREATE TABLE billing.runs (
  run_id uuid PRIMARY KEY,
  job text NOT NULL,
  status text NOT NULL CHECK (status IN ('ok', 'partial', 'error', 'busy')),
  started_at timestamptz NOT NULL,
  finished_at timestamptz NOT NULL,
  host text NOT NULL,
  version text NOT NULL,
  error text,
  result jsonb NOT NULL
)
"""

TOTALS = """
CREATE TABLE billing.totals (
  job text PRIMARY KEY,
  last_status text NOT NULL,
  last_started_at timestamptz NOT NULL,
  last_finished_at timestamptz NOT NULL,
  last_success_at timestamptz,
  runs bigint NOT NULL,
  failed_runs bigint NOT NULL,
  samples bigint NOT NULL,
  written_minutes bigint NOT NULL,
  replayed_minutes bigint NOT NULL,
  included_bytes bigint NOT NULL,
  returned_included_bytes bigint NOT NULL,
  charged_bytes bigint NOT NULL,
  returned_charged_bytes bigint NOT NULL,
  charged_amount numeric(30, 9) NOT NULL,
  returned_amount numeric(30, 9) NOT NULL,
  corrections bigint NOT NULL,
  resets bigint NOT NULL,
  gaps bigint NOT NULL,
  rejected_samples bigint NOT NULL,
  held_deltas bigint NOT NULL,
  violations bigint,
  notices bigint
) WITH (fillfactor = 50)
"""

PRUNED = """
CREATE TABLE billing.pruned (
  month timestamptz NOT NULL,
  account_uuid uuid NOT NULL,
  records bigint NOT NULL,
  recorded_bytes numeric NOT NULL,
  charges bigint NOT NULL,
  included_bytes numeric NOT NULL,
  rated_bytes numeric NOT NULL,
  amount_delta numeric(30, 9) NOT NULL,
  buckets bigint NOT NULL,
  bucket_bytes numeric NOT NULL,
  ledger_rows bigint NOT NULL,
  ledger_amount numeric NOT NULL,
  pruned_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (month, account_uuid)
)
"""

PRUNED_STREAMS = """
CREATE TABLE billing.pruned_streams (
  stream_id bigint PRIMARY KEY,
  reset_epoch integer NOT NULL,
  from_at timestamptz NOT NULL,
  to_at timestamptz NOT NULL,
  uplink_end bigint NOT NULL,
  downlink_end bigint NOT NULL
)
"""

PRUNED_CHARGES = """
CREATE TABLE billing.pruned_charges (
  ledger_id uuid PRIMARY KEY,
  account_uuid uuid NOT NULL,
  created_at timestamptz NOT NULL,
  included_bytes bigint NOT NULL,
  amount_delta numeric(30, 9) NOT NULL,
  quota_before bigint NOT NULL,
  balance_before numeric(30, 9) NOT NULL
)
"""

INDEXES = (
    "CREATE INDEX streams_account ON billing.streams (account_uuid, stored_node_id)",
    (
        "CREATE INDEX streams_unresolved ON billing.streams (stored_node_id) "
        "WHERE account_uuid IS NULL"
    ),
    "CREATE INDEX held_deltas_waiting ON billing.held_deltas (stream_id) WHERE state = 'held'",
    "CREATE INDEX runs_started ON billing.runs (started_at DESC)",
    "CREATE INDEX pruned_charges_account ON billing.pruned_charges (account_uuid)",
)

# No percent sign: it would need one escape where the driver reads it and none in a script.
REFUSE_CHANGE = """
CREATE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'restrict_violation',
    MESSAGE = TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME || ' is append-only: '
              || TG_OP || ' is refused';
END
$$
"""

# For each statement, not each row: TRUNCATE has no rows.
APPEND_ONLY = """
CREATE TRIGGER {parent}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.{table}
FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change()
"""
# What no month's partition takes goes to the rest.
REST = "CREATE TABLE billing.{parent}_default PARTITION OF billing.{parent} DEFAULT"
PARTITIONS = tuple(
    statement
    for parent in ("usage_records", "charges")
    for statement in (
        APPEND_ONLY.format(parent=parent, table=parent),
        REST.format(parent=parent),
        APPEND_ONLY.format(parent=parent, table=f"{parent}_default"),
    )
)

# Locking a row takes the right to update it, which nobody but the accounts' owner should have. Who
# runs jobs may call this instead: it locks accounts as the role that migrates, and does no more.
LOCK_ACCOUNTS = """
CREATE FUNCTION billing.lock_accounts(uuid[]) RETURNS SETOF uuid
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT users.uuid FROM public.users WHERE users.uuid = ANY ($1) ORDER BY users.uuid FOR KEY SHARE
$$
"""

# Made first and attached then, so that writers of other months wait for neither.
MAKE_PARTITION = """
CREATE FUNCTION billing.make_partition(moment timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
  first timestamptz := date_trunc('month', moment);
  parent text;
  partition text;
  is_made boolean := false;
BEGIN
  FOREACH parent IN ARRAY ARRAY['usage_records', 'charges'] LOOP
    partition := 'billing.' || parent || '_' || to_char(first, 'YYYY_MM');
    CONTINUE WHEN to_regclass(partition) IS NOT NULL;
    EXECUTE 'CREATE TABLE ' || partition || ' (LIKE billing.' || parent
      || ' INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)';
    EXECUTE 'CREATE TRIGGER ' || parent || '_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON '
      || partition || ' FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change()';
    EXECUTE 'ALTER TABLE billing.' || parent || ' ATTACH PARTITION ' || partition
      || ' FOR VALUES FROM (' || quote_literal(first)
      || ') TO (' || quote_literal(first + interval '1 month') || ')';
    is_made := true;
  END LOOP;
  RETURN is_made;
END
$$
"""

# For who runs jobs: no arguments, no long waits, and no failure where a month can't be made now.
MAKE_PARTITIONS = """
CREATE FUNCTION billing.make_partitions() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '500ms' AS $$
DECLARE
  this_month timestamptz := date_trunc('month', now());
  ahead integer;
  made integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(27700462113877608) THEN
    RETURN 0;
  END IF;
  FOR ahead IN -1 .. 2 LOOP
    BEGIN
      IF billing.make_partition(this_month + ahead * interval '1 month') THEN
        made := made + 1;
      END IF;
    EXCEPTION WHEN lock_not_available OR check_violation THEN
      NULL;
    END;
  END LOOP;
  RETURN made;
END
$$
"""

FUNCTIONS = (
    REFUSE_CHANGE,
    LOCK_ACCOUNTS,
    "REVOKE ALL ON FUNCTION billing.lock_accounts(uuid[]) FROM PUBLIC",
    MAKE_PARTITION,
    "REVOKE ALL ON FUNCTION billing.make_partition(timestamptz) FROM PUBLIC",
    MAKE_PARTITIONS,
    "REVOKE ALL ON FUNCTION billing.make_partitions() FROM PUBLIC",
)

TABLES = (
    SOURCES,
    STREAMS,
    USAGE_RECORDS,
    PENDING_USAGE,
    HELD_DELTAS,
    CHARGES,
    GAPS,
    RUNS,
    TOTALS,
    PRUNED,
    PRUNED_STREAMS,
    PRUNED_CHARGES,
)

TABLE_COMMENTS = {
    "sources": "How far each source has been applied. A node belongs to one source.",
    "streams": "One counter pair each: where its evidence stands, and whose it is.",
    "usage_records": "Append-only evidence: what a stream moved in one minute. "
    "Bytes are end - start.",
    "pending_usage": "Usage of streams whose account is unknown, merged per epoch until it "
    "appears.",
    "held_deltas": "Deltas above what a line can carry, uncharged until an operator decides.",
    "charges": "Append-only evidence of each ledger row: what was included, rated, at which price.",
    "gaps": "Stretches of a source's time that its history does not plainly cover.",
    "runs": "The journal: one row for each run.",
    "totals": "One row a job: what all its runs did together, and how the last one ended.",
    "pruned": "What an account had in a month whose evidence was taken away: sums to audit by.",
    "pruned_streams": "Where a stream's pruned evidence ended, and what is left of it begins.",
    "pruned_charges": "Pruned charges written after what is left began: steps of its balances.",
}

COLUMN_COMMENTS = {
    "sources.stored_node_id": "As in the shared tables: env:node_id, or node_id without an env.",
    "sources.watermark": "collected_at of the last snapshot applied.",
    "streams.sample_uuid": "As the exporter wrote it: an account's uuid or its proxy uuid.",
    "streams.account_uuid": "No foreign key: evidence outlives the account.",
    "streams.seen_at": "The snapshot in which the totals last changed.",
    "streams.reset_epoch": "Counter restarts seen so far.",
    "streams.absent_since": "The last snapshot that held it, where a later one did not.",
    "usage_records.stream_id": "No foreign key: streams stay.",
    "usage_records.bucket_start": "The UTC minute that the bytes count in.",
    "usage_records.revision": "0 as collected; above 0 a correction.",
    "pending_usage.billed_at": "When it became usage records.",
    "charges.ledger_id": "The id in public.billing_ledger.",
    "charges.adjusts": "The charge that this row takes back or prices anew.",
    "charges.included_bytes": "Paid from the quota; negative where an adjustment gives back.",
    "charges.rated_bytes": "Beyond the quota; negative where an adjustment gives back.",
    "gaps.to_at": "Null while it lasts.",
    "gaps.streams": "How many streams it touches, where that is known.",
    "runs.result": "The result object as printed.",
    "pruned.month": "Its first instant, UTC.",
    "pruned.bucket_bytes": "In the shared buckets, whoever wrote them.",
    "pruned.ledger_amount": "In the shared ledger, whoever wrote it.",
    "totals.last_success_at": "The end of the last run that was ok or partial.",
    "totals.violations": "What the last audit found; null for other jobs.",
    "totals.notices": "What the last audit found; null for other jobs.",
}


def upgrade() -> None:
    for table in shared_metadata.sorted_tables:
        op.execute(create_if_missing(table))
    for statement in (*TABLES, *INDEXES, *FUNCTIONS, *PARTITIONS):
        op.execute(statement)
    for name, comment in TABLE_COMMENTS.items():
        op.execute(f"COMMENT ON TABLE billing.{name} IS {_quoted(comment)}")
    for name, comment in COLUMN_COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN billing.{name} IS {_quoted(comment)}")
    op.execute("SELECT billing.make_partitions()")


def downgrade() -> None:
    # The shared tables stay, even those that were created here: they may hold facts by now.
    names = ", ".join(f"billing.{name}" for name in TABLE_COMMENTS)
    op.execute(f"DROP TABLE {names}")
    op.execute("DROP FUNCTION billing.refuse_change()")
    op.execute("DROP FUNCTION billing.lock_accounts(uuid[])")
    op.execute("DROP FUNCTION billing.make_partition(timestamptz)")
    op.execute("DROP FUNCTION billing.make_partitions()")


def _quoted(comment: str) -> str:
    # The text passes through SQLAlchemy, to which a colon before a name is a parameter.
    return "'" + comment.replace("'", "''").replace(":", r"\:") + "'"
