"""What an audit asks of the facts: buckets, their records and charges, ledger rows.

Each statement returns what is wrong or worth knowing, one row each: `kind`, `account_uuid`, and
columns named `key.*`, `expected.*` and `found.*`. A NULL stands for a value without a part in it.

All arithmetic on money is exact. A double is compared with the double that its decimal becomes,
which is what was stored; where a double is read, it is as the shortest decimal that it stands for.
"""

from __future__ import annotations

from billing_cli.database.spans import CHARGED_RECORDS, CHARGES, KEPT_SINCE, LIVES

# The bytes of a bucket are stated three times: by itself, by its records and by its charges. Where
# one of the three differs from the other two, it is the one that is wrong. Records know no regions,
# but a bucket and its charges are of the same one.
#
# A legacy writer may have been there before us: what it wrote on a node before the transaction of
# our first charge there is its own, and worth one notice an account. So is a bucket from before our
# first evidence of its minute, and a minute without a charge of ours that has a ledger row from
# before our records. A bucket that is there before we charge gets adjustments: one with a first
# charge of ours is ours, whatever it says of when it was made.
# Accounts that are deleted have no buckets any more, and their evidence still agrees. So it does of
# an account that was deleted and created again: its charges from before its oldest bucket and
# ledger row are those of its former life. Of months that were pruned the sums are compared,
# elsewhere, late minutes included.
DIFFERENT_BYTES = f"""
WITH figures AS MATERIALIZED (
  SELECT bucket_start, stored_node_id, account_uuid, line_code,
         count(bucket_region) AS buckets, count(charge_region) AS charges,
         count(bucket_region) = 1 AND bool_or(is_first_charge) AS is_ours,
         sum(records) AS records, min(created_at) AS created_at,
         min(charged_at) AS first_charged_at, max(charged_at) AS charged_at,
         sum(uplink) AS uplink, sum(downlink) AS downlink, sum(total) AS total,
         sum(included) + sum(rated) AS charged,
         sum(recorded_uplink) AS recorded_uplink, sum(recorded_downlink) AS recorded_downlink
    FROM (SELECT bucket_start, node_id AS stored_node_id, account_uuid, line_code,
                 region AS bucket_region, NULL AS charge_region, false AS is_first_charge,
                 0 AS records, created_at,
                 NULL::timestamptz AS charged_at,
                 uplink_bytes AS uplink, downlink_bytes AS downlink, total_bytes AS total,
                 0::bigint AS included, 0::bigint AS rated,
                 0::bigint AS recorded_uplink, 0::bigint AS recorded_downlink
            FROM public.traffic_minute_buckets
           WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
             AND bucket_start >= {KEPT_SINCE}
             AND bucket_start >= %(since)s AND bucket_start < %(until)s
          UNION ALL
          SELECT bucket_start, stored_node_id, account_uuid, line_code,
                 NULL, region, entry_type = 'traffic_charge', 0, NULL, created_at, 0, 0, 0,
                 included_bytes, rated_bytes, 0, 0
            FROM ({CHARGES}) AS charge
           WHERE bucket_start >= {KEPT_SINCE}
          UNION ALL
          SELECT record.bucket_start, stream.stored_node_id, record.account_uuid,
                 stream.inbound_tag, NULL, NULL, false, 1, NULL, NULL, 0, 0, 0, 0, 0,
                 record.uplink_end - record.uplink_start,
                 record.downlink_end - record.downlink_start
            FROM ({CHARGED_RECORDS}) AS record
            JOIN billing.streams AS stream USING (stream_id)
           WHERE record.bucket_start >= {KEPT_SINCE}) AS figures
   GROUP BY 1, 2, 3, 4
  HAVING sum(uplink) <> sum(recorded_uplink) OR sum(downlink) <> sum(recorded_downlink)
      OR sum(uplink) + sum(downlink) <> sum(total) OR sum(total) <> sum(included) + sum(rated)
      OR min(bucket_region) <> min(charge_region) OR max(bucket_region) <> max(charge_region)
      OR count(charge_region) = 0 AND sum(records) = 0
), begun AS (
  SELECT first.stored_node_id, min(coalesce(bucket.created_at, charge.created_at)) AS at
    FROM (SELECT stored_node_id, min(created_at) AS at
            FROM billing.charges
           WHERE entry_type = 'traffic_charge'
           GROUP BY 1) AS first
    JOIN billing.charges AS charge
      ON charge.stored_node_id = first.stored_node_id AND charge.created_at = first.at
    LEFT JOIN public.traffic_minute_buckets AS bucket
      ON bucket.node_id = charge.stored_node_id AND bucket.account_uuid = charge.account_uuid
     AND bucket.bucket_start = charge.bucket_start AND bucket.region = charge.region
     AND bucket.line_code = charge.line_code
   GROUP BY 1
), recorded AS MATERIALIZED (
  SELECT figures.bucket_start, figures.stored_node_id, figures.account_uuid, figures.line_code,
         min(seal.created_at) AS at
    FROM figures
    JOIN billing.streams AS stream USING (account_uuid, stored_node_id)
    JOIN billing.usage_records AS record
      ON record.bucket_start = figures.bucket_start AND record.stream_id = stream.stream_id
    JOIN billing.seals AS seal ON seal.run_id = record.run_id AND seal.step = record.step
   WHERE figures.records > 0 AND stream.inbound_tag = figures.line_code
   GROUP BY 1, 2, 3, 4
), charged_before AS (
  SELECT figures.bucket_start, figures.account_uuid, min(entry.created_at) AS at
    FROM (SELECT DISTINCT bucket_start, account_uuid
            FROM figures
           WHERE charges = 0 AND records > 0) AS figures
    JOIN public.billing_ledger AS entry USING (bucket_start, account_uuid)
   WHERE entry.entry_type = 'traffic_charge'
     AND NOT EXISTS (SELECT FROM billing.charges AS charge
                      WHERE charge.bucket_start = entry.bucket_start
                        AND charge.account_uuid = entry.account_uuid
                        AND charge.ledger_id = entry.id)
   GROUP BY 1, 2
), {LIVES.format(accounts="SELECT account_uuid FROM figures WHERE buckets = 0")}, judged AS (
  SELECT figures.*, recorded_uplink + recorded_downlink AS recorded,
         account.uuid IS NOT NULL
         AND NOT coalesce(figures.charged_at < life.begun_at, false) AS has_account,
         uplink = recorded_uplink AND downlink = recorded_downlink
         AND total = uplink + downlink AS is_recorded,
         total = charged AND total = uplink + downlink AS is_charged,
         charges = 0 AND records = 0 AS is_unproven,
         source.first_snapshot_at,
         NOT figures.is_ours
         AND (figures.created_at < coalesce(begun.at, CASE WHEN taken_over.node IS NOT NULL
                                                        THEN 'infinity'::timestamptz END)
              OR figures.created_at < recorded.at
                 AND figures.created_at < coalesce(figures.first_charged_at, 'infinity')
              OR figures.charges = 0 AND charged_before.at < recorded.at) AS is_shared
    FROM figures
    LEFT JOIN public.users AS account ON account.uuid = figures.account_uuid
    LEFT JOIN life ON life.account_uuid = figures.account_uuid AND figures.buckets = 0
    LEFT JOIN begun USING (stored_node_id)
    LEFT JOIN billing.sources AS source USING (stored_node_id)
    LEFT JOIN recorded
      ON recorded.bucket_start = figures.bucket_start AND recorded.line_code = figures.line_code
     AND recorded.stored_node_id = figures.stored_node_id
     AND recorded.account_uuid = figures.account_uuid
    LEFT JOIN charged_before
      ON charged_before.bucket_start = figures.bucket_start
     AND charged_before.account_uuid = figures.account_uuid
    LEFT JOIN (SELECT DISTINCT stored_node_id AS node, account_uuid AS owner
                 FROM billing.streams WHERE origin = 'taken_over') AS taken_over
      ON taken_over.node = figures.stored_node_id AND taken_over.owner = figures.account_uuid
), sorted AS (
  SELECT *,
         CASE WHEN has_account AND is_unproven
              THEN CASE WHEN is_shared OR first_snapshot_at IS NULL
                             OR bucket_start <= first_snapshot_at
                        THEN 'other_writer_buckets' ELSE 'bucket_unproven' END
              WHEN has_account AND is_shared THEN 'shared_minutes'
              WHEN NOT has_account AND recorded <> charged THEN 'charges_differ'
              WHEN NOT has_account THEN NULL
              WHEN is_recorded AND is_charged THEN 'region_differs'
              WHEN recorded = charged AND buckets = 0 THEN 'bucket_missing'
              WHEN recorded = charged THEN 'bucket_differs'
              WHEN is_recorded THEN 'charges_differ'
              WHEN is_charged THEN 'records_differ'
              ELSE 'bytes_differ' END AS kind
    FROM judged
)
SELECT kind, account_uuid::text AS account_uuid, bucket_start AS "key.bucket_start",
       stored_node_id AS "key.node_id", line_code AS "key.line_code",
       NULL::timestamptz AS "key.last_bucket_start", NULL::bigint AS "found.rows",
       CASE WHEN kind LIKE 'bucket%%' THEN recorded_uplink END AS "expected.uplink_bytes",
       CASE WHEN kind LIKE 'bucket%%' THEN recorded_downlink END AS "expected.downlink_bytes",
       CASE WHEN kind LIKE 'bucket%%' THEN recorded END AS "expected.total_bytes",
       CASE WHEN kind <> 'records_differ' THEN recorded END AS "expected.charged_bytes",
       CASE kind WHEN 'records_differ' THEN uplink END AS "expected.recorded_uplink_bytes",
       CASE kind WHEN 'records_differ' THEN downlink END AS "expected.recorded_downlink_bytes",
       CASE WHEN kind ~ '^b' AND buckets > 0 THEN uplink END AS "found.uplink_bytes",
       CASE WHEN kind ~ '^b' AND buckets > 0 THEN downlink END AS "found.downlink_bytes",
       CASE WHEN kind ~ '^b' AND buckets > 0 THEN total END AS "found.total_bytes",
       CASE WHEN kind <> 'records_differ' THEN charged END AS "found.charged_bytes",
       CASE kind WHEN 'records_differ' THEN recorded_uplink
                 WHEN 'bytes_differ' THEN recorded_uplink END AS "found.recorded_uplink_bytes",
       CASE kind WHEN 'records_differ' THEN recorded_downlink
                 WHEN 'bytes_differ' THEN recorded_downlink END AS "found.recorded_downlink_bytes"
  FROM sorted
 WHERE kind NOT IN ('other_writer_buckets', 'shared_minutes')
UNION ALL
SELECT kind, account_uuid::text, min(bucket_start), stored_node_id, NULL, max(bucket_start),
       count(*), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, sum(total),
       CASE kind WHEN 'shared_minutes' THEN sum(charged) END,
       CASE kind WHEN 'shared_minutes' THEN sum(recorded_uplink) END,
       CASE kind WHEN 'shared_minutes' THEN sum(recorded_downlink) END
  FROM sorted
 WHERE kind IN ('other_writer_buckets', 'shared_minutes')
 GROUP BY kind, account_uuid, stored_node_id
 ORDER BY 2, 3, 4, 5
"""

# Every charge has its ledger row and the other way round, and they say the same. Charges of the
# former life of an account that was deleted and created again are one notice. A row without a
# charge is someone else's where we have no evidence for its account and minute, or where it was
# written before our first evidence of them; on nodes that were taken over, before our first charge.
DIFFERENT_LEDGER = f"""
WITH paired AS MATERIALIZED (
  SELECT charge.ledger_id, charge.account_uuid, charge.bucket_start, charge.entry_type,
         charge.rated_bytes, charge.amount_delta, charge.pricing_rule_version,
         charge.balance_before + charge.amount_delta AS balance_after,
         charge.created_at AS charged_at,
         entry.id, entry.account_uuid AS entry_account, entry.bucket_start AS entry_bucket,
         entry.bucket_end, entry.entry_type AS entry_entry_type,
         entry.rated_bytes AS entry_rated, entry.amount_delta AS entry_amount,
         entry.balance_after AS entry_balance, entry.pricing_rule_version AS entry_version,
         entry.created_at AS entry_created_at
    FROM (SELECT * FROM ({CHARGES}) AS charge WHERE bucket_start >= {KEPT_SINCE}) AS charge
    FULL JOIN (SELECT id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes,
                      amount_delta, balance_after, pricing_rule_version, created_at
                 FROM public.billing_ledger
                WHERE (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
                  AND bucket_start >= {KEPT_SINCE}
                  AND bucket_start >= %(since)s AND bucket_start < %(until)s) AS entry
      ON entry.id = charge.ledger_id
   WHERE charge.ledger_id IS NULL
         AND entry.entry_type IN ('traffic_charge', 'traffic_adjustment')
      OR entry.id IS NULL
      OR entry.account_uuid <> charge.account_uuid
      OR entry.bucket_start <> charge.bucket_start
      OR entry.bucket_end <> charge.bucket_start + interval '1 minute'
      OR entry.entry_type <> charge.entry_type OR entry.rated_bytes <> charge.rated_bytes
      OR entry.pricing_rule_version <> charge.pricing_rule_version
      OR entry.amount_delta <> charge.amount_delta::double precision
      OR entry.balance_after <> (charge.balance_before + charge.amount_delta)::double precision
), begun AS MATERIALIZED (
  SELECT stored_node_id, min(created_at) AS at
    FROM billing.charges
   WHERE EXISTS (SELECT FROM billing.streams WHERE origin = 'taken_over')
   GROUP BY 1
), unmatched AS (
  SELECT paired.*,
         CASE WHEN charged.at IS NOT NULL
              THEN entry_created_at < greatest(charged.at, recorded.begun_at)
              WHEN recorded.records > 0
              THEN entry_created_at < recorded.at
                   OR recorded.is_taken_over
                   AND entry_created_at < coalesce(recorded.begun_at, 'infinity')
              ELSE true END AS is_foreign
    FROM paired,
         LATERAL (SELECT min(charge.created_at) AS at
                    FROM billing.charges AS charge
                   WHERE charge.account_uuid = entry_account
                     AND charge.bucket_start = entry_bucket) AS charged,
         LATERAL (SELECT count(*) AS records, min(seal.created_at) AS at,
                         bool_or(stream.origin = 'taken_over') AS is_taken_over,
                         max(begun.at) FILTER (WHERE stream.origin = 'taken_over') AS begun_at
                    FROM billing.streams AS stream
                    JOIN billing.usage_records AS record
                      ON record.bucket_start = entry_bucket
                     AND record.stream_id = stream.stream_id
                    LEFT JOIN billing.seals AS seal USING (run_id, step)
                    LEFT JOIN begun USING (stored_node_id)
                   WHERE stream.account_uuid = entry_account) AS recorded
   WHERE ledger_id IS NULL
), {LIVES.format(accounts="SELECT account_uuid FROM paired WHERE id IS NULL")}, figures AS (
  SELECT *, id IS NULL AND charged_at < (SELECT begun_at FROM life
                                          WHERE life.account_uuid = paired.account_uuid)
            AS is_of_former_life,
         entry_account = account_uuid AND entry_bucket = bucket_start
         AND bucket_end = bucket_start + interval '1 minute' AND entry_entry_type = entry_type
         AND entry_rated = rated_bytes AND entry_version = pricing_rule_version
         AND entry_amount = amount_delta::double precision AS is_told
    FROM paired
   WHERE ledger_id IS NOT NULL
)
SELECT CASE WHEN id IS NULL THEN 'ledger_missing'
            WHEN is_told THEN 'balance_after_differs' ELSE 'ledger_differs' END AS kind,
       figures.account_uuid::text AS account_uuid, ledger_id::text AS "key.ledger_id",
       bucket_start AS "key.bucket_start", NULL::timestamptz AS "key.last_bucket_start",
       figures.account_uuid::text AS "expected.account_uuid",
       bucket_start AS "expected.bucket_start",
       bucket_start + interval '1 minute' AS "expected.bucket_end",
       entry_type AS "expected.entry_type", rated_bytes AS "expected.rated_bytes",
       amount_delta AS "expected.amount_delta", balance_after AS "expected.balance_after",
       pricing_rule_version AS "expected.pricing_rule_version",
       NULL::bigint AS "found.rows",
       entry_account::text AS "found.account_uuid", entry_bucket AS "found.bucket_start",
       bucket_end AS "found.bucket_end", entry_entry_type AS "found.entry_type",
       entry_rated::numeric AS "found.rated_bytes",
       entry_amount::text::numeric AS "found.amount_delta",
       entry_balance::text::numeric AS "found.balance_after",
       entry_version AS "found.pricing_rule_version"
  FROM figures
  LEFT JOIN public.users AS account ON account.uuid = figures.account_uuid
 WHERE (id IS NOT NULL OR account.uuid IS NOT NULL) AND NOT is_of_former_life
UNION ALL
SELECT 'account_recreated', figures.account_uuid::text, NULL, min(bucket_start), max(bucket_start),
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, count(*),
       NULL, NULL, NULL, NULL, sum(rated_bytes), sum(amount_delta), NULL, NULL
  FROM figures
  JOIN public.users AS account ON account.uuid = figures.account_uuid
 WHERE is_of_former_life
 GROUP BY figures.account_uuid
UNION ALL
SELECT 'ledger_unproven', entry_account::text, id::text, entry_bucket, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       entry_account::text, entry_bucket, bucket_end, entry_entry_type, entry_rated,
       entry_amount::text::numeric, entry_balance::text::numeric, entry_version
  FROM unmatched
 WHERE NOT is_foreign
UNION ALL
SELECT 'other_writer_ledger', entry_account::text, NULL, min(entry_bucket), max(entry_bucket),
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, count(*),
       NULL, NULL, NULL, NULL, sum(entry_rated), sum(entry_amount::text::numeric), NULL, NULL
  FROM unmatched
 WHERE is_foreign
 GROUP BY entry_account
 ORDER BY 2, 4, 3
"""
