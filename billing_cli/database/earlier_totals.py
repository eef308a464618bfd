"""Totals of streams as they were at a time before, from the usage records since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Totals
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from psycopg import Connection

MOST_STREAMS = 10_000
"""Of how many streams totals are read at most: each is looked up in each minute."""

# Within an epoch totals only grow, so that the smallest ones are the oldest. A counter that began
# in that time has none of before: its first reading takes their place. The OFFSET keeps the planner
# from reading the records of all other nodes in that time.
READ_EARLIER_TOTALS = """
WITH wanted AS MATERIALIZED (
    SELECT stream_id, inbound_tag, sample_uuid
      FROM billing.streams
      JOIN unnest(%(inbound_tags)s::text[], %(sample_uuids)s::uuid[]) AS name (tag, uuid)
        ON (inbound_tag, sample_uuid) = (tag, uuid)
     WHERE stored_node_id = %(stored_node_id)s
), moved AS (
    SELECT stream_id, reset_epoch, uplink_start, uplink_end, downlink_start, downlink_end
      FROM (SELECT array_agg(stream_id ORDER BY stream_id) AS stream_ids FROM wanted) AS node
     CROSS JOIN LATERAL generate_series(%(since)s::timestamptz, %(until)s::timestamptz,
                                        interval '1 minute') AS minute (at)
     CROSS JOIN LATERAL (
           SELECT *
             FROM billing.usage_records AS record
            WHERE record.bucket_start = minute.at AND record.stream_id = ANY (node.stream_ids)
              AND record.bucket_start BETWEEN %(since)s AND %(until)s
              AND record.kind <> 'correction'
           OFFSET 0) AS record
     UNION ALL
    SELECT stream_id, reset_epoch, uplink_start, uplink_end, downlink_start, downlink_end
      FROM billing.pending_usage
      JOIN wanted USING (stream_id)
     WHERE to_at BETWEEN %(since)s AND %(until)s
     UNION ALL
    SELECT stream_id, reset_epoch, uplink_start, uplink_end, downlink_start, downlink_end
      FROM billing.held_deltas
      JOIN wanted USING (stream_id)
     WHERE to_at BETWEEN %(since)s AND %(until)s
), newest AS (
    SELECT stream_id, max(reset_epoch) AS reset_epoch FROM moved GROUP BY stream_id
)
SELECT inbound_tag, sample_uuid::text,
       min(CASE WHEN (uplink_start, downlink_start) = (0, 0) THEN uplink_end
                ELSE uplink_start END),
       min(CASE WHEN (uplink_start, downlink_start) = (0, 0) THEN downlink_end
                ELSE downlink_start END)
  FROM moved
  JOIN newest USING (stream_id, reset_epoch)
  JOIN wanted USING (stream_id)
 GROUP BY inbound_tag, sample_uuid
"""


def read_earlier_totals(
    connection: Connection,
    stored_node_id: str,
    names: Collection[StreamName],
    since: datetime,
    until: datetime,
) -> dict[StreamName, Totals]:
    """Return the totals that streams of a node had at the whole minute `since`, or began with.

    Streams that did not move between it and `until` are left out. More than MOST_STREAMS are not
    looked up.
    """
    if len(names) > MOST_STREAMS:
        return {}
    rows = connection.execute(
        READ_EARLIER_TOTALS,
        {
            "stored_node_id": stored_node_id,
            "inbound_tags": arrays.texts([name.inbound_tag for name in names]),
            "sample_uuids": arrays.texts([name.sample_uuid for name in names]),
            "since": since,
            "until": until,
        },
    )
    return {StreamName(tag, uuid): Totals(uplink, downlink) for tag, uuid, uplink, downlink in rows}
