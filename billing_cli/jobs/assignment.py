"""Which source a node belongs to: one that expects it goes before one that only claims it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from billing_cli.core.deltas import not_yet_applied
from billing_cli.database.moving import move_progress
from billing_cli.database.sources import read_sources, try_lock_sources
from billing_cli.exporter.address import is_loopback
from billing_cli.exporter.api import Fetched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg import Connection

    from billing_cli.core.model import NodeIdentity
    from billing_cli.database.sources import LockedSources
    from billing_cli.exporter.api import ExporterError
    from billing_cli.exporter.source import Source


def expects(source: Source | None, node: NodeIdentity) -> bool:
    """Tell whether a source is configured to be of this node."""
    return (
        source is not None
        and source.expected_node_id == node.node_id
        and source.expected_env in {None, node.env}
    )


def missing_assignment(source: Source) -> tuple[str, ...]:
    """Return which of the keys that name its node a source beyond this machine lacks."""
    if is_loopback(urlsplit(source.base_url).hostname or ""):
        return ()
    keys = ("expected_node_id", "expected_env")
    return tuple(key for key in keys if getattr(source, key) is None)


def assign_nodes(
    connection: Connection,
    sources: Iterable[Source],
    outcomes: Mapping[str, Fetched | ExporterError],
    found: LockedSources,
) -> LockedSources:
    """Give nodes that a source claimed to the source that expects them.

    Only while the claimant is configured and free, and nothing was collected from the other one:
    else `billing sources move` says what is meant. What the claimant collected stays as it is. The
    node is given away together with a new snapshot, which shows whether the counters go on.
    """
    configured = {source.source_id: source for source in sources}
    assigned = dict(found.node_owners)
    taken = set()
    for source_id in sorted(found.locked):
        answer = outcomes[source_id]
        if not isinstance(answer, Fetched) or answer.identity is None:
            continue
        node = answer.identity
        owner = assigned.get(node.stored)
        if (
            owner in {None, source_id}
            or owner not in configured
            or found.states[source_id].watermark is not None
            or not expects(configured[source_id], node)
            or expects(configured[owner], node)
            or not (owner in found.locked or try_lock_sources(connection, [owner]))
            or not not_yet_applied(
                read_sources(connection, [owner])[owner].watermark, answer.snapshots
            )
        ):
            continue
        move_progress(connection, owner, source_id, node)
        assigned[node.stored] = source_id
        taken.add(source_id)
    if assigned == found.node_owners:
        return found
    states = read_sources(connection, sorted(found.states))
    return replace(found, states=states, node_owners=assigned, taken=frozenset(taken))
