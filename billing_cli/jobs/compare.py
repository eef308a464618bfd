"""Comparing evidence with the exporters' history, and appending what follows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg

from billing_cli.core.adjustments import Correction
from billing_cli.core.canonical import StoredUsage
from billing_cli.core.model import Bucket, BucketKey
from billing_cli.core.result import MinuteDifference
from billing_cli.database.reconcile import resolve_gaps
from billing_cli.database.sources import try_lock_sources
from billing_cli.jobs.accounts import lock_accounts
from billing_cli.jobs.credit import cell_key, growth_of, spend_credit
from billing_cli.jobs.daily_maximum import find_growth_above, note_charged
from billing_cli.jobs.differences import find_differences
from billing_cli.jobs.entries import FactConflictError, write_corrections
from billing_cli.jobs.isolation import CHECK_CONSTRAINTS
from billing_cli.jobs.quota_periods import open_periods
from billing_cli.jobs.refusals import refusal
from billing_cli.jobs.regions import in_recorded_regions
from billing_cli.jobs.written import Written

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.credit import CellKey
    from billing_cli.jobs.differences import Finding, HistoryRange
    from billing_cli.jobs.quota_periods import OpenedPeriods

REASON = "reconciled with the exporter's history"
ABOVE_CREDIT = (
    "history shows more bytes than the plausibility limit allows now: they are not charged, and "
    "are compared again by the next reconcile"
)
ABOVE_MAXIMUM = (
    "history shows more bytes than max_daily_charge allows on their day: they are not charged, and "
    "are compared again by the next reconcile"
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What the comparison did about one source. `skipped` counts cells that prove nothing."""

    corrections: int = 0
    skipped: int = 0
    resolved_gaps: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one transaction did, and why sources failed; one that it says nothing of is busy."""

    written: Written = field(default_factory=Written)
    differences: tuple[MinuteDifference, ...] = ()
    by_source: Mapping[str, Compared] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def plus(self, other: Comparison) -> Comparison:
        """Return both together."""
        return Comparison(
            self.written.plus(other.written),
            (*self.differences, *other.differences),
            {**self.by_source, **other.by_source},
            {**self.failed, **other.failed},
        )


def compare(
    context: JobContext, connection: Connection, history_ranges: Sequence[HistoryRange]
) -> Comparison:
    """Compare the ranges of several sources and append corrections, in the open transaction.

    They are settled together, so that the entries of an account rise in the order of its buckets,
    whichever node they are of. Only where the data of some are refused, each is settled by itself,
    and those fail alone.
    """
    try:
        with connection.transaction():
            done = _compare_together(context, connection, history_ranges)
            connection.execute(CHECK_CONSTRAINTS)
            return done
    except (psycopg.Error, FactConflictError) as error:
        reason = refusal(error)
        if len(history_ranges) == 1:
            return Comparison(failed={history_ranges[0].source_id: reason})
    comparison = Comparison()
    for history_range in history_ranges:
        comparison = comparison.plus(compare(context, connection, [history_range]))
    return comparison


def _compare_together(
    context: JobContext, connection: Connection, history_ranges: Sequence[HistoryRange]
) -> Comparison:
    locked = try_lock_sources(
        connection, [history_range.source_id for history_range in history_ranges]
    )
    findings = [
        find_differences(connection, history_range)
        for history_range in history_ranges
        if history_range.source_id in locked
    ]
    accounts = {stored.account_uuid for finding in findings for stored, _ in finding.different}
    locked_accounts = lock_accounts(context, connection, accounts)
    chargeable = locked_accounts.chargeable
    refused = spend_credit(
        connection, [(finding.history_range, finding.different) for finding in findings], chargeable
    )
    source_ids = {
        history_range.stored_node_id: history_range.source_id for history_range in history_ranges
    }
    opened = open_periods(connection, locked_accounts)
    above = _above_maximum(context, connection, findings, opened, refused)
    left_out: dict[str, set[CellKey]] = {
        source_id: {*refused.get(source_id, ()), *above.get(source_id, ())}
        for source_id in (finding.history_range.source_id for finding in findings)
    }
    usage = {
        finding.history_range.source_id: _corrected_usage(
            finding, chargeable, left_out[finding.history_range.source_id]
        )
        for finding in findings
    }
    buckets = _buckets(connection, findings, usage)
    rating = write_corrections(
        context,
        connection,
        [Correction(bucket, REASON) for bucket in buckets],
        opened,
        [row for rows in usage.values() for row in rows],
    )
    note_charged(context, connection, rating.charges)
    amounts: defaultdict[BucketKey, Decimal] = defaultdict(Decimal)
    for charge in rating.charges:
        amounts[charge.key] += charge.amount_delta
    return Comparison(
        written=Written(
            processed_samples=sum(
                len(snapshot.totals)
                for finding in findings
                for snapshot in finding.history_range.snapshots
            ),
            included_bytes=sum(charge.included_bytes for charge in rating.charges),
            charged_bytes=sum(charge.rated_bytes for charge in rating.charges),
            amount=-sum(amounts.values(), Decimal(0)),
        ),
        differences=tuple(
            MinuteDifference(
                source_ids[bucket.key.stored_node_id],
                bucket.key.account_uuid,
                bucket.key.line_code,
                bucket.key.bucket_start,
                bucket.uplink_bytes,
                bucket.downlink_bytes,
                amounts[bucket.key],
            )
            for bucket in buckets
        ),
        by_source={
            finding.history_range.source_id: Compared(
                corrections=len(usage[finding.history_range.source_id]),
                skipped=finding.skipped,
                resolved_gaps=_resolve_gaps(
                    context,
                    connection,
                    finding,
                    locked_accounts.problems,
                    left_out[finding.history_range.source_id],
                ),
                problems=_problems(finding, locked_accounts.problems, refused, above),
            )
            for finding in findings
        },
    )


def _problems(
    finding: Finding,
    of_accounts: Mapping[str, str],
    refused: Mapping[str, Collection[CellKey]],
    above: Mapping[str, Collection[CellKey]],
) -> tuple[str, ...]:
    """Return why not all that differs was corrected."""
    source_id = finding.history_range.source_id
    accounts = {stored.account_uuid for stored, _ in finding.different}
    return (
        *(of_accounts[account] for account in sorted(accounts & of_accounts.keys())),
        *[ABOVE_CREDIT] * bool(refused.get(source_id)),
        *[ABOVE_MAXIMUM] * bool(above.get(source_id)),
    )


def _above_maximum(
    context: JobContext,
    connection: Connection,
    findings: Sequence[Finding],
    opened: OpenedPeriods,
    refused: Mapping[str, Collection[CellKey]],
) -> dict[str, set[CellKey]]:
    """Return the cells that grow above a daily maximum, by source."""
    growth: defaultdict[BucketKey, int] = defaultdict(int)
    cells: defaultdict[BucketKey, list[tuple[str, CellKey]]] = defaultdict(list)
    for history_range, different in (
        (finding.history_range, finding.different) for finding in findings
    ):
        source_id, node = history_range.source_id, history_range.stored_node_id
        for (cell, account, tag, minute), size_bytes in growth_of(different, opened.accounts):
            if cell not in refused.get(source_id, ()):
                key = BucketKey(minute, node, account, history_range.region, tag)
                growth[key] += size_bytes
                cells[key].append((source_id, cell))
    sources = {
        finding.history_range.stored_node_id: finding.history_range.source_id
        for finding in findings
    }
    above: defaultdict[str, set[CellKey]] = defaultdict(set)
    for key in find_growth_above(context, connection, growth, opened, sources):
        for source_id, cell in cells[key]:
            above[source_id].add(cell)
    return above


def _corrected_usage(
    finding: Finding, accounts: Collection[str], refused: Collection[CellKey]
) -> list[StoredUsage]:
    """Return the correction records of accounts that can be charged, without the refused cells.

    A correction's `start` is what was on record for its minute and its `end` what is now.
    """
    return [
        StoredUsage(
            stored.cell.record._replace(
                bucket_start=difference.minute, start=difference.recorded, end=difference.shown
            ),
            stored.stream_id,
            stored.account_uuid,
            "correction",
            stored.revisions.get(difference.minute, 0) + 1,
        )
        for stored, difference in finding.different
        if stored.account_uuid in accounts and cell_key(stored) not in refused
    ]


def _buckets(
    connection: Connection,
    findings: Sequence[Finding],
    usage: Mapping[str, Sequence[StoredUsage]],
) -> list[Bucket]:
    """Return the buckets' changes, where anything changes."""
    uplink: defaultdict[BucketKey, int] = defaultdict(int)
    downlink: defaultdict[BucketKey, int] = defaultdict(int)
    for history_range in (finding.history_range for finding in findings):
        for record, _, account, _, _ in usage[history_range.source_id]:
            key = BucketKey(
                record.bucket_start,
                history_range.stored_node_id,
                account,
                history_range.region,
                record.name.inbound_tag,
            )
            uplink[key] += record.uplink_bytes
            downlink[key] += record.downlink_bytes
    changes = [Bucket(key, uplink[key], downlink[key]) for key in uplink]
    return in_recorded_regions(
        connection, [change for change in changes if change.uplink_bytes or change.downlink_bytes]
    )


def _resolve_gaps(
    context: JobContext,
    connection: Connection,
    finding: Finding,
    accounts: Collection[str],
    cells: Collection[CellKey],
) -> int:
    """Close the gaps that history covers, but for records of accounts or cells that wait."""
    waiting = [
        stored.cell.record
        for stored, _ in finding.different
        if stored.account_uuid in accounts or cell_key(stored) in cells
    ]
    history_range = finding.history_range
    stamps = [snapshot.collected_at for snapshot in history_range.snapshots]
    until = max(history_range.until, stamps[-1])
    return resolve_gaps(
        connection, history_range.source_id, stamps[0], until, stamps, waiting, context.clock()
    )
