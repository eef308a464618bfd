"""What an audit asks of accounts and pruned months, and the sums that it reports.

The columns are those of the other audit statements.
"""

from __future__ import annotations

from billing_cli.database.spans import CHARGED_RECORDS, CHARGES, KEPT_SINCE

# Our evidence has no foreign key to accounts, and stays when one is deleted with all its facts. One
# that was created again since has no facts yet.
ACCOUNTS_WITHOUT_STATE = f"""
SELECT CASE WHEN account.uuid IS NULL THEN 'account_deleted' ELSE 'quota_state_missing' END AS kind,
       charged.account_uuid::text AS account_uuid,
       charged.first_bucket AS "key.bucket_start", charged.last_bucket AS "key.last_bucket_start",
       charged.charges AS "found.charges", charged.amount AS "found.amount_delta"
  FROM (SELECT account_uuid, min(bucket_start) AS first_bucket, max(bucket_start) AS last_bucket,
               count(*) AS charges, sum(amount_delta) AS amount
          FROM ({CHARGES}) AS charge
         GROUP BY account_uuid) AS charged
  LEFT JOIN public.users AS account ON account.uuid = charged.account_uuid
  LEFT JOIN public.account_quota_states AS state USING (account_uuid)
 WHERE account.uuid IS NULL
    OR state.account_uuid IS NULL
       AND EXISTS (SELECT FROM public.billing_ledger AS entry
                    WHERE entry.account_uuid = charged.account_uuid)
 ORDER BY 2
"""

# One row: how many rows of each table were read, and the sums over them. Of what was pruned none
# is counted on any side.
READ_TOTALS = f"""
SELECT (SELECT count(*) FROM billing.streams
         WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s) AS streams,
       record.*, bucket.*, charge.*,
       (SELECT count(*) FROM public.billing_ledger
         WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
           AND bucket_start >= {KEPT_SINCE}
           AND bucket_start >= %(since)s AND bucket_start < %(until)s) AS ledger_rows,
       (SELECT count(*) FROM public.account_quota_states
         WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s) AS accounts
  FROM (SELECT count(*) AS usage_records,
               coalesce(sum(uplink_end) - sum(uplink_start)
                        + sum(downlink_end) - sum(downlink_start), 0) AS recorded_bytes
          FROM ({CHARGED_RECORDS}) AS record) AS record,
       (SELECT count(*) AS buckets, coalesce(sum(total_bytes), 0) AS bucket_bytes
          FROM public.traffic_minute_buckets
         WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
           AND bucket_start >= {KEPT_SINCE}
           AND bucket_start >= %(since)s AND bucket_start < %(until)s) AS bucket,
       (SELECT count(*) AS charges, coalesce(sum(included_bytes), 0) AS included_bytes,
               coalesce(sum(rated_bytes), 0) AS rated_bytes,
               coalesce(sum(amount_delta), 0) AS amount
          FROM ({CHARGES}) AS charge) AS charge
"""

COUNT_ALL = """
SELECT (SELECT count(*) FROM public.account_quota_states), (SELECT count(*) FROM billing.streams)
"""

# The accounts to show: those that something is wrong with, then the others that were charged.
READ_ACCOUNTS = """
SELECT account_uuid::text
  FROM (SELECT account_uuid FROM billing.streams WHERE account_uuid IS NOT NULL
         UNION SELECT account_uuid FROM public.account_quota_states) AS known
 WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
   AND account_uuid <> ALL (%(known)s::uuid[])
 ORDER BY account_uuid
 LIMIT %(limit)s
"""

# Of one account by its keys; of several by one look at everything. An account opens with what its
# first charge found.
READ_ACCOUNT_FIGURES = f"""
SELECT account_uuid::text, coalesce(recorded.total, 0),
       (SELECT coalesce(sum(total_bytes), 0)
          FROM public.traffic_minute_buckets AS bucket
         WHERE bucket.account_uuid = wanted.account_uuid AND bucket_start >= {KEPT_SINCE}
           AND bucket_start >= %(since)s AND bucket_start < %(until)s),
       coalesce(charged.included, 0), coalesce(charged.rated, 0), coalesce(charged.amount, 0),
       round(state.current_balance::text::numeric, 9), charged.opening
  FROM unnest(%(account_uuids)s::uuid[]) WITH ORDINALITY AS wanted (account_uuid, place)
  LEFT JOIN public.account_quota_states AS state USING (account_uuid)
  LEFT JOIN (SELECT account_uuid, sum(uplink_end) - sum(uplink_start)
                                  + sum(downlink_end) - sum(downlink_start) AS total
               FROM ({CHARGED_RECORDS}) AS record
              WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
              GROUP BY account_uuid) AS recorded USING (account_uuid)
  LEFT JOIN (SELECT account_uuid, sum(included_bytes) AS included, sum(rated_bytes) AS rated,
                    sum(amount_delta) AS amount,
                    (array_agg(balance_before ORDER BY created_at, ordinal NULLS FIRST,
                               bucket_start, stored_node_id COLLATE "C", region COLLATE "C",
                               line_code COLLATE "C"))[1] AS opening
               FROM ({CHARGES}) AS charge
              WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
              GROUP BY account_uuid) AS charged USING (account_uuid)
 ORDER BY place
"""
