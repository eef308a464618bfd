"""`reverse`: takes back everything that a source charged in a range, by further entries.

It goes through the range in steps of some minutes, one transaction each. What was taken back
already is left alone, so a second run, or one after a crash, changes nothing twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.adjustments import Correction
from billing_cli.core.result import AccountAmount, SourceResult
from billing_cli.core.times import MINUTE, format_rfc3339
from billing_cli.database.connection import Session
from billing_cli.database.partitions import require_evidence
from billing_cli.database.schema import require_head
from billing_cli.database.sources import try_lock_sources
from billing_cli.errors import BillingError, UsageError
from billing_cli.features.reverse.report import ReverseResult
from billing_cli.features.reverse.standing_usage import (
    Scope,
    buckets_of,
    find_reversals,
    read_span,
    read_standing_usage,
)
from billing_cli.jobs.accounts import lock_accounts
from billing_cli.jobs.context import check_range
from billing_cli.jobs.daily_maximum import note_charged
from billing_cli.jobs.entries import write_corrections
from billing_cli.jobs.nodes import nodes_of
from billing_cli.jobs.quota_periods import open_periods
from billing_cli.jobs.run_history import record_run, recording_failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Charge
    from billing_cli.jobs.context import JobContext

JOB = "reverse"

# The evidence of a step is in memory at once, and its accounts are locked while it is written.
STEP = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: the minutes of a source that begin in [since, until), and why.

    None as `until` is up to the newest, None as `account_uuid` is all accounts.
    """

    source_id: str
    since: datetime
    until: datetime | None
    account_uuid: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Done:
    """What the steps so far did, as sums: a day of a large node is millions of entries."""

    corrections: Counter[str] = field(default_factory=Counter)
    amounts: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    minutes: int = 0
    included_bytes: int = 0
    rated_bytes: int = 0
    problems: dict[str, None] = field(default_factory=dict)
    legacy_bytes: int = 0
    steps: int = 0

    def plus_step(
        self, charges: Sequence[Charge], problems: Iterable[str], legacy_bytes: int
    ) -> _Done:
        """Return the same with a step that wrote these entries."""
        corrections, amounts = self.corrections.copy(), self.amounts.copy()
        for charge in charges:
            corrections[charge.key.account_uuid] += 1
            amounts[charge.key.account_uuid] += charge.amount_delta
        return _Done(
            corrections,
            amounts,
            self.minutes + len({charge.key for charge in charges}),
            self.included_bytes + sum(charge.included_bytes for charge in charges),
            self.rated_bytes + sum(charge.rated_bytes for charge in charges),
            self.problems | dict.fromkeys(problems),
            self.legacy_bytes + legacy_bytes,
            self.steps + 1,
        )

    def stopped(self, at: datetime, error: BillingError) -> _Done:
        """Return the same with a note why nothing was done from a minute on."""
        note = f"stopped at {format_rfc3339(at)}: {error}; the same call goes on from there"
        return replace(self, problems={**self.problems, note: None})


def reverse(context: JobContext, order: Order, *, dry_run: bool = False) -> ReverseResult:
    """Take back what the source charged, without what the legacy writer did.

    Raises UsageError for an unknown source, BillingError where a step failed; the steps before it
    stand, and the error's `so_far` is what they did. The status is `busy` where another run holds
    the source, `partial` where that happens after a step, or where accounts can't be given anything
    back now.
    """
    started_at = context.clock()
    check_range(order.since, order.until, started_at)
    done = _Done()

    def outcome(so_far: _Done) -> ReverseResult:
        return _result(context, order, started_at, so_far, dry_run=dry_run)

    with (
        Session(context.database, dry_run=dry_run) as session,
        recording_failure(context, session, lambda: outcome(done)),
    ):
        scope, span = session.read(lambda connection: _survey(context, connection, order))
        is_recorded = span is not None
        for step in _steps(scope, span):

            def work(connection: Connection, step: Scope = step, before: _Done = done) -> _Done:
                so_far = _take_back(context, connection, order, step, before)
                record_run(context, connection, outcome(so_far))
                return so_far

            try:
                done = session.transaction(work)
            except _BusyError as error:
                if not done.steps:
                    return replace(outcome(done), status="busy", error=str(error))
                done = done.stopped(step.since, error)
                is_recorded = False
                break
        if not is_recorded:
            session.transaction(lambda connection: record_run(context, connection, outcome(done)))
    return outcome(done)


class _BusyError(BillingError):
    """Another run holds the source."""

    code = "busy"


def _survey(
    context: JobContext, connection: Connection, order: Order
) -> tuple[Scope, tuple[datetime, datetime] | None]:
    require_head(connection)
    require_evidence(connection, order.since)
    nodes = nodes_of(context, connection, [order.source_id])
    if not nodes:
        raise UsageError(f"nothing has been collected from source {order.source_id!r}")
    scope = Scope(nodes, order.since, order.until, order.account_uuid)
    return scope, read_span(connection, scope)


def _steps(scope: Scope, span: tuple[datetime, datetime] | None) -> Iterator[Scope]:
    """Yield the range in pieces, oldest first."""
    if span is None:
        return
    at, end = span[0], span[1] + MINUTE
    while at < end:
        yield scope._replace(since=at, until=min(at + STEP, end))
        at += STEP


def _take_back(
    context: JobContext, connection: Connection, order: Order, step: Scope, before: _Done
) -> _Done:
    """Take back what counts in a step, in the open transaction."""
    if not try_lock_sources(connection, [order.source_id]):
        raise _BusyError(f"another run holds the source {order.source_id}")
    found = read_standing_usage(connection, step)
    accounts = lock_accounts(context, connection, {record.account_uuid for record in found})
    usage = [record for record in found if record.account_uuid in accounts.chargeable]
    reason = f"source {order.source_id} reversed: {order.reason}"
    configured = {source.source_id: source.region for source in context.sources}
    region = configured.get(order.source_id) or context.tariff.default_region
    reversals, legacy_bytes = find_reversals(connection, usage)
    rating = write_corrections(
        context,
        connection,
        [Correction(bucket, reason) for bucket in buckets_of(connection, reversals, region)],
        open_periods(connection, accounts),
        [reversal.correction() for reversal in reversals],
    )
    note_charged(context, connection, rating.charges)
    return before.plus_step(rating.charges, accounts.problems.values(), legacy_bytes)


def _result(
    context: JobContext, order: Order, started_at: datetime, done: _Done, *, dry_run: bool
) -> ReverseResult:
    corrections = done.corrections.total()
    legacy = f"{done.legacy_bytes} bytes were charged by the legacy writer: they are not taken back"
    return ReverseResult(
        job=JOB,
        run_id=context.run_id,
        status="partial" if done.problems else "ok",
        started_at=started_at,
        finished_at=context.clock(),
        written_minutes=done.minutes,
        included_bytes=done.included_bytes,
        charged_bytes=done.rated_bytes,
        amount=-sum(done.amounts.values(), Decimal(0)),
        corrections=corrections,
        steps=done.steps,
        dry_run=dry_run,
        sources=(SourceResult(order.source_id, corrections=corrections),),
        notes=(*done.problems, *[legacy] * bool(done.legacy_bytes)),
        reason=order.reason,
        accounts=tuple(
            AccountAmount(account, count, done.amounts[account])
            for account, count in sorted(done.corrections.items())
        ),
    )
