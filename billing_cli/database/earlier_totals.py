"""Totals of streams as they were at a time before, from the usage records since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Totals
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from psycopg import Connection

# Within an epoch totals only grow, so that the smallest ones are the oldest. A counter that began
# in that time has none of before: its first reading takes their place.
READ_EARLIER_TOTALS = """
WITH wanted AS (
    SELECT stream_id, reset_epoch, inbound_tag, sample_uuid
      FROM billing.streams
      JOIN unnest(%(inbound_tags)s::text[], %(sample_uuids)s::uuid[]) AS name (tag, uuid)
        ON (inbound_tag, sample_uuid) = (tag, uuid)
     WHERE stored_node_id = %(stored_node_id)s
), moved AS (
    SELECT stream_id, reset_epoch, uplink_start, uplink_end, downlink_start, downlink_end
      FROM generate_series(%(since)s, %(until)s, interval '1 minute') AS minute
     CROSS JOIN wanted
      JOIN billing.usage_records AS record USING (stream_id, reset_epoch)
     WHERE record.bucket_start = minute AND record.revision = 0
     UNION ALL
    SELECT stream_id, reset_epoch, uplink_start, uplink_end, downlink_start, downlink_end
      FROM billing.pending_usage
      JOIN wanted USING (stream_id, reset_epoch)
     WHERE to_at >= %(since)s
     UNION ALL
    SELECT stream_id, reset_epoch, uplink_start, uplink_end, downlink_start, downlink_end
      FROM billing.held_deltas
      JOIN wanted USING (stream_id, reset_epoch)
     WHERE to_at >= %(since)s
)
SELECT inbound_tag, sample_uuid::text,
       min(CASE WHEN (uplink_start, downlink_start) = (0, 0) THEN uplink_end
                ELSE uplink_start END),
       min(CASE WHEN (uplink_start, downlink_start) = (0, 0) THEN downlink_end
                ELSE downlink_start END)
  FROM moved
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

    Those that moved between it and `until` are looked for; the others are left out.
    """
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
