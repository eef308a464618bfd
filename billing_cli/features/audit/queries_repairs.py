"""The repairs that an audit looks at, with the ledger rows that they are about."""

from __future__ import annotations

IS_TRAFFIC = "entry.entry_type IN ('traffic_charge', 'traffic_adjustment')"

CHARGE = """
       LEFT JOIN billing.charges AS charge
         ON charge.bucket_start = entry.bucket_start AND charge.account_uuid = entry.account_uuid
        AND charge.ledger_id = entry.id
"""

# Each with the sums of the charges that it names, what the entry that it follows had left, and what
# the next entry of ours found: there are few. Where no ledger row is as old as the repair, the
# account was created again since.
READ_REPAIRS = f"""
SELECT repair.account_uuid::text, repair.repair_id::text, repair.after_id::text, repair.at,
       repair.amount_delta, repair.balance_before, repair.quota_before, repair.balance_after,
       repair.quota_after, cardinality(repair.ledger_ids), named.charges, named.amount,
       named.included, before.balance, following.balance, before.quota, following.quota,
       NOT EXISTS (SELECT FROM public.billing_ledger AS entry
                    WHERE entry.account_uuid = repair.account_uuid
                      AND entry.created_at <= repair.at AND {IS_TRAFFIC})
  FROM billing.repairs AS repair
 CROSS JOIN LATERAL (
       SELECT count(*) AS charges,
              coalesce(sum(CASE WHEN abs(entry.amount_delta) < 1e15
                                THEN round(entry.amount_delta::text::numeric, 9) END), 0) AS amount,
              coalesce(sum(charge.included_bytes), 0)::bigint AS included
         FROM unnest(repair.ledger_ids) AS wanted (ledger_id)
         JOIN public.billing_ledger AS entry ON entry.id = wanted.ledger_id
         {CHARGE}
        WHERE entry.account_uuid = repair.account_uuid AND {IS_TRAFFIC}) AS named
  LEFT JOIN LATERAL (
       SELECT entry.created_at AS at,
              CASE WHEN abs(entry.balance_after) < 1e15
                   THEN round(entry.balance_after::text::numeric, 9) END AS balance,
              charge.quota_before - charge.included_bytes AS quota
         FROM public.billing_ledger AS entry
         {CHARGE}
        WHERE entry.id = repair.after_id AND entry.account_uuid = repair.account_uuid
        UNION ALL
       SELECT at, balance_after, quota_after
         FROM billing.repairs AS former
        WHERE former.repair_id = repair.after_id AND former.account_uuid = repair.account_uuid
        LIMIT 1) AS before ON true
  LEFT JOIN LATERAL (
       SELECT entry.*
         FROM ((SELECT entry.created_at AS at, charge.balance_before AS balance,
                       charge.quota_before AS quota
                  FROM public.billing_ledger AS entry
                  JOIN billing.charges AS charge
                    ON charge.bucket_start = entry.bucket_start
                   AND charge.account_uuid = entry.account_uuid AND charge.ledger_id = entry.id
                 WHERE entry.account_uuid = repair.account_uuid AND {IS_TRAFFIC}
                   AND entry.created_at > before.at
                 ORDER BY entry.created_at
                 LIMIT 1)
                UNION ALL
               (SELECT at, balance_before, quota_before
                  FROM billing.repairs AS later
                 WHERE later.account_uuid = repair.account_uuid
                   AND (later.at > before.at OR later.repair_id = repair.repair_id)
                 ORDER BY at
                 LIMIT 1)) AS entry
        ORDER BY at
        LIMIT 1) AS following ON true
 WHERE %(account)s::uuid IS NULL OR repair.account_uuid = %(account)s
 ORDER BY repair.account_uuid, repair.at
"""
