"""What an audit asks of months whose evidence was pruned: sums, because nothing else is left.

The columns are those of the other audit statements.
"""

from __future__ import annotations

from billing_cli.database.spans import CHARGED_RECORDS, CHARGES, KEPT_SINCE, LIVES

# Minutes of a pruned month that came in since have their evidence: it is added to the sums as they
# were then. A late minute makes a bucket of its own, or adds to one that was there.
#
# What an account had before it was deleted and created again went with it: no fact that it has is
# as old as the sums. Where nothing was pruned, nothing is read.
#
# Rows of others, such as refunds, may come at any time. Sums of earlier versions hold those that
# were there then: where the ledger has other rows than charges, these count too.
CHANGED_SINCE_PRUNED = f"""
WITH late AS MATERIALIZED (
  SELECT date_trunc('month', bucket_start, 'UTC') AS month, account_uuid,
         count(DISTINCT (bucket_start, stored_node_id, region, line_code)) AS buckets,
         sum(included_bytes) + sum(rated_bytes) AS bucket_bytes, count(*) AS ledger_rows,
         sum(amount_delta) AS ledger_amount
    FROM ({CHARGES}) AS charge
   WHERE bucket_start < {KEPT_SINCE}
   GROUP BY 1, 2
), recorded AS MATERIALIZED (
  SELECT date_trunc('month', bucket_start, 'UTC') AS month, account_uuid,
         sum(uplink_end) - sum(uplink_start) + sum(downlink_end) - sum(downlink_start)
           AS recorded_bytes
    FROM ({CHARGED_RECORDS}) AS record
   WHERE bucket_start < {KEPT_SINCE}
   GROUP BY 1, 2
), shown AS (
  SELECT date_trunc('month', bucket_start, 'UTC') AS month, account_uuid, count(*) AS buckets,
         sum(total_bytes) AS bucket_bytes
    FROM public.traffic_minute_buckets
   WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
     AND bucket_start < {KEPT_SINCE}
   GROUP BY 1, 2
), entered AS (
  SELECT month, account_uuid,
         count(*) FILTER (WHERE is_traffic) AS ledger_rows,
         coalesce(sum(amount) FILTER (WHERE is_traffic), 0) AS ledger_amount,
         count(*) FILTER (WHERE NOT is_traffic AND was_there) AS other_rows,
         coalesce(sum(amount) FILTER (WHERE NOT is_traffic AND was_there), 0) AS other_amount
    FROM (SELECT date_trunc('month', bucket_start, 'UTC') AS month, account_uuid,
                 amount_delta::text::numeric AS amount, created_at,
                 entry_type IN ('traffic_charge', 'traffic_adjustment') AS is_traffic
            FROM public.billing_ledger
           WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
             AND bucket_start < {KEPT_SINCE}) AS entry
    LEFT JOIN (SELECT month, account_uuid, pruned_at,
                      (ledger_rows, ledger_amount) IS DISTINCT FROM (charges, amount_delta)
                        AS has_others
                 FROM billing.pruned) AS pruned USING (month, account_uuid)
   CROSS JOIN LATERAL (
         SELECT coalesce(has_others AND created_at <= pruned_at, false) AS was_there) AS earlier
   GROUP BY 1, 2
), sums AS (
  SELECT month, account_uuid, pruned.pruned_at,
         coalesce(pruned.buckets, 0) AS buckets,
         coalesce(pruned.buckets, 0) + coalesce(late.buckets, 0) AS most_buckets,
         coalesce(pruned.bucket_bytes, 0) + coalesce(late.bucket_bytes, 0) AS bucket_bytes,
         coalesce(pruned.ledger_rows, 0) + coalesce(late.ledger_rows, 0) AS ledger_rows,
         coalesce(pruned.ledger_amount, 0) + coalesce(late.ledger_amount, 0) AS ledger_amount,
         coalesce(shown.buckets, 0) AS shown_buckets,
         coalesce(shown.bucket_bytes, 0) AS shown_bytes,
         coalesce(entered.ledger_rows, 0) AS entered_rows,
         coalesce(entered.ledger_amount, 0) AS entered_amount,
         coalesce(entered.other_rows, 0) AS other_rows,
         coalesce(entered.other_amount, 0) AS other_amount,
         coalesce(late.bucket_bytes, 0) AS charged_bytes,
         coalesce(recorded.recorded_bytes, 0) AS recorded_bytes
    FROM (SELECT * FROM billing.pruned
           WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s) AS pruned
    FULL JOIN late USING (month, account_uuid)
    FULL JOIN recorded USING (month, account_uuid)
    LEFT JOIN shown USING (month, account_uuid)
    LEFT JOIN entered USING (month, account_uuid)
   WHERE EXISTS (SELECT FROM billing.pruned)
), {LIVES.format(accounts="SELECT account_uuid FROM sums")}
SELECT 'pruned_differs' AS kind, account_uuid::text AS account_uuid,
       sums.month AS "key.month", sums.most_buckets AS "expected.buckets",
       sums.bucket_bytes AS "expected.bucket_bytes", sums.ledger_rows AS "expected.ledger_rows",
       sums.ledger_amount AS "expected.amount_delta",
       sums.charged_bytes AS "expected.recorded_bytes",
       sums.shown_buckets AS "found.buckets", sums.shown_bytes AS "found.bucket_bytes",
       sums.entered_rows AS "found.ledger_rows", sums.entered_amount AS "found.amount_delta",
       sums.recorded_bytes AS "found.recorded_bytes"
  FROM sums
  JOIN public.users AS account ON account.uuid = sums.account_uuid
  JOIN life USING (account_uuid)
 WHERE (sums.shown_buckets NOT BETWEEN sums.buckets AND sums.most_buckets
        OR sums.bucket_bytes <> sums.shown_bytes
        OR (sums.ledger_rows, sums.ledger_amount) NOT IN (
             (sums.entered_rows, sums.entered_amount),
             (sums.entered_rows + sums.other_rows, sums.entered_amount + sums.other_amount))
        OR sums.recorded_bytes <> sums.charged_bytes)
   AND (sums.pruned_at IS NULL OR life.begun_at <= sums.pruned_at)
 ORDER BY 2, 3
"""
