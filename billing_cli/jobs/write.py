"""What a step writes: set-based, for all its sources at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.checkpoints import sum_by_account
from billing_cli.core.deltas import ZERO
from billing_cli.core.makers import maker
from billing_cli.core.model import Checkpoint
from billing_cli.core.pending import bill_pending, merge_pending
from billing_cli.core.rating import BilledUsage, buckets_of
from billing_cli.core.times import minute_of
from billing_cli.jobs.beside_older import charge_beside_older
from billing_cli.jobs.payers import charge_buckets, facts_are_new, payers_of
from billing_cli.store import accounts as store_accounts
from billing_cli.store import facts, streams
from billing_cli.store.sources import SourceProgress, end_stalled, save_gaps, save_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.deltas import Advance
    from billing_cli.core.model import (
        FirstSight,
        NodeIdentity,
        StreamName,
        UsageRecord,
    )
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.payers import Charged, Payers


_billed_usage = maker(BilledUsage)
_name_of = attrgetter("name")


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What one source's new snapshots amount to, before any of it is written.

    `taken_over` are streams without a row that go on from an older writer's totals.
    """

    source_id: str
    identity: NodeIdentity
    contract: str
    region: str
    streams: streams.NodeStreams
    advance: Advance
    taken_over: Mapping[StreamName, Checkpoint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. `unresolved` and `notes` are by source id."""

    processed_samples: int = 0
    written_minutes: int = 0
    replayed_minutes: int = 0
    included_bytes: int = 0
    charged_bytes: int = 0
    amount: Decimal = Decimal(0)
    unresolved: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def plus(self, other: Written) -> Written:
        """Return both together."""
        return Written(
            self.processed_samples + other.processed_samples,
            self.written_minutes + other.written_minutes,
            self.replayed_minutes + other.replayed_minutes,
            self.included_bytes + other.included_bytes,
            self.charged_bytes + other.charged_bytes,
            self.amount + other.amount,
            {**self.unresolved, **other.unresolved},
            {**self.notes, **other.notes},
        )


def write(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    now: datetime,
    *,
    beside_older: bool = False,
) -> Written:
    """Write all that the plans amount to, for all their sources at once.

    Statements are sent without waiting for their answers, so that the server stores what is known
    while the rest is computed here. That a minute is new is taken for granted, and then proven by
    its keys: raises ChargedBeforeError where one is not. With `beside_older` what another writer
    has charged is looked up first. Raises FactConflictError for what this one has written.
    """
    has_arrears_since = store_accounts.has_arrears_since(connection)
    with facts_are_new(), connection.pipeline():
        owners, payers = _lock_owners(context, connection, plans)
        new_ids = _write_streams(connection, plans, owners)
        checkpoints = _write_shared_checkpoints(connection, plans, owners)
        # A server that is busy takes little of what is sent: so all of this comes before.
        usage = _usage_of(plans, owners, new_ids)
        buckets = buckets_of(usage.billed)
        _write_usage(connection, usage, now)
        _write_progress(connection, plans, now)
        # What is no longer needed is let go: the dearest part is still to come.
        billed = usage.billed if beside_older else []
        del usage
        accounts = payers.accounts()
        del payers
        if not beside_older:
            entries = charge_buckets(
                context,
                connection,
                buckets,
                accounts,
                has_arrears_since=has_arrears_since,
                beside_older=False,
            )
            written = _written(plans, owners, entries.charged)
    if not checkpoints.reached_all:
        # Somebody has taken some of them away.
        facts.add_shared_checkpoints(connection, _shared_checkpoints(plans, owners))
    if not beside_older:
        return written
    charged, replayed = charge_beside_older(
        context, connection, buckets, billed, accounts, has_arrears_since=has_arrears_since
    )
    return replace(_written(plans, owners, charged), replayed_minutes=replayed)


@dataclass(frozen=True, slots=True)
class _Owners:
    """Whose streams are, by source id and name."""

    by_source: Mapping[str, Mapping[StreamName, str]]
    unresolved: Mapping[str, int]
    notes: Mapping[str, list[str]]

    def accounts_of(self, plan: SourcePlan) -> Mapping[StreamName, str]:
        """Return the accounts of a plan's streams, as far as they have one."""
        return self.by_source[plan.source_id]


def _written(plans: Sequence[SourcePlan], owners: _Owners, charged: Charged) -> Written:
    return Written(
        processed_samples=sum(plan.advance.samples for plan in plans),
        written_minutes=charged.minutes,
        included_bytes=charged.included_bytes,
        charged_bytes=charged.rated_bytes,
        amount=0 - charged.amount_delta,
        unresolved=owners.unresolved,
        notes=owners.notes,
    )


def _lock_owners(
    context: JobContext, connection: Connection, plans: Sequence[SourcePlan]
) -> tuple[_Owners, Payers]:
    """Find whose the streams are, lock those accounts in key order, and read what they pay.

    An account that is gone, or whose figures money can't be computed with, owns nothing for now:
    its usage stays pending instead of being lost or blocking the others.
    """
    by_source, wanted = _find_owners(connection, plans)
    kept = dict.fromkeys(chain.from_iterable(owners.values() for owners in by_source.values()))
    moved = chain.from_iterable(
        map(
            by_source[plan.source_id].get,
            chain(map(_name_of, plan.advance.records), plan.streams.pending),
        )
        for plan in plans
    )
    charged = dict.fromkeys(account for account in moved if account is not None)
    locking = store_accounts.lock_accounts(connection, kept, charged.keys())
    # Nobody else touches the streams of a source that is locked: the server may write them while
    # we look at the accounts.
    _update_streams(connection, plans)
    payers = payers_of(context, connection, locking)

    notes: dict[str, list[str]] = {}
    for source_id, owners in by_source.items():
        problems = payers.problems.keys() & owners.values() if payers.problems else ()
        notes[source_id] = [payers.problems[account] for account in sorted(problems)]
    usable = payers.existing - payers.problems.keys()
    usable_by_source = {
        source_id: owners
        if usable.issuperset(owners.values())
        else {name: account for name, account in owners.items() if account in usable}
        for source_id, owners in by_source.items()
    }
    unresolved = {
        source_id: wanted[source_id] - len(usable_by_source[source_id]) for source_id in wanted
    }
    return _Owners(usable_by_source, unresolved, notes), payers


def _find_owners(
    connection: Connection, plans: Sequence[SourcePlan]
) -> tuple[dict[str, dict[StreamName, str]], dict[str, int]]:
    """Return whose each plan's streams are, and how many would have to be somebody's.

    Those are the streams that were touched, and those still without an owner.
    """
    by_source: dict[str, dict[StreamName, str]] = {}
    wanted: dict[str, int] = {}
    strangers: list[tuple[str, StreamName]] = []
    for plan in plans:
        rows = plan.streams.rows
        unowned = (name for name, row in rows.items() if row.account_uuid is None)
        # In the order in which they were made: what lies side by side is quick to look at.
        names = dict.fromkeys(
            [*plan.advance.checkpoints, *plan.taken_over, *plan.streams.pending, *unowned]
        )
        owners = by_source[plan.source_id] = {
            name: row.account_uuid
            for name in names
            if (row := rows.get(name)) is not None and row.account_uuid is not None
        }
        strangers.extend((plan.source_id, name) for name in names.keys() - owners.keys())
        wanted[plan.source_id] = len(names)
    resolved = streams.resolve_accounts(connection, (name.sample_uuid for _, name in strangers))
    for source_id, name in strangers:
        if name.sample_uuid in resolved:
            by_source[source_id][name] = resolved[name.sample_uuid]
    return by_source, wanted


def _update_streams(connection: Connection, plans: Sequence[SourcePlan]) -> None:
    """Bring the known streams up to date that have changed."""
    streams.update_streams(
        connection,
        [
            (row.stream_id, plan.identity.stored, checkpoint)
            for plan in plans
            for name, checkpoint in plan.advance.checkpoints.items()
            if (row := plan.streams.rows.get(name)) is not None
        ],
        {plan.identity.stored: _watermark(plan) for plan in plans},
    )


def _write_streams(
    connection: Connection, plans: Sequence[SourcePlan], owners: _Owners
) -> dict[tuple[str, StreamName], int]:
    """Write new and newly owned streams; return the ids of the new ones."""
    watermarks = {plan.identity.stored: _watermark(plan) for plan in plans}
    new, assigned = [], []
    for plan in plans:
        node, rows = plan.identity.stored, plan.streams.rows
        accounts = owners.accounts_of(plan)
        for name, checkpoint in {**plan.taken_over, **plan.advance.checkpoints}.items():
            if name not in rows:
                first_sight, first = _first_sight(plan, name)
                new.append((node, name, accounts.get(name), first_sight, first, checkpoint))
        for name, row in rows.items():
            if row.account_uuid is None and name in accounts:
                assigned.append((row.stream_id, accounts[name]))
    streams.assign_streams(connection, assigned)
    return streams.add_streams(connection, new, watermarks)


def _write_shared_checkpoints(
    connection: Connection, plans: Sequence[SourcePlan], owners: _Owners
) -> facts.Sent:
    """Bring the shared checkpoints of all accounts up to date of which a stream has changed."""
    sums = _shared_checkpoints(plans, owners)
    fresh = {}
    for plan in plans:
        node, rows = plan.identity.stored, plan.streams.rows
        accounts = {
            account
            for name, account in owners.accounts_of(plan).items()
            if (row := rows.get(name)) is None or row.account_uuid is None
        }
        if accounts:
            fresh[node] = {account: sums[node][account] for account in accounts}
    facts.add_shared_checkpoints(connection, fresh)
    return facts.update_shared_checkpoints(connection, sums)


def _shared_checkpoints(
    plans: Sequence[SourcePlan], owners: _Owners
) -> dict[str, dict[str, Checkpoint]]:
    """Sum the present streams of each account of which one has changed, by stored node id."""
    return {
        plan.identity.stored: sum_by_account(_owned_streams(plan, owners.accounts_of(plan)))
        for plan in plans
    }


def _owned_streams(
    plan: SourcePlan, accounts: Mapping[StreamName, str]
) -> Iterator[tuple[str, Checkpoint]]:
    """Yield the streams of those accounts; absent ones, which the database sums, are at zero."""
    known, watermark = plan.streams, _watermark(plan)
    changed = {**plan.taken_over, **plan.advance.checkpoints}
    absent = known.absent - changed.keys()
    absent.update(name for name, one in changed.items() if one.seen_at != watermark)
    waiting = {name: Checkpoint(pending[-1].to_at, ZERO) for name, pending in known.pending.items()}
    wanted = set(accounts.values())
    if not wanted:
        return
    for name, checkpoint in {**waiting, **known.checkpoints, **changed}.items():
        account = accounts.get(name)
        if account is None and name in known.rows:
            account = known.rows[name].account_uuid
        if account in wanted:
            yield account, checkpoint._replace(totals=ZERO) if name in absent else checkpoint


class _Ids(NamedTuple):
    """The ids of a node's streams: most are known, and few have just been made."""

    node: str
    rows: Mapping[StreamName, streams.StreamRow]
    new: Mapping[tuple[str, StreamName], int]

    def __call__(self, name: StreamName) -> int:
        row = self.rows.get(name)
        return self.new[self.node, name] if row is None else row.stream_id


def _first_sight(plan: SourcePlan, name: StreamName) -> tuple[FirstSight, Checkpoint]:
    if name in plan.taken_over:
        return "taken_over", plan.taken_over[name]
    return plan.advance.first_sights[name]


@dataclass(slots=True)
class _Usage:
    """What a step's records amount to. `billed` has its stream ids and kinds beside it."""

    billed: list[BilledUsage] = field(default_factory=list)
    stream_ids: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    waiting: list[tuple[int, UsageRecord]] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    held: list[tuple[int, UsageRecord]] = field(default_factory=list)


def _usage_of(
    plans: Sequence[SourcePlan],
    owners: _Owners,
    new_ids: Mapping[tuple[str, StreamName], int],
) -> _Usage:
    """Part records that have an owner from those that have none and those that are held."""
    usage = _Usage()
    billed, stream_ids, kinds = usage.billed, usage.stream_ids, usage.kinds
    for plan in plans:
        node, region = plan.identity.stored, plan.region
        owner = owners.accounts_of(plan).get
        id_of = _Ids(node, plan.streams.rows, new_ids)
        unowned: dict[StreamName, list[UsageRecord]] = defaultdict(list)
        for record in plan.advance.records:
            account = owner(record.name)
            if account is None:
                unowned[record.name].append(record)
            else:
                billed.append(_billed_usage((account, node, region, record)))
                stream_ids.append(id_of(record.name))
        kinds += ["delta"] * (len(billed) - len(kinds))
        for name, pending in plan.streams.pending.items():
            account = owner(name)
            if account is not None:
                usage.settled.append(id_of(name))
                for record in bill_pending(pending, minute_of(_watermark(plan))):
                    billed.append(BilledUsage(account, node, region, record))
                    stream_ids.append(id_of(name))
        kinds += ["pending"] * (len(billed) - len(kinds))
        for name, records in unowned.items():
            pending = plan.streams.pending.get(name, [])
            usage.waiting.extend((id_of(name), one) for one in merge_pending(pending, records))
        usage.held.extend((id_of(record.name), record) for record in plan.advance.held)
    return usage


def _write_usage(connection: Connection, usage: _Usage, now: datetime) -> None:
    facts.add_usage_records(
        connection,
        [one.record for one in usage.billed],
        usage.stream_ids,
        [one.account_uuid for one in usage.billed],
        usage.kinds,
    )
    streams.save_pending(connection, usage.waiting)
    streams.mark_pending_billed(connection, usage.settled, now)
    streams.save_held(connection, usage.held)


def _write_progress(connection: Connection, plans: Sequence[SourcePlan], now: datetime) -> None:
    save_progress(
        connection,
        [
            SourceProgress(
                plan.source_id,
                plan.identity,
                plan.contract,
                plan.advance.first_at or _watermark(plan),
                _watermark(plan),
                plan.advance.digest,
            )
            for plan in plans
        ],
    )
    save_gaps(connection, [(plan.source_id, gap) for plan in plans for gap in plan.advance.gaps])
    end_stalled(
        connection,
        [(plan.source_id, plan.advance.first_at or _watermark(plan)) for plan in plans],
        now,
    )


def _watermark(plan: SourcePlan) -> datetime:
    if plan.advance.watermark is None:
        raise AssertionError("a source that moves has a watermark")
    return plan.advance.watermark
