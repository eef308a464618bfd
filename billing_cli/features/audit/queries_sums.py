"""What an audit of all accounts compares first: one pass over each large table, without any sort.

Rows that hold the same bytes or the same ledger entry must have the same sums of hashes, hour by
hour. Only hours whose sums differ are looked at row by row, by the statements of `queries_facts`
and `queries_amounts`, so that a clean audit costs little more than reading. Within an hour, the
rows of each minute are summed first: the minute is hashed once, not once a row.

The seed of the hashes is random in each audit. The sum for bytes is Σ hash x bytes modulo 2^31 - 1,
which is the same however bytes are divided among rows with one key: a difference stays unseen with
a probability of 1 in 2^31 an hour, and in the next audit by another chance. Sums of ledger entries
are compared modulo 2^61 - 1: a decimal of Python holds no more than 28 digits exactly.
"""

from __future__ import annotations

from billing_cli.database.balance_queries import ORDER_AT_ONCE
from billing_cli.features.audit.queries_positions import NEW_CHARGES
from billing_cli.features.audit.queries_seals import ADOPTED

HOUR = "date_trunc('hour', bucket_start)"

PRIME = 2147483647
ENTRY_PRIME = 2305843009213693951

MINUTE_HASH = (
    f"(timestamp_hash_extended(bucket_start AT TIME ZONE 'UTC', %(seed)s::bigint) & {PRIME})"
)
# Of an hour, from the sums modulo the prime that each of its minutes has.
HOUR_SUM = f"mod(sum({{sum}} * {MINUTE_HASH}), {PRIME})"

# The key of a bucket within its minute. Streams are hashed once, not once a record.
STREAM_HASH = "hashtextextended({line_code}, hashtextextended({node_id}, %(seed)s::bigint))"
BUCKET_HASH = "uuid_hash_extended(account_uuid, {stream})"

# %(factor)s is random as well: bytes that change their direction are seen.
WEIGHED = f"mod(sum(({{hash}} & {PRIME}) * mod({{bytes}}, {PRIME})), {PRIME})"
BOTH_WAYS = f"mod({{up}}, {PRIME}) + mod({{down}}, {PRIME}) * %(factor)s::bigint"

ENTRY_HASH = """hashtextextended(pricing_rule_version, hashtextextended(entry_type,
           hashint8extended(rated_bytes, hashfloat8extended({amount},
           hashfloat8extended({balance}, uuid_hash_extended(account_uuid,
           uuid_hash_extended({id}, %(seed)s::bigint)))))))"""

IS_TRAFFIC = "entry_type IN ('traffic_charge', 'traffic_adjustment')"

# The seal of a fact. One without a run has none, and adds what no seal does.
SEAL_HASH = (
    "(uuid_hash_extended({run_id}, hashint4extended({step}, %(seed)s::bigint)) & 2147483647)"
)
FACT_SEAL_HASH = f"""sum(coalesce(CASE step WHEN 0 THEN {
    SEAL_HASH.format(
        run_id=ADOPTED, step="to_char(bucket_start AT TIME ZONE 'UTC', 'YYYYMM')::integer"
    )
} ELSE {SEAL_HASH.format(run_id="run_id", step="step")} END, 1))"""

SUM_SEALS = f"""
SELECT coalesce(sum(records * hash), 0), coalesce(sum(charges * hash), 0)
  FROM (SELECT records, charges, {SEAL_HASH.format(run_id="run_id", step="step")} AS hash
          FROM billing.seals
         WHERE job <> 'prune') AS seal
"""

SUM_RECORDS = f"""
SELECT {HOUR}, sum(rows)::bigint, sum(moved), {HOUR_SUM.format(sum="hash")}, sum(seals)
  FROM (SELECT bucket_start, count(*) AS rows,
               sum(uplink_end) - sum(uplink_start) + sum(downlink_end) - sum(downlink_start)
                 AS moved,
               {
    WEIGHED.format(
        hash=BUCKET_HASH.format(stream="stream.hash"),
        bytes=BOTH_WAYS.format(
            up="(uplink_end - uplink_start)", down="(downlink_end - downlink_start)"
        ),
    )
} AS hash, {FACT_SEAL_HASH} AS seals
          FROM billing.usage_records AS record
          LEFT JOIN (SELECT stream_id, {
    STREAM_HASH.format(line_code="inbound_tag", node_id="stored_node_id")
} AS hash
                  FROM billing.streams) AS stream USING (stream_id)
         WHERE bucket_start >= %(since)s
         GROUP BY 1) AS minute
 GROUP BY 1
"""

# What no sum shows: a bucket of no bytes, and one that contradicts itself.
SUM_BUCKETS = f"""
SELECT {HOUR}, sum(rows)::bigint, sum(total), {HOUR_SUM.format(sum="hash")},
       {HOUR_SUM.format(sum="region_hash")}, bool_or(is_odd)
  FROM (SELECT bucket_start, count(*) AS rows, sum(total_bytes) AS total,
               {
    WEIGHED.format(
        hash=BUCKET_HASH.format(
            stream=STREAM_HASH.format(line_code="line_code", node_id="node_id")
        ),
        bytes=BOTH_WAYS.format(up="uplink_bytes", down="downlink_bytes"),
    )
} AS hash,
               {
    WEIGHED.format(
        hash="hashtextextended(region, "
        + BUCKET_HASH.format(stream=STREAM_HASH.format(line_code="line_code", node_id="node_id"))
        + ")",
        bytes="total_bytes",
    )
} AS region_hash,
               bool_or(total_bytes = 0 OR uplink_bytes + downlink_bytes <> total_bytes) AS is_odd
          FROM public.traffic_minute_buckets
         WHERE bucket_start >= %(since)s
         GROUP BY 1) AS minute
 GROUP BY 1
"""

# An amount that is not plainly rated bytes x price x multiplier is looked at again: one that was
# adjusted, and one that may be rounded half to even.
SUM_CHARGES = f"""
SELECT {HOUR}, sum(rows)::bigint, sum(included), sum(rated), sum(amount), min(first_at),
       sum(seals), {HOUR_SUM.format(sum="region_hash")},
       mod(sum(entries * {MINUTE_HASH}), {ENTRY_PRIME}),
       bool_or(is_odd)
  FROM (SELECT bucket_start, count(*) AS rows, sum(included_bytes) AS included,
               sum(rated_bytes) AS rated, sum(amount_delta) AS amount,
               min(created_at) AS first_at, {FACT_SEAL_HASH} AS seals,
               {
    WEIGHED.format(
        hash="hashtextextended(region, "
        + BUCKET_HASH.format(
            stream=STREAM_HASH.format(line_code="line_code", node_id="stored_node_id")
        )
        + ")",
        bytes="included_bytes + rated_bytes",
    )
} AS region_hash,
               sum({
    ENTRY_HASH.format(
        id="ledger_id",
        amount="amount_delta::double precision",
        balance="(balance_before + amount_delta)::double precision",
    )
}) AS entries,
               bool_or(adjusts IS NOT NULL OR rated_bytes < 0
               OR amount_delta <> 0 - round(rated_bytes * price_per_byte * multiplier, 9)
               OR included_bytes <> least(greatest(quota_before, 0), included_bytes + rated_bytes)
               OR CASE WHEN scale(price_per_byte) + scale(multiplier) > 9
                       THEN mod(abs(rated_bytes * price_per_byte * multiplier), 0.000000001)
                            = 0.0000000005
                       ELSE false END) AS is_odd
          FROM billing.charges
         WHERE bucket_start >= %(since)s
         GROUP BY 1) AS minute
 GROUP BY 1
"""

# The entries of traffic. One that does not end a minute after it began is never as it should be.
SUM_LEDGER = f"""
SELECT {HOUR}, sum(rows)::bigint, mod(sum(entries * {MINUTE_HASH}), {ENTRY_PRIME}),
       bool_or(is_odd)
  FROM (SELECT bucket_start, count(*) AS rows,
               sum({ENTRY_HASH.format(id="id", amount="amount_delta", balance="balance_after")})
                 FILTER (WHERE {IS_TRAFFIC}) AS entries,
               bool_or({IS_TRAFFIC} AND bucket_end IS DISTINCT FROM
                       bucket_start + interval '1 minute') AS is_odd
          FROM public.billing_ledger
         WHERE bucket_start >= %(since)s
         GROUP BY 1) AS minute
 GROUP BY 1
"""

# The same of what was written lately, by the index that the ledger has: account by account.
SUM_NEW_LEDGER = f"""
SELECT coalesce(sum(entries), 0)::bigint, mod(sum(hash), {ENTRY_PRIME}), bool_or(is_odd),
       coalesce(array_agg(account_uuid::text) FILTER (WHERE is_other), '{{}}')
  FROM public.account_quota_states AS account
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE bucket_start >= %(since)s) AS entries,
              sum({ENTRY_HASH.format(id="id", amount="amount_delta", balance="balance_after")}
                  * {MINUTE_HASH}::numeric)
                FILTER (WHERE bucket_start >= %(since)s AND {IS_TRAFFIC}) AS hash,
              bool_or(bucket_end IS DISTINCT FROM bucket_start + interval '1 minute')
                FILTER (WHERE bucket_start >= %(since)s AND {IS_TRAFFIC}) AS is_odd,
              bool_or(NOT {IS_TRAFFIC} AND amount_delta <> 0) AS is_other
         FROM public.billing_ledger AS entry
        WHERE entry.account_uuid = account.account_uuid
          AND entry.created_at >= %(entered_since)s) AS entry
"""

# Accounts whose charges do not lead from the first one's funds to the funds as they are now, each
# from what another one left; and those with rows of other services. Their changes are explained.
# An account of which the first charge that was written is not of the first minute is among them.
FUNDS = "hashint8extended({quota}, hashfloat8extended({balance}, %(seed)s::bigint))"
BEFORE = FUNDS.format(quota="quota_before", balance="balance_before::double precision")
AFTER = FUNDS.format(
    quota="quota_before - included_bytes",
    balance="(balance_before + amount_delta)::double precision",
)
STATE = FUNDS.format(quota="remaining_included_quota", balance="current_balance")

CHANGED_ACCOUNTS = f"""
SELECT chain.account_uuid::text, account.uuid IS NULL OR state.account_uuid IS NULL
  FROM (SELECT account_uuid, min(bucket_start) AS first_minute, min(created_at) AS first_at,
               sum({BEFORE}) - sum({AFTER}) AS difference
          FROM billing.charges
         GROUP BY account_uuid) AS chain
  LEFT JOIN public.account_quota_states AS state USING (account_uuid)
  LEFT JOIN public.users AS account ON account.uuid = chain.account_uuid
  LEFT JOIN LATERAL (
       SELECT {BEFORE} = chain.difference + {STATE} AS is_same
         FROM billing.charges AS first
        WHERE first.bucket_start = chain.first_minute
          AND first.account_uuid = chain.account_uuid
          AND first.created_at = chain.first_at
        ORDER BY {ORDER_AT_ONCE}
        LIMIT 1) AS opening ON true
 WHERE opening.is_same IS NOT TRUE OR account.uuid IS NULL
UNION
SELECT account_uuid::text, false
  FROM public.billing_ledger
 WHERE entry_type NOT IN ('traffic_charge', 'traffic_adjustment') AND amount_delta <> 0
"""

# The same from what the last clean audit found on.
NEWLY_CHANGED_ACCOUNTS = f"""
SELECT state.account_uuid::text
  FROM public.account_quota_states AS state
  LEFT JOIN billing.audited_accounts AS audited USING (account_uuid)
  LEFT JOIN (SELECT account_uuid, sum({BEFORE}) - sum({AFTER}) AS difference
               FROM ({NEW_CHARGES}) AS charge
              GROUP BY account_uuid) AS chain USING (account_uuid)
 WHERE coalesce(chain.difference, 0) + {STATE}
       IS DISTINCT FROM {FUNDS.format(quota="audited.quota", balance="audited.balance")}::numeric
"""
