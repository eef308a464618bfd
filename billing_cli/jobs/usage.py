"""A step's usage: who is charged for it, and what becomes of what can't be charged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_cli.core.canonical import StoredUsage
from billing_cli.core.model import HeldDelta
from billing_cli.core.rating import BilledUsage, bucket_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from billing_cli.core.model import BucketKey, StreamName, UsageRecord
    from billing_cli.database.billable import BillableUsage
    from billing_cli.jobs.accounts import LockedAccounts
    from billing_cli.jobs.plans import SourcePlan


def billed(plans: Iterable[SourcePlan]) -> Iterator[BilledUsage]:
    """Yield the new usage of streams that have an account, as far as it is charged now."""
    for plan in plans:
        node, region, account_of = plan.identity.stored, plan.region, plan.accounts.get
        for record in plan.advance.records:
            account = account_of(record.name.sample_uuid)
            if account is not None and account not in plan.waiting:
                yield BilledUsage(account, node, region, record)


def billed_late(late: Iterable[BillableUsage]) -> Iterator[BilledUsage]:
    """Yield usage that waited for its account."""
    for billable in late:
        yield BilledUsage(
            billable.account_uuid, billable.stored_node_id, billable.region, billable.record
        )


@dataclass(slots=True)
class Usage:
    """Usage by what becomes of it.

    What is charged is stored as records; `settled` is the key of each late row among it, or held.
    `assigned` are streams that found their account, and `late_at` the nodes and accounts of late
    ones. `pending` usage waits, because its stream has no account that can be charged now.
    `pending_streams` are names of such and `problems` the accounts that are to blame, by source,
    None where no source carries the node any more; `above` counts what is held because of a daily
    maximum. Late usage above one on a node without a source goes on waiting, since what is held
    could not be released: `left` are its accounts.
    """

    settled: list[tuple[int, datetime]] = field(default_factory=list)
    assigned: dict[int, str] = field(default_factory=dict)
    late_at: dict[tuple[str, str], datetime] = field(default_factory=dict)
    pending: list[tuple[int, UsageRecord]] = field(default_factory=list)
    held: list[tuple[int, HeldDelta]] = field(default_factory=list)
    pending_streams: dict[str, set[StreamName]] = field(default_factory=dict)
    problems: dict[str | None, set[str]] = field(default_factory=dict)
    above: Counter[str] = field(default_factory=Counter)
    left: set[str] = field(default_factory=set)


def sort_usage(
    plans: Iterable[SourcePlan],
    late: Iterable[BillableUsage],
    new_ids: Mapping[tuple[str, StreamName], int],
    accounts: LockedAccounts,
    above: AbstractSet[BucketKey],
    replayed: AbstractSet[BucketKey],
) -> tuple[Usage, list[StoredUsage]]:
    """Sort usage; return with it the records to be stored.

    That of buckets `above` a daily maximum is held, or left waiting on nodes without a source;
    `replayed` ones are stored. `new_ids` are of the streams that had no row, by node and name.
    """
    usage = Usage()
    records: list[StoredUsage] = []
    for plan in plans:
        records += _add_new(usage, plan, new_ids, accounts, above, replayed)
    for billable in late:
        account, record = billable.account_uuid, billable.record
        if account not in accounts.chargeable:
            if account in accounts.problems:
                usage.problems.setdefault(billable.source_id, set()).add(account)
            continue
        is_above = any(bucket_key(billed) in above for billed in billed_late([billable]))
        if is_above and billable.source_id is None:
            usage.left.add(account)
            continue
        usage.late_at[billable.stored_node_id, account] = billable.samples_at
        if billable.is_found:
            usage.assigned[billable.stream_id] = account
        usage.settled.append((billable.stream_id, record.from_at))
        # Its day may be over, so that no later run could charge what is above a maximum.
        if is_above and billable.source_id is not None:
            usage.held.append((billable.stream_id, HeldDelta(record, "daily_charge")))
            usage.above[billable.source_id] += 1
        else:
            records.append(StoredUsage(record, billable.stream_id, account, "pending"))
    return usage, records


def _add_new(
    usage: Usage,
    plan: SourcePlan,
    new_ids: Mapping[tuple[str, StreamName], int],
    accounts: LockedAccounts,
    above: AbstractSet[BucketKey],
    replayed: AbstractSet[BucketKey],
) -> list[StoredUsage]:
    """Sort the new usage of a plan; return the records to be stored."""
    records = []
    node, region, account_of = plan.identity.stored, plan.region, plan.accounts.get
    pending_streams = set(plan.unresolved)
    problems = usage.problems.setdefault(plan.source_id, set())
    for record in plan.advance.records:
        stream_id = plan.stream_id(record.name, new_ids)
        account = account_of(record.name.sample_uuid)
        if account is None or account in plan.waiting or account not in accounts.chargeable:
            usage.pending.append((stream_id, record))
            pending_streams.add(record.name)
            if account is not None and account in accounts.problems:
                problems.add(account)
            continue
        key = bucket_key(BilledUsage(account, node, region, record)) if above or replayed else None
        if key in above:
            usage.held.append((stream_id, HeldDelta(record, "daily_charge")))
            usage.above[plan.source_id] += 1
        elif key not in replayed:
            records.append(StoredUsage(record, stream_id, account))
    usage.pending_streams[plan.source_id] = pending_streams
    usage.assigned |= {
        plan.stream_id(name, new_ids): account
        for name, account in plan.newly_resolved.items()
        if account in accounts.kept
    }
    usage.held.extend(
        (plan.stream_id(delta.record.name, new_ids), delta) for delta in plan.advance.held
    )
    return records
