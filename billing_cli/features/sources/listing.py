"""`sources list`: each source with its state, node, watermark and lag. Changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.cli.tables import Column, Table
from billing_cli.core.objects import attributes, plain
from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.database.source_status import read_source_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from billing_cli.core.source_status import SourceStatus
    from billing_cli.jobs.context import JobContext

BEHIND_SECONDS = 300.0

READ_IDS = "SELECT source_id FROM billing.sources ORDER BY source_id"

COLUMNS = (
    Column("source"),
    Column("state", "state"),
    Column("node"),
    Column("region", is_extra=True),
    Column("contract", is_extra=True),
    Column("watermark", "moment"),
    Column("lag", "seconds"),
    Column("last_success", "moment", is_extra=True),
    Column("last_attempt", "moment", is_extra=True),
    Column("error", "prose", is_extra=True),
)


class ListedSource(NamedTuple):
    """A source with what it is called on one line: state and region, as configured or empty."""

    state: str
    region: str
    status: SourceStatus


def list_sources(context: JobContext) -> list[ListedSource]:
    """Return all sources, the configured ones first. Raises BillingError where that fails."""
    now = context.clock()
    configured = {source.source_id: source for source in context.sources}

    def work(connection: Connection) -> list[ListedSource]:
        require_head(connection)
        known = [row[0] for row in connection.execute(READ_IDS)]
        listed = []
        for found in read_source_status(connection, list(dict.fromkeys([*configured, *known]))):
            source = configured.get(found.source_id)
            lag = (now - found.watermark).total_seconds() if found.watermark else None
            status = replace(found, enabled=bool(source and source.enabled), lag_seconds=lag)
            state = _state(status) if source else "removed"
            listed.append(ListedSource(state, source.region or "" if source else "", status))
        return listed

    with Session(context.database) as session:
        return session.read(work)


def _state(source: SourceStatus) -> str:
    if not source.enabled:
        return "disabled"
    if source.last_error:
        return "failed"
    if source.lag_seconds is None:
        return "new"
    return "behind" if source.lag_seconds > BEHIND_SECONDS else "ok"


def sources_object(listed: Sequence[ListedSource]) -> dict[str, Any]:
    """Return the sources as a JSON object."""
    return {
        "job": "sources-list",
        "status": "ok",
        "error": None,
        "sources": [
            {
                **attributes(
                    source.status,
                    """source_id enabled node_id env contract lag_seconds last_attempted_at
                    last_succeeded_at""",
                ),
                **attributes(source, "state region"),
                "last_completed_until": plain(source.status.watermark),
                "last_error": source.status.last_error or None,
            }
            for source in listed
        ],
    }


def sources_parts(listed: Sequence[ListedSource]) -> list[Table]:
    """Return a table of the sources."""
    rows = [
        (
            source.status.source_id,
            source.state,
            f"{source.status.env}:{source.status.node_id}"
            if source.status.env
            else source.status.node_id,
            source.region,
            source.status.contract,
            source.status.watermark,
            source.status.lag_seconds,
            source.status.last_succeeded_at,
            source.status.last_attempted_at,
            source.status.last_error,
        )
        for source in listed
    ]
    return [Table(COLUMNS, rows, empty="no sources: add [[sources]] to the configuration")]
