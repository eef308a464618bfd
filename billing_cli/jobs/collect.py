"""`collect`: one bounded step forward from each source's watermark, every minute.

Sources that can't move within their share of the samples take further steps, one transaction each.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import closed_until
from billing_cli.database.connection import Session
from billing_cli.jobs.context import sources_to_work_on
from billing_cli.jobs.fetching import origin_of
from billing_cli.jobs.larger_shares import LargerShares
from billing_cli.jobs.merging import merge_step
from billing_cli.jobs.run_history import record_run, recording_failure, result_of
from billing_cli.jobs.step import take_step
from billing_cli.jobs.written import Written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from billing_cli.core.result import RunResult, SourceResult
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.fetching import FromFile
    from billing_cli.jobs.step import Step

JOB = "collect"
# A run should end before the timer starts the next one.
MOST_FURTHER_STEPS = 10


def collect(
    context: JobContext,
    source_ids: Sequence[str] = (),
    *,
    dry_run: bool = False,
    file: FromFile | None = None,
) -> RunResult:
    """Take one step with the named sources, or with all; with `dry_run` undo it at the end.

    With a `file` its snapshots are taken in place of the exporters', and of all sources only those
    take part that it has snapshots of. Sources that can't move because their share of the samples
    is too small take further steps, as long as the run's time to fetch lasts. Each step is one
    transaction. Raises BillingError (with its exit code) where a step failed; the steps before it
    stand, and the error's `so_far` is what they did.
    """
    sources = sources_to_work_on(context, source_ids)
    started_at = context.clock()
    until = closed_until(started_at, context.settle)
    notes: tuple[str, ...] = ()

    results: dict[str, SourceResult] = {}
    written, steps = Written(), 0
    shares = following = LargerShares()
    deadline = started_at + timedelta(seconds=context.fetching.deadline_seconds)

    def outcome(step: Step | None = None) -> RunResult:
        merged = dict(results)
        if step is not None:
            merge_step(merged, step)
        (following if step else shares).note_stopped(merged)
        return result_of(
            context,
            JOB,
            started_at,
            merged.values(),
            written.plus(step.written) if step else written,
            steps=steps + 1 if step else steps,
            dry_run=dry_run,
            notes=notes,
        )

    def record(connection: Connection, step: Step) -> None:
        # Decided once: what the row of the run says, the loop below does.
        nonlocal following
        is_last = steps == MOST_FURTHER_STEPS or context.clock() >= deadline
        following = shares.after(step.still, is_last=is_last)
        record_run(context, connection, outcome(step))

    with (
        Session(context.database, dry_run=dry_run) as session,
        recording_failure(context, session, outcome),
        origin_of(context, session, sources, file, are_named=bool(source_ids)) as origin,
    ):
        notes = origin.notes
        remaining = list(origin.sources)
        # Sources that are named, or that a file is of, are wanted now, whatever their interval.
        respect_intervals = not source_ids and not origin.is_file
        while remaining or not steps:
            step = take_step(
                context,
                session,
                origin,
                [source for source in remaining if source.source_id not in shares.waiting],
                until=until,
                wanted=shares.wanted,
                respect_intervals=respect_intervals,
                record=record,
            )
            merge_step(results, step)
            written, steps, shares = written.plus(step.written), steps + 1, following
            # Those that can't move within their share are asked again, alone and for more.
            left, respect_intervals = shares.left(step.still), False
            remaining = [source for source in remaining if source.source_id in left]
    return outcome()
