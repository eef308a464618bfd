"""What an audit finds of errors that versions before revision 0003 made: notices.

Their usage records have no run. The columns are those of the other audit statements.
"""

from __future__ import annotations

from billing_cli.database.spans import RECORDS

# A new stream was charged from zero, although another one of its account vanished at that moment
# with totals that the new one covers: the counter went on under another name.
UNRECOGNISED_SUCCESSIONS = f"""
WITH record AS NOT MATERIALIZED ({RECORDS}
), pair AS (
  SELECT new.account_uuid, new.stored_node_id, new.stream_id, record.bucket_start,
         new.first_uplink_total + new.first_downlink_total::numeric AS first_bytes,
         gone.uplink_total + gone.downlink_total::numeric AS gone_bytes
    FROM billing.streams AS new
    JOIN billing.streams AS gone
      ON gone.stored_node_id = new.stored_node_id AND gone.account_uuid = new.account_uuid
     AND gone.absent_since < new.first_seen_at AND gone.stream_id <> new.stream_id
     AND gone.uplink_total <= new.first_uplink_total
     AND gone.downlink_total <= new.first_downlink_total
     AND gone.uplink_total + gone.downlink_total::numeric > 0
    JOIN record
      ON record.stream_id = new.stream_id AND record.from_at = gone.absent_since
     AND record.bucket_start = date_trunc('minute', new.first_seen_at)
     AND record.kind IN ('delta', 'pending') AND record.revision = 0 AND record.run_id IS NULL
     AND record.uplink_start = 0 AND record.downlink_start = 0
   WHERE new.origin = 'new'
     AND NOT EXISTS (SELECT FROM billing.succession_streams AS part
                      WHERE part.stream_id = new.stream_id AND part.side = 'continued')
)
SELECT 'past_succession' AS kind, account_uuid::text AS account_uuid,
       stored_node_id AS "key.node_id", min(bucket_start) AS "key.bucket_start",
       max(bucket_start) AS "key.last_bucket_start", count(*) AS "found.streams",
       sum(doubled) AS "found.bytes"
  FROM (SELECT account_uuid, stored_node_id, stream_id, bucket_start,
               least(sum(gone_bytes), max(first_bytes)) AS doubled
          FROM pair
         GROUP BY 1, 2, 3, 4) AS stream
 GROUP BY account_uuid, stored_node_id
 ORDER BY 2, 3
"""

# An epoch began, and within ten minutes all streams of the node that began one with it had totals
# at or above those before: the process did not restart, its snapshots came from another clock.
# Charged twice is what they had counted before.
IGNORED_CLOCK_CHANGES = f"""
WITH record AS NOT MATERIALIZED ({RECORDS}
), link AS (
  SELECT record.stream_id, stream.stored_node_id, stream.account_uuid, bucket_start,
         record.reset_epoch, to_at, run_id, uplink_start, downlink_start,
         lag(record.reset_epoch) OVER chain AS before_epoch,
         lag(uplink_end) OVER chain AS uplink_before,
         lag(downlink_end) OVER chain AS downlink_before,
         max(uplink_end) OVER soon AS uplink_soon, max(downlink_end) OVER soon AS downlink_soon
    FROM record
    JOIN billing.streams AS stream USING (stream_id)
   WHERE stream.reset_epoch > 0 AND record.kind IN ('delta', 'pending')
  WINDOW chain AS (PARTITION BY record.stream_id ORDER BY record.reset_epoch, to_at),
         soon AS (PARTITION BY record.stream_id, record.reset_epoch ORDER BY to_at
                  RANGE BETWEEN CURRENT ROW AND interval '10 minutes' FOLLOWING)
), began AS (
  SELECT *, uplink_soon >= uplink_before AND downlink_soon >= downlink_before AS is_back
    FROM link
   WHERE reset_epoch > before_epoch AND run_id IS NULL
     AND uplink_start = 0 AND downlink_start = 0
     AND uplink_before + downlink_before::numeric > 0
), changed AS (
  SELECT stored_node_id, to_at
    FROM began
   GROUP BY 1, 2
  HAVING bool_and(is_back)
)
SELECT 'past_clock_change' AS kind, account_uuid::text AS account_uuid,
       stored_node_id AS "key.node_id", min(bucket_start) AS "key.bucket_start",
       max(bucket_start) AS "key.last_bucket_start", count(DISTINCT stream_id) AS "found.streams",
       sum(uplink_before::numeric + downlink_before) AS "found.bytes"
  FROM began
  JOIN changed USING (stored_node_id, to_at)
 WHERE account_uuid IS NOT NULL
 GROUP BY account_uuid, stored_node_id
 ORDER BY 2, 3
"""
