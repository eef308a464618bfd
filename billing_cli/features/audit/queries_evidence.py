"""What an audit asks of the evidence: corrections, releases, checkpoints, watermarks.

Each statement returns what is wrong, one row each: `kind`, `account_uuid`, and columns named
`key.*`, `expected.*` and `found.*`. A NULL stands for a value that has no part in it.
"""

from __future__ import annotations

from billing_cli.database.spans import KEPT_SINCE, RECORDS

# A correction belongs to a cell, the record of its stream that begins where it does. What it starts
# from is what was on record for that minute of the cell: the correction before it, else the record
# itself, else nothing.
BROKEN_CORRECTIONS = f"""
WITH record AS NOT MATERIALIZED ({RECORDS}
), correction AS (
  SELECT *,
         lag(revision) OVER revisions AS before_revision,
         lag(uplink_end) OVER revisions AS preceding_uplink,
         lag(downlink_end) OVER revisions AS preceding_downlink
    FROM record
   WHERE kind = 'correction'
  WINDOW revisions AS (PARTITION BY stream_id, from_at, bucket_start ORDER BY revision)
), placed AS (
  SELECT correction.*, cell.account_uuid AS cell_account,
         coalesce(before_revision, 0) + 1 AS expected_revision,
         coalesce(preceding_uplink,
                  CASE WHEN cell.bucket_start = correction.bucket_start
                       THEN cell.uplink_end - cell.uplink_start END, 0) AS expected_uplink,
         coalesce(preceding_downlink,
                  CASE WHEN cell.bucket_start = correction.bucket_start
                       THEN cell.downlink_end - cell.downlink_start END, 0) AS expected_downlink
    FROM correction
    LEFT JOIN record AS cell
      ON cell.stream_id = correction.stream_id AND cell.from_at = correction.from_at
     AND cell.kind <> 'correction'
)
SELECT 'correction_broken' AS kind, account_uuid::text AS account_uuid,
       stream_id AS "key.stream_id", bucket_start AS "key.bucket_start",
       from_at AS "key.from_at", revision AS "key.revision",
       cell_account::text AS "expected.account_uuid", expected_revision AS "expected.revision",
       expected_uplink AS "expected.uplink_start", expected_downlink AS "expected.downlink_start",
       account_uuid::text AS "found.account_uuid", revision AS "found.revision",
       uplink_start AS "found.uplink_start", downlink_start AS "found.downlink_start"
  FROM placed
 WHERE cell_account IS DISTINCT FROM account_uuid OR revision <> expected_revision
    OR uplink_start <> expected_uplink OR downlink_start <> expected_downlink
 ORDER BY 2, 3, 4, 5, 6
"""

# Of new corrections. The delta that one is about may be of an earlier minute: it is found by its
# key, because both end at the same snapshot. One that was released is in the minute of its release.
BROKEN_NEW_CORRECTIONS = BROKEN_CORRECTIONS.replace(
    "LEFT JOIN record AS cell\n      ON ",
    "LEFT JOIN billing.usage_records AS cell\n"
    "      ON cell.bucket_start IN (correction.bucket_start,\n"
    "                               date_trunc('minute', correction.to_at, 'UTC')) AND ",
)

# Each held delta that was released has one record that charges it, with the same range.
UNMATCHED_RELEASES = f"""
WITH record AS NOT MATERIALIZED ({RECORDS}
), side AS (
  SELECT stream_id, reset_epoch, from_at, uplink_start, uplink_end, downlink_start, downlink_end,
         1 AS released, 0 AS recorded
    FROM billing.held_deltas
   WHERE state = 'released'
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, uplink_start, uplink_end, downlink_start, downlink_end,
         0, 1
    FROM record
   WHERE kind = 'released'
)
SELECT 'release_unmatched' AS kind, stream.account_uuid::text AS account_uuid,
       stream_id AS "key.stream_id", side.reset_epoch AS "key.reset_epoch",
       side.from_at AS "key.from_at", uplink_start AS "key.uplink_start",
       uplink_end AS "key.uplink_end", downlink_start AS "key.downlink_start",
       downlink_end AS "key.downlink_end",
       sum(released) AS "expected.records", sum(recorded) AS "found.records"
  FROM side
  LEFT JOIN billing.streams AS stream USING (stream_id)
 WHERE %(account)s::uuid IS NULL OR stream.account_uuid = %(account)s
 GROUP BY stream.account_uuid, stream_id, side.reset_epoch, side.from_at,
          uplink_start, uplink_end, downlink_start, downlink_end
HAVING sum(released) <> sum(recorded)
 ORDER BY 2, 3, 4, 5
"""

# Of deltas that were decided since the last clean audit, and of new records.
UNMATCHED_NEW_RELEASES = UNMATCHED_RELEASES.replace(
    "WHERE state = 'released'",
    "WHERE state = 'released'\n"
    "     AND (decided_at >= %(proven_at)s\n"
    "          OR (stream_id, from_at) IN (SELECT stream_id, from_at FROM record\n"
    "                                       WHERE kind = 'released'))",
)

# The shared watermark is ours, and no stream was seen after it.
DIFFERENT_WATERMARKS = """
SELECT 'watermark_differs' AS kind, NULL AS account_uuid,
       source.source_id AS "key.source_id", source.stored_node_id AS "key.node_id",
       greatest(source.watermark, seen.at) AS "expected.watermark",
       source.watermark AS "expected.last_completed_until",
       source.watermark AS "found.watermark",
       shared.last_completed_until AS "found.last_completed_until"
  FROM billing.sources AS source
  LEFT JOIN public.billing_source_sync_state AS shared USING (source_id)
  LEFT JOIN (SELECT stored_node_id, max(seen_at) AS at FROM billing.streams GROUP BY 1) AS seen
 USING (stored_node_id)
 WHERE source.watermark IS NOT NULL
   AND (source.watermark IS DISTINCT FROM shared.last_completed_until
        OR source.watermark < seen.at)
   AND (%(account)s::uuid IS NULL
        OR EXISTS (SELECT FROM billing.streams AS stream
                    WHERE stream.account_uuid = %(account)s
                      AND stream.stored_node_id = source.stored_node_id))
 ORDER BY source.source_id
"""

# The shared checkpoint knows no inbounds. It waits with the usage of an account that can't be
# charged for the time being, or that another session held when its streams changed. One that went
# with a deleted account, as its ledger did, comes again when a stream of the account changes on the
# node: that shows in a charge of the node whose ledger row is there, or, where charges were
# pruned, in a ledger row of that time.
DIFFERENT_SHARED_CHECKPOINTS = f"""
SELECT 'shared_checkpoint_differs' AS kind, ours.account_uuid::text AS account_uuid,
       ours.stored_node_id AS "key.node_id",
       least(ours.uplink, 9223372036854775807)::bigint AS "expected.last_uplink_total",
       least(ours.downlink, 9223372036854775807)::bigint AS "expected.last_downlink_total",
       coalesce(shared.last_uplink_total, 0) AS "found.last_uplink_total",
       coalesce(shared.last_downlink_total, 0) AS "found.last_downlink_total"
  FROM (SELECT stored_node_id, account_uuid,
               sum(uplink_total) AS uplink, sum(downlink_total) AS downlink,
               max(seen_at) AS seen_at
          FROM billing.streams
         WHERE account_uuid IS NOT NULL AND state = 'active'
           AND (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
         GROUP BY stored_node_id, account_uuid) AS ours
  JOIN public.users AS account ON account.uuid = ours.account_uuid
  LEFT JOIN public.traffic_stat_checkpoints AS shared
    ON shared.node_id = ours.stored_node_id AND shared.account_uuid = ours.account_uuid
 WHERE (coalesce(shared.last_uplink_total, 0) <> least(ours.uplink, 9223372036854775807)
        OR coalesce(shared.last_downlink_total, 0) <> least(ours.downlink, 9223372036854775807))
   AND NOT EXISTS (SELECT FROM billing.streams AS stream
                     JOIN billing.pending_usage AS pending USING (stream_id)
                    WHERE stream.account_uuid = ours.account_uuid
                      AND stream.stored_node_id = ours.stored_node_id
                      AND pending.billed_at IS NULL)
   AND NOT EXISTS (SELECT FROM billing.stale_checkpoints AS stale
                    WHERE stale.account_uuid = ours.account_uuid
                      AND stale.stored_node_id = ours.stored_node_id AND stale.is_stale)
   AND (shared.account_uuid IS NOT NULL
        OR EXISTS (SELECT FROM public.billing_ledger AS entry
                     JOIN billing.charges AS charge
                       ON charge.ledger_id = entry.id AND charge.account_uuid = entry.account_uuid
                      AND charge.bucket_start = entry.bucket_start
                    WHERE entry.account_uuid = ours.account_uuid
                      AND charge.stored_node_id = ours.stored_node_id)
        OR EXISTS (SELECT FROM public.billing_ledger AS entry
                    WHERE entry.account_uuid = ours.account_uuid
                      AND entry.bucket_start < least(ours.seen_at, {KEPT_SINCE})))
 ORDER BY 2, 3
"""
