"""Bytes from the shared buckets, money from our charges, in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database.spans import LIVES
from billing_cli.features.usage.result import Usage

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.features.usage.result import By

# Only charges know the node and the tag of an amount; those of another writer have none. Bytes of
# its buckets may be NULL.
READ_USAGE = """
SELECT CASE %(by)s
         WHEN 'day' THEN to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD')
         WHEN 'hour' THEN to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:00:00"Z"')
         WHEN 'node' THEN node
         WHEN 'inbound-tag' THEN inbound_tag
         ELSE account_uuid::text
       END AS key,
       sum(uplink_bytes)::bigint, sum(downlink_bytes)::bigint, sum(included_bytes)::bigint,
       sum(rated_bytes)::bigint, sum(amount)
  FROM (SELECT bucket_start, node_id AS node, line_code AS inbound_tag, account_uuid,
               coalesce(uplink_bytes, 0) AS uplink_bytes,
               coalesce(downlink_bytes, 0) AS downlink_bytes,
               0 AS included_bytes, 0 AS rated_bytes, 0 AS amount
          FROM public.traffic_minute_buckets
         WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
           AND account_uuid = coalesce(%(account)s, account_uuid)
         UNION ALL
        SELECT bucket_start, stored_node_id, line_code, account_uuid,
               0, 0, included_bytes, rated_bytes, -amount_delta
          FROM billing.charges
         WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
           AND account_uuid = coalesce(%(account)s, account_uuid)) AS fact
 GROUP BY 1
 ORDER BY 1
"""

# What accounts were charged before they were deleted: buckets and ledger rows went with them. Only
# accounts that were charged before their oldest ledger row was written are looked at closely.
READ_DELETED = f"""
WITH suspect AS (
  SELECT account_uuid
    FROM billing.charges
   WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
     AND account_uuid = coalesce(%(account)s, account_uuid)
   GROUP BY account_uuid
  HAVING min(created_at) < coalesce((SELECT min(entry.created_at)
                                       FROM public.billing_ledger AS entry
                                      WHERE entry.account_uuid = charges.account_uuid), 'infinity')
), {LIVES.format(accounts="SELECT account_uuid FROM suspect")}
SELECT coalesce(sum(-amount_delta), 0)
  FROM life
  JOIN billing.charges AS charge USING (account_uuid)
 WHERE bucket_start >= %(since)s AND bucket_start < %(until)s AND charge.created_at < begun_at
   AND NOT EXISTS (SELECT FROM public.billing_ledger AS entry WHERE entry.id = charge.ledger_id)
"""


def read_usage(
    connection: Connection, by: By, since: datetime, until: datetime, account_uuid: str | None
) -> list[Usage]:
    """Return the groups of [since, until), in the order of their keys."""
    rows = connection.execute(
        READ_USAGE, {"by": by, "since": since, "until": until, "account": account_uuid}
    )
    return [Usage(*row) for row in rows]


def read_deleted(
    connection: Connection, since: datetime, until: datetime, account_uuid: str | None
) -> Decimal:
    """Return what was charged in [since, until) to accounts that were deleted since."""
    row = connection.execute(
        READ_DELETED, {"since": since, "until": until, "account": account_uuid}
    ).fetchone()
    if row is None:
        raise AssertionError("a sum has a row")
    amount: Decimal = row[0]
    return amount
