"""`reconcile`: reads history again, compares it with the evidence, and appends corrections.

It goes through the range in bounded steps, one transaction each. What is right already is left
alone, so a second run, or one after a crash, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
from billing_cli.jobs.compare import Compared, Comparison, Stretch, compare
from billing_cli.jobs.context import check_range, sources_to_work_on
from billing_cli.jobs.fetching import origin_of
from billing_cli.jobs.journal import failing_on_record, result_of, write_journal
from billing_cli.jobs.prices import require_prices
from billing_cli.jobs.source_results import lag_seconds
from billing_cli.jobs.written import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import NodeIdentity, Snapshot
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
# A record that bridges a long outage can be longer than a step; then a step may grow this far.
LARGEST_STEP_SAMPLES = 1_000_000


@dataclass(slots=True)
class _Course:
    """How far a source's comparison has come: [at, end) is still to be done."""

    source: Source
    state: SourceState
    identity: NodeIdentity
    at: datetime
    end: datetime
    result: SourceResult
    factor: int = 1
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return self.at >= self.end or self.result.status not in {"ok", "partial"}

    def finished(self) -> SourceResult:
        return replace(self.result, notes=tuple(self.notes))


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
    courses: list[_Course] = []
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
                replace(stretche, charges_again=since is not None)
                for stretche in _next_stretches(context, session, origin, courses)
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
) -> tuple[list[_Course], dict[str, SourceResult]]:
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
        courses.append(_Course(source, state, state.identity, at, end, result))
    return courses, results


def _next_stretches(
    context: JobContext, session: Session, origin: Origin, courses: Sequence[_Course]
) -> list[Stretch]:
    """Ask every source for what comes next; where it tells nothing, its course says why."""
    share = max(1, min(STEP_MAX_SAMPLES, context.fetching.step_max_samples) // len(courses))
    answers = _fetch(context, session, origin, courses, share)
    stretches = []
    for course in courses:
        snapshots, covered = _usable(course, answers[course.source.source_id], share)
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
    courses: Sequence[_Course],
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


def _usable(
    course: _Course, answer: Fetched | ExporterError, share: int
) -> tuple[tuple[Snapshot, ...], datetime]:
    """Return the snapshots to compare with, and the end of the minutes that they cover.

    Where there are none, the course's result says why and the end is where it stands.
    """
    if isinstance(answer, ExporterError):
        _fail(course, answer)
    elif answer.contract == "latest":
        course.notes["the exporter keeps no history (latest contract): nothing to compare"] = None
        course.at = course.end
    elif not answer.snapshots:
        reason = (
            f"the exporter holds no history between {format_rfc3339(course.at)} "
            f"and {format_rfc3339(course.end)}"
        )
        _fail(course, ExporterError(reason))
    elif answer.identity != course.identity:
        stored = answer.identity.stored if answer.identity else ""
        reason = f"answers as node {stored!r}, but was {course.identity.stored!r} so far"
        _fail(course, ExporterError(reason, code="wrong_identity"))
    else:
        last = answer.snapshots[-1].collected_at
        covered = course.end if answer.complete else minute_of(last) + MINUTE
        if covered <= course.at and share * course.factor < LARGEST_STEP_SAMPLES:
            course.factor *= 2
        elif covered <= course.at:
            minute = format_rfc3339(course.at)
            course.notes[f"the records of {minute} reach too far back to be compared"] = None
            course.at, course.factor = course.at + MINUTE, 1
            covered = course.at
        return answer.snapshots, covered
    return (), course.at


def _fail(course: _Course, error: ExporterError) -> None:
    course.result = replace(
        course.result,
        status="error",
        error=error.reason,
        error_code=error.code,
        unreachable=error.unreachable,
    )


def _note(courses: Sequence[_Course], stretches: Sequence[Stretch], step: Comparison) -> None:
    """Take a step's outcome into the sources' results and move on."""
    by_id = {course.source.source_id: course for course in courses}
    for stretch in stretches:
        course = by_id[stretch.source_id]
        if stretch.source_id in step.failed:
            _fail(course, ExporterError(step.failed[stretch.source_id]))
        elif stretch.source_id in step.by_source:
            _note_compared(course, stretch, step.by_source[stretch.source_id])
        else:
            course.result = replace(course.result, status="busy")


def _note_compared(course: _Course, stretch: Stretch, compared: Compared) -> None:
    result = course.result
    begins = stretch.snapshots[0].collected_at
    if minute_of(begins) > course.at and not result.snapshots:
        text = f"history begins at {format_rfc3339(begins)}: nothing before it was compared"
        course.notes[text] = None
    if compared.skipped:
        text = "some records can't be compared: history tells their ends differently"
        course.notes[text] = None
    course.notes.update(dict.fromkeys(compared.problems))
    course.result = replace(
        result,
        status="partial" if compared.problems or result.status == "partial" else "ok",
        snapshots=result.snapshots + len(stretch.snapshots),
        corrections=result.corrections + compared.corrections,
        resolved_gaps=result.resolved_gaps + compared.resolved_gaps,
    )
    course.at, course.factor = stretch.until, 1
