"""One bounded step: read the watermarks, fetch, then write everything in one transaction.

No transaction is open while the network is slow. Because time passes between reading and
writing, the transaction takes each source's lock and reads its watermark once more; what another
run has written meanwhile is dropped by comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.deltas import advance, not_yet_applied
from billing_cli.core.model import Gap
from billing_cli.core.result import SourceResult
from billing_cli.exporter.api import ExporterError, Fetched, FetchRequest
from billing_cli.jobs.isolation import write_isolated
from billing_cli.jobs.takeover import end_of_older_writer, take_over
from billing_cli.jobs.write import SourcePlan, Written
from billing_cli.store.schema import require_head
from billing_cli.store.sources import (
    read_node_owners,
    read_sources,
    save_attempts,
    save_gaps,
    try_lock_sources,
)
from billing_cli.store.streams import read_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import NodeIdentity
    from billing_cli.exporter.source import Source
    from billing_cli.jobs.context import JobContext
    from billing_cli.store.connection import Session
    from billing_cli.store.sources import SourceState

Outcomes = dict[str, Fetched | ExporterError]

# A timer that fires a little early must not make a source wait for one more round.
INTERVAL_TOLERANCE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did. `behind` are the sources that moved and have more on offer."""

    sources: tuple[SourceResult, ...]
    written: Written
    behind: frozenset[str]


def take_step(
    context: JobContext,
    session: Session,
    sources: Sequence[Source],
    *,
    until: datetime,
    since: datetime | None = None,
    respect_intervals: bool = False,
    journal: Callable[[Connection, Step], None],
) -> Step:
    """Move the sources a bounded step towards `until`, the end of the last closed minute.

    `since` is where a source begins that has no watermark yet. `journal` is called inside the
    transaction with what was done. Raises BillingError where the database fails; what a source
    does wrong is in its result.
    """
    by_id = {source.source_id: source for source in sources}
    states = session.read(lambda connection: _read_states(connection, list(by_id)))
    due = [
        source
        for source in sources
        if not (respect_intervals and _is_early(source, states[source.source_id], context.clock()))
    ]
    outcomes = _fetch(context, due, states, until, since)

    skipped = [
        _result_of(source_id, states[source_id], context.clock(), status="skipped")
        for source_id in by_id
        if source_id not in outcomes
    ]

    def work(connection: Connection) -> Step:
        step = _write(context, connection, by_id, outcomes, until)
        step = replace(step, sources=(*step.sources, *skipped))
        journal(connection, step)
        return step

    return session.transaction(work)


def _read_states(connection: Connection, source_ids: Sequence[str]) -> dict[str, SourceState]:
    require_head(connection)
    return read_sources(connection, source_ids)


def _fetch(
    context: JobContext,
    sources: Sequence[Source],
    states: Mapping[str, SourceState],
    until: datetime,
    since: datetime | None,
) -> Outcomes:
    from billing_cli.exporter.fleet import fetch_all  # noqa: PLC0415 - requests is slow to import

    first_since = since or until - context.initial_lookback
    fetching = context.fetching
    requests = []
    for source in sources:
        state = states[source.source_id]
        begin = state.watermark or state.older_watermark or first_since
        if begin < until or source.mode != "window":
            requests.append(
                FetchRequest(
                    source=source,
                    since=begin,
                    until=max(until, begin),
                    max_samples=max(1, fetching.step_max_samples // len(sources)),
                    page_limit=fetching.page_limit,
                )
            )
    outcomes: Outcomes = dict(
        fetch_all(
            requests,
            now=context.clock(),
            concurrency=fetching.concurrency,
            deadline_seconds=fetching.deadline_seconds,
            default_token=context.default_token,
        )
    )
    return outcomes


def _write(
    context: JobContext,
    connection: Connection,
    by_id: Mapping[str, Source],
    outcomes: Outcomes,
    until: datetime,
) -> Step:
    """Everything that happens inside the transaction."""
    now = context.clock()
    locked = try_lock_sources(connection, list(outcomes))
    states = read_sources(connection, list(outcomes))
    errors: dict[str, ExporterError] = {}
    accepted: dict[str, tuple[Fetched, NodeIdentity | None]] = {}
    for source_id in sorted(locked):
        outcome = outcomes[source_id]
        if isinstance(outcome, Fetched):
            problem = _identity_problem(by_id[source_id], states[source_id], outcome.identity)
            if problem:
                errors[source_id] = ExporterError(problem)
            else:
                accepted[source_id] = outcome, outcome.identity
        else:
            errors[source_id] = outcome
    for source_id, problem in _ownership_problems(connection, accepted).items():
        errors[source_id] = ExporterError(problem)
        del accepted[source_id]

    plans = _plan(context, connection, by_id, accepted, states)
    written, failed = write_isolated(context, connection, plans, now)
    for source_id, reason in failed.items():
        errors[source_id] = ExporterError(reason)

    advanced = {plan.source_id: plan for plan in plans if plan.source_id not in failed}
    stalled = _save_stalled(context, connection, accepted, advanced, states, until)
    results, attempts = [], []
    for source_id in sorted(outcomes):
        state = states[source_id]
        if source_id not in locked:
            results.append(_result_of(source_id, state, now, status="busy"))
            continue
        error = errors.get(source_id)
        if error is not None:
            result = _result_of(source_id, state, now, status="error", error=error)
        elif source_id in advanced:
            result = _result_of_plan(advanced[source_id], written, now)
        else:
            result = _result_of(source_id, state, now, fetched=outcomes[source_id])
        result = replace(result, gaps=result.gaps + stalled.count(source_id))
        results.append(result)
        attempts.append((source_id, result.last_completed_until, result.error or ""))
    save_attempts(connection, attempts, now)
    behind = frozenset(
        source_id
        for source_id, plan in advanced.items()
        if plan.advance.snapshots and not accepted[source_id][0].complete
    )
    return Step(tuple(results), written, behind)


def _plan(
    context: JobContext,
    connection: Connection,
    by_id: Mapping[str, Source],
    accepted: Mapping[str, tuple[Fetched, NodeIdentity | None]],
    states: Mapping[str, SourceState],
) -> list[SourcePlan]:
    """Compute what each source's snapshots amount to, from the streams as they are now."""
    identified = {
        source_id: (fetched, identity)
        for source_id, (fetched, identity) in accepted.items()
        if identity is not None
    }
    watermarks, names = {}, {}
    for source_id, (fetched, identity) in identified.items():
        state = states[source_id]
        if state.watermark is not None and state.identity == identity:
            watermarks[identity.stored] = state.watermark
        names[identity.stored] = {
            name for snapshot in fetched.snapshots for name in snapshot.totals
        }
    streams = read_streams(connection, watermarks, names)
    since = {
        identity.stored: watermarks.get(identity.stored)
        or end_of_older_writer(states[source_id].older_watermark)
        for source_id, (_, identity) in identified.items()
    }
    older = take_over(
        connection,
        {
            identity.stored: (not_yet_applied(since[identity.stored], fetched.snapshots), unknown)
            for fetched, identity in identified.values()
            if (unknown := names[identity.stored] - streams[identity.stored].rows.keys())
        },
    )
    plans = []
    for source_id, (fetched, identity) in identified.items():
        node, taken_over = streams[identity.stored], older.get(identity.stored, {})
        plans.append(
            SourcePlan(
                source_id=source_id,
                identity=identity,
                contract=fetched.contract,
                region=by_id[source_id].region or context.tariff.default_region,
                streams=node,
                advance=advance(
                    since[identity.stored],
                    {**node.checkpoints, **taken_over},
                    fetched.snapshots,
                    context.deltas,
                    continuity_expected=identity.stored in watermarks
                    and fetched.contract == "window",
                ),
                taken_over=taken_over,
                notes=fetched.notes,
            )
        )
    return plans


def _is_early(source: Source, state: SourceState, now: datetime) -> bool:
    """Tell whether the source asked for longer pauses than this run leaves it."""
    if source.collect_interval_seconds <= 0 or state.last_attempted_at is None:
        return False
    pause = timedelta(seconds=source.collect_interval_seconds)
    return now - state.last_attempted_at < pause - INTERVAL_TOLERANCE


def _identity_problem(
    source: Source, state: SourceState, identity: NodeIdentity | None
) -> str | None:
    """A source that suddenly speaks for another node needs the operator's word for it."""
    if identity is None or state.identity is None or identity == state.identity:
        return None
    if source.expected_node_id == identity.node_id and source.expected_env in {None, identity.env}:
        return None
    return (
        f"answers as node {identity.stored!r}, but was {state.identity.stored!r} so far; "
        "set expected_node_id where this is meant"
    )


def _ownership_problems(
    connection: Connection, accepted: Mapping[str, tuple[Fetched, NodeIdentity | None]]
) -> dict[str, str]:
    """Find the sources whose node belongs to another one: it would be billed twice."""
    claims: dict[str, list[str]] = {}
    for source_id, (_, identity) in accepted.items():
        if identity is not None:
            claims.setdefault(identity.stored, []).append(source_id)
    owners = read_node_owners(connection, claims) if claims else {}
    problems = {}
    for node, claimants in claims.items():
        owner = owners.get(node)
        for source_id in claimants:
            others = [owner] if owner else [one for one in claimants if one != source_id]
            if others and source_id != owner:
                problems[source_id] = (
                    f"node {node!r} is claimed by the sources {source_id!r} and {others[0]!r}; "
                    "it would be billed twice"
                )
    return problems


def _save_stalled(
    context: JobContext,
    connection: Connection,
    accepted: Mapping[str, tuple[Fetched, NodeIdentity | None]],
    advanced: Mapping[str, SourcePlan],
    states: Mapping[str, SourceState],
    until: datetime,
) -> list[str]:
    """Note the sources that answer, but have had nothing new for too long."""
    gaps = []
    for source_id in accepted:
        watermark = states[source_id].watermark
        plan = advanced.get(source_id)
        has_moved = plan is not None and plan.advance.snapshots > 0
        if not has_moved and watermark is not None and until - watermark > context.stalled_after:
            gaps.append((source_id, Gap("stalled", watermark, until)))
    return save_gaps(connection, gaps, are_open=True)


def _result_of(
    source_id: str,
    state: SourceState,
    now: datetime,
    *,
    status: str = "ok",
    error: ExporterError | None = None,
    fetched: Fetched | ExporterError | None = None,
) -> SourceResult:
    """Return the result of a source that did not move."""
    answer = fetched if isinstance(fetched, Fetched) else None
    identity = state.identity or (answer.identity if answer else None)
    return SourceResult(
        source_id=source_id,
        status=status,  # type: ignore[arg-type]
        node_id=identity.node_id if identity else "",
        env=identity.env if identity else "",
        contract=(answer.contract if answer else state.contract) or "",
        last_completed_until=state.watermark,
        lag_seconds=_lag_seconds(state.watermark, now),
        notes=answer.notes if answer else (),
        error=error.reason if error else None,
        unreachable=error.unreachable if error else False,
    )


def _result_of_plan(plan: SourcePlan, written: Written, now: datetime) -> SourceResult:
    step = plan.advance
    notes = list(plan.notes)
    if step.differences:
        notes.append(
            f"{step.differences} streams at the watermark are not what was seen there before"
        )
    notes.extend(written.notes.get(plan.source_id, ()))
    needs_a_look = bool(step.rejected or step.held or step.differences)
    return SourceResult(
        source_id=plan.source_id,
        status="partial" if needs_a_look else "ok",
        node_id=plan.identity.node_id,
        env=plan.identity.env,
        contract=plan.contract,
        snapshots=step.snapshots,
        samples=step.samples,
        last_completed_until=step.watermark,
        lag_seconds=_lag_seconds(step.watermark, now),
        resets=step.resets,
        gaps=len(step.gaps),
        rejected_samples=len(step.rejected),
        unresolved_streams=written.unresolved.get(plan.source_id, 0),
        held_deltas=len(step.held),
        notes=(*notes, *dict.fromkeys(step.rejected)),
    )


def _lag_seconds(watermark: datetime | None, now: datetime) -> float | None:
    return None if watermark is None else max(0.0, (now - watermark).total_seconds())
