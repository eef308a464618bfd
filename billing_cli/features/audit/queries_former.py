"""The streams that an account had before they got another one: no index leads to them.

Their records are missing from minutes of the account. One such minute shows which streams those
are, and with their records the others are complete as a rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database import arrays
from billing_cli.database.spans import KEPT_SINCE

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

# Minutes since our evidence begins whose buckets hold other bytes than the records of the account's
# streams and of those that are known to have been its own. The OFFSET keeps the planner from
# reading whole minutes in place of looking at each key.
INCOMPLETE_MINUTES = f"""
WITH own AS MATERIALIZED (
  SELECT stream_id
    FROM billing.streams
   WHERE account_uuid = %(account)s OR stream_id = ANY (%(former_streams)s::bigint[])
)
SELECT bucket_start
  FROM (SELECT bucket_start, sum(total_bytes) AS total_bytes
          FROM public.traffic_minute_buckets
         WHERE account_uuid = %(account)s AND bucket_start >= {KEPT_SINCE}
           AND bucket_start >= (SELECT min(bucket_start) FROM billing.usage_records)
         GROUP BY bucket_start) AS bucket
 WHERE total_bytes <> (
       SELECT coalesce(sum(record.recorded_bytes), 0)
         FROM own
        CROSS JOIN LATERAL (
              SELECT uplink_end - uplink_start + downlink_end::numeric - downlink_start
                       AS recorded_bytes
                FROM billing.usage_records AS record
               WHERE record.bucket_start = bucket.bucket_start AND record.stream_id = own.stream_id
                 AND record.account_uuid = %(account)s
              OFFSET 0) AS record)
 ORDER BY bucket_start
"""

READ_STREAMS_OF_MINUTE = """
SELECT DISTINCT record.stream_id
  FROM billing.usage_records AS record
  JOIN billing.streams AS stream USING (stream_id)
 WHERE record.bucket_start = %(minute)s AND record.account_uuid = %(account)s
   AND stream.account_uuid IS DISTINCT FROM %(account)s
"""


def read_former_streams(connection: Connection, account_uuid: str) -> tuple[int, ...]:
    """Return the streams that the account was charged for and that have another account now."""
    former: set[int] = set()
    looked_at: set[datetime] = set()
    incomplete = _incomplete_minutes(connection, account_uuid, former)
    while incomplete:
        minute = incomplete.pop()
        if minute in looked_at:
            continue
        looked_at.add(minute)
        rows = connection.execute(
            READ_STREAMS_OF_MINUTE, {"account": account_uuid, "minute": minute}
        )
        found = {stream_id for (stream_id,) in rows}
        if found - former:
            former |= found
            incomplete = _incomplete_minutes(connection, account_uuid, former)
    return tuple(sorted(former))


def _incomplete_minutes(
    connection: Connection, account_uuid: str, former: set[int]
) -> list[datetime]:
    rows = connection.execute(
        INCOMPLETE_MINUTES, {"account": account_uuid, "former_streams": arrays.plain(former)}
    )
    return [minute for (minute,) in rows]
