"""What a step writes: set-based, for all its sources at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.pending import bill_pending, merge_pending
from billing_cli.core.rating import BilledUsage
from billing_cli.core.times import minute_of
from billing_cli.jobs.billing import bill
from billing_cli.jobs.payers import FactConflictError, lock_payers
from billing_cli.store import accounts as store_accounts
from billing_cli.store import facts, streams
from billing_cli.store.sources import SourceProgress, end_stalled, save_gaps, save_progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.deltas import Advance
    from billing_cli.core.model import (
        Account,
        Checkpoint,
        FirstSight,
        NodeIdentity,
        StreamName,
        UsageRecord,
    )
    from billing_cli.jobs.context import JobContext


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
    context: JobContext, connection: Connection, plans: Sequence[SourcePlan], now: datetime
) -> Written:
    """Write all that the plans amount to, for all their sources at once."""
    owners = _lock_owners(context, connection, plans)
    stream_ids = _write_streams(connection, plans, owners)
    usage = _write_usage(connection, plans, owners, stream_ids, now)

    billed = [
        BilledUsage(account_uuid, plan.identity.stored, plan.region, record)
        for plan, _, account_uuid, _, record in usage
    ]
    charges, replayed = bill(context, connection, billed, owners.accounts)
    facts.save_shared_checkpoints(
        connection,
        (
            (plan.identity.stored, owners.account_by_name[plan.source_id, name])
            for plan in plans
            for name in _names_to_own(plan)
            if (plan.source_id, name) in owners.account_by_name
        ),
    )
    _write_progress(connection, plans, now)
    return Written(
        processed_samples=sum(plan.advance.samples for plan in plans),
        written_minutes=len({one.key for one in charges}),
        replayed_minutes=replayed,
        included_bytes=sum(one.included_bytes for one in charges),
        charged_bytes=sum(one.rated_bytes for one in charges),
        amount=-sum((one.amount_delta for one in charges), Decimal(0)),
        unresolved={plan.source_id: _count_unresolved(plan, owners) for plan in plans},
        notes=owners.notes,
    )


@dataclass(frozen=True, slots=True)
class _Owners:
    """Whose streams are, by sample uuid within a source, and the accounts that can be charged."""

    account_by_name: Mapping[tuple[str, StreamName], str]
    accounts: Mapping[str, Account]
    notes: Mapping[str, list[str]]


def _lock_owners(
    context: JobContext, connection: Connection, plans: Sequence[SourcePlan]
) -> _Owners:
    """Find whose the streams are, lock those accounts in key order, and read what they pay.

    An account that is gone, or whose figures money can't be computed with, owns nothing for now:
    its usage stays pending instead of being lost or blocking the others.
    """
    candidates = [(plan, name) for plan in plans for name in _names_to_own(plan)]
    resolved = streams.resolve_accounts(
        connection,
        (name.sample_uuid for plan, name in candidates if _settled_account(plan, name) is None),
    )
    account_by_name = {}
    for plan, name in candidates:
        account = _settled_account(plan, name) or resolved.get(name.sample_uuid)
        if account is not None:
            account_by_name[plan.source_id, name] = account
    users = store_accounts.lock_users(connection, account_by_name.values())

    billed = {
        account_by_name[plan.source_id, name]
        for plan in plans
        for name in {record.name for record in plan.advance.records} | plan.streams.pending.keys()
        if (plan.source_id, name) in account_by_name
    }
    payers = lock_payers(context, connection, [users[account] for account in billed & users.keys()])

    notes: dict[str, list[str]] = defaultdict(list)
    for (source_id, _), account in account_by_name.items():
        problem = payers.problems.get(account)
        if problem is not None and problem not in notes[source_id]:
            notes[source_id].append(problem)
    usable = users.keys() - payers.problems.keys()
    return _Owners(
        {key: account for key, account in account_by_name.items() if account in usable},
        payers.accounts,
        notes,
    )


def _write_streams(
    connection: Connection, plans: Sequence[SourcePlan], owners: _Owners
) -> dict[tuple[str, StreamName], int]:
    """Write new, changed and newly owned streams; return the ids of all that were touched."""
    watermarks = {plan.identity.stored: _watermark(plan) for plan in plans}
    new, changed, assigned = [], [], []
    stream_ids: dict[tuple[str, StreamName], int] = {}
    for plan in plans:
        node, rows = plan.identity.stored, plan.streams.rows
        for name, checkpoint in {**plan.taken_over, **plan.advance.checkpoints}.items():
            row = rows.get(name)
            if row is None:
                first_sight, first = _first_sight(plan, name)
                owner = owners.account_by_name.get((plan.source_id, name))
                new.append((node, name, owner, first_sight, first, checkpoint))
            else:
                changed.append((row.stream_id, node, checkpoint))
        for name, row in rows.items():
            stream_ids[node, name] = row.stream_id
            owner = owners.account_by_name.get((plan.source_id, name))
            if row.account_uuid is None and owner is not None:
                assigned.append((row.stream_id, owner))
    stream_ids.update(streams.add_streams(connection, new, watermarks))
    streams.update_streams(connection, changed, watermarks)
    streams.assign_streams(connection, assigned)
    return stream_ids


def _first_sight(plan: SourcePlan, name: StreamName) -> tuple[FirstSight, Checkpoint]:
    if name in plan.taken_over:
        return "taken_over", plan.taken_over[name]
    return plan.advance.first_sights[name]


def _write_usage(
    connection: Connection,
    plans: Sequence[SourcePlan],
    owners: _Owners,
    stream_ids: Mapping[tuple[str, StreamName], int],
    now: datetime,
) -> list[tuple[SourcePlan, int, str, str, UsageRecord]]:
    """Write records that have an owner, keep those that have none; return what is to be billed."""
    billed: list[tuple[SourcePlan, int, str, str, UsageRecord]] = []
    waiting: list[tuple[int, UsageRecord]] = []
    settled: list[int] = []
    held: list[tuple[int, UsageRecord]] = []
    for plan in plans:
        node = plan.identity.stored
        unowned: dict[StreamName, list[UsageRecord]] = defaultdict(list)
        for record in plan.advance.records:
            owner = owners.account_by_name.get((plan.source_id, record.name))
            stream_id = stream_ids[node, record.name]
            if owner is None:
                unowned[record.name].append(record)
            else:
                billed.append((plan, stream_id, owner, "delta", record))
        for name, pending in plan.streams.pending.items():
            owner = owners.account_by_name.get((plan.source_id, name))
            if owner is not None:
                stream_id = stream_ids[node, name]
                settled.append(stream_id)
                billed.extend(
                    (plan, stream_id, owner, "pending", record)
                    for record in bill_pending(pending, minute_of(_watermark(plan)))
                )
        for name, records in unowned.items():
            pending = plan.streams.pending.get(name, [])
            waiting.extend(
                (stream_ids[node, name], record) for record in merge_pending(pending, records)
            )
        held.extend((stream_ids[node, record.name], record) for record in plan.advance.held)
    new_rows = facts.add_usage_records(connection, [one[1:] for one in billed])
    if new_rows != len(billed):
        raise FactConflictError("some of this usage is on record already with other figures")
    streams.save_pending(connection, waiting)
    streams.mark_pending_billed(connection, settled, now)
    streams.save_held(connection, held)
    return billed


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


def _names_to_own(plan: SourcePlan) -> Iterable[StreamName]:
    """Streams whose owner matters now: touched ones, and those still without an owner."""
    unowned = (name for name, row in plan.streams.rows.items() if row.account_uuid is None)
    return {*plan.advance.checkpoints, *plan.taken_over, *plan.streams.pending, *unowned}


def _settled_account(plan: SourcePlan, name: StreamName) -> str | None:
    row = plan.streams.rows.get(name)
    return row.account_uuid if row else None


def _count_unresolved(plan: SourcePlan, owners: _Owners) -> int:
    return sum((plan.source_id, name) not in owners.account_by_name for name in _names_to_own(plan))


def _watermark(plan: SourcePlan) -> datetime:
    if plan.advance.watermark is None:
        raise AssertionError("a source that moves has a watermark")
    return plan.advance.watermark
