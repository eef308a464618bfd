"""One bounded step: read the watermarks, fetch, then write everything in one transaction.

No transaction is open while the network is slow. Because time passes between reading and
writing, the transaction takes each source's lock and reads its watermark once more; what another
run has written meanwhile is dropped by comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.model import Gap
from billing_cli.database.partitions import make_missing_partitions
from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources, save_attempts, save_gaps, try_lock_sources
from billing_cli.exporter.api import ExporterError, Fetched, FetchRequest
from billing_cli.jobs.isolation import write_isolated
from billing_cli.jobs.pace import Pace, cut_at, end_of_history
from billing_cli.jobs.plans import accept, plan
from billing_cli.jobs.prices import require_prices
from billing_cli.jobs.source_results import result_of_plan, result_without_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.result import SourceResult
    from billing_cli.database.connection import Session
    from billing_cli.database.sources import SourceState
    from billing_cli.exporter.source import Source
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.source_plan import SourcePlan
    from billing_cli.jobs.write import Written

# A timer that fires a little early must not make a source wait for one more round.
INTERVAL_TOLERANCE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did. `behind` are the sources that are well and not current yet.

    `pace` is that of the step after this one.
    """

    sources: tuple[SourceResult, ...]
    written: Written
    behind: frozenset[str]
    pace: Pace


def take_step(
    context: JobContext,
    session: Session,
    sources: Sequence[Source],
    *,
    until: datetime,
    since: datetime | None = None,
    pace: Pace | None = None,
    respect_intervals: bool = False,
    journal: Callable[[Connection, Step], None],
) -> Step:
    """Move the sources a bounded step towards `until`, the end of the last closed minute.

    `since` is where a source begins that has no watermark yet. With a `pace` all sources come
    equally far: minutes that another one has yet to reach are left to a later step, and so are
    sources that are further already. Without one, each comes as far as its share of the samples
    allows. `journal` is called inside the transaction with what was done. Raises BillingError
    where the database fails; what a source does wrong is in its result.
    """
    by_id = {source.source_id: source for source in sources}
    states = session.read(lambda connection: _read_states(context, connection, list(by_id)))
    due = [
        source
        for source in sources
        if not (respect_intervals and _is_early(source, states[source.source_id], context.clock()))
    ]
    asked = _ask(context, due, states, until, since, pace or Pace())

    skipped = [
        result_without_plan(source_id, states[source_id], context.clock(), status="skipped")
        for source_id in by_id.keys() - asked.outcomes.keys() - asked.waiting
    ]

    def work(connection: Connection) -> Step:
        step = _write(context, connection, by_id, asked, until, pace)
        step = replace(step, sources=(*step.sources, *skipped))
        journal(connection, step)
        return step

    return session.transaction(work)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the sources answered for the time before `bound`; those in `waiting` are beyond it."""

    begins: Mapping[str, datetime]
    bound: datetime
    outcomes: Mapping[str, Fetched | ExporterError]
    waiting: frozenset[str]


def _read_states(
    context: JobContext, connection: Connection, source_ids: Sequence[str]
) -> dict[str, SourceState]:
    require_head(connection)
    require_prices(context.tariff, connection)
    make_missing_partitions(connection)
    return read_sources(connection, source_ids)


def _ask(
    context: JobContext,
    sources: Sequence[Source],
    states: Mapping[str, SourceState],
    until: datetime,
    since: datetime | None,
    pace: Pace,
) -> _Asked:
    from billing_cli.exporter.fleet import fetch_all  # noqa: PLC0415 - requests is slow to import

    first_since = since or until - context.initial_lookback
    fetching = context.fetching
    begins = {}
    for source in sources:
        state = states[source.source_id]
        begin = state.watermark or state.older_watermark or first_since
        if begin < until or source.mode != "window":
            begins[source.source_id] = begin
    bound = pace.bound(begins, until, fetching.step_max_samples)
    waiting = frozenset(one for one, begin in begins.items() if bound < until and begin >= bound)
    wanted = [one for one in sources if one.source_id in begins.keys() - waiting]
    shares = pace.shares((one.source_id for one in wanted), fetching.step_max_samples)
    answers = fetch_all(
        [
            FetchRequest(
                source=source,
                since=begins[source.source_id],
                until=max(bound, begins[source.source_id]),
                max_samples=shares[source.source_id],
                page_limit=fetching.page_limit,
                has_watermark=states[source.source_id].watermark is not None,
            )
            for source in wanted
        ],
        now=context.clock(),
        concurrency=fetching.concurrency,
        deadline_seconds=fetching.deadline_seconds,
        default_token=context.default_token,
    )
    return _Asked(begins, bound, dict(answers), waiting)


def _write(
    context: JobContext,
    connection: Connection,
    by_id: Mapping[str, Source],
    asked: _Asked,
    until: datetime,
    pace: Pace | None,
) -> Step:
    """Everything that happens inside the transaction."""
    now = context.clock()
    outcomes = asked.outcomes
    locked = try_lock_sources(connection, list(outcomes))
    states = read_sources(connection, list(outcomes))
    answers, errors = accept(connection, by_id, outcomes, locked, states)
    horizon = until
    if pace is not None:
        # Those that fail or are busy are not waited for: they have no part in this step.
        ends = (end_of_history(one, asked.bound) for one in answers.values())
        horizon = min(ends, default=asked.bound)
    accepted = answers
    if horizon < until:
        accepted = {source_id: cut_at(one, horizon) for source_id, one in answers.items()}

    plans = plan(context, connection, by_id, accepted, states)
    written, failed = write_isolated(context, connection, plans, now)
    errors |= {source_id: ExporterError(reason) for source_id, reason in failed.items()}

    advanced = {one.source_id: one for one in plans if one.source_id not in failed}
    current = {
        source_id
        for source_id, one in accepted.items()
        if one.complete and asked.bound == until and source_id not in failed
    }
    stalled = _save_stalled(context, connection, current, advanced, states, until)
    results, attempts = [], []
    for source_id in sorted(outcomes):
        state = states[source_id]
        if source_id not in locked:
            results.append(result_without_plan(source_id, state, now, status="busy"))
            continue
        if source_id in errors:
            result = result_without_plan(source_id, state, now, error=errors[source_id])
        elif source_id in advanced:
            result = result_of_plan(advanced[source_id], written, now)
        else:
            result = result_without_plan(source_id, state, now, fetched=accepted[source_id])
        result = replace(result, gaps=result.gaps + stalled.count(source_id))
        results.append(result)
        attempts.append((source_id, result.last_completed_until, result.error or ""))
    save_attempts(connection, attempts, now)
    return Step(
        tuple(results),
        written,
        behind=asked.waiting | (accepted.keys() - errors.keys() - current),
        pace=(pace or Pace()).after(asked.begins, answers, horizon),
    )


def _is_early(source: Source, state: SourceState, now: datetime) -> bool:
    """Tell whether the source asked for longer pauses than this run leaves it."""
    if source.collect_interval_seconds <= 0 or state.last_attempted_at is None:
        return False
    pause = timedelta(seconds=source.collect_interval_seconds)
    return now - state.last_attempted_at < pause - INTERVAL_TOLERANCE


def _save_stalled(
    context: JobContext,
    connection: Connection,
    current: Iterable[str],
    advanced: Mapping[str, SourcePlan],
    states: Mapping[str, SourceState],
    until: datetime,
) -> list[str]:
    """Note the sources that have told all they have, and nothing new for too long."""
    gaps = []
    for source_id in sorted(current):
        watermark = states[source_id].watermark
        plan = advanced.get(source_id)
        has_moved = plan is not None and plan.has_news
        if not has_moved and watermark is not None and until - watermark > context.stalled_after:
            gaps.append((source_id, Gap("stalled", watermark, until)))
    return save_gaps(connection, gaps, are_open=True)
