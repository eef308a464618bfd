"""The nodes of sources that are named on the command line, wherever they are known from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database.sources import read_sources
from billing_cli.errors import UsageError
from billing_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from billing_cli.jobs.context import JobContext


def nodes_of(
    context: JobContext, connection: Connection, source_ids: Sequence[str]
) -> tuple[str, ...] | None:
    """Return the stored node ids that the sources carry, or None where no source is named.

    Those that their nodes had before are among them. A source may have been disabled, or taken out
    of the configuration: what was collected from it is still there. One that is configured and
    never answered has no node. Raises UsageError for a name that neither the configuration nor the
    database knows.
    """
    if not source_ids:
        return None
    states = read_sources(connection, sorted(set(source_ids)))
    configured = {source.source_id for source in context.sources}
    unknown = [
        name for name, state in states.items() if not state.identity and name not in configured
    ]
    if unknown:
        known = ", ".join(sorted(configured)) or "none"
        hint = did_you_mean(unknown[0], configured)
        raise UsageError(f"unknown source {', '.join(sorted(unknown))}{hint}; configured: {known}")
    return tuple(
        node
        for state in states.values()
        if state.identity
        for node in (state.identity.stored, *state.former_nodes)
    )
