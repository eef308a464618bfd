"""The links of streams' chains: all of them, or those that were added since the last clean audit.

Each begins the statement of `queries_chains` after its WITH: it ends within the query of `link`.
"""

from __future__ import annotations

from billing_cli.database.spans import RECORDS
from billing_cli.features.audit.queries_positions import IS_NEW_SEAL

# The records of a stream that follow each other without a gap within an hour are one link: sorting
# them all costs as much as all else that an audit does. No sort is needed to prove that. Each ends
# later than it starts, so that they are one path where every end but the last is the start of
# another one: where the sums of their hashes are the same.
POINT = """timestamp_hash_extended({at} AT TIME ZONE 'UTC',
         hashint8extended({uplink}, hashint8extended({downlink}, %(seed)s::bigint)))"""
START = POINT.format(at="from_at", uplink="uplink_start", downlink="downlink_start")
END = POINT.format(at="to_at", uplink="uplink_end", downlink="downlink_end")
HOURS = f"""
  SELECT part.*,
         coalesce({START} + difference = {END}, false)
         AND NOT EXISTS (
           SELECT FROM billing.succession_streams AS part_of
             JOIN billing.successions USING (succession_id)
            WHERE part_of.stream_id = part.stream_id
              AND at BETWEEN part.from_at AND part.to_at) AS is_one_path
    FROM (SELECT stream_id, reset_epoch, hour, min(from_at) AS from_at, max(to_at) AS to_at,
                 min(uplink_start) AS uplink_start, min(downlink_start) AS downlink_start,
                 max(uplink_end) AS uplink_end, max(downlink_end) AS downlink_end,
                 sum({END}) FILTER (WHERE to_at > from_at) - sum({START}) AS difference
            FROM record
           WHERE {{condition}}
           GROUP BY stream_id, reset_epoch, hour) AS part"""

# Where many hours have gaps, as one in the middle shows, that would cost more than it saves. The
# records of other hours are joined: a hash that is looked up in a filter must fit in memory.
ALL_LINKS = f"""
record AS NOT MATERIALIZED (
  SELECT *, date_trunc('hour', bucket_start) AS hour
    FROM ({RECORDS}) AS record
   WHERE kind IN ('delta', 'pending')
), middle AS MATERIALIZED (
  SELECT date_trunc('hour', min(bucket_start) + (max(bucket_start) - min(bucket_start)) / 2) AS at
    FROM billing.usage_records
), sample AS MATERIALIZED (
  SELECT coalesce(avg(is_one_path::integer) > 0.7, false) AS is_dense
    FROM ({
    HOURS.format(
        condition="bucket_start >= (SELECT at FROM middle)"
        " AND bucket_start < (SELECT at FROM middle) + interval '1 hour'"
    )
}) AS hour
), hour AS MATERIALIZED ({HOURS.format(condition="(SELECT is_dense FROM sample)")}
), link AS (
  SELECT stream_id, reset_epoch, from_at, to_at, uplink_start, downlink_start,
         uplink_end, downlink_end, 'usage_records' AS place,
         false AS is_duplicate, false AS is_ignored
    FROM hour
   WHERE is_one_path
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at, uplink_start, downlink_start,
         uplink_end, downlink_end, 'usage_records', false, false
    FROM record
   WHERE NOT (SELECT is_dense FROM sample)
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at, uplink_start, downlink_start,
         uplink_end, downlink_end, 'usage_records', false, false
    FROM record
   WHERE EXISTS (SELECT FROM hour WHERE NOT is_one_path)
     AND (stream_id, reset_epoch, hour)
         IN (SELECT stream_id, reset_epoch, hour FROM hour WHERE NOT is_one_path)
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_start, downlink_start, uplink_end, downlink_end, 'held_deltas',
         held_reason = 'duplicate', held_reason = 'duplicate' AND state = 'rejected'
    FROM billing.held_deltas
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_start, downlink_start, uplink_end, downlink_end, 'pending_usage', false, false
    FROM billing.pending_usage
   WHERE billed_at IS NULL
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_end, downlink_end, uplink_end, downlink_end, 'pruned_streams', false, false
    FROM billing.pruned_streams
"""

# What was linked since the last clean audit, from the checkpoint that each stream had then. New is
# a record that no seal covers, or one whose seal was not proven yet. Usage that had waited takes
# its own place as a record: of what the checkpoint was beyond, nothing is linked again, and of what
# has grown since then the part that is new, provided that the record is what had waited.
NEW_LINKS = f"""
proven AS MATERIALIZED (
  SELECT run_id, step
    FROM billing.seals AS seal
   WHERE last_bucket >= %(since)s AND NOT ({IS_NEW_SEAL})
), record AS NOT MATERIALIZED (
  SELECT record.stream_id, record.reset_epoch, record.from_at, record.to_at, record.uplink_start,
         record.downlink_start, record.uplink_end, record.downlink_end, 'usage_records' AS place,
         false AS is_duplicate, false AS is_ignored,
         record.kind = 'pending' AND EXISTS (
           SELECT FROM billing.pending_usage AS pending
            WHERE pending.stream_id = record.stream_id AND pending.from_at = record.from_at
              AND pending.billed_at IS NOT NULL
              AND (pending.reset_epoch, pending.to_at, pending.uplink_start, pending.uplink_end,
                   pending.downlink_start, pending.downlink_end)
                = (record.reset_epoch, record.to_at, record.uplink_start, record.uplink_end,
                   record.downlink_start, record.downlink_end)) AS has_waited
    FROM billing.usage_records AS record
   WHERE bucket_start >= %(since)s AND kind IN ('delta', 'pending')
     AND step > 0
     AND NOT EXISTS (SELECT FROM proven
                      WHERE proven.run_id = record.run_id AND proven.step = record.step)
), place AS (
  SELECT * FROM record
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_start, downlink_start, uplink_end, downlink_end, 'held_deltas',
         held_reason = 'duplicate', held_reason = 'duplicate' AND state = 'rejected', true
    FROM billing.held_deltas
  UNION ALL
  SELECT stream_id, reset_epoch, from_at, to_at,
         uplink_start, downlink_start, uplink_end, downlink_end, 'pending_usage', false, false, true
    FROM billing.pending_usage
   WHERE billed_at IS NULL
), link AS (
  SELECT place.stream_id, place.reset_epoch,
         CASE WHEN is_grown THEN audited.seen_at ELSE from_at END AS from_at, to_at,
         CASE WHEN is_grown THEN audited.uplink_total ELSE uplink_start END AS uplink_start,
         CASE WHEN is_grown THEN audited.downlink_total ELSE downlink_start END AS downlink_start,
         uplink_end, downlink_end, place, is_duplicate, is_ignored
    FROM place
    LEFT JOIN billing.audited_streams AS audited USING (stream_id)
   CROSS JOIN LATERAL (
         SELECT has_waited AND from_at < audited.seen_at
                AND place.reset_epoch = audited.reset_epoch AS is_grown) AS judged
   WHERE audited.stream_id IS NULL OR NOT has_waited OR to_at > audited.seen_at
  UNION ALL
  SELECT stream_id, reset_epoch, seen_at, seen_at, uplink_total, downlink_total, uplink_total,
         downlink_total, 'pruned_streams', false, state = 'ignored'
    FROM billing.audited_streams
"""
