"""Where the last clean audit ended: the seals that it proved, and what it found of accounts.

The next audit goes on from there. All of it is written in the transaction that the audit read in,
so that it is the state that was proven.
"""

from __future__ import annotations

# A transaction is not open for a day: what was sealed longer before the last clean audit began was
# there to be proven.
HORIZON = "interval '1 day'"

# (The seal of a prune covers facts that have a seal of their own.)
IS_NEW_SEAL = """
       seal.job <> 'prune' AND seal.created_at >= %(horizon)s
       AND NOT EXISTS (SELECT FROM billing.audited_seals AS audited
                        WHERE audited.run_id = seal.run_id AND audited.step = seal.step)
"""

# The last clean audit, where there is one: when it began, and from where seals may be new. After an
# audit of everything that was not clean there is none: what it found may be older than any.
READ_LAST_CLEAN = f"""
SELECT at, at - {HORIZON}
  FROM billing.audits
 WHERE violations = 0
   AND NOT EXISTS (SELECT FROM (SELECT violations FROM billing.audits
                                 WHERE is_full ORDER BY audit_id DESC LIMIT 1) AS everything
                    WHERE everything.violations > 0)
 ORDER BY audit_id DESC
 LIMIT 1
"""

READ_NEW_SEALS = f"""
SELECT count(*), min(first_bucket), max(last_bucket) FROM billing.seals AS seal WHERE {IS_NEW_SEAL}
"""

# Facts that no seal covers, and seals that cover other numbers of facts than there are. Facts of
# step 0 were there before seals were.
UNSEALED_NEW_FACTS = f"""
SELECT CASE WHEN seal.run_id IS NULL THEN 'seal_missing' ELSE 'seal_differs' END AS kind,
       NULL AS account_uuid, coalesce(fact.run_id, seal.run_id)::text
         AS "key.run_id", coalesce(fact.step, seal.step) AS "key.step",
       coalesce(seal.records, 0) AS "expected.records",
       coalesce(seal.charges, 0) AS "expected.charges",
       coalesce(fact.records, 0)::bigint AS "found.records",
       coalesce(fact.charges, 0)::bigint AS "found.charges"
  FROM (SELECT run_id, step, sum(records) AS records, sum(charges) AS charges
          FROM (SELECT run_id, step, count(*) AS records, 0 AS charges
                  FROM billing.usage_records
                 WHERE bucket_start >= %(since)s AND step > 0 GROUP BY 1, 2
                UNION ALL
                SELECT run_id, step, 0, count(*)
                  FROM billing.charges
                 WHERE bucket_start >= %(since)s AND step > 0 GROUP BY 1, 2) AS side
         GROUP BY 1, 2) AS fact
  LEFT JOIN billing.seals AS old USING (run_id, step)
  FULL JOIN (SELECT * FROM billing.seals AS seal
              WHERE seal.first_bucket >= %(since)s AND {IS_NEW_SEAL}) AS seal USING (run_id, step)
 WHERE old.run_id IS NULL AND seal.run_id IS NULL
    OR seal.run_id IS NOT NULL
       AND (coalesce(fact.records, 0), coalesce(fact.charges, 0)) <> (seal.records, seal.charges)
 ORDER BY 3, 4
"""

NEW_CHARGES = f"""
SELECT charge.*
  FROM billing.charges AS charge
  JOIN billing.seals AS seal USING (run_id, step)
 WHERE charge.bucket_start >= %(since)s AND seal.last_bucket >= %(since)s AND {IS_NEW_SEAL}
"""

# Whether this server and this role take it.
MAY_WRITE = """
SELECT NOT pg_is_in_recovery() AND has_table_privilege('billing.audits', 'INSERT')
"""

SAVE_SEALS = f"""
INSERT INTO billing.audited_seals (run_id, step, created_at)
SELECT run_id, step, created_at FROM billing.seals WHERE created_at >= now() - {HORIZON}
    ON CONFLICT DO NOTHING
"""

SAVE_STREAMS = """
INSERT INTO billing.audited_streams AS own
       (stream_id, reset_epoch, seen_at, uplink_total, downlink_total, state)
SELECT stream_id, reset_epoch, seen_at, uplink_total, downlink_total, state
  FROM billing.streams AS stream
 WHERE NOT EXISTS (SELECT FROM billing.audited_streams AS same
                    WHERE same.stream_id = stream.stream_id
                      AND (same.reset_epoch, same.seen_at, same.uplink_total, same.downlink_total,
                           same.state)
                        = (stream.reset_epoch, stream.seen_at, stream.uplink_total,
                           stream.downlink_total, stream.state))
    ON CONFLICT (stream_id) DO UPDATE
   SET reset_epoch = excluded.reset_epoch, seen_at = excluded.seen_at,
       uplink_total = excluded.uplink_total, downlink_total = excluded.downlink_total,
       state = excluded.state
"""

SAVE_ACCOUNTS = """
INSERT INTO billing.audited_accounts (account_uuid, balance, quota)
SELECT account_uuid, current_balance, remaining_included_quota
  FROM public.account_quota_states AS state
 WHERE NOT EXISTS (SELECT FROM billing.audited_accounts AS same
                    WHERE same.account_uuid = state.account_uuid
                      AND same.balance IS NOT DISTINCT FROM state.current_balance
                      AND same.quota IS NOT DISTINCT FROM state.remaining_included_quota)
    ON CONFLICT (account_uuid) DO UPDATE SET balance = excluded.balance, quota = excluded.quota
"""

SAVE_AUDIT = """
INSERT INTO billing.audits (run_id, at, is_full, violations, notices, since)
VALUES (%(run_id)s, now(), %(is_full)s, %(violations)s, %(notices)s, %(first_minute)s)
"""
