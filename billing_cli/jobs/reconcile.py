"""`reconcile`: reads history again, compares it with the evidence, and appends corrections.

It goes through the range in bounded steps, one transaction for a source and step. What is right
already is left alone, so a second run, or one after a crash, changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.adjustments import Correction
from billing_cli.core.corrections import differences
from billing_cli.core.model import Bucket, BucketKey, UsageRecord
from billing_cli.core.result import MinuteDifference, SourceResult
from billing_cli.core.times import MINUTE, format_rfc3339, minute_of
from billing_cli.errors import BillingError, UsageError
from billing_cli.exporter.api import ExporterError, Fetched, FetchRequest
from billing_cli.jobs.context import select_sources
from billing_cli.jobs.journal import journal_failure, result_of, write_journal
from billing_cli.jobs.payers import FactConflictError, lock_payers, write_corrections
from billing_cli.jobs.write import Written
from billing_cli.store.accounts import lock_users
from billing_cli.store.adjustments import read_regions
from billing_cli.store.connection import Session
from billing_cli.store.reconcile import add_corrections, read_cells, read_first_from, resolve_gaps
from billing_cli.store.schema import require_head
from billing_cli.store.sources import read_sources, try_lock_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.corrections import Difference
    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.core.result import RunResult
    from billing_cli.exporter.source import Source
    from billing_cli.jobs.context import JobContext
    from billing_cli.store.reconcile import StoredCell
    from billing_cli.store.sources import SourceState

JOB = "reconcile"
REASON = "reconciled with the exporter's history"
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

    def finished(self) -> SourceResult:
        return replace(self.result, notes=tuple(self.notes))


@dataclass(frozen=True, slots=True)
class _Compared:
    """What one step's transaction did."""

    written: Written
    differences: tuple[MinuteDifference, ...]
    corrections: int
    skipped: int
    resolved_gaps: int
    problems: tuple[str, ...]
    is_busy: bool = False


def reconcile(
    context: JobContext,
    source_ids: Sequence[str] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    dry_run: bool = False,
    on_step: Callable[[Mapping[str, datetime], datetime], None] | None = None,
) -> RunResult:
    """Compare the minutes in [since, until) of each source with its exporter's history.

    The default is the last hour up to each source's watermark; nothing after a watermark is
    compared. `on_step` is called with how far each source has come, and the latest end.
    Raises BillingError where the run as a whole failed; the steps before it stand.
    """
    if since is not None and until is not None and since > until:
        raise UsageError("--since is after --until")
    sources = select_sources(context, source_ids)
    started_at = context.clock()
    results: dict[str, SourceResult] = {}
    found: list[MinuteDifference] = []
    written, corrections, steps = Written(), 0, 0

    def outcome(courses: Sequence[_Course] = (), step: _Compared | None = None) -> RunResult:
        total = written.plus(step.written) if step else written
        merged = results | {course.source.source_id: course.finished() for course in courses}
        result = result_of(
            context, JOB, started_at, merged.values(), total, steps=steps, dry_run=dry_run
        )
        return replace(
            result,
            corrections=corrections + (step.corrections if step else 0),
            differences=(*found, *(step.differences if step else ())),
        )

    with Session(context.database, dry_run=dry_run) as session:
        try:
            courses, results = _courses(session, sources, since, until, context.clock())
            while courses:
                most = min(STEP_MAX_SAMPLES, context.fetching.step_max_samples)
                share = max(1, most // len(courses))
                fetched = _fetch(context, session, courses, share)
                for course in list(courses):
                    answer = fetched[course.source.source_id]
                    snapshots, covered = _usable(course, answer, share)
                    if covered > course.at:

                        def work(
                            connection: Connection,
                            course: _Course = course,
                            snapshots: Sequence[Snapshot] = snapshots,
                            covered: datetime = covered,
                        ) -> _Compared:
                            step = _compare(context, connection, course, snapshots, covered)
                            write_journal(context, connection, outcome(courses, step))
                            return step

                        step = session.transaction(work)
                        _note(course, step, snapshots, covered)
                        written, steps = written.plus(step.written), steps + 1
                        corrections += step.corrections
                        found.extend(step.differences)
                    if course.at >= course.end or course.result.status not in {"ok", "partial"}:
                        courses.remove(course)
                        results[course.source.source_id] = course.finished()
                if on_step is not None and courses:
                    on_step(
                        {one.source.source_id: one.at for one in courses},
                        max(one.end for one in courses),
                    )
        except BillingError as error:
            journal_failure(context, session, JOB, started_at, error)
            raise
    return outcome()


def _courses(
    session: Session,
    sources: Sequence[Source],
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> tuple[list[_Course], dict[str, SourceResult]]:
    """Return what there is to compare, and the results of sources where there is nothing."""

    def read(connection: Connection) -> dict[str, SourceState]:
        require_head(connection)
        return read_sources(connection, [source.source_id for source in sources])

    states = session.read(read)
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
            lag_seconds=max(0.0, (now - state.watermark).total_seconds()),
        )
        written_until = minute_of(state.watermark) + MINUTE
        end = min(minute_of(until), written_until) if until else written_until
        at = minute_of(since) if since else end - DEFAULT_RANGE
        if at >= end:
            note = f"nothing is collected after {format_rfc3339(at)}"
            results[source.source_id] = replace(result, notes=(note,))
            continue
        courses.append(_Course(source, state, state.identity, at, end, result))
    return courses, results


def _fetch(
    context: JobContext, session: Session, courses: Sequence[_Course], share: int
) -> dict[str, Fetched | ExporterError]:
    from billing_cli.exporter.fleet import fetch_all  # noqa: PLC0415 - requests is slow to import

    def read(connection: Connection) -> list[datetime | None]:
        return [
            read_first_from(connection, one.identity.stored, one.at, one.end) for one in courses
        ]

    requests = [
        FetchRequest(
            source=course.source,
            since=min(course.at, first or course.at),
            until=course.end,
            max_samples=share * course.factor,
            page_limit=min(context.fetching.page_limit, MAX_PAGE_SNAPSHOTS),
        )
        for course, first in zip(courses, session.read(read), strict=True)
    ]
    return dict(
        fetch_all(
            requests,
            now=context.clock(),
            concurrency=context.fetching.concurrency,
            deadline_seconds=context.fetching.deadline_seconds,
            default_token=context.default_token,
        )
    )


def _usable(
    course: _Course, answer: Fetched | ExporterError, share: int
) -> tuple[tuple[Snapshot, ...], datetime]:
    """Return the snapshots to compare with, and the end of the minutes that they cover.

    Where there are none, the course's result says why and the end is where it stands.
    """
    if isinstance(answer, ExporterError):
        _fail(course, answer.reason, unreachable=answer.unreachable)
    elif answer.contract == "latest":
        course.notes["the exporter keeps no history (latest contract): nothing to compare"] = None
        course.at = course.end
    elif not answer.snapshots:
        _fail(
            course,
            f"the exporter holds no history between {format_rfc3339(course.at)} "
            f"and {format_rfc3339(course.end)}",
        )
    elif answer.identity != course.identity:
        stored = answer.identity.stored if answer.identity else ""
        _fail(course, f"answers as node {stored!r}, but was {course.identity.stored!r} so far")
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


def _fail(course: _Course, reason: str, *, unreachable: bool = False) -> None:
    course.result = replace(course.result, status="error", error=reason, unreachable=unreachable)


def _compare(
    context: JobContext,
    connection: Connection,
    course: _Course,
    snapshots: Sequence[Snapshot],
    covered: datetime,
) -> _Compared:
    """Compare [at, covered) of one source and append what follows, in the open transaction."""
    source_id, node = course.source.source_id, course.identity.stored
    if not try_lock_sources(connection, [source_id]):
        return _Compared(Written(), (), 0, 0, 0, (), is_busy=True)
    first_from = read_first_from(connection, node, course.at, covered)
    cells, skipped = read_cells(
        connection,
        node,
        course.at,
        covered,
        minute_of(min(first_from or course.at, course.at)),
        {one.collected_at: one.totals for one in snapshots},
    )
    different, undecided = _differences(context, cells, snapshots)
    users = lock_users(connection, {stored.account_uuid for stored, _ in different})
    affected = {stored.account_uuid for stored, _ in different} & users.keys()
    payers = lock_payers(context, connection, [users[account] for account in affected])
    different = [one for one in different if one[0].account_uuid in payers.accounts]

    rows, buckets = _rows_and_buckets(connection, context, course, different)
    if add_corrections(connection, rows) != len(rows):
        raise FactConflictError("a correction is on record already with other figures")
    rating = write_corrections(
        context, connection, [Correction(bucket, REASON) for bucket in buckets], payers.accounts
    )
    stamps = [one.collected_at for one in snapshots]
    resolved = resolve_gaps(
        connection, source_id, stamps[0], max(covered, stamps[-1]), stamps, context.clock()
    )
    amounts: defaultdict[BucketKey, Decimal] = defaultdict(Decimal)
    for charge in rating.charges:
        amounts[charge.key] += charge.amount_delta
    return _Compared(
        written=Written(
            processed_samples=sum(len(one.totals) for one in snapshots),
            included_bytes=sum(one.included_bytes for one in rating.charges),
            charged_bytes=sum(one.rated_bytes for one in rating.charges),
            amount=-sum(amounts.values(), Decimal(0)),
        ),
        differences=tuple(
            MinuteDifference(
                source_id,
                one.key.account_uuid,
                one.key.line_code,
                one.key.bucket_start,
                one.uplink_bytes,
                one.downlink_bytes,
                amounts[one.key],
            )
            for one in buckets
        ),
        corrections=len(rows),
        skipped=skipped + undecided,
        resolved_gaps=resolved,
        problems=tuple(payers.problems.values()),
    )


def _differences(
    context: JobContext, cells: Sequence[StoredCell], snapshots: Sequence[Snapshot]
) -> tuple[list[tuple[StoredCell, Difference]], int]:
    """Hold every cell against the snapshots inside it; count those that tell nothing certain."""
    stamps = [one.collected_at for one in snapshots]
    different: list[tuple[StoredCell, Difference]] = []
    undecided = 0
    for stored in cells:
        record = stored.cell.record
        after_start = bisect_right(stamps, record.from_at)
        past_end = bisect_right(stamps, record.to_at, lo=after_start)
        if bisect_left(stamps, record.to_at, lo=after_start, hi=past_end) == after_start:
            continue
        history = [
            (one.collected_at, one.totals[record.name])
            for one in snapshots[after_start:past_end]
            if record.name in one.totals
        ]
        found = differences(stored.cell, history, context.deltas)
        if found is None:
            undecided += 1
        else:
            different.extend((stored, one) for one in found)
    return different, undecided


def _rows_and_buckets(
    connection: Connection,
    context: JobContext,
    course: _Course,
    different: Sequence[tuple[StoredCell, Difference]],
) -> tuple[list[tuple[int, str, int, UsageRecord]], list[Bucket]]:
    """Return the correction records, and the buckets' changes where anything changes."""
    region = course.source.region or context.tariff.default_region
    rows = []
    uplink: defaultdict[BucketKey, int] = defaultdict(int)
    downlink: defaultdict[BucketKey, int] = defaultdict(int)
    for stored, one in different:
        record = stored.cell.record._replace(
            bucket_start=one.minute, start=one.recorded, end=one.shown
        )
        revision = stored.revisions.get(one.minute, 0) + 1
        rows.append((stored.stream_id, stored.account_uuid, revision, record))
        key = BucketKey(
            one.minute,
            course.identity.stored,
            stored.account_uuid,
            region,
            record.name.inbound_tag,
        )
        uplink[key] += record.uplink_bytes
        downlink[key] += record.downlink_bytes
    regions = read_regions(connection, uplink)
    buckets = [
        Bucket(key._replace(region=regions.get(key, key.region)), uplink[key], downlink[key])
        for key in sorted(uplink)
        if uplink[key] or downlink[key]
    ]
    return rows, buckets


def _note(
    course: _Course, step: _Compared, snapshots: Sequence[Snapshot], covered: datetime
) -> None:
    """Take a step's outcome into the source's result and move on."""
    result = course.result
    if step.is_busy:
        course.result = replace(result, status="busy")
        return
    begins = snapshots[0].collected_at
    if minute_of(begins) > course.at and not result.snapshots:
        text = f"history begins at {format_rfc3339(begins)}: nothing before it was compared"
        course.notes[text] = None
    if step.skipped:
        text = "some records can't be compared: history tells their ends differently"
        course.notes[text] = None
    course.notes.update(dict.fromkeys(step.problems))
    course.result = replace(
        result,
        status="partial" if step.problems or result.status == "partial" else "ok",
        snapshots=result.snapshots + len(snapshots),
        corrections=result.corrections + step.corrections,
        resolved_gaps=result.resolved_gaps + step.resolved_gaps,
    )
    course.at, course.factor = covered, 1
