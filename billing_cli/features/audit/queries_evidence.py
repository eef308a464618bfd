"""What an audit asks of the evidence: chains, corrections, releases, checkpoints, watermarks.

Each statement returns what is wrong, one row each: `kind`, `account_uuid`, and columns named
`key.*`, `expected.*` and `found.*`. A NULL stands for a value that has no part in it.
"""

from __future__ import annotations

from billing_cli.database.spans import RECORDS

# Whatever a stream moved is in one of three places: billed, held, or waiting for its account.
# Laid end to end they lead from its first totals to its checkpoint: each link starts where the
# one before ended, or at zero where the counters restarted. What was released has its place as a
# held delta, and corrections only say where bytes belong.
#
# A restart that no growth followed leaves no link: then the checkpoint stands at zero in an epoch
# that has none. Only links that are first, last or wrong are looked at beside their stream.
#
# Where evidence was pruned, its last link is on record, and the chain goes on from there.
BROKEN_CHAINS = f"""
WITH record AS NOT MATERIALIZED ({RECORDS}
), link AS (
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_start, downlink_start, uplink_end, downlink_end, 'usage_records' AS place
    FROM record
   WHERE kind IN ('delta', 'pending')
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_start, downlink_start, uplink_end, downlink_end, 'held_deltas'
    FROM billing.held_deltas
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_start, downlink_start, uplink_end, downlink_end, 'pending_usage'
    FROM billing.pending_usage
   WHERE billed_at IS NULL
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_end, downlink_end, uplink_end, downlink_end, 'pruned_streams'
    FROM billing.pruned_streams
), walk AS (
  SELECT link.*,
         lag(reset_epoch) OVER chain AS before_epoch,
         lag(to_at) OVER chain AS before_to,
         lag(uplink_end) OVER chain AS preceding_uplink,
         lag(downlink_end) OVER chain AS preceding_downlink,
         lead(stream_id) OVER chain IS NULL AS is_last
    FROM link
    LEFT JOIN (SELECT stream_id, reset_epoch AS pruned_epoch, from_at AS pruned_from,
                      to_at AS pruned_to
                 FROM billing.pruned_streams) AS pruned USING (stream_id)
   WHERE (%(account)s::uuid IS NULL
          OR stream_id IN (SELECT stream_id FROM billing.streams WHERE account_uuid = %(account)s))
     AND (pruned_epoch IS NULL
          OR (reset_epoch, from_at, to_at) >= (pruned_epoch, pruned_from, pruned_to))
  WINDOW chain AS (PARTITION BY stream_id ORDER BY reset_epoch, from_at, to_at)
), notable AS MATERIALIZED (
  SELECT *
    FROM walk
   WHERE before_epoch IS NULL OR is_last OR from_at < before_to OR to_at < from_at
      OR uplink_start <> CASE WHEN reset_epoch > before_epoch THEN 0 ELSE preceding_uplink END
      OR downlink_start <> CASE WHEN reset_epoch > before_epoch THEN 0 ELSE preceding_downlink END
), stream AS (
  SELECT *,
         CASE origin WHEN 'new' THEN 0 ELSE first_uplink_total END AS first_uplink,
         CASE origin WHEN 'new' THEN 0 ELSE first_downlink_total END AS first_downlink
    FROM billing.streams
   WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s
), placed AS (
  SELECT notable.*, stream.stream_id IS NULL AS is_orphan, stream.account_uuid,
         stream.stored_node_id, stream.inbound_tag, stream.sample_uuid,
         CASE WHEN notable.reset_epoch > coalesce(before_epoch, 0) THEN 0
              ELSE coalesce(preceding_uplink, first_uplink) END AS expected_uplink,
         CASE WHEN notable.reset_epoch > coalesce(before_epoch, 0) THEN 0
              ELSE coalesce(preceding_downlink, first_downlink) END AS expected_downlink
    FROM notable
    LEFT JOIN stream USING (stream_id)
), ended AS (
  SELECT stream.*, notable.to_at AS ended_at,
         coalesce(notable.reset_epoch, 0) AS ended_epoch,
         coalesce(notable.uplink_end, first_uplink) AS ended_uplink,
         coalesce(notable.downlink_end, first_downlink) AS ended_downlink
    FROM stream
    LEFT JOIN notable ON notable.stream_id = stream.stream_id AND notable.is_last
)
SELECT CASE WHEN is_orphan THEN 'stream_missing'
            WHEN uplink_start = expected_uplink AND downlink_start = expected_downlink
            THEN 'chain_overlaps' ELSE 'chain_broken' END AS kind,
       account_uuid::text AS account_uuid,
       stream_id AS "key.stream_id", stored_node_id AS "key.node_id",
       inbound_tag AS "key.inbound_tag", sample_uuid::text AS "key.sample_uuid",
       place AS "key.table", from_at AS "key.from_at", NULL::integer AS "expected.reset_epoch",
       expected_uplink AS "expected.uplink_total",
       expected_downlink AS "expected.downlink_total",
       CASE WHEN from_at < before_to THEN before_to END AS "expected.from_at",
       CASE WHEN to_at < from_at THEN from_at END AS "expected.to_at",
       NULL::timestamptz AS "expected.seen_at", NULL::integer AS "found.reset_epoch",
       uplink_start AS "found.uplink_total", downlink_start AS "found.downlink_total",
       CASE WHEN from_at < before_to THEN from_at END AS "found.from_at",
       CASE WHEN to_at < from_at THEN to_at END AS "found.to_at",
       NULL::timestamptz AS "found.seen_at"
  FROM placed
 WHERE is_orphan AND is_last
    OR place <> 'pruned_streams'
       AND (uplink_start <> expected_uplink OR downlink_start <> expected_downlink
            OR from_at < before_to OR to_at < from_at)
UNION ALL
SELECT 'checkpoint_differs', account_uuid::text,
       stream_id, stored_node_id, inbound_tag, sample_uuid::text, 'streams', NULL,
       greatest(reset_epoch, ended_epoch),
       CASE WHEN reset_epoch > ended_epoch THEN 0 ELSE ended_uplink END,
       CASE WHEN reset_epoch > ended_epoch THEN 0 ELSE ended_downlink END,
       NULL, NULL, greatest(seen_at, ended_at),
       reset_epoch, uplink_total, downlink_total, NULL, NULL, seen_at
  FROM ended
 WHERE reset_epoch < ended_epoch OR seen_at < ended_at
    OR reset_epoch = ended_epoch
       AND (uplink_total <> ended_uplink OR downlink_total <> ended_downlink)
    OR reset_epoch > ended_epoch AND (uplink_total <> 0 OR downlink_total <> 0)
 ORDER BY 2, 3, 8
"""

# A correction belongs to a cell, the delta that begins where it does. What it starts from is what
# was on record for that minute of the cell: the correction before it, else the delta itself, else
# nothing.
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
     AND cell.kind = 'delta'
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
# charged for the time being.
DIFFERENT_SHARED_CHECKPOINTS = """
SELECT 'shared_checkpoint_differs' AS kind, ours.account_uuid::text AS account_uuid,
       ours.stored_node_id AS "key.node_id",
       least(ours.uplink, 9223372036854775807)::bigint AS "expected.last_uplink_total",
       least(ours.downlink, 9223372036854775807)::bigint AS "expected.last_downlink_total",
       coalesce(shared.last_uplink_total, 0) AS "found.last_uplink_total",
       coalesce(shared.last_downlink_total, 0) AS "found.last_downlink_total"
  FROM (SELECT stored_node_id, account_uuid,
               sum(uplink_total) AS uplink, sum(downlink_total) AS downlink
          FROM billing.streams
         WHERE account_uuid IS NOT NULL
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
 ORDER BY 2, 3
"""
