"""Which source each node of a file belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from billing_cli.config.source import Source
    from billing_cli.core.model import NodeIdentity

# A note names this many nodes.
NAMED = 10


class Claims(NamedTuple):
    """The nodes that each source claims, by source id, and why the others are left out."""

    nodes: Mapping[str, Sequence[NodeIdentity]]
    left_out: Mapping[NodeIdentity, str]

    def notes(self) -> tuple[str, ...]:
        """Return a note that names the nodes that are left out, if there are any."""
        named = [f"{node.stored!r} ({why})" for node, why in self.left_out.items()]
        if not named:
            return ()
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        return (f"nodes of the file that were left out: {', '.join(named[:NAMED])}{more}",)


def claimed_nodes(
    nodes: Iterable[NodeIdentity],
    sources: Iterable[Source],
    carried: Mapping[str, NodeIdentity],
    selected: Collection[str],
) -> Claims:
    """Return the nodes that each source claims, and those that no selected source takes.

    A source claims the nodes that its `expected_node_id` and `expected_env` name, or else the one
    that it carried so far. Of several, it takes the one that it carried, if that is among them.
    `sources` are all that are configured, `selected` the ids of those that take part. Raises
    ExporterError (code `file`) that names nodes without a source.
    """
    known = list(sources)
    claimants = {
        node: [source for source in known if _claims(source, node, carried)]
        for node in sorted(nodes)
    }
    if unclaimed := [repr(node.stored) for node, found in claimants.items() if not found]:
        raise ExporterError(
            f"no source claims the node {', '.join(unclaimed)}; set expected_node_id (and "
            "expected_env) of the source that it belongs to",
            code="file",
        )
    claims: dict[str, list[NodeIdentity]] = {}
    for node, found in claimants.items():
        for source in found:
            claims.setdefault(source.source_id, []).append(node)
    for source_id, node in carried.items():
        if node in claims.get(source_id, ()):
            claims[source_id] = [node]
    taken = {node for source_id in selected for node in claims.get(source_id, ())}
    left_out = {
        node: _why(found[0], node, claims, carried)
        for node, found in claimants.items()
        if node not in taken
    }
    return Claims(claims, left_out)


def _claims(source: Source, node: NodeIdentity, carried: Mapping[str, NodeIdentity]) -> bool:
    if source.expected_node_id is None:
        return carried.get(source.source_id) == node
    return source.expected_node_id == node.node_id and source.expected_env in {None, node.env}


def _why(
    source: Source,
    node: NodeIdentity,
    claims: Mapping[str, Sequence[NodeIdentity]],
    carried: Mapping[str, NodeIdentity],
) -> str:
    """Return why a source that claims a node does not take it."""
    if not source.enabled:
        return f"source {source.source_id} is disabled"
    if node not in claims[source.source_id]:
        return f"source {source.source_id} carries {carried[source.source_id].stored!r}"
    return f"source {source.source_id} is not selected"
