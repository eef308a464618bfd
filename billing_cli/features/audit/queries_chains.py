"""What an audit asks of chains: each stream's usage from its first totals to its checkpoint.

The columns are those of the other audit statements.
"""

from __future__ import annotations

from billing_cli.features.audit.queries_links import ALL_LINKS, NEW_LINKS

# Whatever a stream moved is in one of three places: billed, held, or pending. In order these links
# lead from its first totals to its checkpoint. What was released has its place as a held delta,
# and corrections only say where bytes belong. Where evidence was pruned, its last link is on
# record, and the chain goes on from there.
#
# A link starts at `expected`: where the one before ended, less what the stream handed over and
# plus what it took over by successions since then. With a new epoch each direction may start at
# zero as well, plus what was taken over since the restart; where no link is between the restart
# and the succession, that is all of it, or only what came after `from_at`. What a revoked restart
# gives back is taken over, and nothing is handed over by it.
#
# A duplicate goes on from its own totals, whatever was handed over. Nothing is said of a stream
# after one of its duplicate deltas was rejected: it is ignored from there on.
#
# Only links that are first, last, wrong or of a stream with successions are looked at again.
CHAINS = """
WITH {links}), walk AS (
  SELECT link.*,
         lag(reset_epoch) OVER chain AS before_epoch,
         lag(to_at) OVER chain AS before_to,
         lag(uplink_end) OVER chain AS prior_uplink,
         lag(downlink_end) OVER chain AS prior_downlink,
         lag(is_ignored) OVER chain AS is_exempt,
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
      OR uplink_start <> CASE WHEN reset_epoch > before_epoch THEN 0 ELSE prior_uplink END
      OR downlink_start <> CASE WHEN reset_epoch > before_epoch THEN 0 ELSE prior_downlink END
      OR stream_id IN (SELECT stream_id FROM billing.succession_streams)
), stream AS (
  SELECT *,
         CASE origin WHEN 'new' THEN 0 ELSE first_uplink_total END AS first_uplink,
         CASE origin WHEN 'new' THEN 0 ELSE first_downlink_total END AS first_downlink
    FROM billing.streams
   WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s
), moved AS NOT MATERIALIZED (
  -- A node that was given another id hands over what was charged up to that moment.
  SELECT part.stream_id, succession.succession_id,
         CASE WHEN part.side = 'ended' AND owner.stored_node_id <> succession.stored_node_id
              THEN succession.at + interval '1 microsecond' ELSE succession.at END AS at, part.side,
         CASE part.side WHEN 'continued' THEN part.uplink_total ELSE 0 END AS taken_uplink,
         CASE part.side WHEN 'continued' THEN part.downlink_total ELSE 0 END AS taken_downlink,
         CASE WHEN part.side = 'ended' AND kind = 'renamed' THEN part.uplink_total ELSE 0 END
           AS given_uplink,
         CASE WHEN part.side = 'ended' AND kind = 'renamed' THEN part.downlink_total ELSE 0 END
           AS given_downlink
    FROM billing.succession_streams AS part
    JOIN billing.successions AS succession USING (succession_id)
    JOIN billing.streams AS owner ON owner.stream_id = part.stream_id
), placed AS (
  SELECT notable.*, stream.stream_id IS NULL AS is_orphan, stream.account_uuid,
         stream.stored_node_id, stream.inbound_tag, stream.sample_uuid,
         notable.reset_epoch > coalesce(before_epoch, 0) AS is_reset,
         coalesce(prior_uplink, first_uplink) + moved.taken_uplink AS own_uplink,
         coalesce(prior_downlink, first_downlink) + moved.taken_downlink AS own_downlink,
         coalesce(prior_uplink, first_uplink) + moved.taken_uplink - moved.given_uplink
           AS expected_uplink,
         coalesce(prior_downlink, first_downlink) + moved.taken_downlink - moved.given_downlink
           AS expected_downlink,
         moved.taken_uplink, moved.taken_downlink, moved.late_uplink, moved.late_downlink
    FROM notable
    LEFT JOIN stream USING (stream_id)
   CROSS JOIN LATERAL (
         SELECT coalesce(sum(taken_uplink), 0) AS taken_uplink,
                coalesce(sum(taken_downlink), 0) AS taken_downlink,
                coalesce(sum(given_uplink), 0) AS given_uplink,
                coalesce(sum(given_downlink), 0) AS given_downlink,
                coalesce(sum(taken_uplink) FILTER (WHERE at > notable.from_at), 0) AS late_uplink,
                coalesce(sum(taken_downlink) FILTER (WHERE at > notable.from_at), 0)
                  AS late_downlink
           FROM moved
          WHERE moved.stream_id = notable.stream_id AND moved.at <= notable.to_at
            AND moved.at > coalesce(notable.before_to, '-infinity')) AS moved
), judged AS (
  SELECT placed.*,
         CASE WHEN place = 'pruned_streams' OR is_exempt THEN true
              WHEN is_reset
              THEN uplink_start IN (expected_uplink, taken_uplink, late_uplink)
                   AND downlink_start IN (expected_downlink, taken_downlink, late_downlink)
                   AND (uplink_start IN (taken_uplink, late_uplink)
                        OR downlink_start IN (taken_downlink, late_downlink))
              WHEN is_duplicate AND uplink_start = own_uplink AND downlink_start = own_downlink
              THEN true
              ELSE uplink_start = expected_uplink AND downlink_start = expected_downlink
         END AS is_connected,
         CASE WHEN is_reset THEN late_uplink ELSE expected_uplink END AS shown_uplink,
         CASE WHEN is_reset THEN late_downlink ELSE expected_downlink END AS shown_downlink
    FROM placed
), reached AS (
  SELECT stream.*, notable.to_at AS ended_at, coalesce(notable.is_ignored, false) AS is_ignored,
         coalesce(notable.reset_epoch, 0) AS ended_epoch,
         coalesce(notable.uplink_end, first_uplink) + moved.taken_uplink AS own_uplink,
         coalesce(notable.downlink_end, first_downlink) + moved.taken_downlink AS own_downlink,
         moved.*
    FROM stream
    LEFT JOIN notable ON notable.stream_id = stream.stream_id AND notable.is_last
   CROSS JOIN LATERAL (
         SELECT coalesce(sum(taken_uplink), 0) AS taken_uplink,
                coalesce(sum(taken_downlink), 0) AS taken_downlink,
                coalesce(sum(given_uplink), 0) AS given_uplink,
                coalesce(sum(given_downlink), 0) AS given_downlink,
                (array_agg(given_uplink ORDER BY at DESC) FILTER (WHERE side = 'ended'))[1]
                  AS last_given_uplink,
                (array_agg(given_downlink ORDER BY at DESC) FILTER (WHERE side = 'ended'))[1]
                  AS last_given_downlink
           FROM moved
          WHERE moved.stream_id = stream.stream_id
            AND moved.at > coalesce(notable.to_at, '-infinity')) AS moved
), ended AS (
  SELECT reached.*, reset_epoch > ended_epoch AS is_reset,
         own_uplink - given_uplink AS left_uplink, own_downlink - given_downlink AS left_downlink
    FROM reached
), final AS (
  SELECT ended.*,
         CASE WHEN is_ignored OR state = 'ignored' THEN true
              WHEN state = 'continued'
              THEN uplink_total = last_given_uplink AND downlink_total = last_given_downlink
                   AND (left_uplink = 0 OR is_reset AND taken_uplink = given_uplink)
                   AND (left_downlink = 0 OR is_reset AND taken_downlink = given_downlink)
              WHEN is_reset
              THEN uplink_total IN (0, taken_uplink, left_uplink)
                   AND downlink_total IN (0, taken_downlink, left_downlink)
                   AND (uplink_total IN (0, taken_uplink) OR downlink_total IN (0, taken_downlink))
              WHEN state = 'duplicate' AND uplink_total = own_uplink
                   AND downlink_total = own_downlink
              THEN true
              ELSE uplink_total = left_uplink AND downlink_total = left_downlink
         END IS TRUE AS is_there,
         CASE WHEN state = 'continued' THEN last_given_uplink
              WHEN is_reset THEN taken_uplink ELSE left_uplink END AS shown_uplink,
         CASE WHEN state = 'continued' THEN last_given_downlink
              WHEN is_reset THEN taken_downlink ELSE left_downlink END AS shown_downlink
    FROM ended
)
SELECT CASE WHEN is_orphan THEN 'stream_missing'
            WHEN is_connected THEN 'chain_overlaps' ELSE 'chain_broken' END AS kind,
       account_uuid::text AS account_uuid,
       stream_id AS "key.stream_id", stored_node_id AS "key.node_id",
       inbound_tag AS "key.inbound_tag", sample_uuid::text AS "key.sample_uuid",
       place AS "key.table", from_at AS "key.from_at", NULL::integer AS "expected.reset_epoch",
       CASE WHEN NOT is_connected THEN shown_uplink ELSE uplink_start END
         AS "expected.uplink_total",
       CASE WHEN NOT is_connected THEN shown_downlink ELSE downlink_start END
         AS "expected.downlink_total",
       CASE WHEN from_at < before_to THEN before_to END AS "expected.from_at",
       CASE WHEN to_at < from_at THEN from_at END AS "expected.to_at",
       NULL::timestamptz AS "expected.seen_at", NULL::integer AS "found.reset_epoch",
       uplink_start AS "found.uplink_total", downlink_start AS "found.downlink_total",
       CASE WHEN from_at < before_to THEN from_at END AS "found.from_at",
       CASE WHEN to_at < from_at THEN to_at END AS "found.to_at",
       NULL::timestamptz AS "found.seen_at"
  FROM judged
 WHERE is_orphan AND is_last
    OR place <> 'pruned_streams'
       AND (NOT is_connected OR from_at < before_to OR to_at < from_at)
UNION ALL
SELECT 'checkpoint_differs', account_uuid::text,
       stream_id, stored_node_id, inbound_tag, sample_uuid::text, 'streams', NULL,
       greatest(reset_epoch, ended_epoch), shown_uplink, shown_downlink,
       NULL, NULL, greatest(seen_at, ended_at),
       reset_epoch, uplink_total, downlink_total, NULL, NULL, seen_at
  FROM final
 WHERE reset_epoch < ended_epoch OR seen_at < ended_at OR NOT is_there
 ORDER BY 2, 3, 8
"""

BROKEN_CHAINS = CHAINS.replace("{links}", ALL_LINKS)

BROKEN_NEW_CHAINS = CHAINS.replace("{links}", NEW_LINKS)

# What counters hand over and what others take over has the same sum in each direction.
UNBALANCED_SUCCESSIONS = """
SELECT 'succession_unbalanced' AS kind, succession.account_uuid::text AS account_uuid,
       succession_id AS "key.succession_id", succession.stored_node_id AS "key.node_id",
       succession.at AS "key.at",
       coalesce(sum(uplink_total) FILTER (WHERE side = 'ended'), 0) AS "expected.uplink_total",
       coalesce(sum(downlink_total) FILTER (WHERE side = 'ended'), 0) AS "expected.downlink_total",
       coalesce(sum(uplink_total) FILTER (WHERE side = 'continued'), 0) AS "found.uplink_total",
       coalesce(sum(downlink_total) FILTER (WHERE side = 'continued'), 0)
         AS "found.downlink_total"
  FROM billing.successions AS succession
  LEFT JOIN billing.succession_streams USING (succession_id)
 WHERE %(account)s::uuid IS NULL OR succession.account_uuid = %(account)s
 GROUP BY succession_id
HAVING count(side) = 0
    OR sum(CASE side WHEN 'ended' THEN uplink_total ELSE -uplink_total END) <> 0
    OR sum(CASE side WHEN 'ended' THEN downlink_total ELSE -downlink_total END) <> 0
 ORDER BY 2, 3
"""
