"""What a step says of each source, and which sources are stalled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from billing_cli.config.redaction import redact
from billing_cli.core.model import Gap
from billing_cli.core.result import SourceResult
from billing_cli.core.source_status import BUSY_FAILURE_SECONDS
from billing_cli.database.busy import note_busy_sources, read_lock_holders
from billing_cli.jobs.written import NOTES_SHOWN, Charged, Written, notes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.result import SourceStatus
    from billing_cli.database.billable import BillableUsage
    from billing_cli.database.sources import LockedSources, SourceState
    from billing_cli.exporter.api import ExporterError, Fetched
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.plans import SourcePlan


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What has become of a step's sources so far, by id: usable `answers`, and `errors`.

    `accepted` are the answers up to the `horizon`. `plans` are what the sources write that have not
    failed; those in `above_limits` need what an operator accepted. `stalled` are new gaps.
    """

    answers: Mapping[str, Fetched]
    accepted: Mapping[str, Fetched]
    horizon: datetime
    errors: Mapping[str, ExporterError]
    plans: Mapping[str, SourcePlan] = field(default_factory=dict)
    above_limits: frozenset[str] = frozenset()
    written: Written = field(default_factory=Written)
    stalled: Mapping[str, Gap] = field(default_factory=dict)

    def without(self, failed: Mapping[str, ExporterError]) -> StepOutcome:
        """Return the outcome where these sources failed as well: their plans are not written."""
        plans = {name: plan for name, plan in self.plans.items() if name not in failed}
        return replace(self, plans=plans, errors={**self.errors, **failed})

    def current(self) -> frozenset[str]:
        """Return the sources that are well and have nothing more before the goal."""
        return self._well(is_complete=True)

    def behind(self) -> frozenset[str]:
        """Return the sources that are well and have more."""
        return self._well(is_complete=False)

    def _well(self, *, is_complete: bool) -> frozenset[str]:
        return frozenset(
            source_id
            for source_id, answer in self.accepted.items()
            if answer.complete == is_complete and source_id not in self.errors
        )


def results_of(
    outcomes: Mapping[str, Fetched | ExporterError],
    locked: LockedSources,
    outcome: StepOutcome,
    now: datetime,
) -> list[SourceResult]:
    """Return the result of each source that was asked, in the order of their ids."""
    results, written = [], outcome.written
    for source_id in sorted(outcomes):
        state = locked.states[source_id]
        if source_id not in locked.source_ids:
            results.append(result_without_plan(source_id, state, now, status="busy"))
        elif source_id in outcome.plans:
            results.append(result_of_plan(outcome.plans[source_id], written, now))
        else:
            results.append(
                result_without_plan(
                    source_id,
                    state,
                    now,
                    error=outcome.errors.get(source_id),
                    fetched=outcome.accepted.get(source_id),
                    problems=written.notes.get(source_id, ()),
                    held=written.held.get(source_id, 0),
                )
            )
    return [
        replace(result, gaps=result.gaps + 1) if result.source_id in outcome.stalled else result
        for result in results
    ]


def with_former_lives(written: Written, billable: Iterable[BillableUsage]) -> Written:
    """Add notes of late usage that must wait because of the former life of its account."""
    accounts: dict[str | None, set[str]] = {}
    for usage in billable:
        if usage.must_wait:
            accounts.setdefault(usage.source_id, set()).add(usage.account_uuid)
    notes = {
        source_id: [
            *written.notes.get(source_id, ()),
            *notes_of(
                [
                    f"account {uuid} was deleted and created again: what it used in minutes that "
                    "were charged before waits for the next minute of its node"
                    for uuid in sorted(waiting)
                ]
            ),
        ]
        for source_id, waiting in accounts.items()
    }
    return replace(written, notes={**written.notes, **notes})


def stalled_sources(
    context: JobContext,
    outcome: StepOutcome,
    states: Mapping[str, SourceState],
    until: datetime,
) -> dict[str, Gap]:
    """Return a gap for each source that has reported all it has, and no counters for too long.

    It has either no new snapshots, or only snapshots without samples.
    """
    gaps = {}
    for source_id in sorted(outcome.current()):
        answer = outcome.accepted[source_id]
        if answer.contract != "window" and not answer.snapshots:
            continue  # The exporter has a snapshot, which is not wanted yet.
        state = states[source_id]
        watermark, samples_at = state.watermark, state.samples_at
        is_recorded = state.is_stalled
        if source_id in outcome.plans:
            step = outcome.plans[source_id].advance
            watermark, samples_at = step.watermark, step.samples_at
            if samples_at == watermark:
                continue
            if samples_at is None:
                # No snapshot had a usable sample: since its first one it has none.
                samples_at = state.first_snapshot_at or step.first_at
            else:
                is_recorded = is_recorded and samples_at == state.samples_at
        if samples_at is None or is_recorded:
            continue
        if until - samples_at > context.stalled_after:
            gaps[source_id] = Gap("stalled", samples_at, until)
    return gaps


def result_of_plan(plan: SourcePlan, written: Written, now: datetime) -> SourceResult:
    """Return the result of a source whose plan was carried out."""
    step = plan.advance
    notes = list(plan.notes)
    problems = written.notes.get(plan.source_id, ())
    if step.differences:
        notes.append(
            f"{step.differences} streams differ from the snapshot that was applied at the watermark"
        )
    notes.extend(problems)
    charged = written.charged.get(plan.source_id, Charged())
    held = len(step.held) + written.held.get(plan.source_id, 0)
    needs_a_look = bool(step.rejected or held or step.differences or problems)
    return SourceResult(
        source_id=plan.source_id,
        status="partial" if needs_a_look else "ok",
        node_id=plan.identity.node_id,
        env=plan.identity.env,
        contract=plan.contract,
        snapshots=step.snapshots,
        samples=step.samples,
        last_completed_until=step.watermark,
        lag_seconds=lag_seconds(step.watermark, now),
        resets=step.resets,
        gaps=len(step.gaps),
        rejected_samples=len(step.rejected),
        unresolved_streams=written.unresolved.get(plan.source_id, 0),
        held_deltas=held,
        successions=len(step.successions),
        new_streams=len(step.origins),
        charged_bytes=charged.size_bytes,
        amount=charged.amount,
        waits_for_successor=step.waits_for_successor,
        notes=(*notes, *rejected_notes(step.rejected, len(step.rejected))),
    )


def rejected_notes(reasons: Sequence[str], count: int) -> list[str]:
    """Return why samples were rejected: the first reasons, and how many more of `count` there are.

    Of `reasons`, the first NOTES_SHOWN are enough. An exporter may have sent a secret in them.
    """
    rest = count - NOTES_SHOWN
    more = [f"and {rest} more samples that can't be used"] if rest > 0 else []
    return [*dict.fromkeys(map(redact, reasons[:NOTES_SHOWN])), *more]


def result_without_plan(
    source_id: str,
    state: SourceState,
    now: datetime,
    *,
    status: SourceStatus = "ok",
    error: ExporterError | None = None,
    fetched: Fetched | None = None,
    problems: Sequence[str] = (),
    held: int = 0,
) -> SourceResult:
    """Return the result of a source that did not move; an error makes it one that failed.

    `problems` are those of accounts whose pending usage could not be charged; `held` counts what of
    it is above a daily maximum.
    """
    identity = state.identity or (fetched.identity if fetched else None)
    if (problems or held) and status == "ok":
        status = "partial"
    return SourceResult(
        source_id=source_id,
        status="error" if error else status,
        node_id=identity.node_id if identity else "",
        env=identity.env if identity else "",
        contract=(fetched.contract if fetched else state.contract) or "",
        last_completed_until=state.watermark,
        lag_seconds=lag_seconds(state.watermark, now),
        held_deltas=held,
        notes=(*(fetched.notes if fetched else ()), *problems),
        error=error.reason if error else None,
        error_code=error.code if error else None,
        unreachable=error.unreachable if error else False,
    )


def fail_long_busy(
    connection: Connection, results: Sequence[SourceResult], now: datetime
) -> list[SourceResult]:
    """Record which sources are busy, and make those fail that have been so for too long.

    A run takes seconds, so that whoever holds a source for ten minutes hangs, or means to.
    """
    busy = [result.source_id for result in results if result.status == "busy"]
    if not busy:
        return list(results)
    seconds = note_busy_sources(connection, busy, now)
    late = [source_id for source_id in busy if seconds[source_id] > BUSY_FAILURE_SECONDS]
    holders = read_lock_holders(connection, late) if late else {}
    return [
        replace(
            result,
            status="error",
            error=f"locked for {seconds[result.source_id] / 60:.0f} minutes, "
            f"by {holders.get(result.source_id, 'a transaction that has ended')}",
            error_code="locked",
        )
        if result.source_id in late
        else result
        for result in results
    ]


def lag_seconds(watermark: datetime | None, now: datetime) -> float | None:
    """Return how far a watermark is behind, in seconds; None where there is none."""
    return None if watermark is None else max(0.0, (now - watermark).total_seconds())
