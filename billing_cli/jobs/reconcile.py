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
from billing_cli.database.reconcile import read_first_from
from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources
from billing_cli.exporter.api import ExporterError, Fetched, FetchRequest
from billing_cli.jobs.compare import Comparison, compare
from billing_cli.jobs.context import check_range, sources_to_work_on
from billing_cli.jobs.courses import Course
from billing_cli.jobs.differences import Stretch
from billing_cli.jobs.fetching import origin_of
from billing_cli.jobs.journal import failing_on_record, result_of, write_journal
from billing_cli.jobs.prices import require_prices
from billing_cli.jobs.source_results import lag_seconds
from billing_cli.jobs.written import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.result import RunResult
    from billing_cli.database.sources import SourceState
    from billing_cli.exporter.source import Source
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
    compared. With a `file` its snapshots are the history, and of all sources only those take part
    that it has snapshots of. `on_step` is called with how far each source has come, and the latest
    end. Raises BillingError where the run as a whole failed; the steps before it stand, and the
    error's `so_far` is what they did.
    """
    started_at = context.clock()
    check_range(since, until, started_at)
    sources = sources_to_work_on(context, source_ids)
    courses: list[Course] = []
    results: dict[str, SourceResult] = {}
    found: list[MinuteDifference] = []
    written, corrections, steps = Written(), 0, 0

    def outcome(step: Comparison | None = None) -> RunResult:
        total = written.plus(step.written) if step else written
        taken = steps + 1 if step else steps
        merged = results | {course.source.source_id: course.finished() for course in courses}
        result = result_of(
            context, JOB, started_at, merged.values(), total, steps=taken, dry_run=dry_run
        )
        added = step.by_source.values() if step else ()
        return replace(
            result,
            corrections=corrections + sum(one.corrections for one in added),
            differences=(*found, *(step.differences if step else ())),
        )

    with (
        Session(context.database, dry_run=dry_run) as session,
        failing_on_record(context, session, outcome),
        origin_of(context, session, sources, file, are_named=bool(source_ids)) as origin,
    ):
        courses, results = _courses(context, session, origin.sources, since, until)
        while courses:
            stretches = [
                replace(stretch, charges_again=since is not None)
                for stretch in _next_stretches(context, session, origin, courses)
            ]

            def work(
                connection: Connection, stretches: Sequence[Stretch] = stretches
            ) -> Comparison:
                step = compare(context, connection, stretches)
                write_journal(context, connection, outcome(step))
                return step

            if stretches:
                step = session.transaction(work)
                _note(courses, stretches, step)
                written, steps = written.plus(step.written), steps + 1
                corrections += sum(one.corrections for one in step.by_source.values())
                found.extend(step.differences)
            results |= {
                course.source.source_id: course.finished()
                for course in courses
                if course.is_finished
            }
            courses = [course for course in courses if not course.is_finished]
            if on_step is not None and courses:
                on_step(
                    {course.source.source_id: course.at for course in courses},
                    max(course.end for course in courses),
                )
    return outcome()


def _courses(
    context: JobContext,
    session: Session,
    sources: Sequence[Source],
    since: datetime | None,
    until: datetime | None,
) -> tuple[list[Course], dict[str, SourceResult]]:
    """Return what there is to compare, and the results of sources where there is nothing."""

    def read(connection: Connection) -> dict[str, SourceState]:
        require_head(connection)
        require_prices(context.tariff, connection)
        require_evidence(connection, since)
        return read_sources(connection, [source.source_id for source in sources])

    states = session.read(read)
    now = context.clock()
    courses, results = [], {}
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
        courses.append(Course(source, state, state.identity, at, end, result))
    return courses, results


def _next_stretches(
    context: JobContext, session: Session, origin: Origin, courses: Sequence[Course]
) -> list[Stretch]:
    """Ask every source for what comes next; where it tells nothing, its course says why."""
    share = max(1, min(STEP_MAX_SAMPLES, context.fetching.step_max_samples) // len(courses))
    answers = _fetch(context, session, origin, courses, share)
    stretches = []
    for course in courses:
        snapshots, covered = course.usable(answers[course.source.source_id], share)
        if covered > course.at:
            stretches.append(
                Stretch(
                    source_id=course.source.source_id,
                    stored_node_id=course.identity.stored,
                    region=course.source.region or context.tariff.default_region,
                    at=course.at,
                    until=covered,
                    snapshots=snapshots,
                    policy=context.policy_of(course.source),
                )
            )
    return stretches


def _fetch(
    context: JobContext,
    session: Session,
    origin: Origin,
    courses: Sequence[Course],
    share: int,
) -> Mapping[str, Fetched | ExporterError]:
    def read(connection: Connection) -> list[datetime | None]:
        return [
            read_first_from(connection, course.identity.stored, course.at, course.end)
            for course in courses
        ]

    requests = [
        FetchRequest(
            source=course.source,
            since=min(course.at, first or course.at),
            until=course.end,
            max_samples=share * course.factor,
            page_limit=min(context.fetching.page_limit, MAX_PAGE_SNAPSHOTS),
            has_watermark=True,
            renamed=course.state.renamed(),
        )
        for course, first in zip(courses, session.read(read), strict=True)
    ]
    return origin.fetch(requests, context.clock())


def _note(courses: Sequence[Course], stretches: Sequence[Stretch], step: Comparison) -> None:
    """Take a step's outcome into the sources' results and move on."""
    by_id = {course.source.source_id: course for course in courses}
    for stretch in stretches:
        course = by_id[stretch.source_id]
        if stretch.source_id in step.failed:
            course.fail(ExporterError(step.failed[stretch.source_id]))
        elif stretch.source_id in step.by_source:
            course.note(stretch, step.by_source[stretch.source_id])
        else:
            course.result = replace(course.result, status="busy")
