"""What is known of each counter pair: read, as values, as JSON and as a table. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import plural
from billing_cli.core.model import StreamName, Totals
from billing_cli.core.objects import attributes
from billing_cli.database import arrays
from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.jobs.nodes import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.cli.tables import Part
    from billing_cli.core.model import StreamOrigin, StreamState
    from billing_cli.jobs.context import JobContext


def list_streams(
    context: JobContext, source_ids: Sequence[str] = (), *, is_unresolved_only: bool = False
) -> list[StreamStatus]:
    """Return the streams of the named sources, or of all; only those without account on demand.

    Raises UsageError for an unknown source.
    """

    def work(connection: Connection) -> list[StreamStatus]:
        require_head(connection)
        nodes = nodes_of(context, connection, source_ids)
        return read_stream_status(connection, nodes, is_unresolved_only=is_unresolved_only)

    with Session(context.database) as session:
        return session.read(work)


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


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream as the database knows it.

    `source_id` is None where no source carries the node any more, `account_uuid` while the stream
    is unresolved; `pending_bytes` wait for that. `origin` says how it began, `state` whether its
    bytes are charged. `changed_at` is the snapshot in which the totals last changed, `absent_since`
    the last one that held a stream that is gone.
    """

    stream_id: int
    source_id: str | None
    stored_node_id: str
    name: StreamName
    account_uuid: str | None
    origin: StreamOrigin
    state: StreamState
    first_seen_at: datetime
    changed_at: datetime
    absent_since: datetime | None
    reset_epoch: int
    totals: Totals
    pending_bytes: int


def streams_object(streams: Sequence[StreamStatus]) -> dict[str, Any]:
    """Return the streams as a JSON object."""
    return {
        "job": "streams",
        "status": "ok",
        "error": None,
        "streams": [
            {
                **attributes(
                    stream,
                    """stream_id source_id account_uuid state first_seen_at changed_at absent_since
                    reset_epoch pending_bytes""",
                ),
                "node_id": stream.stored_node_id,
                "line_code": stream.name.inbound_tag,
                "sample_uuid": stream.name.sample_uuid,
                "first_sight": stream.origin,
                "uplink_bytes_total": stream.totals.uplink,
                "downlink_bytes_total": stream.totals.downlink,
            }
            for stream in streams
        ],
    }


COLUMNS = (
    Column("source", is_extra=True),
    Column("node"),
    Column("inbound_tag"),
    Column("sample", is_extra=True),
    Column("account"),
    Column("state", "state"),
    Column("first_seen", "moment", is_extra=True),
    Column("last_change", "moment", is_extra=True),
    Column("uplink", "bytes", is_extra=True),
    Column("downlink", "bytes", is_extra=True),
    Column("pending", "bytes"),
)


def streams_parts(streams: Sequence[StreamStatus]) -> list[Part]:
    """Return a table of the streams, and how to decide about those that are duplicates.

    Totals are those that the exporter shows.
    """
    rows = [
        (
            stream.source_id,
            stream.stored_node_id,
            stream.name.inbound_tag,
            stream.name.sample_uuid,
            stream.account_uuid,
            stream.state,
            stream.first_seen_at,
            stream.changed_at,
            stream.totals.uplink,
            stream.totals.downlink,
            stream.pending_bytes,
        )
        for stream in streams
    ]
    parts: list[Part] = [Table(COLUMNS, rows, empty="no streams")]
    duplicates = sum(stream.state == "duplicate" for stream in streams)
    if duplicates:
        advice = (
            f"{plural(duplicates, 'duplicate')}: another stream of the account counts the same "
            "bytes. `billing held list` shows what is held of it; `billing held release` charges "
            "it from now on, `billing held reject` ignores it for good."
        )
        parts += ["", advice]
    return parts
