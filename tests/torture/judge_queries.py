"""What the judge reads: what is charged, held or pending, and what billing found."""

from __future__ import annotations

READ_WATERMARKS = """
SELECT stored_node_id, watermark FROM billing.sources WHERE watermark IS NOT NULL
"""

READ_BILLED = """
SELECT node_id, account_uuid::text, sum(uplink_bytes)::bigint, sum(downlink_bytes)::bigint
  FROM public.traffic_minute_buckets
 GROUP BY 1, 2
"""

READ_WAITING = """
SELECT stream.stored_node_id, stream.sample_uuid::text,
       (waiting.uplink_end - waiting.uplink_start)::bigint,
       (waiting.downlink_end - waiting.downlink_start)::bigint
  FROM (SELECT stream_id, uplink_start, uplink_end, downlink_start, downlink_end
          FROM billing.held_deltas
         WHERE state <> 'released' AND held_reason <> 'duplicate'
         UNION ALL
        SELECT stream_id, uplink_start, uplink_end, downlink_start, downlink_end
          FROM billing.pending_usage
         WHERE billed_at IS NULL) AS waiting
  JOIN billing.streams AS stream USING (stream_id)
"""

# Usage that no account can be charged for at present.
READ_UNASSIGNED = """
SELECT stream.stored_node_id, stream.sample_uuid::text,
       sum(waiting.uplink_end - waiting.uplink_start)::bigint,
       sum(waiting.downlink_end - waiting.downlink_start)::bigint
  FROM billing.pending_usage AS waiting
  JOIN billing.streams AS stream USING (stream_id)
 WHERE waiting.billed_at IS NULL AND stream.account_uuid IS NULL
   AND NOT EXISTS (SELECT FROM public.users
                    WHERE stream.sample_uuid IN (users.uuid, users.proxy_uuid))
 GROUP BY 1, 2
"""

# What was charged by a restart that was none: since the last one, which can still be revoked, and
# beyond what an earlier one was revoked by, which later growth absorbs.
READ_REVOCABLE = """
SELECT stored_node_id, sample_uuid::text,
       CASE WHEN before_uplink IS NULL THEN 0 ELSE uplink_total END,
       CASE WHEN before_uplink IS NULL THEN 0 ELSE downlink_total END,
       coalesce(surplus_uplink, 0), coalesce(surplus_downlink, 0)
  FROM billing.streams
 WHERE before_uplink IS NOT NULL OR surplus_uplink IS NOT NULL
"""

READ_RESTARTS = """
SELECT stored_node_id, to_at FROM billing.gaps JOIN billing.sources USING (source_id)
 WHERE kind = 'reset'
"""

# Minutes in which late history showed something else than what had been charged.
READ_CORRECTED = """
SELECT DISTINCT stored_node_id, bucket_start
  FROM billing.usage_records JOIN billing.streams USING (stream_id)
 WHERE kind = 'correction'
"""

READ_REVOKED = """
SELECT stored_node_id, at FROM billing.successions WHERE kind = 'restart_revoked'
"""

READ_UNCERTAIN = """
SELECT DISTINCT stored_node_id
  FROM billing.gaps JOIN billing.sources USING (source_id)
 WHERE kind = 'uncertain'
"""

READ_PRICES = """
SELECT account_uuid::text, price_per_byte, multiplier, sum(abs(rated_bytes))
  FROM billing.charges
 WHERE rated_bytes <> 0
 GROUP BY 1, 2, 3
"""

READ_OVERDUE = """
SELECT account.uuid::text
  FROM billing.pending_usage AS pending
  JOIN billing.streams AS stream USING (stream_id)
  JOIN public.users AS account ON stream.sample_uuid IN (account.uuid, account.proxy_uuid)
 WHERE pending.billed_at IS NULL
"""
