"""Streams as people look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Totals
from billing_cli.database import arrays
from billing_cli.features.streams.result import StreamStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

# A NULL in place of an array asks for all.
READ_STREAM_STATUS = """
SELECT stream.stream_id, source.source_id, stream.stored_node_id, stream.inbound_tag,
       stream.sample_uuid::text, stream.account_uuid::text, stream.origin,
       stream.state, stream.first_seen_at, stream.seen_at, stream.absent_since, stream.reset_epoch,
       stream.uplink_total, stream.downlink_total, coalesce(pending.total_bytes, 0)
  FROM billing.streams AS stream
  LEFT JOIN billing.sources AS source USING (stored_node_id)
  LEFT JOIN (SELECT stream_id,
                    sum(uplink_end - uplink_start) + sum(downlink_end - downlink_start)
                    AS total_bytes
               FROM billing.pending_usage
              WHERE billed_at IS NULL
              GROUP BY stream_id) AS pending USING (stream_id)
 WHERE (%(stored_node_ids)s::text[] IS NULL
        OR stream.stored_node_id = ANY (%(stored_node_ids)s::text[]))
   AND (stream.account_uuid IS NULL OR NOT %(is_unresolved_only)s)
 ORDER BY stream.stored_node_id, stream.inbound_tag, stream.sample_uuid
"""


def read_stream_status(
    connection: Connection, stored_node_ids: Iterable[str] | None, *, is_unresolved_only: bool
) -> list[StreamStatus]:
    """Return the streams of the nodes (None: of all), or those of them without an account."""
    rows = connection.execute(
        READ_STREAM_STATUS,
        {
            "stored_node_ids": None if stored_node_ids is None else arrays.texts(stored_node_ids),
            "is_unresolved_only": is_unresolved_only,
        },
    )
    return [
        StreamStatus(
            stream_id,
            source_id,
            stored_node_id,
            StreamName(inbound_tag, sample_uuid),
            account_uuid,
            origin,
            state,
            first_seen_at,
            seen_at,
            absent_since,
            reset_epoch,
            Totals(uplink_total, downlink_total),
            int(pending_bytes),
        )
        for (
            stream_id,
            source_id,
            stored_node_id,
            inbound_tag,
            sample_uuid,
            account_uuid,
            origin,
            state,
            first_seen_at,
            seen_at,
            absent_since,
            reset_epoch,
            uplink_total,
            downlink_total,
            pending_bytes,
        ) in rows
    ]
