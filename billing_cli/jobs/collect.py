"""`collect`: one bounded step forward from each source's watermark, every minute.

Sources that can't move within their share of the samples take further steps, one transaction each.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import closed_until
from billing_cli.database.connection import Session
from billing_cli.jobs.context import sources_to_work_on
from billing_cli.jobs.fetching import StepRequest, origin_of
from billing_cli.jobs.progress import Progress
from billing_cli.jobs.run_history import record_run, recording_failure, result_of
from billing_cli.jobs.step import take_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from billing_cli.core.result import RunResult
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
    deadline = started_at + timedelta(seconds=context.fetching.deadline_seconds)
    notes: tuple[str, ...] = ()
    done = following = Progress()

    def outcome(progress: Progress) -> RunResult:
        return result_of(
            context,
            JOB,
            started_at,
            progress.sources(),
            progress.written,
            steps=progress.steps,
            dry_run=dry_run,
            notes=notes,
        )

    def record(connection: Connection, step: Step) -> None:
        # Decided once: what the row of the run says, the loop below does.
        nonlocal following
        is_last = done.steps == MOST_FURTHER_STEPS or context.clock() >= deadline
        following = done.after(step, is_last=is_last)
        record_run(context, connection, outcome(following))

    with (
        Session(context.database, dry_run=dry_run) as session,
        recording_failure(context, session, lambda: outcome(done)),
        origin_of(context, session, sources, file, are_named=bool(source_ids)) as origin,
    ):
        notes = origin.notes
        remaining = {source.source_id: source for source in origin.sources}
        # Sources that are named, or that a file is of, are wanted now, whatever their interval.
        respect_intervals = not source_ids and not origin.is_file
        while remaining or not done.steps:
            request = StepRequest(
                done.shares.taking_part(remaining),
                until,
                larger_shares=done.shares.wanted,
                respect_intervals=respect_intervals,
            )
            step = take_step(context, session, origin, request, record)
            done = following
            # Those that can't move within their share are asked again, alone and for more.
            remaining, respect_intervals = done.shares.left(remaining, step.undecided), False
    return outcome(done)
