"""Nodes that have new snapshots, and how far each was applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_cli.core.deltas import not_yet_applied
from billing_cli.database.streams import NodeStreams, read_last_seen
from billing_cli.jobs.takeover import end_of_legacy_writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import NodeIdentity, Snapshot, StreamName, Totals
    from billing_cli.database.sources import LockedSources, SourceState
    from billing_cli.exporter.api import Fetched


@dataclass(frozen=True, slots=True)
class MovingNode:
    """The node of a source that has new snapshots, and how far it was applied.

    `is_taken` from a source that only claimed it, in this run.
    """

    source_id: str
    identity: NodeIdentity
    fetched: Fetched
    state: SourceState
    watermark: datetime | None
    samples_at: datetime | None
    is_followed: bool
    is_taken: bool
    fresh: Sequence[Snapshot]
    streams: NodeStreams = field(default_factory=NodeStreams)

    def names(self) -> dict[StreamName, StreamName]:
        """Return the names in the snapshots; each is kept once."""
        names: dict[StreamName, StreamName] = {}
        for snapshot in self.fresh:
            names.update(zip(snapshot.totals, snapshot.totals, strict=True))
        return names

    def totals_at_watermark(self) -> Mapping[StreamName, Totals]:
        """Return the totals in the snapshot at the watermark, if it is among those fetched."""
        snapshots = self.fetched.snapshots
        return next(
            (snapshot.totals for snapshot in snapshots if snapshot.collected_at == self.watermark),
            {},
        )

    def unresolved(self) -> set[StreamName]:
        """Return the known streams without an account so far."""
        return {name for name, row in self.streams.rows.items() if row.account_uuid is None}

    def touched(self) -> set[StreamName]:
        """Return the streams that are new, changed, gone, or without an account so far."""
        known = self.streams.checkpoints
        touched = self.unresolved()
        for snapshot in self.fresh:
            for name, totals in snapshot.totals.items():
                checkpoint = known.get(name)
                if checkpoint is None or checkpoint.totals != totals:
                    touched.add(name)
            if snapshot.totals:
                touched.update(known.keys() - snapshot.totals.keys())
        return touched


def moving_nodes(
    connection: Connection, accepted: Mapping[str, Fetched], locked: LockedSources
) -> list[MovingNode]:
    """Return the nodes that have snapshots to be applied."""
    states = locked.states
    identified = {
        source_id: fetched.identity
        for source_id, fetched in accepted.items()
        if fetched.identity is not None
    }
    # A node that its source did not carry lately, or that had another one, is known as well.
    unfollowed = [
        identity.stored
        for source_id, identity in identified.items()
        if states[source_id].watermark is None or states[source_id].identity != identity
    ]
    last_seen = read_last_seen(connection, unfollowed)
    nodes = []
    for source_id, identity in identified.items():
        state, fetched = states[source_id], accepted[source_id]
        is_followed = state.watermark is not None and state.identity == identity
        watermark, samples_at = state.watermark, state.samples_at
        if not is_followed:
            samples_at = last_seen.get(identity.stored)
            watermark = samples_at or end_of_legacy_writer(state.legacy_watermark)
        fresh = not_yet_applied(watermark, fetched.snapshots)
        if fresh:
            nodes.append(
                MovingNode(
                    source_id,
                    identity,
                    fetched,
                    state,
                    watermark,
                    samples_at,
                    is_followed,
                    source_id in locked.taken,
                    fresh,
                )
            )
    return nodes
