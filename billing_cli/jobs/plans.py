"""What each source's answer amounts to: whose node it is of, and what of it is to be written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from billing_cli.core.deltas import Advance, NodeState, advance, hold_takeover, not_yet_applied
from billing_cli.database.streams import (
    NodeStreams,
    read_last_accounts,
    read_last_seen,
    read_streams,
    resolve_accounts,
)
from billing_cli.jobs.assignment import MOVE
from billing_cli.jobs.takeover import end_of_legacy_writer, take_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Checkpoint, NodeIdentity, Snapshot, StreamName, Totals
    from billing_cli.database.sources import LockedSources, SourceState
    from billing_cli.database.streams import StreamRow
    from billing_cli.exporter.api import Fetched
    from billing_cli.exporter.source import Source
    from billing_cli.jobs.context import JobContext


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What one source's new snapshots amount to, before any of it is written.

    `rows` are the known streams of its node, and `taken_over` those without a row that go on from
    the legacy writer's totals. `accounts` are by sample uuid, for all streams that are touched:
    new, changed, gone, or without an account so far; `unresolved` are those of them that have none
    now. `found` are the accounts of streams that had
    none so far, and did not change.
    """

    source_id: str
    identity: NodeIdentity
    contract: str
    region: str
    rows: Mapping[StreamName, StreamRow]
    taken_over: Mapping[StreamName, Checkpoint]
    accounts: Mapping[str, str]
    unresolved: frozenset[StreamName]
    found: Mapping[StreamName, str]
    advance: Advance
    notes: tuple[str, ...] = ()

    def stream_id(self, name: StreamName, new: Mapping[tuple[str, StreamName], int]) -> int:
        """Return a stream's id; `new` are those of streams that had no row, by node and name."""
        row = self.rows.get(name)
        return new[self.identity.stored, name] if row is None else row.stream_id

    @property
    def watermark(self) -> datetime:
        """Where the source stands when this is written."""
        if self.advance.watermark is None:
            raise AssertionError("a source that moves has a watermark")
        return self.advance.watermark


def plan(
    context: JobContext,
    connection: Connection,
    by_id: Mapping[str, Source],
    accepted: Mapping[str, Fetched],
    found: LockedSources,
) -> list[SourcePlan]:
    """Plan what each source's new snapshots amount to, from the streams as they are now.

    A source without new snapshots has no plan.
    """
    nodes = [
        node
        for node in _moving(connection, accepted, found)
        # Another one seemed to have nothing new when it was fetched: it is left to the next run.
        if node.identity.stored in found.moving
    ]
    if not nodes:
        return []
    streams = read_streams(
        connection,
        found.streams,
        found.debts,
        {node.identity.stored: node.samples_at for node in nodes},
        {node.identity.stored: node.names() for node in nodes},
        {node.identity.stored: node.totals_at_watermark() for node in nodes},
    )
    nodes = [replace(node, streams=streams[node.identity.stored]) for node in nodes]
    touched = {node.source_id: node.touched() for node in nodes}
    last_accounts = _last_accounts(nodes, touched)
    accounts = {uuid: uuid for uuid, last in last_accounts.items() if last == uuid}
    # An account's own uuid goes on naming it, unless it was deleted: locking it shows that.
    accounts |= resolve_accounts(
        connection, {uuid: last for uuid, last in last_accounts.items() if last != uuid}
    )
    # A counter may go on under another tag and a proxy uuid that was renewed since.
    new_uuids = {
        name.sample_uuid
        for node in nodes
        for name in touched[node.source_id] - node.streams.rows.keys()
    }
    accounts |= read_last_accounts(
        connection, [node.identity.stored for node in nodes], new_uuids - accounts.keys()
    )
    taken_over = take_over(
        connection,
        {
            node.identity.stored: (node.fresh, unknown)
            for node in nodes
            if (unknown := touched[node.source_id] - node.streams.rows.keys())
        },
        accounts,
    )
    return [
        _plan(
            context,
            by_id[node.source_id],
            node,
            touched[node.source_id],
            accounts,
            taken_over.get(node.identity.stored, {}),
        )
        for node in nodes
    ]


@dataclass(frozen=True, slots=True)
class _Node:
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


def _moving(
    connection: Connection, accepted: Mapping[str, Fetched], found: LockedSources
) -> list[_Node]:
    """Return the nodes that have snapshots to be applied."""
    states = found.states
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
                _Node(
                    source_id,
                    identity,
                    fetched,
                    state,
                    watermark,
                    samples_at,
                    is_followed,
                    source_id in found.taken,
                    fresh,
                )
            )
    return nodes


def _last_accounts(
    nodes: Iterable[_Node], touched: Mapping[str, Iterable[StreamName]]
) -> dict[str, str | None]:
    """Return the last account of each sample uuid, None where it never had one."""
    accounts: dict[str, str | None] = {}
    for node in nodes:
        rows = node.streams.rows
        for name in touched[node.source_id]:
            row = rows.get(name)
            if row is None or row.account_uuid is None:
                accounts.setdefault(name.sample_uuid, None)
            else:
                accounts[name.sample_uuid] = row.account_uuid
    return accounts


def _plan(
    context: JobContext,
    source: Source,
    node: _Node,
    touched: Iterable[StreamName],
    accounts: Mapping[str, str],
    taken_over: Mapping[StreamName, Checkpoint],
) -> SourcePlan:
    fetched, state = node.fetched, node.state
    known = node.streams.checkpoints
    credit = replace(state.credit, accounts=node.streams.debts)
    awaits_baseline = node.is_followed and state.is_without_samples and not known
    # The next snapshot decides what a decreased counter means, but the run waits a limited time.
    waiting_since = node.fresh[-1].collected_at
    is_overdue = fetched.complete and context.clock() - waiting_since > context.stalled_after
    step = advance(
        NodeState(
            node.watermark,
            None if awaits_baseline else node.samples_at,
            {**known, **taken_over} if taken_over else known,
            state.restarted_at if node.is_followed else None,
            credit,
            awaits_baseline,
        ),
        fetched.snapshots,
        node.streams.accounts_with(accounts),
        context.policy_of(source),
        continuity_expected=node.is_followed and fetched.contract == "window",
        decide_now=fetched.contract == "latest" or is_overdue or node.is_taken,
    )
    if node.is_taken and node.watermark is not None:
        step = hold_takeover(step, fetched.snapshots, node.watermark)
    return SourcePlan(
        source_id=node.source_id,
        identity=node.identity,
        contract=fetched.contract,
        region=source.region or context.tariff.default_region,
        rows=node.streams.rows,
        taken_over=taken_over,
        accounts=accounts,
        unresolved=frozenset(name for name in touched if name.sample_uuid not in accounts),
        found={
            name: accounts[name.sample_uuid]
            for name in node.unresolved()
            if name.sample_uuid in accounts and name not in step.checkpoints
        },
        advance=step,
        notes=(*fetched.notes, *_other_node(node)),
    )


def _other_node(node: _Node) -> Iterator[str]:
    """Yield what the operator should know who configured another node for a source."""
    former = node.state.identity
    if former is not None and former != node.identity and node.samples_at is None:
        yield (
            f"node {node.identity.stored!r} is another one than {former.stored!r}: its counters "
            "begin with a baseline, and what flowed before it is not charged; where the same "
            f"counters go on under another id, {MOVE} {node.source_id} {node.identity.stored} "
            "--same-counters comes first, expected_node_id afterwards"
        )
