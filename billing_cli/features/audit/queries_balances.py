"""What an audit asks of balances and quotas, and the sums that it reports.

The columns are those of the other audit statements.
"""

from __future__ import annotations

from billing_cli.database.spans import CHARGES, KEPT_SINCE, RECORDS

# Each charge says what it found, and so what it left. Taken together, what was left is found
# again: by another charge, or by the quota state as it is now. What was left and never found, and
# what was found and left by nobody, are the two sides of a change from outside.
#
# Runs that wait for each other stamp their charges before they wait, so that the order of the
# stamps is only nearly the order in which balances were passed on. That is why the steps at which
# one charge does not go on where the one before ended are set off against each other, and only
# what remains is told, in order. The first that was left by nobody is where the account began.
OUTSIDE_CHANGES = """
WITH charge AS NOT MATERIALIZED (
  SELECT account_uuid, created_at, ledger_id, included_bytes, amount_delta, quota_before,
         balance_before
    FROM ({charges}) AS charge
  UNION ALL
  SELECT account_uuid, created_at, ledger_id, included_bytes, amount_delta, quota_before,
         balance_before
    FROM billing.pruned_charges
   WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s
), walk AS (
  SELECT account_uuid, created_at, {before} AS found, {after} AS ended,
         lag(created_at) OVER steps AS before_at, lag({after}) OVER steps AS before_ended,
         lead(ledger_id) OVER steps IS NULL AS is_last
    FROM charge
  WINDOW steps AS (PARTITION BY account_uuid ORDER BY created_at, ledger_id)
), step AS MATERIALIZED (
  SELECT walk.*, before_at IS NULL AS is_first,
         before_ended::{stored} IS DISTINCT FROM found::{stored} AS is_seam
    FROM walk
   WHERE is_last OR before_at IS NULL OR before_ended::{stored} <> found::{stored}
), present AS (
  SELECT step.account_uuid, step.created_at, step.ended, {present} AS found
    FROM step
    JOIN public.account_quota_states AS state USING (account_uuid)
   WHERE is_last AND ({present})::{stored} <> step.ended::{stored}
), found AS (
  SELECT account_uuid, created_at AS at, found AS value FROM step WHERE is_seam
  UNION ALL
  SELECT account_uuid, NULL, found FROM present
), ended AS (
  SELECT account_uuid, before_at AS at, before_ended AS value
    FROM step WHERE is_seam AND NOT is_first
  UNION ALL
  SELECT account_uuid, created_at, ended FROM present
), unexplained AS (
  SELECT *, row_number() OVER (PARTITION BY account_uuid ORDER BY at) AS place
    FROM (SELECT *, row_number() OVER (PARTITION BY account_uuid, value::{stored}
                                       ORDER BY at) AS copy FROM found) AS found
   WHERE NOT EXISTS (SELECT FROM (SELECT *, row_number() OVER (
                                    PARTITION BY account_uuid, value::{stored} ORDER BY at) AS copy
                                    FROM ended) AS ended
                      WHERE ended.account_uuid = found.account_uuid
                        AND ended.value::{stored} = found.value::{stored}
                        AND ended.copy = found.copy)
), abandoned AS (
  SELECT *, row_number() OVER (PARTITION BY account_uuid ORDER BY at) AS place
    FROM (SELECT *, row_number() OVER (PARTITION BY account_uuid, value::{stored}
                                       ORDER BY at) AS copy FROM ended) AS ended
   WHERE NOT EXISTS (SELECT FROM (SELECT *, row_number() OVER (
                                    PARTITION BY account_uuid, value::{stored} ORDER BY at) AS copy
                                    FROM found) AS found
                      WHERE ended.account_uuid = found.account_uuid
                        AND ended.value::{stored} = found.value::{stored}
                        AND ended.copy = found.copy)
)
SELECT '{kind}' AS kind, abandoned.account_uuid::text AS account_uuid,
       abandoned.at AS "key.charged_at", unexplained.at AS "key.found_at",
       abandoned.value AS "expected.{column}", unexplained.value AS "found.{column}",
       unexplained.value - abandoned.value AS "found.difference"
  FROM abandoned
  JOIN unexplained
    ON unexplained.account_uuid = abandoned.account_uuid
   AND unexplained.place = abandoned.place + 1
 ORDER BY 2, abandoned.place
"""

CHANGED_BALANCES = OUTSIDE_CHANGES.format(
    charges=CHARGES,
    kind="balance_outside",
    column="current_balance",
    stored="double precision",
    before="balance_before",
    after="(balance_before + amount_delta)",
    present="round(state.current_balance::text::numeric, 9)",
)

# Charges of late minutes use what is left of a former quota, not the one that is stored.
CHARGES_OF_STORED_QUOTA = f"""
SELECT charge.*
  FROM ({CHARGES}) AS charge
 WHERE NOT EXISTS (SELECT FROM billing.quota_periods AS period
                    WHERE period.account_uuid = charge.account_uuid
                      AND period.period_start > charge.bucket_start
                      AND period.seen_at <= charge.created_at)
"""

CHANGED_QUOTAS = OUTSIDE_CHANGES.format(
    charges=CHARGES_OF_STORED_QUOTA,
    kind="quota_outside",
    column="remaining_included_quota",
    stored="bigint",
    before="quota_before",
    after="(quota_before - included_bytes)",
    present="state.remaining_included_quota",
)

# Our evidence has no foreign key to accounts, and stays when one is deleted with all its facts.
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
 WHERE account.uuid IS NULL OR state.account_uuid IS NULL
 ORDER BY 2
"""

# What the shared tables have of a month that was pruned is what they had then. An account that is
# deleted took its facts along. Where nothing was pruned, nothing is read.
CHANGED_SINCE_PRUNED = """
WITH sums AS MATERIALIZED (
  SELECT pruned.*
    FROM billing.pruned
    JOIN public.users AS account ON account.uuid = pruned.account_uuid
   WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s
), shown AS (
  SELECT date_trunc('month', bucket_start, 'UTC') AS month, account_uuid, count(*) AS buckets,
         sum(total_bytes) AS bucket_bytes
    FROM public.traffic_minute_buckets
   WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
     AND bucket_start < (SELECT max(month) + interval '1 month' FROM sums)
     AND EXISTS (SELECT FROM billing.pruned)
   GROUP BY 1, 2
), entered AS (
  SELECT date_trunc('month', bucket_start, 'UTC') AS month, account_uuid, count(*) AS ledger_rows,
         sum(amount_delta::text::numeric) AS ledger_amount
    FROM public.billing_ledger
   WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
     AND bucket_start < (SELECT max(month) + interval '1 month' FROM sums)
     AND EXISTS (SELECT FROM billing.pruned)
   GROUP BY 1, 2
)
SELECT 'pruned_differs' AS kind, sums.account_uuid::text AS account_uuid,
       sums.month AS "key.month", sums.buckets AS "expected.buckets",
       sums.bucket_bytes AS "expected.bucket_bytes", sums.ledger_rows AS "expected.ledger_rows",
       sums.ledger_amount AS "expected.amount_delta",
       coalesce(shown.buckets, 0) AS "found.buckets",
       coalesce(shown.bucket_bytes, 0) AS "found.bucket_bytes",
       coalesce(entered.ledger_rows, 0) AS "found.ledger_rows",
       coalesce(entered.ledger_amount, 0) AS "found.amount_delta"
  FROM sums
  LEFT JOIN shown USING (month, account_uuid)
  LEFT JOIN entered USING (month, account_uuid)
 WHERE sums.buckets <> coalesce(shown.buckets, 0)
    OR sums.bucket_bytes <> coalesce(shown.bucket_bytes, 0)
    OR sums.ledger_rows <> coalesce(entered.ledger_rows, 0)
    OR sums.ledger_amount <> coalesce(entered.ledger_amount, 0)
 ORDER BY 2, 3
"""

# One row: how many rows of each table were read, and the sums over them. Of what was pruned none
# is counted on any side.
READ_TOTALS = f"""
SELECT (SELECT count(*) FROM billing.streams
         WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s) AS streams,
       record.*, bucket.*, charge.*,
       (SELECT count(*) FROM public.billing_ledger
         WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
           AND bucket_start >= {KEPT_SINCE}) AS ledger_rows,
       (SELECT count(*) FROM public.account_quota_states
         WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s) AS accounts
  FROM (SELECT count(*) AS usage_records,
               coalesce(sum(uplink_end) - sum(uplink_start)
                        + sum(downlink_end) - sum(downlink_start), 0) AS recorded_bytes
          FROM ({RECORDS}) AS record) AS record,
       (SELECT count(*) AS buckets, coalesce(sum(total_bytes), 0) AS bucket_bytes
          FROM public.traffic_minute_buckets
         WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
           AND bucket_start >= {KEPT_SINCE}) AS bucket,
       (SELECT count(*) AS charges, coalesce(sum(included_bytes), 0) AS included_bytes,
               coalesce(sum(rated_bytes), 0) AS rated_bytes,
               coalesce(sum(amount_delta), 0) AS amount
          FROM ({CHARGES}) AS charge) AS charge
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

# Of one account by its keys; of several by one look at everything.
READ_ACCOUNT_FIGURES = f"""
SELECT account_uuid::text, coalesce(recorded.total, 0),
       (SELECT coalesce(sum(total_bytes), 0)
          FROM public.traffic_minute_buckets AS bucket
         WHERE bucket.account_uuid = wanted.account_uuid AND bucket_start >= {KEPT_SINCE}),
       coalesce(charged.included, 0), coalesce(charged.rated, 0), coalesce(charged.amount, 0),
       round(state.current_balance::text::numeric, 9)
  FROM unnest(%(account_uuids)s::uuid[]) WITH ORDINALITY AS wanted (account_uuid, place)
  LEFT JOIN public.account_quota_states AS state USING (account_uuid)
  LEFT JOIN (SELECT account_uuid, sum(uplink_end) - sum(uplink_start)
                                  + sum(downlink_end) - sum(downlink_start) AS total
               FROM ({RECORDS}) AS record
              WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
              GROUP BY account_uuid) AS recorded USING (account_uuid)
  LEFT JOIN (SELECT account_uuid, sum(included_bytes) AS included, sum(rated_bytes) AS rated,
                    sum(amount_delta) AS amount
               FROM ({CHARGES}) AS charge
              WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
              GROUP BY account_uuid) AS charged USING (account_uuid)
 ORDER BY place
"""
