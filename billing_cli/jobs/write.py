"""What a step writes: set-based, for all its sources at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.makers import maker
from billing_cli.core.pending import bill_pending, merge_pending
from billing_cli.core.rating import BilledUsage, buckets_of
from billing_cli.core.times import minute_of
from billing_cli.database import accounts as store_accounts
from billing_cli.database import facts, streams
from billing_cli.database.sources import SourceProgress, end_stalled, save_gaps, save_progress
from billing_cli.jobs.beside_older import charge_beside_older
from billing_cli.jobs.owners import lock_owners
from billing_cli.jobs.payers import charge_buckets, facts_are_new, payers_of, send_buckets
from billing_cli.jobs.stream_rows import (
    StreamIds,
    shared_checkpoints,
    write_shared_checkpoints,
    write_streams,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import StreamName, UsageRecord
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.owners import Owners
    from billing_cli.jobs.payers import Charged
    from billing_cli.jobs.source_plan import SourcePlan

_billed_usage = maker(BilledUsage)


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
        owners, locking = lock_owners(connection, plans)
        payers = payers_of(context, connection, locking)
        del locking
        owners = owners.that_can_pay(payers)
        new_ids = write_streams(connection, plans, owners)
        usage = _usage_of(plans, owners, new_ids)
        _write_usage(connection, usage, now)
        buckets = buckets_of(usage.billed)
        _write_progress(connection, plans, now)
        # What is no longer needed is let go: the dearest part is still to come.
        billed = usage.billed if beside_older else []
        del usage
        if not beside_older:
            sent = send_buckets(context, connection, buckets, payers.prices, beside_older=False)
        accounts = payers.accounts()
        del payers
        if not beside_older:
            entries = charge_buckets(
                context, connection, sent, buckets, accounts, has_arrears_since=has_arrears_since
            )
            written = _written(plans, owners, entries.charged)
        # A busy server takes little of what is sent, so what takes it long comes before what is
        # made quickly; and while it stores the ledger we have nothing else to do.
        checkpoints = write_shared_checkpoints(connection, plans, owners)
    if not checkpoints.reached_all:
        # Somebody has taken some of them away.
        facts.add_shared_checkpoints(connection, shared_checkpoints(plans, owners))
    if not beside_older:
        return written
    charged, replayed = charge_beside_older(
        context, connection, buckets, billed, accounts, has_arrears_since=has_arrears_since
    )
    return replace(_written(plans, owners, charged), replayed_minutes=replayed)


def _written(plans: Sequence[SourcePlan], owners: Owners, charged: Charged) -> Written:
    return Written(
        processed_samples=sum(plan.advance.samples for plan in plans),
        written_minutes=charged.minutes,
        included_bytes=charged.included_bytes,
        charged_bytes=charged.rated_bytes,
        amount=0 - charged.amount_delta,
        unresolved=owners.unresolved(),
        notes=owners.notes,
    )


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
    owners: Owners,
    new_ids: Mapping[tuple[str, StreamName], int],
) -> _Usage:
    """Part records that have an owner from those that have none and those that are held."""
    usage = _Usage()
    billed, stream_ids, kinds = usage.billed, usage.stream_ids, usage.kinds
    for plan in plans:
        node, region = plan.identity.stored, plan.region
        owner = owners.accounts_of(plan).get
        id_of = StreamIds(node, plan.streams.rows, new_ids)
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
                for record in bill_pending(pending, minute_of(plan.watermark)):
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
                plan.advance.first_at or plan.watermark,
                plan.watermark,
            )
            for plan in plans
        ],
    )
    save_gaps(connection, [(plan.source_id, gap) for plan in plans for gap in plan.advance.gaps])
    end_stalled(
        connection,
        [(plan.source_id, plan.advance.first_at or plan.watermark) for plan in plans],
        now,
    )
