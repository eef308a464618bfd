"""One bounded step: read the watermarks, fetch, then write everything in one transaction.

No transaction is open while the network is slow. Because time passes between reading and
writing, the transaction locks each source and reads its watermark once more; what another
run has written in that time is dropped by comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from billing_cli.database import arrays
from billing_cli.database.arrears import HAS_ARREARS_SINCE
from billing_cli.database.facts import Attempt, Attempts, Run
from billing_cli.database.partitions import make_missing_partitions
from billing_cli.database.schema import pipeline_at_head
from billing_cli.database.sources import READ_SOURCES, add_sources, lock_sources, source_state
from billing_cli.database.stream_limits import use_accepted
from billing_cli.database.write_path import FINISH, FINISH_BARE
from billing_cli.database.writing import send
from billing_cli.exporter.api import ExporterError
from billing_cli.jobs.assignment import accept, assign_nodes
from billing_cli.jobs.catch_up_window import CatchUpWindow, cut_at, end_of_history
from billing_cli.jobs.fetching import fetch_round
from billing_cli.jobs.isolation import Share, transaction_isolated, write_isolated
from billing_cli.jobs.larger_shares import standing_still
from billing_cli.jobs.plans import plan
from billing_cli.jobs.prices import require_prices
from billing_cli.jobs.regions import late_in_recorded_regions
from billing_cli.jobs.source_results import (
    fail_long_busy,
    result_without_plan,
    results_of,
    stalled_sources,
    with_former_lives,
)
from billing_cli.jobs.stream_limits import within_stream_limits
from billing_cli.jobs.write import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.core.model import Gap
    from billing_cli.core.result import SourceResult
    from billing_cli.database.connection import Session
    from billing_cli.database.sources import SourceState
    from billing_cli.database.write_path import Statement
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.fetching import FetchRound, Origin
    from billing_cli.jobs.written import Written

# A timer that fires a little early must not make a source wait for one more round.
INTERVAL_TOLERANCE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did. `behind` are the sources that are well and not current yet.

    `still` are sources that could not move, as `standing_still` returns them. `window` is that of
    the step after this one.
    """

    sources: tuple[SourceResult, ...]
    written: Written
    behind: frozenset[str]
    still: Mapping[str, int | None]
    window: CatchUpWindow


def take_step(
    context: JobContext,
    session: Session,
    origin: Origin,
    sources: Sequence[Source],
    *,
    until: datetime,
    since: datetime | None = None,
    window: CatchUpWindow | None = None,
    wanted: Mapping[str, int] = MappingProxyType({}),
    respect_intervals: bool = False,
    record: Callable[[Connection, Step], None],
) -> Step:
    """Move the sources a bounded step towards `until`, the end of the last closed minute.

    `sources` are those of the origin that take part. `since` is where a source begins that has no
    watermark yet. With a `window` all sources come equally far: minutes that another one has yet to
    reach are left to a later step, and so are sources that are further already. Without one, each
    comes as far as its share of the samples allows; `wanted` are larger shares, in samples.
    `record` is called inside the transaction with what was done. Raises BillingError where the
    database fails; what a source does wrong is in its result.
    """
    asked_at = context.clock()
    by_id = {source.source_id: source for source in sources}
    is_dry = session.dry_run
    known = session.read(lambda connection: _read(context, connection, list(by_id), is_dry=is_dry))
    due = [
        source
        for source in sources
        if not (respect_intervals and _is_early(source, known, asked_at))
    ]
    fetched = fetch_round(
        context,
        origin,
        due,
        known.states,
        until,
        since,
        window or CatchUpWindow(),
        asked_at,
        wanted=wanted,
        is_dry=is_dry,
    )

    skipped = [
        result_without_plan(source_id, known.states[source_id], context.clock(), status="skipped")
        for source_id in by_id.keys() - fetched.outcomes.keys() - fetched.waiting
    ]

    def work(connection: Connection, share: Share) -> Step:
        now = context.clock()
        version = context.tariff.pricing_rule_version
        run = Run(context.run_id, now, version, known.has_arrears_since, context.job)
        refused = {source_id: ExporterError(reason) for source_id, reason in share.refused.items()}
        outcomes = {source_id: fetched.outcomes[source_id] for source_id in share.source_ids}
        apart = skipped
        if share.is_bare:
            apart = skipped + [
                result_without_plan(source_id, known.states[source_id], now, error=error)
                for source_id, error in refused.items()
            ]
        else:
            outcomes |= refused
        mine = replace(fetched, outcomes=outcomes)
        return _write(context, connection, by_id, mine, share, until, window, run, apart, record)

    return transaction_isolated(session, sorted(fetched.outcomes), work)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is read before anything is fetched."""

    states: Mapping[str, SourceState]
    has_arrears_since: bool


def _read(
    context: JobContext, connection: Connection, source_ids: Sequence[str], *, is_dry: bool
) -> _Known:
    with pipeline_at_head(connection):
        make_missing_partitions(connection)
        if not is_dry:
            # A dry run would make others wait for the rows that it takes back in the end.
            add_sources(connection, source_ids)
        states = connection.execute(READ_SOURCES, {"source_ids": arrays.texts(source_ids)})
        newer = connection.execute(HAS_ARREARS_SINCE)
    require_prices(context.tariff, connection)
    return _Known(
        {row[0]: source_state(*row) for row in states},
        has_arrears_since=newer.fetchone() == (True,),
    )


def _write(
    context: JobContext,
    connection: Connection,
    by_id: Mapping[str, Source],
    fetched: FetchRound,
    share: Share,
    until: datetime,
    window: CatchUpWindow | None,
    run: Run,
    skipped: Sequence[SourceResult],
    record: Callable[[Connection, Step], None],
) -> Step:
    """Everything that happens inside the transaction."""
    nodes = fetched.nodes()
    moving = [node for node, has_news in nodes.items() if has_news]
    found = lock_sources(connection, sorted(fetched.outcomes), nodes, moving, run.now)
    found = assign_nodes(connection, context.sources, fetched.outcomes, found)
    answers, errors = accept(by_id, fetched.outcomes, found, fetched.known)
    horizon = until
    if window is not None:
        # Those that fail or are busy are not waited for: they have no part in this step.
        ends = (end_of_history(answer, fetched.bound) for answer in answers.values())
        horizon = min(ends, default=fetched.bound)
    accepted = answers
    if horizon < until:
        is_last = fetched.bound == until
        accepted = {
            source_id: cut_at(answer, horizon, is_last=is_last)
            for source_id, answer in answers.items()
        }

    limited = within_stream_limits(
        context, connection, by_id, plan(context, connection, by_id, accepted, found, until)
    )
    plans = limited.plans
    errors |= limited.errors
    accepted = {name: answer for name, answer in accepted.items() if name not in limited.errors}
    late = late_in_recorded_regions(
        connection,
        [usage for usage in found.billable if not usage.must_wait and share.takes(usage.source_id)],
        {source.source_id: source.region for source in by_id.values() if source.region},
        context.tariff.default_region,
    )
    waiting = Waiting(late) if share.is_bare else Waiting(late, found.renewed, found.stale)
    # A source that waits for its node's next snapshot may have nothing to be written.
    applied = [source_plan for source_plan in plans if source_plan.advance.snapshots]
    written, failed = write_isolated(context, connection, applied, waiting, run)
    written = with_former_lives(written, found.billable)
    errors |= {source_id: ExporterError(reason) for source_id, reason in failed.items()}
    if used := limited.accepted - failed.keys():
        use_accepted(connection, sorted(used))

    advanced = {
        source_plan.source_id: source_plan
        for source_plan in plans
        if source_plan.source_id not in failed
    }
    current = {
        source_id
        for source_id, answer in accepted.items()
        if answer.complete and source_id not in failed
    }
    # A file says nothing of how its exporter is, nor does a snapshot that is not wanted yet.
    answering = {
        source_id
        for source_id in current
        if not fetched.is_file
        and (accepted[source_id].contract == "window" or accepted[source_id].snapshots)
    }
    stalled = stalled_sources(context, answering, advanced, found.states, until)
    results = results_of(fetched.outcomes, found, accepted, advanced, errors, written, run.now)
    if not fetched.is_dry:
        results = fail_long_busy(connection, results, run.now)
    results = [
        replace(result, gaps=result.gaps + 1) if result.source_id in stalled else result
        for result in results
    ]
    behind = fetched.waiting | (accepted.keys() - errors.keys() - current)
    still = standing_still(answers, accepted, advanced)
    step = Step(
        (*results, *skipped),
        written,
        behind,
        {source_id: samples for source_id, samples in still.items() if source_id in behind},
        (window or CatchUpWindow()).after(fetched.begins, answers, horizon),
    )
    with connection.pipeline():
        # Pauses between runs count from when the sources were asked, however long a run takes.
        finish = FINISH_BARE if share.is_bare else FINISH
        _finish(connection, finish, results, stalled, replace(run, now=fetched.asked_at))
        record(connection, step)
    return step


def _is_early(source: Source, known: _Known, now: datetime) -> bool:
    """Return whether the source asked for longer pauses than this run leaves it.

    An attempt in the future is that of a wrong clock, and no reason to wait for it.
    """
    last = known.states[source.source_id].last_attempted_at
    if source.collect_interval_seconds <= 0 or last is None:
        return False
    pause = timedelta(seconds=source.collect_interval_seconds) - INTERVAL_TOLERANCE
    return timedelta(0) <= now - last < pause


def _finish(
    connection: Connection,
    statements: Sequence[Statement],
    results: Iterable[SourceResult],
    stalled: Mapping[str, Gap],
    run: Run,
) -> None:
    """Write gaps, arrears and sync states of all sources that this run locked, failed ones too."""
    attempts = [
        Attempt(result.source_id, result.last_completed_until, result.error or "")
        for result in results
        if result.status != "busy" and result.error_code != "locked"
    ]
    send(connection, statements, Attempts(attempts, list(stalled.items())), run)
