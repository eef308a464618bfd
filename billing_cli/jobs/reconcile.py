"""`reconcile`: reads history again, compares it with the evidence, and appends corrections.

It goes through the range in bounded steps, one transaction each. What is right already is left
alone, so a second run, or one after a crash, changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.result import MinuteDifference, SourceResult
from billing_cli.core.times import MINUTE, format_rfc3339, minute_of
from billing_cli.database.connection import Session
from billing_cli.database.partitions import require_evidence
from billing_cli.database.reconcile import read_first_from, read_reversed
from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources
from billing_cli.exporter.api import ExporterError, Fetched, FetchRequest
from billing_cli.jobs.compare import Comparison, compare
from billing_cli.jobs.context import check_range, sources_to_work_on
from billing_cli.jobs.differences import HistoryRange
from billing_cli.jobs.fetching import origin_of
from billing_cli.jobs.prices import require_prices
from billing_cli.jobs.reconcile_progress import ReconcileProgress
from billing_cli.jobs.run_history import record_run, recording_failure, result_of
from billing_cli.jobs.source_results import lag_seconds
from billing_cli.jobs.written import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.core.result import RunResult
    from billing_cli.database.sources import SourceState
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.fetching import FromFile, Origin

JOB = "reconcile"
DEFAULT_RANGE = timedelta(hours=1)

# Evidence and history of a step are in memory together, and a page also as text while it is
# read; these keep all of it within some 200 MB.
STEP_MAX_SAMPLES = 60_000
MAX_PAGE_SNAPSHOTS = 15


def reconcile(
    context: JobContext,
    source_ids: Sequence[str] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
    file: FromFile | None = None,
    on_step: Callable[[Mapping[str, datetime], datetime], None] | None = None,
) -> RunResult:
    """Compare the minutes in [since, until) of each source with its exporter's history.

    The default is the last hour up to each source's watermark; nothing after a watermark is
    compared. Of what `reverse` took back records are charged again as a whole, also beyond `until`.
    With a `file` its snapshots are the history, and of all sources only those take part
    that it has snapshots of. `on_step` is called with how far each source has come, and the latest
    end. Raises BillingError where the run as a whole failed; the steps before it stand, and the
    error's `so_far` is what they did.
    """
    started_at = context.clock()
    check_range(since, until, started_at)
    sources = sources_to_work_on(context, source_ids)
    unfinished: list[ReconcileProgress] = []
    results: dict[str, SourceResult] = {}
    found: list[MinuteDifference] = []
    written, corrections, steps = Written(), 0, 0
    is_recorded = False
    notes: tuple[str, ...] = ()

    def outcome(
        step: Comparison | None = None, at: Sequence[ReconcileProgress] | None = None
    ) -> RunResult:
        total = written.plus(step.written) if step else written
        taken = steps + 1 if step else steps
        merged = results | {
            progress.source.source_id: progress.finished()
            for progress in (unfinished if at is None else at)
        }
        result = result_of(
            context,
            JOB,
            started_at,
            merged.values(),
            total,
            steps=taken,
            dry_run=dry_run,
            notes=notes,
        )
        added = step.by_source.values() if step else ()
        return replace(
            result,
            corrections=corrections + sum(source.corrections for source in added),
            differences=(*found, *(step.differences if step else ())),
        )

    with (
        Session(context.database, dry_run=dry_run) as session,
        recording_failure(context, session, outcome),
        origin_of(context, session, sources, file, are_named=bool(source_ids)) as origin,
    ):
        notes = origin.notes
        unfinished, results = _unfinished(context, session, origin.sources, since, until)
        while unfinished:
            history_ranges = [
                replace(history_range, charges_again=since is not None)
                for history_range in _next_ranges(context, session, origin, unfinished)
            ]

            def work(
                connection: Connection,
                history_ranges: Sequence[HistoryRange] = history_ranges,
                before: Sequence[ReconcileProgress] = unfinished,
            ) -> tuple[Comparison, list[ReconcileProgress]]:
                step = compare(context, connection, history_ranges)
                noted = _noted(before, history_ranges, step)
                record_run(context, connection, outcome(step, noted))
                return step, noted

            if is_recorded := bool(history_ranges):
                step, unfinished = session.transaction(work)
                written, steps = written.plus(step.written), steps + 1
                corrections += sum(source.corrections for source in step.by_source.values())
                found.extend(step.differences)
            results |= {
                progress.source.source_id: progress.finished()
                for progress in unfinished
                if progress.is_finished
            }
            unfinished = [progress for progress in unfinished if not progress.is_finished]
            if on_step is not None and unfinished:
                on_step(
                    {progress.source.source_id: progress.at for progress in unfinished},
                    max(progress.end for progress in unfinished),
                )
        if not is_recorded:
            session.transaction(lambda connection: record_run(context, connection, outcome()))
    return outcome()


def _unfinished(
    context: JobContext,
    session: Session,
    sources: Sequence[Source],
    since: datetime | None,
    until: datetime | None,
) -> tuple[list[ReconcileProgress], dict[str, SourceResult]]:
    """Return what there is to compare, and the results of sources where there is nothing."""

    def read(connection: Connection) -> dict[str, SourceState]:
        require_head(connection)
        require_prices(context.tariff, connection)
        require_evidence(connection, since)
        return read_sources(connection, [source.source_id for source in sources])

    states = session.read(read)
    now = context.clock()
    unfinished, results = [], {}
    for source in sources:
        state = states[source.source_id]
        base = SourceResult(source.source_id, last_completed_until=state.watermark)
        if state.watermark is None or state.identity is None:
            results[source.source_id] = replace(base, notes=("nothing is collected yet",))
            continue
        result = replace(
            base,
            node_id=state.identity.node_id,
            env=state.identity.env,
            contract=state.contract or "",
            lag_seconds=lag_seconds(state.watermark, now),
        )
        written_until = minute_of(state.watermark) + MINUTE
        end = min(minute_of(until), written_until) if until else written_until
        at = minute_of(since) if since else end - DEFAULT_RANGE
        if state.former_nodes and state.first_snapshot_at is not None:
            # What came before belongs to the records of the node's former id.
            at = max(at, minute_of(state.first_snapshot_at) + MINUTE)
        if at >= end:
            note = f"nothing is collected after {format_rfc3339(at)}"
            results[source.source_id] = replace(result, notes=(note,))
            continue
        progress = ReconcileProgress(source, state, state.identity, at, end, result)
        if since is not None and end < written_until:
            _include_reversed(session, progress, written_until)
        unfinished.append(progress)
    return unfinished, results


def _include_reversed(
    session: Session, progress: ReconcileProgress, written_until: datetime
) -> None:
    """Extend the range, once, to where records end of which minutes in it were taken back.

    A record is compared as a whole. Where other records were taken back there too, a longer range
    would charge those again unasked: the result says then what is left.
    """
    node, at, end = progress.identity.stored, progress.at, progress.end

    def read(connection: Connection) -> tuple[datetime, bool]:
        records = read_reversed(connection, node, at, end, end)
        if not records:
            return end, False
        past = min(minute_of(max(records.values())) + MINUTE, written_until)
        others = read_reversed(connection, node, end, past, end).keys() - records.keys()
        return past, bool(others)

    past, has_others = session.read(read)
    if has_others:
        text = (
            "some of what was taken back is not charged again: its records go on until "
            f"{format_rfc3339(past)}, and others were taken back there too"
        )
        progress.result = replace(progress.result, status="partial")
    elif past > end:
        text = f"compared until {format_rfc3339(past)}, where records end that were taken back"
        progress.end = past
    else:
        return
    progress.notes[text] = None


def _next_ranges(
    context: JobContext, session: Session, origin: Origin, unfinished: Sequence[ReconcileProgress]
) -> list[HistoryRange]:
    """Ask every source for what comes next; where its answer has nothing, its progress says why."""
    share = max(1, min(STEP_MAX_SAMPLES, context.fetching.step_max_samples) // len(unfinished))
    answers = _fetch(context, session, origin, unfinished, share)
    history_ranges = []
    for progress in unfinished:
        snapshots, covered = progress.usable(answers[progress.source.source_id], share)
        if covered > progress.at:
            history_ranges.append(
                HistoryRange(
                    source_id=progress.source.source_id,
                    stored_node_id=progress.identity.stored,
                    region=progress.source.region or context.tariff.default_region,
                    at=progress.at,
                    until=covered,
                    snapshots=snapshots,
                    policy=context.policy_of(progress.source),
                )
            )
    return history_ranges


def _fetch(
    context: JobContext,
    session: Session,
    origin: Origin,
    unfinished: Sequence[ReconcileProgress],
    share: int,
) -> Mapping[str, Fetched | ExporterError]:
    def read(connection: Connection) -> list[datetime | None]:
        return [
            read_first_from(connection, progress.identity.stored, progress.at, progress.end)
            for progress in unfinished
        ]

    requests = [
        FetchRequest(
            source=progress.source,
            since=min(progress.at, first or progress.at),
            until=progress.end,
            max_samples=share * progress.factor,
            page_limit=min(context.fetching.page_limit, MAX_PAGE_SNAPSHOTS),
            has_watermark=True,
            renamed=progress.state.renamed(),
        )
        for progress, first in zip(unfinished, session.read(read), strict=True)
    ]
    return origin.fetch(requests, context.clock())


def _noted(
    unfinished: Sequence[ReconcileProgress],
    history_ranges: Sequence[HistoryRange],
    step: Comparison,
) -> list[ReconcileProgress]:
    """Return how far the sources are after a step, with its outcome in their results."""
    noted = [replace(progress, notes=dict(progress.notes)) for progress in unfinished]
    by_id = {progress.source.source_id: progress for progress in noted}
    for history_range in history_ranges:
        progress = by_id[history_range.source_id]
        if history_range.source_id in step.failed:
            progress.fail(ExporterError(step.failed[history_range.source_id]))
        elif history_range.source_id in step.by_source:
            progress.note(history_range, step.by_source[history_range.source_id])
        else:
            progress.result = replace(progress.result, status="busy")
    return noted
