"""What each source's answer amounts to: whose node it is of, and what of it is to be written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from billing_cli.core.deltas import Advance, NodeState, advance, hold_takeover
from billing_cli.core.restart import LONGEST_DISORDER
from billing_cli.core.times import closed_until, minute_of
from billing_cli.database.earlier_totals import read_earlier_totals
from billing_cli.database.streams import read_last_accounts, read_streams, resolve_accounts
from billing_cli.jobs.assignment import MOVE
from billing_cli.jobs.moving_nodes import moving_nodes
from billing_cli.jobs.takeover import take_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.core.model import Checkpoint, NodeIdentity, StreamName
    from billing_cli.database.sources import LockedSources
    from billing_cli.database.streams import StreamRow
    from billing_cli.exporter.api import Fetched
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.moving_nodes import MovingNode


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What one source's new snapshots amount to, before any of it is written.

    `rows` are the known streams of its node, and `taken_over` those without a row that go on from
    the legacy writer's totals. `accounts` are by sample uuid, for all streams that are touched:
    new, changed, gone, or without an account so far; `unresolved` are those of them that have none
    now. `newly_resolved` are the accounts of streams that had none so far, and did not change. The
    new usage of `waiting` accounts is not charged now: the database refuses it.
    """

    source_id: str
    identity: NodeIdentity
    contract: str
    region: str
    rows: Mapping[StreamName, StreamRow]
    taken_over: Mapping[StreamName, Checkpoint]
    accounts: Mapping[str, str]
    unresolved: frozenset[StreamName]
    newly_resolved: Mapping[StreamName, str]
    advance: Advance
    notes: tuple[str, ...] = ()
    waiting: frozenset[str] = frozenset()

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
    locked: LockedSources,
    until: datetime,
) -> list[SourcePlan]:
    """Plan what each source's new snapshots amount to, from the streams as they are now.

    A source without new snapshots has no plan. `until` is the end of what the run applies.
    """
    nodes = [
        node
        for node in moving_nodes(connection, accepted, locked)
        # Another one seemed to have nothing new when it was fetched: it is left to the next run.
        if node.identity.stored in locked.moving
    ]
    if not nodes:
        return []
    streams = read_streams(
        connection,
        locked.streams,
        locked.debts,
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
            connection,
            by_id[node.source_id],
            node,
            touched[node.source_id],
            accounts,
            taken_over.get(node.identity.stored, {}),
            decide_now=_decides_now(context, node, until),
        )
        for node in nodes
    ]


def _decides_now(context: JobContext, node: MovingNode, until: datetime) -> bool:
    """Return whether the node's last snapshot decides alone what a decreased counter means.

    The next snapshot decides it otherwise. A run waits for that a limited time, counted to `until`:
    later snapshots may be there, and are not asked for yet. It decides only where nothing more is
    on offer: not in a step before the last, or where `--until` lies in the past. A file with only
    what is new offers each snapshot once: its last one can't wait, or none would ever be applied.
    """
    if node.fetched.contract == "latest" or node.is_taken:
        return True
    # One without samples decides nothing.
    last = max(
        (snapshot.collected_at for snapshot in node.fresh if snapshot.totals),
        default=node.fresh[-1].collected_at,
    )
    is_newest = closed_until(context.clock(), context.settle) - until <= context.stalled_after
    is_alone = until - last > context.stalled_after or _holds_only_news(node)
    return node.fetched.complete and is_newest and is_alone


def _holds_only_news(node: MovingNode) -> bool:
    """Return whether it is a file without what was applied: the next one will be as well."""
    stamps = {snapshot.collected_at for snapshot in node.fetched.snapshots}
    return node.fetched.is_from_file and node.is_followed and node.watermark not in stamps


def _repeats_watermark(fetched: Fetched) -> bool:
    """Return whether the snapshot at the watermark must be there, or else history was lost.

    Log shippers deliver each snapshot once, so a file may hold only what is new.
    """
    return fetched.contract == "window" and not fetched.is_from_file


def _last_accounts(
    nodes: Iterable[MovingNode], touched: Mapping[str, Iterable[StreamName]]
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
    connection: Connection,
    source: Source,
    node: MovingNode,
    touched: Iterable[StreamName],
    accounts: Mapping[str, str],
    taken_over: Mapping[StreamName, Checkpoint],
    *,
    decide_now: bool,
) -> SourcePlan:
    fetched, state = node.fetched, node.state
    known = node.streams.checkpoints
    credit = replace(state.credit, accounts=node.streams.debts)
    awaits_baseline = node.is_followed and state.is_without_samples and not known
    before = NodeState(
        node.watermark,
        None if awaits_baseline else node.samples_at,
        {**known, **taken_over} if taken_over else known,
        state.restarted_at if node.is_followed else None,
        credit,
        awaits_baseline=awaits_baseline,
    )
    apply = partial(
        advance,
        snapshots=fetched.snapshots,
        accounts=node.streams.accounts_with(accounts),
        policy=context.policy_of(source),
        continuity_expected=node.is_followed and _repeats_watermark(fetched),
        decide_now=decide_now,
        is_cut=not fetched.complete,
    )
    step = apply(before)
    if step.unsure and node.watermark is not None:
        # The checkpoints may be readings of another clock: then the ones before that decide.
        since = minute_of(node.watermark) - LONGEST_DISORDER
        stored = node.identity.stored
        earlier = read_earlier_totals(connection, stored, step.unsure, since, node.watermark)
        step = apply(replace(before, earlier=earlier))
    if node.is_taken and node.watermark is not None:
        step = hold_takeover(step, fetched.snapshots, node.watermark)
    return SourcePlan(
        source_id=node.source_id,
        identity=node.identity,
        contract=fetched.contract,
        region=source.region or context.tariff.default_region,
        rows=node.streams.rows,
        taken_over={
            name: checkpoint
            for name, checkpoint in taken_over.items()
            if step.watermark is not None and checkpoint.seen_at <= step.watermark
        },
        accounts=accounts,
        unresolved=frozenset(name for name in touched if name.sample_uuid not in accounts),
        newly_resolved={
            name: accounts[name.sample_uuid]
            for name in node.unresolved()
            if name.sample_uuid in accounts and name not in step.checkpoints
        },
        advance=step,
        notes=(*fetched.notes, *_other_node(node)),
    )


def _other_node(node: MovingNode) -> Iterator[str]:
    """Yield what the operator should know who configured another node for a source."""
    former = node.state.identity
    if former is not None and former != node.identity and node.samples_at is None:
        yield (
            f"node {node.identity.stored!r} is another one than {former.stored!r}: its counters "
            "begin with a baseline, and what flowed before it is not charged; where the same "
            f"counters go on under another id, {MOVE} {node.source_id} {node.identity.stored} "
            "--same-counters comes first, expected_node_id afterwards"
        )
