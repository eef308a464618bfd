"""`catch-up`: bounded steps, one transaction each, until every source is current."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.core.times import closed_until, minute_of
from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources
from billing_cli.jobs.catch_up_window import CatchUpWindow
from billing_cli.jobs.context import check_range, sources_to_work_on
from billing_cli.jobs.fetching import StepRequest, ending_at, origin_of
from billing_cli.jobs.progress import Progress
from billing_cli.jobs.run_history import record_run, recording_failure, result_of
from billing_cli.jobs.step import take_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.core.result import RunResult, SourceResult
    from billing_cli.database.sources import SourceState
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.fetching import FromFile
    from billing_cli.jobs.step import Step

JOB = "catch-up"
SINCE_IGNORED = (
    "--since is ignored: the source goes on from its watermark; `billing reconcile --since` reads "
    "its history again"
)
SINCE_IGNORED_FOR_LEGACY = (
    "--since is ignored: the source goes on from where the legacy writer stopped"
)


def catch_up(
    context: JobContext,
    source_ids: Sequence[str] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
    file: FromFile | None = None,
    on_step: Callable[[Mapping[str, SourceResult], datetime], None] | None = None,
) -> RunResult:
    """Repeat bounded steps until each source has nothing more before `until`.

    `since` is where a source begins that has no watermark yet; `until` defaults to the end of
    the last closed minute and is cut to a whole minute. With a `file` its snapshots are taken in
    place of the exporters', and of all sources only those take part that it has snapshots of.
    `on_step` is called after each step with every source's result so far and the goal. Raises
    BillingError where a step failed; the steps before it stand, and the error's `so_far` is what
    they did.
    """
    started_at = context.clock()
    check_range(since, until, started_at)
    sources = sources_to_work_on(context, source_ids)
    goal = closed_until(started_at, context.settle)
    if until is not None:
        goal = min(goal, minute_of(until))
    ignored: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
    done = following = Progress()

    def outcome(progress: Progress) -> RunResult:
        results = [
            replace(result, notes=(*result.notes, ignored[result.source_id]))
            if result.source_id in ignored
            else result
            for result in progress.sources()
        ]
        return result_of(
            context,
            JOB,
            started_at,
            results,
            progress.written,
            steps=progress.steps,
            dry_run=dry_run,
            applied=sum(result.snapshots for result in results),
            notes=notes,
        )

    def record(connection: Connection, step: Step) -> None:
        nonlocal following
        following = done.after(step)
        record_run(context, connection, outcome(following))

    with (
        Session(context.database, dry_run=dry_run) as session,
        recording_failure(context, session, lambda: outcome(done)),
        origin_of(context, session, sources, file, are_named=bool(source_ids)) as opened,
    ):
        origin = opened if until is None else ending_at(opened, minute_of(until))
        notes = origin.notes
        if since is not None:
            ignored = _ignoring_since(session, origin.sources)
        remaining = {source.source_id: source for source in origin.sources}
        request = StepRequest(remaining, goal, since, CatchUpWindow())
        while remaining:
            request = replace(
                request,
                sources=done.shares.taking_part(remaining),
                larger_shares=done.shares.wanted,
            )
            step = take_step(context, session, origin, request, record)
            done, request = following, replace(request, window=step.window)
            if on_step is not None:
                on_step(done.results, goal)
            remaining = done.shares.left(remaining, step.behind)
    return outcome(done)


def _ignoring_since(session: Session, sources: Sequence[Source]) -> dict[str, str]:
    """Return a note for each source that goes on from a watermark, ours or the legacy writer's."""

    def read(connection: Connection) -> dict[str, SourceState]:
        require_head(connection)
        return read_sources(connection, [source.source_id for source in sources])

    return {
        name: SINCE_IGNORED if state.watermark is not None else SINCE_IGNORED_FOR_LEGACY
        for name, state in session.read(read).items()
        if state.watermark is not None or state.legacy_watermark is not None
    }
