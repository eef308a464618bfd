"""Finding an account's evidence by its key: by minute, and by stream or account.

The evidence has no index that begins with an account or a stream, because keeping one up to date
would cost each run a page for each stream. What there may be of an account follows from its
streams: each has minutes in which it can have moved, and a look at the key for each of them costs
as much as the account's own minutes, however many other streams there are.

These are pieces of statements. `%(account)s` is the account; the pieces that audits use read all
accounts where it is NULL, of the minutes from `%(since)s` up to `%(until)s`. The planner sees
which, and drops the other half. `%(former_streams)s` are streams that had the account before they
got another one.
"""

from __future__ import annotations

# The account's streams, and the first and last minute that can hold evidence of each. A stream
# that was new may have had its bytes moved by corrections to before it was first seen, but not to
# before its first record begins. Usage that had waited, and deltas that were held, are billed in
# the minute of a watermark. What was pruned is not there to be found; what is left begins with the
# first minute of all, which may be one of a pruned month that came in late.
SPANS_OF = """
  SELECT stream.stream_id,
         greatest(kept.since, date_trunc('minute', least(stream.first_seen_at, (
           SELECT min(first.from_at)
             FROM billing.usage_records AS first
            WHERE first.stream_id = stream.stream_id
              AND first.bucket_start = date_trunc('minute', stream.first_seen_at)
           )))) AS first_minute,
         date_trunc('minute', greatest(stream.seen_at, source.watermark, (
           SELECT max(pending.billed_at)
             FROM billing.pending_usage AS pending
            WHERE pending.stream_id = stream.stream_id), (
           SELECT max(held.decided_at)
             FROM billing.held_deltas AS held
            WHERE held.stream_id = stream.stream_id))) AS last_minute
    FROM billing.streams AS stream
    LEFT JOIN billing.sources AS source USING (stored_node_id)
   CROSS JOIN (SELECT least((SELECT min(bucket_start) FROM billing.usage_records),
                            (SELECT min(bucket_start) FROM billing.charges)) AS since) AS kept
   WHERE {condition}
"""
SPANS = SPANS_OF.format(condition="stream.account_uuid = %(account)s")
FORMER_SPANS = SPANS_OF.format(condition="stream.stream_id = ANY (%(former_streams)s::bigint[])")

# The first and last minute that can hold charges of the account. Where its streams have another
# account now, its buckets show them.
LIFE = f"""
  SELECT min(first_minute) AS first_minute, max(last_minute) AS last_minute
    FROM (SELECT first_minute, last_minute FROM ({SPANS}) AS span
           UNION ALL
          SELECT min(bucket_start), max(bucket_start)
            FROM public.traffic_minute_buckets
           WHERE account_uuid = %(account)s
             AND bucket_start >= (SELECT min(bucket_start) FROM billing.charges)) AS part
"""

# When the facts of accounts begin: with the oldest bucket or ledger row that each of them has.
# Those of an account that was deleted are gone: what is older is evidence of the former account.
LIVES = """
life AS MATERIALIZED (
  SELECT account_uuid,
         coalesce(least((SELECT min(created_at) FROM public.billing_ledger AS entry
                          WHERE entry.account_uuid = known.account_uuid),
                        (SELECT min(created_at) FROM public.traffic_minute_buckets AS bucket
                          WHERE bucket.account_uuid = known.account_uuid)),
                  'infinity') AS begun_at
    FROM (SELECT DISTINCT account_uuid FROM ({accounts}) AS named) AS known
)"""

# Where the evidence begins: at the beginning, or after what was pruned.
KEPT_SINCE = """
  (SELECT coalesce(max(month) + interval '1 month', '-infinity') FROM billing.pruned)
"""

# Records of streams in their minutes. The OFFSET keeps the planner from reading whole months in
# place of looking at each key.
RECORDS_IN = """
  SELECT record.*
    FROM ({spans}) AS span
   CROSS JOIN LATERAL generate_series(span.first_minute, span.last_minute, interval '1 minute')
      AS minute (at)
   CROSS JOIN LATERAL (
         SELECT *
           FROM billing.usage_records AS record
          WHERE record.bucket_start = minute.at AND record.stream_id = span.stream_id
         OFFSET 0) AS record"""

# All records of the streams that the account has now, whichever account was charged.
RECORDS = f"""
  SELECT *
    FROM billing.usage_records
   WHERE %(account)s::uuid IS NULL
     AND bucket_start >= %(since)s AND bucket_start < %(until)s
  UNION ALL
{RECORDS_IN.format(spans=SPANS)}
"""

# The records that the account was charged for, also those of its former streams.
CHARGED_RECORDS = f"""
  SELECT *
    FROM ({RECORDS}
           UNION ALL
          {RECORDS_IN.format(spans=FORMER_SPANS)}) AS record
   WHERE %(account)s::uuid IS NULL OR account_uuid = %(account)s
"""

CHARGES = f"""
  SELECT *
    FROM billing.charges
   WHERE %(account)s::uuid IS NULL
     AND bucket_start >= %(since)s AND bucket_start < %(until)s
  UNION ALL
  SELECT charge.*
    FROM ({LIFE}) AS life
   CROSS JOIN LATERAL generate_series(life.first_minute, life.last_minute, interval '1 minute')
      AS minute (at)
   CROSS JOIN LATERAL (
         SELECT *
           FROM billing.charges AS charge
          WHERE charge.bucket_start = minute.at AND charge.account_uuid = %(account)s
         OFFSET 0) AS charge
"""

# A record of an account that was deleted, and created again: ledger and buckets went with the
# account. What is left of them here must move neither bytes nor money of the new account. The
# OFFSET keeps the planner from reading the charges of all other accounts.
IS_OF_FORMER_ACCOUNT = """
  EXISTS (SELECT FROM billing.charges AS charge
           WHERE charge.bucket_start = record.bucket_start
             AND charge.account_uuid = record.account_uuid
             AND charge.stored_node_id = stream.stored_node_id
             AND charge.line_code = stream.inbound_tag
             AND NOT EXISTS (SELECT FROM public.billing_ledger AS entry
                              WHERE entry.id = charge.ledger_id)
          OFFSET 0)
"""
