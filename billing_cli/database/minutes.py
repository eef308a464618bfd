"""The minutes of which anything of an account is on record, whether or not it still exists."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.database.spans import SPANS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg import Connection

# How far back is looked for what is probably near, before all of an account's life is.
NEARBY = (timedelta(hours=1), timedelta(days=1), timedelta(days=30))

# The minutes of [since, until) in which an account has evidence that is deleted. One that is there
# has a bucket for each.
EVIDENCE_MINUTES = f"""
span AS MATERIALIZED ({SPANS}
), minute AS (
  SELECT generate_series(
           greatest(min(first_minute), date_trunc('minute', %(since)s::timestamptz)),
           least(max(last_minute), %(until)s::timestamptz - interval '1 microsecond'),
           interval '1 minute') AS at
    FROM span
  HAVING NOT EXISTS (SELECT FROM public.users WHERE uuid = %(account)s)
), evidence AS (
  SELECT minute.at AS bucket_start
    FROM minute
   CROSS JOIN span
   CROSS JOIN LATERAL (
         SELECT
           FROM billing.usage_records AS record
          WHERE record.bucket_start = minute.at AND record.stream_id = span.stream_id
          LIMIT 1) AS recorded
   UNION
  SELECT minute.at
    FROM minute
   CROSS JOIN LATERAL (
         SELECT
           FROM billing.charges AS charge
          WHERE charge.bucket_start = minute.at AND charge.account_uuid = %(account)s
          LIMIT 1) AS charged
)
"""

# Minutes of which anything is on record. What was released is in the minute of its record.
READ_MINUTES = f"""
WITH {EVIDENCE_MINUTES}
SELECT bucket_start, count(*) OVER ()
  FROM (SELECT bucket_start FROM evidence
         UNION
        SELECT bucket_start FROM public.traffic_minute_buckets WHERE account_uuid = %(account)s
         UNION
        SELECT held.bucket_start FROM billing.held_deltas AS held JOIN span USING (stream_id)
         WHERE held.state <> 'released') AS known
 WHERE (%(since)s::timestamptz IS NULL OR bucket_start >= %(since)s)
   AND (%(until)s::timestamptz IS NULL OR bucket_start < %(until)s)
 ORDER BY bucket_start
 LIMIT %(limit)s
"""

# An index leads to the last bucket. A deleted account has none, only evidence between the last two.
READ_LAST_MINUTE = f"""
SELECT (SELECT max(bucket_start)
          FROM public.traffic_minute_buckets
         WHERE account_uuid = %(account)s AND bucket_start < %(until)s),
       (SELECT max(held.bucket_start)
          FROM billing.held_deltas AS held
          JOIN billing.streams USING (stream_id)
         WHERE account_uuid = %(account)s AND held.state <> 'released'
           AND held.bucket_start < %(until)s),
       (SELECT min(first_minute) FROM ({SPANS}) AS span),
       (SELECT max(least(last_minute + interval '1 minute', %(until)s)) FROM ({SPANS}) AS span)
"""

READ_LAST_EVIDENCE = f"WITH {EVIDENCE_MINUTES} SELECT max(bucket_start) FROM evidence"


def read_minutes(
    connection: Connection,
    account_uuid: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> tuple[list[datetime], int]:
    """Return the account's first minutes in [since, until), and how many there are."""
    rows = connection.execute(
        READ_MINUTES,
        {"account": account_uuid, "since": since, "until": until, "limit": limit},
    ).fetchall()
    return [minute for minute, _ in rows], rows[0][1] if rows else 0


def read_last_minute(
    connection: Connection, account_uuid: str, until: datetime | None
) -> datetime | None:
    """Return the account's last minute before `until`; None where it has none."""
    wanted = {"account": account_uuid, "until": until or "infinity"}
    row = connection.execute(READ_LAST_MINUTE, wanted).fetchone()
    bucket, held, first, end = row or (None,) * 4
    if bucket is None and first is not None and end is not None:
        for since in further_back(end, first):
            wanted = {"account": account_uuid, "since": since, "until": end}
            row = connection.execute(READ_LAST_EVIDENCE, wanted).fetchone()
            bucket = row[0] if row else None
            if bucket is not None:
                break
    return max((minute for minute in (bucket, held) if minute is not None), default=None)


def further_back(end: datetime, first: datetime) -> Iterator[datetime]:
    """Yield where to begin to look for what is probably near the end; lastly at the first."""
    for stretch in NEARBY:
        if end - stretch <= first:
            break
        yield end - stretch
    yield min(first, end)
