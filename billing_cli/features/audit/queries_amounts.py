"""What an audit asks of amounts and adjustments.

The columns are those of the other audit statements. All arithmetic on money is exact.
"""

from __future__ import annotations

from billing_cli.database.spans import CHARGES

# An entry that stands for itself uses the quota up first, and costs its rated bytes x price x
# multiplier. One that was adjusted must, taken together with its adjustments, cost what is left
# of it at the price that it was given last.
#
# PostgreSQL rounds halves away from zero. Half of a product that ends in half a nano has a
# quarter there, never a half, so that rounding and doubling it leads to the even neighbour.
WRONG_AMOUNTS = f"""
WITH charge AS NOT MATERIALIZED ({CHARGES}
), adjusted AS (
  SELECT adjusts AS ledger_id, sum(included_bytes) AS included, sum(rated_bytes) AS rated,
         sum(amount_delta) AS amount, count(*) AS adjustments,
         (array_agg(price_per_byte ORDER BY created_at DESC)
            FILTER (WHERE rated_bytes = 0 AND included_bytes = 0))[1] AS price_per_byte,
         (array_agg(multiplier ORDER BY created_at DESC)
            FILTER (WHERE rated_bytes = 0 AND included_bytes = 0))[1] AS multiplier
    FROM charge
   WHERE adjusts IS NOT NULL
   GROUP BY adjusts
), alone AS NOT MATERIALIZED (
  SELECT *
    FROM charge
   WHERE adjusts IS NULL
), due AS (
  SELECT ledger_id, account_uuid, bucket_start, stored_node_id, line_code,
         NULL::bigint AS adjustments, included_bytes::numeric AS included,
         rated_bytes::numeric AS rated, amount_delta AS amount, price_per_byte, multiplier,
         least(greatest(quota_before, 0), included_bytes + rated_bytes)::numeric
           AS expected_included
    FROM alone
  UNION ALL
  SELECT ledger_id, account_uuid, bucket_start, stored_node_id, line_code,
         adjusted.adjustments, included_bytes + adjusted.included,
         rated_bytes + adjusted.rated, amount_delta + adjusted.amount,
         coalesce(adjusted.price_per_byte, alone.price_per_byte),
         coalesce(adjusted.multiplier, alone.multiplier),
         greatest(included_bytes + adjusted.included, 0)
    FROM alone
    JOIN adjusted USING (ledger_id)
), exact AS (
  SELECT *, rated * price_per_byte * multiplier AS product FROM due
), rounded AS (
  SELECT *,
         0 - CASE WHEN mod(abs(product), 0.000000001) = 0.0000000005
                  THEN 2 * round(product * 0.5, 9) ELSE round(product, 9) END AS expected_amount
    FROM exact
)
SELECT CASE WHEN adjustments > 0 THEN 'adjustments_wrong'
            WHEN amount <> expected_amount THEN 'amount_wrong' ELSE 'split_wrong' END AS kind,
       account_uuid::text AS account_uuid, ledger_id::text AS "key.ledger_id",
       bucket_start AS "key.bucket_start", stored_node_id AS "key.node_id",
       line_code AS "key.line_code",
       expected_amount AS "expected.amount_delta",
       expected_included AS "expected.included_bytes",
       CASE WHEN adjustments > 0 THEN greatest(rated, 0)
            ELSE included + rated - expected_included END AS "expected.rated_bytes",
       amount AS "found.amount_delta", included AS "found.included_bytes",
       rated AS "found.rated_bytes", price_per_byte AS "found.price_per_byte",
       multiplier AS "found.multiplier", adjustments AS "found.adjustments"
  FROM rounded
 WHERE amount <> expected_amount OR included <> expected_included OR rated < 0
 ORDER BY 2, 4, 3, 1
"""

# What an adjustment is about is an entry that stands for itself, of the same bucket. What takes
# bytes back does so at a price that the entry has had.
UNFOUNDED_ADJUSTMENTS = f"""
WITH charge AS NOT MATERIALIZED ({CHARGES}
)
SELECT 'adjustment_unfounded' AS kind, entry.account_uuid::text AS account_uuid,
       entry.ledger_id::text AS "key.ledger_id", entry.adjusts::text AS "key.adjusts",
       original.account_uuid::text AS "expected.account_uuid",
       original.bucket_start AS "expected.bucket_start",
       original.stored_node_id AS "expected.node_id", original.line_code AS "expected.line_code",
       original.region AS "expected.region",
       CASE WHEN original.ledger_id IS NULL THEN NULL ELSE 'traffic_adjustment' END
         AS "expected.entry_type",
       original.price_per_byte AS "expected.price_per_byte",
       original.multiplier AS "expected.multiplier",
       entry.account_uuid::text AS "found.account_uuid",
       entry.bucket_start AS "found.bucket_start",
       entry.stored_node_id AS "found.node_id", entry.line_code AS "found.line_code",
       entry.region AS "found.region", entry.entry_type AS "found.entry_type",
       entry.price_per_byte AS "found.price_per_byte", entry.multiplier AS "found.multiplier"
  FROM charge AS entry
  LEFT JOIN charge AS original
    ON original.ledger_id = entry.adjusts AND original.adjusts IS NULL
 WHERE entry.adjusts IS NOT NULL
   AND (original.ledger_id IS NULL OR entry.entry_type <> 'traffic_adjustment'
        OR (original.account_uuid, original.bucket_start, original.stored_node_id,
            original.line_code, original.region)
        <> (entry.account_uuid, entry.bucket_start, entry.stored_node_id,
            entry.line_code, entry.region)
        OR NOT (entry.rated_bytes = 0 AND entry.included_bytes = 0)
           AND (entry.price_per_byte, entry.multiplier)
            <> (original.price_per_byte, original.multiplier)
           AND NOT EXISTS (SELECT FROM billing.charges AS repriced
                            WHERE repriced.adjusts = entry.adjusts
                              AND repriced.account_uuid = entry.account_uuid
                              AND repriced.bucket_start = entry.bucket_start
                              AND repriced.rated_bytes = 0 AND repriced.included_bytes = 0
                              AND repriced.price_per_byte = entry.price_per_byte
                              AND repriced.multiplier = entry.multiplier))
 ORDER BY 2, 3
"""
