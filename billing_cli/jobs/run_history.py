"""Turning steps into a run's result, and the result into its row in the run history."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from billing_cli.core.result import RunResult, result_object
from billing_cli.database.connection import Session
from billing_cli.database.runs import read_result, save_run
from billing_cli.database.totals import add_to_totals
from billing_cli.errors import (
    BillingError,
    DatabaseUnavailableError,
    InterruptedBySignalError,
    UsageError,
)
from billing_cli.jobs.assignment import missing_assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.result import RunStatus, SourceResult
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.written import Written

# A note names this many sources.
NAMED = 10

Result = TypeVar("Result", bound=RunResult)


def result_of(
    context: JobContext,
    job: str,
    started_at: datetime,
    sources: Iterable[SourceResult],
    written: Written,
    *,
    steps: int,
    dry_run: bool,
    applied: int = 0,
    notes: Sequence[str] = (),
) -> RunResult:
    """Return the result object of a run that has come this far.

    A run whose sources all failed in the end, or are busy, is partial where something of it is
    stored: `applied` are the snapshots by which its sources have moved. So is one that left usage
    of nodes without a source. `notes` are those of where the snapshots come from.
    """
    ordered = tuple(sorted(sources, key=lambda result: result.source_id))
    status = status_of(ordered)
    has_stored = applied or written.written_minutes or any(result.corrections for result in ordered)
    if status in {"error", "busy"} and has_stored:
        status = "partial"
    uncarried = written.notes.get(None, ())
    if status == "ok" and uncarried:
        status = "partial"
    error, error_code = _failure_of(ordered) if status == "error" else (None, None)
    return RunResult(
        job=job,
        run_id=context.run_id,
        status=status,
        started_at=started_at,
        finished_at=context.clock(),
        **written.counts,
        steps=steps,
        dry_run=dry_run,
        error=error,
        error_code=error_code,
        sources=ordered,
        notes=(*notes, *_notes(context, ordered), *uncarried),
    )


def _notes(context: JobContext, ordered: Sequence[SourceResult]) -> tuple[str, ...]:
    if context.shard and not ordered:
        return (f"no source is in shard {context.shard}",)
    taking_part = {result.source_id for result in ordered}
    unassigned = [
        source.source_id
        for source in context.sources
        if source.source_id in taking_part and missing_assignment(source)
    ]
    if not unassigned:
        return ()
    named = ", ".join(unassigned[:NAMED]) + (" and others" if len(unassigned) > NAMED else "")
    return (f"without expected_node_id and expected_env, whoever answers is believed: {named}",)


def _failure_of(sources: Iterable[SourceResult]) -> tuple[str, str]:
    """Return why a run failed whose sources all failed, and the error code of that."""
    failed = [source for source in sources if source.status == "error"]
    locked = [source for source in failed if source.error_code == "locked"]
    if len(locked) == len(failed):
        more = f", and {len(locked) - 1} more sources" if len(locked) > 1 else ""
        return f"source {locked[0].source_id} is {locked[0].error}{more}", "locked"
    is_outage = all(source.unreachable for source in failed)
    code = "sources_unreachable" if is_outage else "sources_failed"
    return "every selected source failed", code


def status_of(sources: Iterable[SourceResult]) -> RunStatus:
    """Return a run's status: what failed or is left open in some sources makes it partial."""
    found = {source.status for source in sources} - {"skipped"}
    if found == {"error"}:
        return "error"
    if found == {"busy"}:
        return "busy"
    return "partial" if found & {"error", "partial"} else "ok"


def record_run(context: JobContext, connection: Connection, result: RunResult) -> None:
    """Write the run's row in the run history in the open transaction; count it in the totals."""
    labelled = replace(result, currency=context.currency)
    _write(context, connection, result, result_object(labelled))


@contextmanager
def recording_failure(
    context: JobContext, session: Session, so_far: Callable[[], RunResult]
) -> Iterator[None]:
    """Note in the run history why the block failed; let the error report what is stored.

    `so_far` gives what the run's finished steps did. A command line that asks for what can't be is
    no run, and is not noted.
    """
    try:
        yield
    except (BillingError, InterruptedBySignalError) as error:
        result = so_far()
        if result.steps:
            error.so_far = replace(result, status="error", error=str(error), error_code=error.code)
        if isinstance(error, BillingError) and not isinstance(error, UsageError):
            record_failure(context, session, result.job, result.started_at, error)
        raise


def in_one_transaction(
    context: JobContext,
    job: str,
    started_at: datetime,
    work: Callable[[Connection], Result],
    *,
    dry_run: bool,
) -> Result:
    """Do a job's work and write its row in the run history in one transaction; return its result.

    A failure has a row of its own. A command line that asks for what can't be is no run, and has
    none. Raises as the work does, and BillingError where the database fails.
    """

    def recorded(connection: Connection) -> Result:
        result = work(connection)
        record_run(context, connection, result)
        return result

    with Session(context.database, dry_run=dry_run) as session:
        try:
            return session.transaction(recorded)
        except UsageError:
            raise
        except BillingError as error:
            record_failure(context, session, job, started_at, error)
            raise


def record_failure(
    context: JobContext, session: Session, job: str, started_at: datetime, error: BillingError
) -> None:
    """Note a run that failed, where the database can still be written; its own writes are undone.

    What the run's earlier steps did stands, and stays on record.
    """
    if session.dry_run or isinstance(error, DatabaseUnavailableError):
        return
    result = RunResult(
        job=job,
        run_id=context.run_id,
        status="error",
        started_at=started_at,
        finished_at=context.clock(),
        error=str(error),
        error_code=error.code,
    )

    def work(connection: Connection) -> None:
        failure = result_object(result)
        earlier = read_result(connection, context.run_id)
        ended = {key: failure[key] for key in ("status", "finished_at", "error")}
        _write(context, connection, result, {**failure, **earlier, **ended})

    try:
        session.transaction(work)
    except BillingError:
        # The caller reports the failure itself; a missing row in the run history adds nothing.
        session.close()


def _write(
    context: JobContext, connection: Connection, result: RunResult, kept: Mapping[str, Any]
) -> None:
    row: dict[str, Any] = {
        "run_id": context.run_id,
        "job": result.job,
        "status": result.status,
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "result": kept,
    }
    if not result.dry_run:
        # A dry run holds its locks for as long as it takes, and others would wait for this one.
        add_to_totals(connection, **row)
    save_run(connection, **row, host=context.host, version=context.version, error=result.error)
