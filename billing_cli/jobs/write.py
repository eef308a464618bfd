"""What a step writes: set-based, for all its sources at once, within the run's transaction."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.canonical import StoredUsage
from billing_cli.core.model import HeldDelta
from billing_cli.core.rating import BilledUsage, bucket_key
from billing_cli.database.facts import (
    AccountDebt,
    ChangedStream,
    Facts,
    NewStream,
    SourceProgress,
    Staged,
    StoredSuccession,
)
from billing_cli.database.streams import add_streams
from billing_cli.database.write_path import ADVANCE, CHARGE, RECORD
from billing_cli.database.writing import row_counts, send, stage_charges, stage_usage
from billing_cli.jobs.accounts import lock_accounts
from billing_cli.jobs.daily_maximum import find_above, maxima_of, note_charged
from billing_cli.jobs.entries import (
    FactConflictError,
    charge,
    expected_rows,
    find_minutes,
    require_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import (
        BucketKey,
        Charge,
        Checkpoint,
        StreamName,
        StreamOrigin,
        UsageRecord,
    )
    from billing_cli.database.facts import Run
    from billing_cli.database.streams import BillableUsage
    from billing_cli.jobs.accounts import LockedAccounts
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.entries import Minutes
    from billing_cli.jobs.plans import SourcePlan

# A source's result names this many accounts that can't be charged, or samples that can't be used,
# and counts the others.
NOTES_SHOWN = 10


class Charged(NamedTuple):
    """What was charged for a source: bytes, included in quotas or rated, and money."""

    size_bytes: int = 0
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. `unresolved`, `notes`, `charged` and `held` are by source id.

    `held` counts the deltas above a daily maximum.
    """

    processed_samples: int = 0
    written_minutes: int = 0
    replayed_minutes: int = 0
    included_bytes: int = 0
    charged_bytes: int = 0
    amount: Decimal = Decimal(0)
    unresolved: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    charged: Mapping[str, Charged] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)

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
            {**self.charged, **other.charged},
            {**self.held, **other.held},
        )


def write(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    late: Sequence[BillableUsage],
    renewed: Iterable[str],
    run: Run,
) -> Written:
    """Charge the usage of all plans, and usage that found its account, and advance the sources.

    `renewed` are accounts with a new quota period, whose charges may use another quota now. Raises
    FactConflictError where a fact exists already with other figures. The caller rolls back to the
    savepoint `accounts`, which comes before all that is written here.
    """
    kept = {plan.source_id: _kept(plan) for plan in plans}
    accounts = lock_accounts(
        context,
        connection,
        _charged(plans, late) | set(renewed),
        set().union(*kept.values()),
        _first_minute(plans, late),
    )
    stream_ids = _stream_ids(plans, add_streams(connection, _new_streams(plans, accounts)))
    usage = _sort(plans, late, stream_ids, accounts)
    sources = {plan.identity.stored: plan.source_id for plan in plans}
    sources |= {one.stored_node_id: one.source_id for one in late}
    maxima = maxima_of(context, (*usage.fresh, *usage.late), sources)
    if maxima:
        above = find_above(context, connection, usage.fresh, usage.late, accounts, maxima)
        _hold_above(usage, above, sources)
    minutes = find_minutes(connection, usage.fresh, usage.late)
    _leave_out_replayed(usage, minutes)
    checkpoints = _shared_checkpoints(plans, kept, usage, accounts)
    facts = _facts(plans, stream_ids, accounts, usage, checkpoints)

    records = stage_usage(connection, facts.usage)
    with connection.pipeline():
        # The server writes these while the charges are computed here.
        recorded = send(connection, RECORD, facts, run)
        entries = charge(context, connection, minutes, accounts)
    charges = stage_charges(connection, entries, run)
    facts = replace(facts, entries=entries, staged=Staged(records, charges))
    with connection.pipeline():
        charged = send(connection, (*CHARGE, *ADVANCE), facts, run)
    _require_all(row_counts(recorded | charged), facts)
    note_charged(connection, entries.charges, maxima)
    return _written(plans, usage, minutes, entries.charges, accounts)


def _charged(plans: Iterable[SourcePlan], late: Iterable[BillableUsage]) -> set[str]:
    """Return the accounts that usage is charged to."""
    charged = {usage.account_uuid for usage in late}
    for plan in plans:
        account_of = plan.accounts.get
        charged.update(
            account
            for record in plan.advance.records
            if (account := account_of(record.name.sample_uuid)) is not None
        )
    return charged


def _first_minute(plans: Iterable[SourcePlan], late: Iterable[BillableUsage]) -> datetime | None:
    """Return the first minute that usage is charged in."""
    minutes = [record.bucket_start for plan in plans for record in plan.advance.records]
    minutes += [usage.record.bucket_start for usage in late]
    return min(minutes, default=None)


def _kept(plan: SourcePlan) -> set[str]:
    """Return the accounts, present and former, of the streams that change."""
    account_of, row_of = plan.accounts.get, plan.rows.get
    kept = set(plan.found.values())
    for name in (*plan.advance.checkpoints, *plan.taken_over):
        account, row = account_of(name.sample_uuid), row_of(name)
        if account is not None:
            kept.add(account)
        if row is not None and row.account_uuid is not None:
            kept.add(row.account_uuid)
    return kept


def _new_streams(plans: Iterable[SourcePlan], accounts: LockedAccounts) -> list[NewStream]:
    return [
        NewStream(
            plan.identity.stored,
            name,
            _account_of(plan, name, accounts),
            *_origin(plan, name),
            checkpoint,
            _absent_since(plan, checkpoint),
        )
        for plan in plans
        for name, checkpoint in {**plan.taken_over, **plan.advance.checkpoints}.items()
        if name not in plan.rows
    ]


def _account_of(plan: SourcePlan, name: StreamName, accounts: LockedAccounts) -> str | None:
    """Return a stream's account, unless it was deleted meanwhile."""
    account = plan.accounts.get(name.sample_uuid)
    return account if account in accounts.kept or account in accounts.problems else None


def _origin(plan: SourcePlan, name: StreamName) -> tuple[StreamOrigin, Checkpoint]:
    if name in plan.taken_over:
        return "taken_over", plan.taken_over[name]
    return plan.advance.origins[name]


def _absent_since(plan: SourcePlan, checkpoint: Checkpoint) -> datetime | None:
    """Return the last snapshot that held a stream, if a later one with samples did not."""
    return None if checkpoint.seen_at == plan.advance.samples_at else checkpoint.seen_at


# Ids by stored node id and name.
StreamIds = dict[str, dict["StreamName", int]]


def _stream_ids(
    plans: Iterable[SourcePlan], new: Mapping[tuple[str, StreamName], int]
) -> StreamIds:
    ids: StreamIds = {
        plan.identity.stored: {name: row.stream_id for name, row in plan.rows.items()}
        for plan in plans
    }
    for (node, name), stream_id in new.items():
        ids[node][name] = stream_id
    return ids


@dataclass(slots=True)
class _Usage:
    """Usage by what becomes of it.

    `fresh` and `late` usage is charged and stored as `records`, and `settled` is the key of each
    late row. `assigned` are streams that found their account, and `late_at` the nodes and accounts
    of late ones. `pending` usage waits, because its stream has no account that can be charged now.
    `waiting` are names of such streams and `problems` the accounts that are to blame, by source;
    `above` counts what is held because of a daily maximum.
    """

    fresh: list[BilledUsage] = field(default_factory=list)
    late: list[BilledUsage] = field(default_factory=list)
    records: list[StoredUsage] = field(default_factory=list)
    settled: list[tuple[int, datetime]] = field(default_factory=list)
    assigned: dict[int, str] = field(default_factory=dict)
    late_at: dict[tuple[str, str], datetime] = field(default_factory=dict)
    pending: list[tuple[int, UsageRecord]] = field(default_factory=list)
    held: list[tuple[int, HeldDelta]] = field(default_factory=list)
    waiting: dict[str, set[StreamName]] = field(default_factory=dict)
    problems: dict[str, set[str]] = field(default_factory=dict)
    above: dict[str, int] = field(default_factory=dict)


def _sort(
    plans: Iterable[SourcePlan],
    late: Iterable[BillableUsage],
    stream_ids: StreamIds,
    accounts: LockedAccounts,
) -> _Usage:
    usage = _Usage()
    chargeable = accounts.chargeable
    for plan in plans:
        node, region = plan.identity.stored, plan.region
        ids, account_of = stream_ids[node], plan.accounts.get
        waiting = {name for name in plan.touched if name.sample_uuid not in plan.accounts}
        problems = usage.problems.setdefault(plan.source_id, set())
        for record in plan.advance.records:
            stream_id, account = ids[record.name], account_of(record.name.sample_uuid)
            if account is not None and account in chargeable:
                usage.fresh.append(BilledUsage(account, node, region, record))
                usage.records.append(StoredUsage(record, stream_id, account))
                continue
            usage.pending.append((stream_id, record))
            waiting.add(record.name)
            if account is not None and account in accounts.problems:
                problems.add(account)
        usage.waiting[plan.source_id] = waiting
        usage.assigned |= {
            ids[name]: account for name, account in plan.found.items() if account in accounts.kept
        }
        usage.held.extend((ids[delta.record.name], delta) for delta in plan.advance.held)
    for one in late:
        if one.account_uuid in chargeable:
            usage.late.append(
                BilledUsage(one.account_uuid, one.stored_node_id, one.region, one.record)
            )
            usage.records.append(
                StoredUsage(one.record, one.stream_id, one.account_uuid, "pending")
            )
            usage.settled.append((one.stream_id, one.record.from_at))
            usage.late_at[one.stored_node_id, one.account_uuid] = one.samples_at
            if one.is_found:
                usage.assigned[one.stream_id] = one.account_uuid
        elif one.account_uuid in accounts.problems:
            usage.problems.setdefault(one.source_id, set()).add(one.account_uuid)
    return usage


def _facts(
    plans: Sequence[SourcePlan],
    stream_ids: StreamIds,
    accounts: LockedAccounts,
    usage: _Usage,
    checkpoints: Sequence[tuple[str, str, datetime]],
) -> Facts:
    return Facts(
        usage=usage.records,
        streams=[stream for plan in plans for stream in _changed_streams(plan, accounts)],
        assigned=sorted(usage.assigned.items()),
        checkpoints=checkpoints,
        billed_pending=usage.settled,
        pending=usage.pending,
        held=usage.held,
        gaps=[(plan.source_id, gap) for plan in plans for gap in plan.advance.gaps],
        successions=[
            StoredSuccession(
                plan.source_id,
                plan.identity.stored,
                plan.accounts.get(succession.continued[0].name.sample_uuid),
                succession,
                stream_ids[plan.identity.stored],
            )
            for plan in plans
            for succession in plan.advance.successions
        ],
        sources=[_progress(plan) for plan in plans],
        debts=[
            AccountDebt(plan.identity.stored, key, debt_bytes, as_of)
            for plan in plans
            for key, (debt_bytes, as_of) in plan.advance.credit.accounts.items()
        ],
    )


def _changed_streams(plan: SourcePlan, accounts: LockedAccounts) -> list[ChangedStream]:
    row_of = plan.rows.get
    return [
        ChangedStream(
            row.stream_id,
            _account_of(plan, name, accounts) or row.account_uuid,
            checkpoint,
            _absent_since(plan, checkpoint),
        )
        for name, checkpoint in plan.advance.checkpoints.items()
        if (row := row_of(name)) is not None
    ]


def _shared_checkpoints(
    plans: Iterable[SourcePlan],
    kept: Mapping[str, AbstractSet[str]],
    usage: _Usage,
    accounts: LockedAccounts,
) -> list[tuple[str, str, datetime]]:
    """Return those of the accounts of streams that change, with the last snapshot with samples."""
    stamps = dict(usage.late_at)
    for plan in plans:
        node, at = plan.identity.stored, plan.advance.samples_at or plan.watermark
        for account in kept[plan.source_id] & accounts.kept:
            stamps[node, account] = at
    return [(node, account, at) for (node, account), at in stamps.items()]


def _progress(plan: SourcePlan) -> SourceProgress:
    step = plan.advance
    return SourceProgress(
        plan.source_id,
        plan.identity,
        plan.contract,
        step.first_at or plan.watermark,
        plan.watermark,
        step.samples_at,
        step.restarted_at,
        step.credit.node.size_bytes if step.credit.node else 0,
        step.credit.node.at if step.credit.node else None,
        step.credit.since,
    )


def _hold_above(usage: _Usage, above: AbstractSet[BucketKey], sources: Mapping[str, str]) -> None:
    """Hold the usage of buckets above a daily maximum; late usage goes on waiting where it is."""
    stored, late_stored = usage.records[: len(usage.fresh)], usage.records[len(usage.fresh) :]
    fresh = list(zip(usage.fresh, stored, strict=True))
    late = list(zip(usage.late, late_stored, usage.settled, strict=True))
    for billed, record in fresh:
        if bucket_key(billed) in above:
            usage.held.append((record.stream_id, HeldDelta(billed.record, "daily_charge")))
            source_id = sources[billed.stored_node_id]
            usage.above[source_id] = usage.above.get(source_id, 0) + 1
    kept = [one for one in fresh if bucket_key(one[0]) not in above]
    kept_late = [one for one in late if bucket_key(one[0]) not in above]
    usage.fresh, usage.late = [one for one, _ in kept], [one for one, _, _ in kept_late]
    usage.records = [*(record for _, record in kept), *(record for _, record, _ in kept_late)]
    usage.settled = [key for _, _, key in kept_late]


def _leave_out_replayed(usage: _Usage, minutes: Minutes) -> None:
    """Leave out the records that are stored already, with their charges.

    Records of `fresh` usage come first, one each, and those of late usage follow.
    """
    if minutes.replayed:
        is_replayed = [bucket_key(one) in minutes.replayed for one in usage.fresh]
        late = usage.records[len(usage.fresh) :]
        fresh = [one for one, is_old in zip(usage.records, is_replayed, strict=False) if not is_old]
        usage.records = [*fresh, *late]


def _require_all(counts: Mapping[str, int], facts: Facts) -> None:
    """Raise FactConflictError where something exists already that is not a replay."""
    require_rows(
        counts,
        {
            "streams": len(facts.streams),
            "usage records": len(facts.usage),
            "sources": len(facts.sources),
            "billed pending usage": len(facts.billed_pending),
            "seal": int(bool(facts.usage or facts.entries.charges)),
            **expected_rows(facts.entries),
        },
    )
    if counts["pending usage"] + counts["extended pending usage"] != len(facts.pending):
        raise FactConflictError("some of this usage is pending already with other figures")


def _written(
    plans: Sequence[SourcePlan],
    usage: _Usage,
    minutes: Minutes,
    charges: Sequence[Charge],
    accounts: LockedAccounts,
) -> Written:
    return Written(
        processed_samples=sum(plan.advance.samples for plan in plans),
        written_minutes=len({one.key for one in charges}),
        replayed_minutes=len(minutes.replayed) + len(minutes.taken_over),
        included_bytes=sum(one.included_bytes for one in charges),
        charged_bytes=sum(one.rated_bytes for one in charges),
        amount=0 - sum((one.amount_delta for one in charges), Decimal(0)),
        unresolved={source_id: len(names) for source_id, names in usage.waiting.items()},
        notes={
            source_id: _notes([accounts.problems[one] for one in sorted(uuids)])
            for source_id, uuids in usage.problems.items()
            if uuids
        },
        charged=_charged_by_source(plans, charges),
        held=usage.above,
    )


def _charged_by_source(
    plans: Iterable[SourcePlan], charges: Iterable[Charge]
) -> dict[str, Charged]:
    """Sum the charges of the nodes of the plans."""
    sources = {plan.identity.stored: plan.source_id for plan in plans}
    size_bytes: defaultdict[str, int] = defaultdict(int)
    amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in charges:
        node = one.key.stored_node_id
        size_bytes[node] += one.included_bytes + one.rated_bytes
        amounts[node] -= one.amount_delta
    return {
        source_id: Charged(size_bytes[node], amounts[node])
        for node, source_id in sources.items()
        if node in size_bytes
    }


def _notes(problems: Sequence[str]) -> list[str]:
    rest = len(problems) - NOTES_SHOWN
    more = [f"and {rest} more accounts can't be charged now"] if rest > 0 else []
    return [*problems[:NOTES_SHOWN], *more]
