"""The statements that read what changed balances and quotas between our own entries."""

from __future__ import annotations

from billing_cli.database.spans import CHARGES, KEPT_SINCE, LIVES

# The entries of one step have one stamp, and an ordinal; those of the first versions, and of pruned
# months, have none: they were charged in the order of their buckets.
ORDER_AT_ONCE = """
       ordinal NULLS FIRST, bucket_start NULLS FIRST, stored_node_id COLLATE "C",
       region COLLATE "C", line_code COLLATE "C"
"""
ORDER = f"at, {ORDER_AT_ONCE}, entry_id"

# An entry of a late minute, charged after the renewal of its quota was seen: it used what was left
# of the former quota, and the stored one did not change.
IS_FORMER = """
       EXISTS (SELECT FROM billing.quota_periods)
       AND EXISTS (SELECT FROM billing.quota_periods AS period
                    WHERE period.account_uuid = charge.account_uuid
                      AND period.period_start > charge.bucket_start
                      AND period.seen_at <= charge.created_at)
"""

# A row for each place where an entry, or the quota state as it is now, has other funds than the
# entry before it left; and for each such account, or one with rows of other services, a first row
# with what it began with. What was written in a pruned month after it had ended still stands
# between entries that are left. Entries that used a former quota are returned with both neighbours.
CHANGES = """
WITH entry AS NOT MATERIALIZED (
  SELECT account_uuid, ledger_id AS entry_id, created_at AS at, ordinal, bucket_start,
         stored_node_id, region, line_code, balance_before,
         balance_before + amount_delta AS balance_after,
         quota_before, quota_before - included_bytes AS quota_after,
         {is_former} AS is_former
    FROM ({charges}) AS charge
  UNION ALL
  SELECT account_uuid, ledger_id, created_at, NULL, bucket_start, NULL, NULL, NULL,
         balance_before, balance_before + amount_delta, quota_before,
         quota_before - included_bytes, {is_former}
    FROM billing.pruned_charges AS charge
   WHERE {is_wanted}
  UNION ALL
  SELECT account_uuid, repair_id, at, NULL, NULL, NULL, NULL, NULL, balance_before, balance_after,
         quota_before, quota_after, false
    FROM billing.repairs
   WHERE {is_wanted}
), step AS (
  SELECT entry.*, row_number() OVER steps AS place, lag(entry_id) OVER steps AS before_id,
         lag(at) OVER steps AS left_at, lag(balance_after) OVER steps AS balance_left,
         lag(quota_after) OVER steps AS quota_left,
         coalesce(lag(is_former) OVER steps, false) AS left_is_former,
         lead(entry_id) OVER steps IS NULL AS is_last
    FROM entry
  WINDOW steps AS (PARTITION BY account_uuid ORDER BY {order})
), odd AS MATERIALIZED (
  SELECT *,
         balance_left::double precision <> balance_before::double precision
         OR quota_left <> quota_before OR is_former OR left_is_former AS is_changed
    FROM step
   WHERE before_id IS NULL OR is_last OR quota_left <> quota_before
      OR balance_left::double precision <> balance_before::double precision
      OR is_former OR left_is_former
), change AS (
  SELECT account_uuid, place, before_id, left_at, balance_left, quota_left, at AS found_at,
         balance_before::double precision AS balance_found, quota_before AS quota_found,
         left_is_former, is_former AS found_is_former
    FROM odd
   WHERE is_changed IS NOT FALSE
  UNION ALL
  SELECT account_uuid, place + 1, entry_id, at, balance_after, quota_after, NULL,
         state.current_balance, state.remaining_included_quota, is_former, false
    FROM odd
    JOIN public.account_quota_states AS state USING (account_uuid)
   WHERE is_last
     AND (state.current_balance IS DISTINCT FROM balance_after::double precision
          OR state.remaining_included_quota IS DISTINCT FROM quota_after)
)
SELECT account_uuid::text, before_id::text, left_at, balance_left, quota_left, found_at,
       left_is_former, found_is_former, balance_found, quota_found
  FROM (SELECT *, count(*) OVER (PARTITION BY account_uuid) AS changes FROM change) AS change
 WHERE changes > 1
    OR account_uuid IN (SELECT account_uuid
                          FROM public.billing_ledger
                         WHERE entry_type NOT IN ('traffic_charge', 'traffic_adjustment')
                           AND amount_delta <> 0 AND {is_wanted})
 ORDER BY account_uuid, place
"""

READ_CHANGES = CHANGES.format(
    charges=CHARGES,
    is_wanted="(%(account)s::uuid IS NULL OR account_uuid = %(account)s)",
    order=ORDER,
    is_former=IS_FORMER,
)

# All rows of the cursor are read, not the first tenth that the planner takes for granted.
PLAN_FOR_ALL_ROWS = "SELECT set_config('cursor_tuple_fraction', '1', true)"

READ_CHANGES_OF = CHANGES.format(
    charges="SELECT * FROM billing.charges WHERE account_uuid = ANY (%(account_uuids)s::uuid[])"
    " AND bucket_start >= %(since)s",
    is_wanted="account_uuid = ANY (%(account_uuids)s::uuid[])",
    order=ORDER,
    is_former=IS_FORMER,
)

# Charges of minutes before these that were written since: corrections, and what had waited. The
# OFFSET keeps the planner from reading whole months in place of looking at each key.
LATE_CHARGES = """
  SELECT charge.*
    FROM public.billing_ledger AS entry
   CROSS JOIN LATERAL (
         SELECT *
           FROM billing.charges AS charge
          WHERE charge.bucket_start = entry.bucket_start
            AND charge.account_uuid = entry.account_uuid AND charge.ledger_id = entry.id
         OFFSET 0) AS charge
   WHERE entry.account_uuid = ANY (%(account_uuids)s::uuid[])
     AND entry.bucket_start < %(since)s AND entry.created_at >= %(since)s
"""

# The same by the key, for a few accounts and days.
READ_RECENT_CHANGES_OF = CHANGES.format(
    charges=f"""SELECT charge.*
    FROM unnest(%(account_uuids)s::uuid[]) AS account (uuid)
   CROSS JOIN LATERAL generate_series(date_trunc('minute', %(since)s::timestamptz),
                                      %(until)s::timestamptz, interval '1 minute') AS minute (at)
   CROSS JOIN LATERAL (
         SELECT *
           FROM billing.charges AS charge
          WHERE charge.bucket_start = minute.at AND charge.account_uuid = account.uuid
         OFFSET 0) AS charge
   UNION ALL {LATE_CHARGES}""",
    is_wanted="account_uuid = ANY (%(account_uuids)s::uuid[])",
    order=ORDER,
    is_former=IS_FORMER,
)

# Ledger rows that are not ours: of other kinds, or traffic that another writer has charged. Of
# months that were pruned it is not known any more who charged the traffic.
READ_OTHER_ROWS = f"""
SELECT entry.account_uuid::text, entry.created_at, entry.amount_delta::text::numeric,
       entry.created_at > now() - interval '10 minutes'
  FROM public.billing_ledger AS entry
 WHERE entry.account_uuid = ANY (%(account_uuids)s::uuid[])
   AND entry.amount_delta <> 0 AND abs(entry.amount_delta) < 1e15
   AND (entry.entry_type NOT IN ('traffic_charge', 'traffic_adjustment')
        OR entry.bucket_start >= {KEPT_SINCE}
           AND NOT EXISTS (SELECT FROM billing.charges AS charge
                            WHERE charge.bucket_start = entry.bucket_start
                              AND charge.account_uuid = entry.account_uuid
                              AND charge.ledger_id = entry.id))
 ORDER BY entry.account_uuid, entry.created_at, entry.id
"""

READ_PROFILE_QUOTAS = """
SELECT account_uuid::text, included_quota_bytes
  FROM public.account_billing_profiles
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[]) AND included_quota_bytes > 0
"""

# Newer deployments keep the start of an account's quota period.
HAS_PERIODS = """
SELECT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = 'public.account_quota_states'::regclass
                  AND attname = 'period_start' AND NOT attisdropped)
"""

PERIODS = """
SELECT account_uuid::text, {period_start}
  FROM public.account_quota_states
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[]) AND {period_start} IS NOT NULL
"""

# When a run saw a renewal first, however long after the begin of its period.
READ_RENEWALS_SEEN = """
SELECT account_uuid::text, seen_at
  FROM billing.quota_periods
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
"""

READ_REPAIRED = """
SELECT account_uuid::text, after_id::text
  FROM billing.repairs
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
"""

# All that we did to the funds of accounts in certain times. The ledger rows of an account that was
# deleted and created again are gone: what has none, and is older than the oldest that is there, is
# of its former life.
IS_WANTED = """
       EXISTS (SELECT FROM unnest(%(account_uuids)s::uuid[], %(froms)s::timestamptz[],
                                  %(tos)s::timestamptz[]) AS span (account_uuid, from_at, to_at)
                WHERE span.account_uuid = {account} AND {at} BETWEEN from_at AND to_at)
"""

# Accounts of which an entry has no ledger row: it may be of a former life.
READ_WITHOUT_ROWS = """
SELECT DISTINCT named.account_uuid::text
  FROM unnest(%(account_uuids)s::uuid[], %(entry_ids)s::uuid[]) AS named (account_uuid, entry_id)
 WHERE NOT EXISTS (SELECT FROM public.billing_ledger AS entry WHERE entry.id = named.entry_id)
"""

# Only looked at where a ledger row is missing.
IS_SINCE = """
       EXISTS (SELECT FROM life WHERE life.account_uuid = {account} AND begun_at <= {at})
"""

READ_OWN_ENTRIES = f"""
WITH {LIVES.format(accounts="SELECT unnest(%(account_uuids)s::uuid[]) AS account_uuid")}
SELECT account_uuid::text, entry_id::text, at, bucket_start, balance_before, amount_delta,
       quota_before, included_bytes, ledger_ids::text[], is_on_record
  FROM (SELECT charge.account_uuid, charge.ledger_id AS entry_id, charge.created_at AS at,
               charge.ordinal, charge.bucket_start, charge.stored_node_id, charge.region,
               charge.line_code,
               charge.balance_before, charge.amount_delta, charge.quota_before,
               charge.included_bytes, ARRAY[charge.ledger_id] AS ledger_ids,
               ledger.id IS NOT NULL
               OR {IS_SINCE.format(at="charge.created_at", account="charge.account_uuid")}
                 AS is_on_record
          FROM (SELECT * FROM billing.charges WHERE bucket_start >= %(since)s
                UNION ALL {LATE_CHARGES}) AS charge
          LEFT JOIN public.billing_ledger AS ledger ON ledger.id = charge.ledger_id
         WHERE {IS_WANTED.format(at="charge.created_at", account="charge.account_uuid")}
        UNION ALL
        SELECT account_uuid, ledger_id, created_at, NULL, bucket_start, NULL, NULL, NULL,
               balance_before, amount_delta, quota_before, included_bytes, ARRAY[ledger_id], true
          FROM billing.pruned_charges AS charge
         WHERE {IS_WANTED.format(at="charge.created_at", account="charge.account_uuid")}
        UNION ALL
        SELECT account_uuid, repair_id, at, NULL, NULL, NULL, NULL, NULL, balance_before,
               amount_delta, quota_before, quota_before - quota_after, ledger_ids,
               EXISTS (SELECT FROM public.billing_ledger AS entry WHERE entry.id = ANY (ledger_ids))
               OR {IS_SINCE.format(at="repair.at", account="repair.account_uuid")}
          FROM billing.repairs AS repair
         WHERE {IS_WANTED.format(at="repair.at", account="repair.account_uuid")}) AS entry
 ORDER BY account_uuid, {ORDER}
"""
