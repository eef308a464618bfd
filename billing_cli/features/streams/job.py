"""`streams`: reads what is known of each counter pair, changes nothing, asks no exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.features.streams.queries import read_stream_status
from billing_cli.jobs.nodes import nodes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from billing_cli.features.streams.result import StreamStatus
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
