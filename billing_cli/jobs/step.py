"""One bounded step: read the watermarks, fetch, then write everything in one transaction.

No transaction is open while the network is slow. Because time passes between reading and
writing, the transaction locks each source and reads its watermark once more; what another
run has written in that time is dropped by comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.database import arrays
from billing_cli.database.arrears import HAS_ARREARS_SINCE
from billing_cli.database.facts import Attempt, Attempts, Run
from billing_cli.database.partitions import make_missing_partitions
from billing_cli.database.schema import pipeline_at_head
from billing_cli.database.sources import READ_SOURCES, add_sources, lock_sources, source_state
from billing_cli.database.stream_limits import use_accepted
from billing_cli.database.write_path import FINISH, FINISH_SOURCES
from billing_cli.database.writing import send
from billing_cli.exporter.api import ExporterError
from billing_cli.jobs.assignment import accept, assign_nodes
from billing_cli.jobs.catch_up_window import CatchUpWindow, cut_at, end_of_history
from billing_cli.jobs.fetching import fetch_round
from billing_cli.jobs.isolation import IncludedSources, transaction_isolated, write_isolated
from billing_cli.jobs.larger_shares import undecided_sources
from billing_cli.jobs.plans import plan
from billing_cli.jobs.prices import require_prices
from billing_cli.jobs.regions import late_in_recorded_regions
from billing_cli.jobs.source_results import (
    StepOutcome,
    fail_long_busy,
    result_without_plan,
    results_of,
    stalled_sources,
    with_former_lives,
)
from billing_cli.jobs.stream_limits import within_stream_limits
from billing_cli.jobs.write import StoredBacklog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.core.model import Gap
    from billing_cli.core.result import SourceResult
    from billing_cli.database.connection import Session
    from billing_cli.database.sources import LockedSources, SourceState
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.fetching import FetchRound, Origin, StepRequest
    from billing_cli.jobs.written import Written

# A timer that fires a little early must not make a source wait for one more round.
INTERVAL_TOLERANCE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did. `behind` are the sources that are well and not current yet.

    `undecided` are sources that could not move, as `undecided_sources` returns them. `window` is
    that of the step after this one.
    """

    sources: tuple[SourceResult, ...]
    written: Written
    behind: frozenset[str]
    undecided: Mapping[str, int | None]
    window: CatchUpWindow


def take_step(
    context: JobContext,
    session: Session,
    origin: Origin,
    request: StepRequest,
    record: Callable[[Connection, Step], None],
) -> Step:
    """Move the requested sources, which are sources of the origin, a bounded step forward.

    `record` is called inside the transaction with what was done. Raises BillingError where the
    database fails; what a source does wrong is in its result.
    """
    asked_at = context.clock()
    is_dry = session.dry_run
    states, has_arrears_since = session.read(
        lambda connection: _prepare(context, connection, request.sources, is_dry=is_dry)
    )
    due = _due(request, states, asked_at)
    fetched = fetch_round(context, origin, replace(request, sources=due), states)
    skipped = [
        result_without_plan(source_id, states[source_id], context.clock(), status="skipped")
        for source_id in request.sources.keys() - fetched.outcomes.keys() - fetched.beyond_bound
    ]

    def work(connection: Connection, included: IncludedSources) -> Step:
        now = context.clock()
        version = context.tariff.pricing_rule_version
        run = Run(context.run_id, now, version, has_arrears_since, context.job)
        refused = {
            source_id: ExporterError(reason) for source_id, reason in included.refused.items()
        }
        outcomes = {source_id: fetched.outcomes[source_id] for source_id in included.source_ids}
        unwritten = skipped
        if included.sources_only:
            unwritten = skipped + [
                result_without_plan(source_id, states[source_id], now, error=error)
                for source_id, error in refused.items()
            ]
        else:
            outcomes |= refused
        mine = replace(fetched, outcomes=outcomes)
        transaction = _Transaction(
            context, connection, request, mine, included, run, asked_at, is_dry
        )
        return _write(transaction, unwritten, record)

    return transaction_isolated(session, sorted(fetched.outcomes), work)


def _prepare(
    context: JobContext, connection: Connection, source_ids: Iterable[str], *, is_dry: bool
) -> tuple[dict[str, SourceState], bool]:
    """Make what a step needs, partitions and rows of new sources; read the states of the sources.

    Returns with them whether this deployment keeps the start of an account's arrears.
    """
    with pipeline_at_head(connection):
        if not is_dry:
            # A dry run would make others wait for what it takes back in the end.
            make_missing_partitions(connection)
            add_sources(connection, source_ids)
        states = connection.execute(READ_SOURCES, {"source_ids": arrays.texts(source_ids)})
        newer = connection.execute(HAS_ARREARS_SINCE)
    require_prices(context.tariff, connection)
    return {row[0]: source_state(*row) for row in states}, newer.fetchone() == (True,)


def _due(
    request: StepRequest, states: Mapping[str, SourceState], now: datetime
) -> dict[str, Source]:
    """Return the sources without those that asked for longer pauses than this run leaves them.

    An attempt in the future is that of a wrong clock, and no reason to wait for it.
    """
    due = {}
    for source_id, source in request.sources.items():
        last = states[source_id].last_attempted_at
        pause = timedelta(seconds=source.collect_interval_seconds) - INTERVAL_TOLERANCE
        is_early = last is not None and timedelta(0) <= now - last < pause
        if not (request.respect_intervals and is_early):
            due[source_id] = source
    return due


@dataclass(frozen=True, slots=True)
class _Transaction:
    """A transaction that writes a step: of which sources, and what was fetched."""

    context: JobContext
    connection: Connection
    request: StepRequest
    fetched: FetchRound
    included: IncludedSources
    run: Run
    asked_at: datetime
    is_dry: bool


def _write(
    transaction: _Transaction,
    unwritten: Sequence[SourceResult],
    record: Callable[[Connection, Step], None],
) -> Step:
    """Everything that happens inside the transaction, in this order."""
    context, connection = transaction.context, transaction.connection
    request, fetched, run = transaction.request, transaction.fetched, transaction.run
    locked = _lock(transaction)
    outcome = _accept(transaction, locked)
    outcome = _plan(transaction, locked, outcome)
    outcome = _write_plans(transaction, locked, outcome)
    # A file says nothing of how its exporter is.
    if not fetched.is_file:
        stalled = stalled_sources(context, outcome, locked.states, request.until)
        outcome = replace(outcome, stalled=stalled)
    results = results_of(fetched.outcomes, locked, outcome, run.now)
    if not transaction.is_dry:
        results = fail_long_busy(connection, results, run.now)
    behind = fetched.beyond_bound | outcome.behind()
    undecided = undecided_sources(outcome.answers, outcome.accepted, outcome.plans)
    step = Step(
        (*results, *unwritten),
        outcome.written,
        behind,
        {source_id: samples for source_id, samples in undecided.items() if source_id in behind},
        (request.window or CatchUpWindow()).after(fetched.begins, outcome.answers, outcome.horizon),
    )
    with connection.pipeline():
        _finish(transaction, results, outcome.stalled)
        record(connection, step)
    return step


def _lock(transaction: _Transaction) -> LockedSources:
    """Lock the sources, and give nodes to those that are configured to carry them."""
    connection, fetched = transaction.connection, transaction.fetched
    nodes = fetched.nodes()
    moving = [node for node, has_news in nodes.items() if has_news]
    locked = lock_sources(connection, sorted(fetched.outcomes), nodes, moving, transaction.run.now)
    return assign_nodes(connection, transaction.context.sources, fetched.outcomes, locked)


def _accept(transaction: _Transaction, locked: LockedSources) -> StepOutcome:
    """Check the answers; with a window, cut them where the first history ends."""
    request, fetched = transaction.request, transaction.fetched
    answers, errors = accept(request.sources, fetched.outcomes, locked, fetched.known)
    if request.window is None:
        return StepOutcome(answers, answers, request.until, errors)
    # Those that fail or are busy are not waited for: they have no part in this step.
    ends = (end_of_history(answer, fetched.bound) for answer in answers.values())
    horizon = min(ends, default=fetched.bound)
    accepted = answers
    if horizon < request.until:
        is_last = fetched.bound == request.until
        accepted = {
            source_id: cut_at(answer, horizon, is_last=is_last)
            for source_id, answer in answers.items()
        }
    return StepOutcome(answers, accepted, horizon, errors)


def _plan(transaction: _Transaction, locked: LockedSources, outcome: StepOutcome) -> StepOutcome:
    """Plan what the accepted answers amount to; nodes with too many streams fail."""
    context, connection = transaction.context, transaction.connection
    sources, until = transaction.request.sources, transaction.request.until
    plans = plan(context, connection, sources, outcome.accepted, locked, until)
    limited = within_stream_limits(context, connection, sources, plans)
    return replace(
        outcome.without(limited.errors),
        accepted={
            source_id: answer
            for source_id, answer in outcome.accepted.items()
            if source_id not in limited.errors
        },
        plans={source_plan.source_id: source_plan for source_plan in limited.plans},
        above_limits=limited.accepted,
    )


def _write_plans(
    transaction: _Transaction, locked: LockedSources, outcome: StepOutcome
) -> StepOutcome:
    """Write the plans and the usage that found its account; sources that are refused fail."""
    context, connection = transaction.context, transaction.connection
    included, sources = transaction.included, transaction.request.sources
    usage = [row for row in locked.billable if not row.must_wait and included.takes(row.source_id)]
    regions: dict[str | None, str] = {
        name: source.region for name, source in sources.items() if source.region
    }
    late = late_in_recorded_regions(connection, usage, regions, context.tariff.default_region)
    backlog = StoredBacklog(late)
    if not included.sources_only:
        backlog = StoredBacklog(late, locked.renewed, locked.stale)
    # A source that waits for its node's next snapshot may have nothing to be written.
    plans = [source_plan for source_plan in outcome.plans.values() if source_plan.advance.snapshots]
    written, failed = write_isolated(context, connection, plans, backlog, transaction.run)
    if used := outcome.above_limits - failed.keys():
        use_accepted(connection, sorted(used))
    errors = {source_id: ExporterError(reason) for source_id, reason in failed.items()}
    return replace(outcome.without(errors), written=with_former_lives(written, locked.billable))


def _finish(
    transaction: _Transaction, results: Iterable[SourceResult], stalled: Mapping[str, Gap]
) -> None:
    """Write gaps, arrears and sync states of all sources that this run locked, failed ones too."""
    attempts = [
        Attempt(result.source_id, result.last_completed_until, result.error or "")
        for result in results
        if result.status != "busy" and result.error_code != "locked"
    ]
    # Pauses between runs count from when the sources were asked, however long a run takes.
    run = replace(transaction.run, now=transaction.asked_at)
    statements = FINISH_SOURCES if transaction.included.sources_only else FINISH
    send(transaction.connection, statements, Attempts(attempts, list(stalled.items())), run)
