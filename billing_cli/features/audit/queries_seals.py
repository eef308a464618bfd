"""What an audit asks of seals: each fact is covered by one. `billing verify` hashes the facts."""

from __future__ import annotations

from billing_cli.database.spans import KEPT_SINCE

# Facts of versions that had no seals have step 0, and are sealed by the month of their minute.
ADOPTED = "'00000000-0000-0000-0000-000000000000'::uuid"
SEAL_OF_FACT = f"""
       CASE step WHEN 0 THEN {ADOPTED} ELSE run_id END AS run_id,
       CASE step WHEN 0 THEN to_char(bucket_start AT TIME ZONE 'UTC', 'YYYYMM')::integer
                 ELSE step END AS step"""
OF_ACCOUNT = f"""
 WHERE bucket_start >= {KEPT_SINCE}
   AND (%(account)s::uuid IS NULL OR account_uuid = %(account)s)
 GROUP BY 1, 2"""

# Of one account only those facts are found that have no seal at all.
UNSEALED_FACTS = f"""
WITH counted AS (
  SELECT run_id, step, sum(records)::bigint AS records, sum(charges)::bigint AS charges
    FROM (SELECT {SEAL_OF_FACT}, count(*) AS records, 0 AS charges
            FROM billing.usage_records {OF_ACCOUNT}
          UNION ALL
          SELECT {SEAL_OF_FACT}, 0, count(*)
            FROM billing.charges {OF_ACCOUNT}) AS fact
   GROUP BY run_id, step
)
SELECT CASE WHEN seal.run_id IS NULL THEN 'seal_missing' ELSE 'seal_differs' END AS kind,
       %(account)s::uuid AS account_uuid,
       coalesce(counted.run_id, seal.run_id) AS "key.run_id",
       coalesce(counted.step, seal.step) AS "key.step",
       seal.records AS "expected.records", seal.charges AS "expected.charges",
       coalesce(counted.records, 0) AS "found.records",
       coalesce(counted.charges, 0) AS "found.charges"
  FROM counted
  FULL JOIN (SELECT run_id, step, records, charges, first_bucket, job FROM billing.seals) AS seal
    ON seal.run_id = counted.run_id AND seal.step = counted.step
 WHERE seal.run_id IS NULL
    OR %(account)s::uuid IS NULL AND seal.first_bucket >= {KEPT_SINCE} AND seal.job <> 'prune'
       AND (counted.records, counted.charges) IS DISTINCT FROM (seal.records, seal.charges)
 ORDER BY 3, 4
"""
