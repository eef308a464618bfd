"""What a step writes: set-based, for all its sources at once, within the run's transaction."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.rating import buckets_of
from billing_cli.database.facts import (
    AccountDebt,
    ChangedStream,
    Facts,
    NewStream,
    SourceProgress,
    StoredSuccession,
)
from billing_cli.database.memory import return_freed_memory
from billing_cli.database.streams import add_streams
from billing_cli.database.write_path import ADVANCE, BEGIN_WRITE, CHARGE, RECORD
from billing_cli.database.writing import row_counts, send, stage_charges, stage_usage
from billing_cli.jobs.accounts import lock_accounts
from billing_cli.jobs.daily_maximum import find_above, note_charged
from billing_cli.jobs.entries import (
    FactConflictError,
    charge,
    expected_rows,
    find_minutes,
    require_rows,
)
from billing_cli.jobs.quota_periods import open_periods
from billing_cli.jobs.shared_checkpoints import stale_checkpoints, written_checkpoints
from billing_cli.jobs.usage import billed, billed_late, sort_usage
from billing_cli.jobs.written import Written, written_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Bucket, Checkpoint, StreamName, StreamOrigin
    from billing_cli.database.billable import BillableUsage, StaleCheckpoint
    from billing_cli.database.facts import Run, StagedLines
    from billing_cli.jobs.accounts import LockedAccounts
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.plans import SourcePlan
    from billing_cli.jobs.usage import Usage


class StoredBacklog(NamedTuple):
    """What waits in the database, whether its source moves or not.

    `late` is usage that found its account. `renewed` are accounts with a new quota period, whose
    charges may use another quota now. `stale` are shared checkpoints that an earlier run left.
    """

    late: Sequence[BillableUsage] = ()
    renewed: Sequence[str] = ()
    stale: Sequence[StaleCheckpoint] = ()

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        return any(self)

    def without(self, accounts: Collection[str]) -> StoredBacklog:
        """Return what waits of other accounts, apart from usage."""
        return self._replace(
            renewed=[account for account in self.renewed if account not in accounts],
            stale=[row for row in self.stale if row.account_uuid not in accounts],
        )


def write(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    backlog: StoredBacklog,
    run: Run,
) -> Written:
    """Charge the usage of all plans, and the stored backlog, and advance the sources.

    Raises FactConflictError where a fact exists already with other figures: the caller takes back
    all of it, which BEGIN_WRITE begins, with UNDO_WRITE.
    """
    stream_accounts = {plan.source_id: _stream_accounts(plan) for plan in plans}
    fresh, late = buckets_of(billed(plans)), buckets_of(billed_late(backlog.late))
    accounts = lock_accounts(
        context,
        connection,
        {*(bucket.key.account_uuid for bucket in chain(fresh, late)), *backlog.renewed},
        chain(*stream_accounts.values(), (checkpoint.account_uuid for checkpoint in backlog.stale)),
        fresh=[bucket.key for bucket in fresh],
        late=[bucket.key for bucket in late],
        first=BEGIN_WRITE,
    )
    new_ids = add_streams(connection, _new_streams(plans, accounts))
    opened = open_periods(connection, accounts)
    sources = {
        usage.stored_node_id: usage.source_id
        for usage in backlog.late
        if usage.source_id is not None
    }
    sources |= {plan.identity.stored: plan.source_id for plan in plans}
    fresh, late = _chargeable(fresh, accounts), _chargeable(late, accounts)
    above = find_above(context, connection, fresh, late, opened, sources)
    minutes = find_minutes(
        connection,
        [bucket for bucket in fresh if bucket.key not in above],
        [bucket for bucket in late if bucket.key not in above],
        accounts.on_record,
        chain(billed(plans), billed_late(backlog.late)),
    )

    def stage_records() -> tuple[Usage, StagedLines]:
        # The usage records, the most of a step in memory, are freed when this returns.
        usage, records = sort_usage(plans, backlog.late, new_ids, accounts, above, minutes.replayed)
        return usage, stage_usage(connection, records)

    usage, records = stage_records()
    with connection.pipeline():
        # The server writes these while the charges are computed here. Nothing else holds these
        # facts, so that they are freed first.
        recorded = send(
            connection,
            RECORD,
            _facts_to_record(plans, stream_accounts, backlog.stale, usage, accounts),
            run,
        )
        return_freed_memory()
        entries = charge(context, minutes, opened)
    charges = stage_charges(connection, entries, run)
    facts = replace(
        _facts_to_advance(plans, new_ids, usage), entries=entries, records=records, charges=charges
    )
    with connection.pipeline():
        charged = send(connection, (*CHARGE, *ADVANCE), facts, run)
    _require_all(row_counts(recorded | charged), facts, plans)
    note_charged(context, connection, entries.charges, sources)
    return written_of(plans, usage, minutes, entries.charges, accounts)


def _chargeable(buckets: Iterable[Bucket], accounts: LockedAccounts) -> list[Bucket]:
    return [bucket for bucket in buckets if bucket.key.account_uuid in accounts.chargeable]


def _stream_accounts(plan: SourcePlan) -> set[str]:
    """Return the accounts, present and former, of the streams that change."""
    account_of, row_of = plan.accounts.get, plan.rows.get
    accounts = set(plan.newly_resolved.values())
    for name in (*plan.advance.checkpoints, *plan.taken_over):
        account, row = account_of(name.sample_uuid), row_of(name)
        if account is not None:
            accounts.add(account)
        if row is not None and row.account_uuid is not None:
            accounts.add(row.account_uuid)
    return accounts


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
    """Return a stream's account, unless it was deleted since."""
    account = plan.accounts.get(name.sample_uuid)
    return account if account in accounts.kept or account in accounts.problems else None


def _origin(plan: SourcePlan, name: StreamName) -> tuple[StreamOrigin, Checkpoint]:
    if name in plan.taken_over:
        return "taken_over", plan.taken_over[name]
    return plan.advance.origins[name]


def _absent_since(plan: SourcePlan, checkpoint: Checkpoint) -> datetime | None:
    """Return the last snapshot that held a stream, if a later one with samples did not."""
    return None if checkpoint.seen_at == plan.advance.samples_at else checkpoint.seen_at


def _facts_to_record(
    plans: Sequence[SourcePlan],
    stream_accounts: Mapping[str, AbstractSet[str]],
    stale: Iterable[StaleCheckpoint],
    usage: Usage,
    accounts: LockedAccounts,
) -> Facts:
    """Return what RECORD writes with the usage records, which were staged: it needs no charges."""
    return Facts(
        streams=[stream for plan in plans for stream in _changed_streams(plan, accounts)],
        assigned=sorted(usage.assigned.items()),
        checkpoints=written_checkpoints(plans, stream_accounts, stale, usage, accounts),
        stale=set(stale_checkpoints(plans, stream_accounts, stale, accounts)),
    )


def _changed_streams(plan: SourcePlan, accounts: LockedAccounts) -> list[ChangedStream]:
    row_of = plan.rows.get
    return [
        ChangedStream(
            row.stream_id,
            account if (account := _account_of(plan, name, accounts)) != row.account_uuid else None,
            checkpoint,
            _absent_since(plan, checkpoint),
        )
        for name, checkpoint in plan.advance.checkpoints.items()
        if (row := row_of(name)) is not None
    ]


def _facts_to_advance(
    plans: Sequence[SourcePlan],
    new_ids: Mapping[tuple[str, StreamName], int],
    usage: Usage,
) -> Facts:
    """Return what ADVANCE writes; the entries, which CHARGE writes before, are not among it."""
    return Facts(
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
                {
                    side.name: plan.stream_id(side.name, new_ids)
                    for side in (*succession.ended, *succession.continued)
                },
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


def _require_all(counts: Mapping[str, int], facts: Facts, plans: Iterable[SourcePlan]) -> None:
    """Raise FactConflictError where something exists already that is not a replay."""
    known_streams = sum(name in plan.rows for plan in plans for name in plan.advance.checkpoints)
    require_rows(
        counts,
        {
            "usage records": facts.records.digest.count,
            "streams": known_streams,
            "sources": len(facts.sources),
            "billed pending usage": len(facts.billed_pending),
            "seal": int(bool(facts.records.minutes or facts.charges.minutes)),
            **expected_rows(facts.entries),
        },
    )
    if counts["pending usage"] + counts["extended pending usage"] != len(facts.pending):
        raise FactConflictError("some of this usage is pending already with other figures")
