"""`prune`: takes whole months of evidence away, as the role that owns the tables.

Each month goes in a transaction of its own, together with what audits need in its place. Tables
can't be detached CONCURRENTLY here, as PostgreSQL refuses that with a default partition and in
a transaction; a detachment waits for whoever reads the evidence, and others wait for it no longer
than the lock timeout.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.database.connection import Session
from billing_cli.database.partitions import read_evidence_since
from billing_cli.database.schema import MAKE_PARTITIONS_NOW, require_head
from billing_cli.errors import BillingError, ConfigurationError
from billing_cli.features.prune import queries as store
from billing_cli.features.prune import queries_rest as rest
from billing_cli.features.prune.queries_seals import seal_prune
from billing_cli.features.prune.result import PruneResult, kept_since
from billing_cli.jobs.run_history import record_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.features.prune.result import PrunedMonth
    from billing_cli.jobs.context import JobContext

JOB = "prune"

# Summing up a month of millions of records takes its time, and no other job waits for it.
STATEMENT_TIMEOUT_SECONDS = 3600.0

NO_FACTS = sha256().digest()


def prune(
    context: JobContext,
    keep_months: int,
    *,
    is_dropping: bool = False,
    is_unproven_meant: bool = False,
    is_archive_waived: bool = False,
    dry_run: bool = False,
    on_month: Callable[[PrunedMonth], None] | None = None,
) -> PruneResult:
    """Detach the evidence of all months before the last `keep_months` and this one.

    With `is_dropping` its tables are dropped, and those that an earlier run detached.
    `is_unproven_meant` says that months may go that no audit has proven, `is_archive_waived` that
    they may go without an archive of all their rows, which the result notes. A dry run only reads.
    `on_month` is called after each month. Raises ConfigurationError for a role that does not own
    the tables, BillingError, with nothing changed, where something of those months is still
    needed, and where the database fails; the months before that stay pruned.
    """
    started_at = context.clock()
    since = kept_since(started_at, keep_months)
    patient = replace(context.database, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    result = PruneResult(
        JOB,
        context.run_id,
        "ok",
        started_at,
        started_at,
        dry_run=dry_run,
        kept_since=since,
        is_archive_waived=is_archive_waived,
    )
    with Session(patient) as session:
        session.read(
            lambda connection: _require(
                connection,
                since,
                is_unproven_meant=is_unproven_meant,
                is_archive_waived=is_archive_waived,
            )
        )
        if dry_run:
            return session.read(
                lambda connection: _foreseen(context, connection, result, is_dropping)
            )
        moved = session.transaction(
            lambda connection: _make_room(
                connection,
                context.run_id,
                is_unproven_meant=is_unproven_meant,
                is_archive_waived=is_archive_waived,
            )
        )
        result = replace(result, moved_rows=moved)
        for found, is_attached in session.read(store.read_months):
            if found.month >= since:
                break

            def work(connection: Connection, found: PrunedMonth = found) -> PrunedMonth:
                end = kept_since(found.month, -1)
                store.lock_tables(connection, found.tables)
                _require_sealed_days(connection, end)
                _require_same(connection, found.month, is_waived=is_archive_waived)
                seal_prune(connection, context.run_id, end, is_unproven_meant=is_unproven_meant)
                return _prune(connection, found, end, is_dropping)

            def drop(connection: Connection, found: PrunedMonth = found) -> None:
                store.drop_tables(connection, found.tables)

            if is_attached:
                gone = session.transaction(work)
                result = replace(result, months=(*result.months, gone))
                if on_month is not None:
                    on_month(gone)
            elif is_dropping:
                session.transaction(drop)
                result = replace(result, dropped_tables=(*result.dropped_tables, *found.tables))
        return session.transaction(lambda connection: _finish(context, connection, result, since))


def _require(
    connection: Connection, since: datetime, *, is_unproven_meant: bool, is_archive_waived: bool
) -> None:
    """Raise what keeps months from being pruned."""
    require_head(connection)
    role, is_owner = store.read_owner(connection)
    if not is_owner:
        raise ConfigurationError(
            f"role {role!r} does not own the tables: prune runs as the role that migrates"
        )
    waiting, first = store.read_waiting(connection, since)
    if waiting and first is not None:
        raise BillingError(
            f"{waiting} held deltas of months that would go wait for a decision, the first of "
            f"{format_rfc3339(first)}: release or reject them, see `billing held list`"
        )
    _require_sealed_days(connection, since)
    if not is_archive_waived:
        _require_archives(connection, since)
    if is_unproven_meant:
        return
    last = store.read_last_audit(connection)
    if last is None or last[0] < since:
        raise BillingError(
            "what would go was not audited since: run `billing audit` first, or say --unproven"
        )
    if last[1]:
        raise BillingError(
            f"the last audit found {last[1]} violations, which the evidence may be needed for: "
            "see to them first, or say --unproven"
        )


def _require_sealed_days(connection: Connection, end: datetime) -> None:
    """Raise where charges before `end` were booked on a day whose leaf is still to be made.

    The leaf is made of the charges that are there then: it would lack them, and statements too.
    """
    if runs := store.count_unsealed_bookings(connection, end):
        raise BillingError(
            f"charges of months that would go were booked (by {runs} of the runs) on a day that is "
            "not sealed yet: run `billing seal` after midnight UTC, then prune"
        )


def _require_archives(connection: Connection, since: datetime) -> None:
    """Raise where a month that would go is not archived."""
    archived = store.read_archives(connection)
    missing = [
        f"{found.month:%Y-%m}"
        for found, is_attached in store.read_months(connection)
        if found.month < since
        and is_attached
        and found.month not in archived
        and store.has_rows(connection, found.tables)
    ]
    if missing:
        raise BillingError(
            f"not archived: {', '.join(missing)}: run `billing archive` first, or say "
            "--without-archive"
        )


def _require_same(connection: Connection, month: datetime, *, is_waived: bool) -> None:
    """Raise where a month that goes has other rows than were archived; they are locked by now."""
    if is_waived:
        return
    archived = store.read_archives(connection).get(month)
    if store.facts_sha256(connection, month) not in {archived, NO_FACTS}:
        raise BillingError(
            f"{month:%Y-%m} is not archived as it is, rows were added or changed: run "
            "`billing archive` first, or say --without-archive"
        )


def _foreseen(
    context: JobContext, connection: Connection, result: PruneResult, is_dropping: bool
) -> PruneResult:
    """Return what would be done, as far as it can be seen without doing it."""
    since = result.started_at if result.kept_since is None else result.kept_since
    months = store.read_months(connection)
    known = {found.month for found, _ in months}
    # Rows without a partition get one first.
    months += [
        (found, True)
        for month, found in rest.read_rest_months(connection).items()
        if month not in known
    ]
    months.sort(key=lambda month: month[0].month)
    older = [month for month in months if month[0].month < since]
    return replace(
        result,
        finished_at=context.clock(),
        months=tuple(
            replace(found, is_dropped=is_dropping) for found, is_attached in older if is_attached
        ),
        dropped_tables=tuple(
            table
            for found, is_attached in older
            if is_dropping and not is_attached
            for table in found.tables
        ),
    )


def _make_room(
    connection: Connection, run_id: str, *, is_unproven_meant: bool, is_archive_waived: bool
) -> int:
    """Make the partitions of the coming months, and those of rows that have none.

    Late rows of a month that is detached are pruned after it: these too only if they are archived.
    """
    months, moved = rest.read_rest_months(connection), 0
    if months:
        detached = [
            found
            for found, is_attached in store.read_months(connection)
            if found.month in months and not is_attached
        ]
        attached = months.keys() - {found.month for found in detached}
        if detached and not is_archive_waived:
            store.lock_tables(connection, rest.REST_TABLES)
        for found in detached:
            _require_same(connection, found.month, is_waived=is_archive_waived)
        if detached and (pruned_until := read_evidence_since(connection)):
            seal_prune(connection, run_id, pruned_until, is_unproven_meant=is_unproven_meant)
        moved = rest.spread_rest(connection, attached, detached)
    connection.execute(MAKE_PARTITIONS_NOW)
    return moved


def _prune(
    connection: Connection, found: PrunedMonth, end: datetime, is_dropping: bool
) -> PrunedMonth:
    gone = store.prune_month(connection, found, end)
    if not is_dropping:
        return gone
    store.drop_tables(connection, found.tables)
    return replace(gone, is_dropped=True)


def _finish(
    context: JobContext, connection: Connection, result: PruneResult, since: datetime
) -> PruneResult:
    runs, gaps = store.delete_run_history(connection, since)
    done = replace(result, finished_at=context.clock(), deleted_runs=runs, deleted_gaps=gaps)
    record_run(context, connection, done)
    return done
