"""The statements that write a step, in the order in which they are executed.

Those of arrears are in `database.arrears`, and listed here in their places. Locks and first quota
states (`database.accounts`), daily charges, totals and the row of the run have modules of their
own.

Each statement is set-based. Facts are inserted with ON CONFLICT DO NOTHING: what exists already is
not overwritten, and the row counts show that it was there. New streams, successions and the seal
are plain inserts. What goes on changing, such as streams, open pending usage, held deltas and gaps,
has statements of its own that update it.

Usage records and charges come from the two staging tables, in which they are canonical lines
(`core.canonical`); all else is few rows or few columns and comes as parameters
(`database.parameters`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from billing_cli.database import parameters
from billing_cli.database.arrears import CLEAR_ARREARS, RECORD_ARREARS
from billing_cli.database.begin import IS_MOMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STAGING_TABLES = (
    """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_usage (
  bucket_start timestamptz, stream_id bigint, from_at timestamptz, revision integer,
  to_at timestamptz, reset_epoch integer, uplink_start bigint, uplink_end bigint,
  downlink_start bigint, downlink_end bigint, account_uuid uuid, kind text
) ON COMMIT DROP
""",
    # After the line of the charge: its place among the ledger's new rows, the bytes of the new
    # bucket that it is for (NULL where an existing bucket is corrected), and when it was staged.
    """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_charge (
  bucket_start timestamptz, account_uuid uuid, ledger_id uuid, entry_type text, adjusts uuid,
  stored_node_id text, region text, line_code text, included_bytes bigint, rated_bytes bigint,
  price_per_byte numeric, multiplier numeric, amount_delta numeric, quota_before bigint,
  balance_before numeric, pricing_rule_version text, reason text,
  ordinal integer, uplink_bytes bigint, downlink_bytes bigint,
  written_at timestamptz DEFAULT statement_timestamp()
) ON COMMIT DROP
""",
    # All steps of a dry run share one transaction.
    "TRUNCATE pg_temp.staged_usage, pg_temp.staged_charge",
)

# A write begins with these. They are sent with the locks of its accounts, in one round trip.
BEGIN_WRITE = ("SAVEPOINT before_write", *STAGING_TABLES)
# Takes back all of a write, and its locks; another may begin then.
UNDO_WRITE = "ROLLBACK TO SAVEPOINT before_write"

# What is copied into the second one: all but the stamp.
STAGED_CHARGE: LiteralString = """
staged_charge (
  bucket_start, account_uuid, ledger_id, entry_type, adjusts, stored_node_id, region, line_code,
  included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta, quota_before,
  balance_before, pricing_rule_version, reason, ordinal, uplink_bytes, downlink_bytes)
"""

# The number of this transaction among those of its run: the seal, inserted after the facts, has it.
STEP = "(SELECT coalesce(max(step), 0) + 1 FROM billing.seals WHERE run_id = %(run_id)s)"

# The stamp of what this transaction writes. Charges are staged while their accounts are locked, so
# that stamps rise in the order in which balances were passed on, whichever transaction began first.
WRITTEN_AT = """
       coalesce((SELECT min(written_at) FROM pg_temp.staged_charge), statement_timestamp())"""

# New streams are inserted before anything is staged, because usage records carry their ids.
INSERT_STREAMS = """
INSERT INTO billing.streams
       (stored_node_id, inbound_tag, sample_uuid, account_uuid, origin, first_seen_at,
        first_uplink_total, first_downlink_total, seen_at, uplink_total, downlink_total,
        reset_epoch, absent_since, before_uplink, before_downlink, state, surplus_uplink,
        surplus_downlink)
SELECT stored_node_id, inbound_tag, sample_uuid, account_uuid, origin, first_seen_at,
       first_uplink_total, first_downlink_total, seen_at, uplink_total, downlink_total,
       reset_epoch, absent_since, before_uplink, before_downlink, state, surplus_uplink,
       surplus_downlink
  FROM jsonb_to_recordset(%(new_streams)s::jsonb) AS given (
       stored_node_id text, inbound_tag text, sample_uuid uuid, account_uuid uuid, origin text,
       first_seen_at timestamptz, first_uplink_total bigint, first_downlink_total bigint,
       seen_at timestamptz, uplink_total bigint, downlink_total bigint, reset_epoch integer,
       absent_since timestamptz, before_uplink bigint, before_downlink bigint, state text,
       surplus_uplink bigint, surplus_downlink bigint)
RETURNING stored_node_id, inbound_tag, sample_uuid::text, stream_id
"""

INSERT_USAGE_RECORDS = f"""
INSERT INTO billing.usage_records
       (bucket_start, stream_id, from_at, revision, to_at, reset_epoch, uplink_start, uplink_end,
        downlink_start, downlink_end, account_uuid, kind, run_id, step)
SELECT bucket_start, stream_id, from_at, revision, to_at, reset_epoch, uplink_start, uplink_end,
       downlink_start, downlink_end, account_uuid, kind, %(run_id)s, {STEP}
  FROM pg_temp.staged_usage
    ON CONFLICT (bucket_start, stream_id, from_at, revision) DO NOTHING
"""

# No column that an index holds changes as a rule, so that PostgreSQL can update in place (HOT).
UPDATE_STREAMS = """
UPDATE billing.streams AS stream
   SET account_uuid = coalesce(given.account_uuid, stream.account_uuid), seen_at = given.seen_at,
       uplink_total = given.uplink_total, downlink_total = given.downlink_total,
       reset_epoch = given.reset_epoch, absent_since = given.absent_since,
       before_uplink = given.before_uplink, before_downlink = given.before_downlink,
       state = given.state, surplus_uplink = given.surplus_uplink,
       surplus_downlink = given.surplus_downlink
  FROM (SELECT unnest(%(stream_ids)s::bigint[]) AS stream_id,
               unnest(%(stream_accounts)s::uuid[]) AS account_uuid,
               unnest(%(seen_ats)s::timestamptz[]) AS seen_at,
               unnest(%(uplink_totals)s::bigint[]) AS uplink_total,
               unnest(%(downlink_totals)s::bigint[]) AS downlink_total,
               unnest(%(epochs)s::integer[]) AS reset_epoch,
               unnest(%(absents)s::timestamptz[]) AS absent_since,
               unnest(%(before_uplinks)s::bigint[]) AS before_uplink,
               unnest(%(before_downlinks)s::bigint[]) AS before_downlink,
               unnest(%(states)s::text[]) AS state,
               unnest(%(surplus_uplinks)s::bigint[]) AS surplus_uplink,
               unnest(%(surplus_downlinks)s::bigint[]) AS surplus_downlink) AS given
 WHERE stream.stream_id = given.stream_id
"""

# Streams that found their account without having changed.
ASSIGN_STREAMS = """
UPDATE billing.streams AS stream
   SET account_uuid = given.account_uuid
  FROM unnest(%(assigned_ids)s::bigint[], %(assigned_accounts)s::uuid[])
    AS given (stream_id, account_uuid)
 WHERE stream.stream_id = given.stream_id
"""

# The shared checkpoint has no inbounds: it carries the sum over the account's streams on a node,
# after they were updated, without those that continue under other names. An account whose last
# stream moved to another account is left at 0.
UPSERT_SHARED_CHECKPOINTS = """
INSERT INTO public.traffic_stat_checkpoints
       (node_id, account_uuid, last_uplink_total, last_downlink_total, last_seen_at, reset_epoch)
SELECT given.node_id, given.account_uuid,
       least(coalesce(sum(stream.uplink_total), 0), 9223372036854775807)::bigint,
       least(coalesce(sum(stream.downlink_total), 0), 9223372036854775807)::bigint,
       max(coalesce(stream.absent_since, given.samples_at)),
       coalesce(max(stream.reset_epoch), 0)
  FROM unnest(%(checkpoint_nodes)s::text[], %(checkpoint_accounts)s::uuid[],
              %(checkpoint_stamps)s::timestamptz[]) AS given (node_id, account_uuid, samples_at)
  LEFT JOIN billing.streams AS stream
    ON stream.stored_node_id = given.node_id AND stream.account_uuid = given.account_uuid
   AND stream.state = 'active'
 GROUP BY given.node_id, given.account_uuid
 ORDER BY given.account_uuid, given.node_id
    ON CONFLICT (node_id, account_uuid) DO UPDATE
   SET last_uplink_total = excluded.last_uplink_total,
       last_downlink_total = excluded.last_downlink_total,
       last_seen_at = excluded.last_seen_at,
       reset_epoch = excluded.reset_epoch,
       updated_at = now()
"""

# An account that another session holds can't get a shared checkpoint, which refers to it.
UPSERT_STALE_CHECKPOINTS = """
INSERT INTO billing.stale_checkpoints (stored_node_id, account_uuid, is_stale, noted_at)
SELECT node, account, is_stale, %(now)s
  FROM jsonb_to_recordset(%(stale)s::jsonb) AS given (node text, account uuid, is_stale boolean)
 ORDER BY account, node
    ON CONFLICT (stored_node_id, account_uuid) DO UPDATE
   SET is_stale = excluded.is_stale, noted_at = excluded.noted_at
"""

INSERT_BUCKETS = """
INSERT INTO public.traffic_minute_buckets
       (bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
        total_bytes, multiplier, rating_status, source_revision, created_at)
SELECT bucket_start, stored_node_id, account_uuid, region, line_code, uplink_bytes,
       downlink_bytes, uplink_bytes + downlink_bytes, multiplier, 'rated', pricing_rule_version,
       written_at
  FROM pg_temp.staged_charge
 WHERE uplink_bytes IS NOT NULL
 ORDER BY ordinal
    ON CONFLICT (bucket_start, node_id, account_uuid, region, line_code) DO NOTHING
"""

# A bucket row is brought to the corrected figure: unlike charges, buckets are not append-only.
ADJUST_BUCKETS = f"""
INSERT INTO public.traffic_minute_buckets AS bucket
       (bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
        total_bytes, multiplier, rating_status, source_revision, created_at)
SELECT bucket_start, node_id, account_uuid, region, line_code, uplink_bytes, downlink_bytes,
       uplink_bytes + downlink_bytes, multiplier, 'rated', %(pricing_rule_version)s, {WRITTEN_AT}
  FROM unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(account_uuids)s::uuid[],
              %(regions)s::text[], %(lines)s::text[], %(uplinks)s::bigint[],
              %(downlinks)s::bigint[], %(multipliers)s::double precision[])
    AS given (bucket_start, node_id, account_uuid, region, line_code,
              uplink_bytes, downlink_bytes, multiplier)
 ORDER BY bucket_start, node_id, account_uuid, region, line_code
    ON CONFLICT (bucket_start, node_id, account_uuid, region, line_code) DO UPDATE
   SET uplink_bytes = bucket.uplink_bytes + excluded.uplink_bytes,
       downlink_bytes = bucket.downlink_bytes + excluded.downlink_bytes,
       total_bytes = bucket.total_bytes + excluded.total_bytes,
       updated_at = now()
"""

INSERT_CHARGES = f"""
INSERT INTO billing.charges
       (ledger_id, entry_type, adjusts, bucket_start, stored_node_id, account_uuid, region,
        line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
        quota_before, balance_before, pricing_rule_version, run_id, reason, step, ordinal,
        created_at)
SELECT ledger_id, entry_type, adjusts, bucket_start, stored_node_id, account_uuid, region,
       line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
       quota_before, balance_before, pricing_rule_version, %(run_id)s, reason, {STEP}, ordinal,
       written_at
  FROM pg_temp.staged_charge
    ON CONFLICT (bucket_start, account_uuid, ledger_id) DO NOTHING
"""

# Created-at rises in bucket order, because readers take the newest entries by it.
INSERT_LEDGER_ENTRIES = """
INSERT INTO public.billing_ledger
       (id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes, amount_delta,
        balance_after, pricing_rule_version, created_at)
SELECT ledger_id, account_uuid, bucket_start, bucket_start + interval '1 minute', entry_type,
       rated_bytes, amount_delta, balance_before + amount_delta, pricing_rule_version,
       written_at + ordinal * interval '1 microsecond'
  FROM pg_temp.staged_charge
 ORDER BY ordinal
    ON CONFLICT (id) DO NOTHING
"""

# A renewal is seen once: by the first run that locks the quota state after it.
INSERT_QUOTA_PERIODS = f"""
INSERT INTO billing.quota_periods
       (account_uuid, period_start, quota_bytes, included_before, former_quota_bytes, run_id,
        seen_at)
SELECT account_uuid, period_start, quota_bytes, included_before, former_quota_bytes, %(run_id)s,
       {WRITTEN_AT}
  FROM jsonb_to_recordset(%(quota_periods)s::jsonb)
    AS given (account_uuid uuid, period_start timestamptz, quota_bytes bigint,
              included_before bigint, former_quota_bytes bigint)
    ON CONFLICT (account_uuid, period_start) DO NOTHING
"""

# What late minutes leave of the quota of their period.
UPDATE_FORMER_QUOTAS = """
UPDATE billing.quota_periods AS period
   SET former_quota_bytes = given.former_quota
  FROM jsonb_to_recordset(%(former_quotas)s::jsonb)
    AS given (account_uuid uuid, period_start timestamptz, former_quota bigint)
 WHERE period.account_uuid = given.account_uuid AND period.period_start = given.period_start
"""

# The rows were locked in key order before; updating them last keeps the waiting of others short.
UPDATE_QUOTA_STATES = """
UPDATE public.account_quota_states AS state
   SET remaining_included_quota = given.quota,
       current_balance = given.balance,
       arrears = state.arrears OR given.balance < 0,
       {arrears_since}
       throttle_state = CASE WHEN given.balance < 0 THEN 'throttled' ELSE state.throttle_state END,
       last_rated_bucket_at = greatest(state.last_rated_bucket_at, given.last_bucket),
       effective_at = now(),
       updated_at = now()
  FROM (SELECT unnest(%(quota_accounts)s::uuid[]) AS account_uuid,
               unnest(%(quotas)s::bigint[]) AS quota,
               unnest(%(balances)s::double precision[]) AS balance,
               unnest(%(last_buckets)s::timestamptz[]) AS last_bucket) AS given
 WHERE state.account_uuid = given.account_uuid
"""

# Arrears that a top-up had ended begin anew; those that another service raised go on.
ARREARS_SINCE = """
       arrears_since = CASE WHEN given.balance >= 0 THEN state.arrears_since
                            WHEN state.current_balance >= 0
                                 AND (SELECT flag.is_flag_ours FROM billing.arrears AS flag
                                       WHERE flag.account_uuid = state.account_uuid) THEN now()
                            ELSE coalesce(state.arrears_since, now()) END,
"""

MARK_PENDING_BILLED = """
UPDATE billing.pending_usage AS pending
   SET billed_at = %(now)s
  FROM unnest(%(billed_ids)s::bigint[], %(billed_froms)s::timestamptz[]) AS given (id, from_at)
 WHERE pending.stream_id = given.id AND pending.from_at = given.from_at AND billed_at IS NULL
"""

RECORD_COLUMNS = """
       stream_id bigint, bucket_start timestamptz, from_at timestamptz, to_at timestamptz,
       reset_epoch integer, uplink_start bigint, uplink_end bigint, downlink_start bigint,
       downlink_end bigint, held_reason text"""

# Pending usage is kept by the minute for a day. What follows then extends the last row of its hour,
# so that a uuid that never gets an account takes at most 24 rows a day.
EXTEND_PENDING_USAGE = f"""
UPDATE billing.pending_usage AS pending
   SET to_at = given.to_at, uplink_end = given.uplink_end, downlink_end = given.downlink_end
  FROM jsonb_to_recordset(%(pending)s::jsonb) AS given ({RECORD_COLUMNS})
 WHERE pending.stream_id = given.stream_id AND pending.billed_at IS NULL
   AND pending.reset_epoch = given.reset_epoch AND pending.uplink_end = given.uplink_start
   AND pending.downlink_end = given.downlink_start
   AND date_trunc('hour', pending.to_at) = date_trunc('hour', given.to_at)
   AND pending.from_at = (SELECT max(last.from_at) FROM billing.pending_usage AS last
                           WHERE last.stream_id = given.stream_id)
   AND given.to_at > (SELECT min(first.from_at) + interval '1 day'
                        FROM billing.pending_usage AS first
                       WHERE first.stream_id = given.stream_id AND first.billed_at IS NULL)
"""

INSERT_PENDING_USAGE = f"""
INSERT INTO billing.pending_usage
       (stream_id, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end)
SELECT stream_id, from_at, to_at, reset_epoch,
       uplink_start, uplink_end, downlink_start, downlink_end
  FROM jsonb_to_recordset(%(pending)s::jsonb) AS given ({RECORD_COLUMNS})
 WHERE NOT EXISTS (SELECT FROM billing.pending_usage AS extended
                    WHERE extended.stream_id = given.stream_id AND extended.billed_at IS NULL
                      AND extended.from_at < given.from_at AND extended.to_at = given.to_at)
    ON CONFLICT (stream_id, from_at) DO NOTHING
"""

# What a duplicate stream moves is one open row for each epoch of its counters.
EXTEND_HELD_DELTAS = f"""
UPDATE billing.held_deltas AS held
   SET to_at = given.to_at, uplink_end = given.uplink_end, downlink_end = given.downlink_end
  FROM jsonb_to_recordset(%(held)s::jsonb) AS given ({RECORD_COLUMNS})
 WHERE held.stream_id = given.stream_id AND held.reset_epoch = given.reset_epoch
   AND held.state = 'held' AND held.held_reason = 'duplicate' AND given.held_reason = 'duplicate'
   AND held.uplink_end = given.uplink_start AND held.downlink_end = given.downlink_start
"""

INSERT_HELD_DELTAS = f"""
INSERT INTO billing.held_deltas
       (stream_id, bucket_start, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end, held_reason)
SELECT stream_id, bucket_start, from_at, to_at, reset_epoch,
       uplink_start, uplink_end, downlink_start, downlink_end, held_reason
  FROM jsonb_to_recordset(%(held)s::jsonb) AS given ({RECORD_COLUMNS})
 WHERE NOT EXISTS (SELECT FROM billing.held_deltas AS extended
                    WHERE extended.stream_id = given.stream_id
                      AND extended.held_reason = 'duplicate' AND extended.state = 'held'
                      AND extended.from_at < given.from_at AND extended.to_at = given.to_at)
    ON CONFLICT (stream_id, from_at) DO NOTHING
"""

# New samples end what had stalled.
END_STALLED = """
UPDATE billing.gaps AS gap
   SET to_at = given.first_at, resolved_at = %(now)s, resolution = 'snapshots came again'
  FROM jsonb_to_recordset(%(sources)s::jsonb) AS given (
       source_id text, first_at timestamptz, samples_at timestamptz)
 WHERE gap.source_id = given.source_id AND gap.kind = 'stalled' AND gap.resolved_at IS NULL
   AND gap.from_at < given.samples_at
"""

# A gap is recorded once. One without an end is open: it ends with the next snapshot.
INSERT_GAPS = """
INSERT INTO billing.gaps (source_id, kind, from_at, to_at, streams, uncertain_bytes)
SELECT source_id, kind, from_at, to_at, streams, uncertain_bytes
  FROM jsonb_to_recordset(%(gaps)s::jsonb)
    AS given (source_id text, kind text, from_at timestamptz, to_at timestamptz, streams integer,
              uncertain_bytes bigint)
    ON CONFLICT (source_id, kind, from_at) DO NOTHING
"""

INSERT_SUCCESSIONS = """
WITH given AS (
  SELECT *
    FROM jsonb_to_recordset(%(successions)s::jsonb)
      AS given (number integer, source_id text, stored_node_id text, at timestamptz, kind text,
                account_uuid uuid, uncertain_bytes bigint, streams jsonb)
), added AS (
  INSERT INTO billing.successions
         (source_id, stored_node_id, at, kind, account_uuid, uncertain_bytes, run_id)
  SELECT source_id, stored_node_id, at, kind, account_uuid, uncertain_bytes, %(run_id)s
    FROM given
   ORDER BY number
  RETURNING succession_id
)
INSERT INTO billing.succession_streams
       (succession_id, stream_id, side, uplink_total, downlink_total)
SELECT added.succession_id, stream.stream_id, side, uplink_total, downlink_total
  FROM given
  JOIN (SELECT succession_id, row_number() OVER (ORDER BY succession_id) AS number FROM added)
    AS added USING (number)
 CROSS JOIN jsonb_to_recordset(given.streams)
    AS stream (stream_id bigint, side text, uplink_total bigint, downlink_total bigint)
"""

# A transaction that wrote no facts has no seal.
INSERT_SEAL = f"""
INSERT INTO billing.seals
       (run_id, step, job, created_at, first_bucket, last_bucket, records, records_sha256, charges,
        charges_sha256, record_checks, charge_checks)
SELECT %(run_id)s, {STEP}, %(job)s, {WRITTEN_AT}, %(first_bucket)s, %(last_bucket)s,
       %(sealed_records)s, %(records_sha256)s, %(sealed_charges)s, %(charges_sha256)s,
       %(record_checks)s, %(charge_checks)s
 WHERE %(first_bucket)s::timestamptz IS NOT NULL
"""

# The watermark only ever rises.
UPSERT_SOURCES = """
INSERT INTO billing.sources AS own
       (source_id, env, node_id, stored_node_id, contract, first_snapshot_at, watermark,
        samples_at, restarted_at, debt_bytes, debt_at, credit_since)
SELECT source_id, env, node_id, stored_node_id, contract, first_at, watermark,
       samples_at, restarted_at, debt_bytes, debt_at, credit_since
  FROM jsonb_to_recordset(%(sources)s::jsonb)
    AS given (source_id text, env text, node_id text, stored_node_id text, contract text,
              first_at timestamptz, watermark timestamptz, samples_at timestamptz,
              restarted_at timestamptz, debt_bytes bigint, debt_at timestamptz,
              credit_since timestamptz)
 ORDER BY source_id
    ON CONFLICT (source_id) DO UPDATE
   SET env = excluded.env, node_id = excluded.node_id, stored_node_id = excluded.stored_node_id,
       contract = excluded.contract, watermark = excluded.watermark,
       first_snapshot_at = coalesce(own.first_snapshot_at, excluded.first_snapshot_at),
       samples_at = excluded.samples_at, restarted_at = excluded.restarted_at,
       debt_bytes = excluded.debt_bytes, debt_at = excluded.debt_at,
       credit_since = excluded.credit_since, updated_at = now(),
       former_nodes = CASE WHEN own.stored_node_id = excluded.stored_node_id
                           THEN own.former_nodes ELSE ARRAY[]::text[] END
 WHERE own.watermark IS NULL OR own.watermark < excluded.watermark
"""

# The debts of a node's accounts are replaced; one that is settled stays as a row with 0.
SETTLE_ACCOUNT_DEBTS = """
UPDATE billing.account_debts AS debt
   SET debt_bytes = 0, as_of = given.watermark
  FROM jsonb_to_recordset(%(sources)s::jsonb)
    AS given (stored_node_id text, watermark timestamptz)
 WHERE debt.stored_node_id = given.stored_node_id AND debt.debt_bytes > 0
"""

UPSERT_ACCOUNT_DEBTS = """
INSERT INTO billing.account_debts (stored_node_id, account_key, debt_bytes, as_of)
SELECT stored_node_id, account_key, debt_bytes, as_of
  FROM jsonb_to_recordset(%(debts)s::jsonb)
    AS given (stored_node_id text, account_key text, debt_bytes bigint, as_of timestamptz)
    ON CONFLICT (stored_node_id, account_key) DO UPDATE
   SET debt_bytes = excluded.debt_bytes, as_of = excluded.as_of
"""

# What accounts.svc.plus sees of a source: attempts and errors always, progress only forward.
UPSERT_SYNC_STATE = f"""
INSERT INTO public.billing_source_sync_state AS shared
       (source_id, last_completed_until, last_attempted_at, last_succeeded_at, last_error,
        updated_at)
SELECT source_id, watermark, %(now)s, CASE WHEN error = '' THEN %(now)s::timestamptz END, error,
       now()
  FROM jsonb_to_recordset(%(attempts)s::jsonb)
    AS given (source_id text, watermark timestamptz, error text)
 ORDER BY source_id
    ON CONFLICT (source_id) DO UPDATE
   SET last_completed_until = greatest(
         CASE WHEN shared.last_completed_until {IS_MOMENT} THEN shared.last_completed_until END,
         excluded.last_completed_until),
       last_attempted_at = excluded.last_attempted_at,
       last_succeeded_at = coalesce(excluded.last_succeeded_at, shared.last_succeeded_at),
       last_error = excluded.last_error,
       updated_at = now()
"""


class Statement(NamedTuple):
    """A statement of the write path; `name` is what it writes.

    `parameters` makes its parameters of the facts, when it is sent.
    """

    name: str
    sql: LiteralString
    parameters: Callable[[Any], Mapping[str, object]] = parameters.nothing


SEAL = Statement("seal", INSERT_SEAL, parameters.seal)

RECORD = (
    Statement("usage records", INSERT_USAGE_RECORDS),
    Statement("streams", UPDATE_STREAMS, parameters.changed_streams),
    Statement("assigned streams", ASSIGN_STREAMS, parameters.assigned_streams),
    Statement("shared checkpoints", UPSERT_SHARED_CHECKPOINTS, parameters.shared_checkpoints),
    Statement("stale checkpoints", UPSERT_STALE_CHECKPOINTS, parameters.stale_checkpoints),
)
"""What is written of the sources that moved, while their charges are computed."""

CHARGE = (
    Statement("buckets", INSERT_BUCKETS),
    Statement("corrected buckets", ADJUST_BUCKETS, parameters.corrected_buckets),
    Statement("charges", INSERT_CHARGES),
    # After the charges: a ledger row of ours has its evidence.
    Statement("ledger", INSERT_LEDGER_ENTRIES),
    Statement("quota periods", INSERT_QUOTA_PERIODS, parameters.quota_periods),
    Statement("former quotas", UPDATE_FORMER_QUOTAS, parameters.former_quotas),
    # Before the quota states: it reads the balances that were found.
    Statement("recorded arrears", RECORD_ARREARS, parameters.arrears),
    Statement("quota states", UPDATE_QUOTA_STATES, parameters.quota_states),
)
"""What is written of charges."""

ADVANCE = (
    Statement("billed pending usage", MARK_PENDING_BILLED, parameters.billed_pending),
    Statement("extended pending usage", EXTEND_PENDING_USAGE, parameters.pending),
    Statement("pending usage", INSERT_PENDING_USAGE, parameters.pending),
    Statement("extended held deltas", EXTEND_HELD_DELTAS, parameters.held),
    Statement("held deltas", INSERT_HELD_DELTAS, parameters.held),
    Statement("ended gaps", END_STALLED, parameters.sources),
    Statement("gaps", INSERT_GAPS, parameters.gaps),
    Statement("successions", INSERT_SUCCESSIONS, parameters.successions),
    SEAL,
    # Last of the facts: the watermark says that all of the above is stored.
    Statement("sources", UPSERT_SOURCES, parameters.sources),
    Statement("settled debts", SETTLE_ACCOUNT_DEBTS, parameters.sources),
    Statement("debts", UPSERT_ACCOUNT_DEBTS, parameters.debts),
)
"""What is written of the sources that moved, after their charges."""

FINISH = (
    Statement("new gaps", INSERT_GAPS, parameters.open_gaps),
    Statement("cleared arrears", CLEAR_ARREARS),
    Statement("sync state", UPSERT_SYNC_STATE, parameters.attempts),
)
"""What every step writes afterwards, of all its sources; the row of the run follows."""

FINISH_SOURCES = tuple(statement for statement in FINISH if statement.name != "cleared arrears")
"""The same, of the sources alone: where an account without traffic is to blame for a failure."""

CORRECT = (RECORD[0], *CHARGE[1:], SEAL, Statement("cleared arrears", CLEAR_ARREARS))
"""What corrections write, with or without usage records of their own."""
