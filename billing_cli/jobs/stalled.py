"""Sources that have reported all they have, and no counters for too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import Gap

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from billing_cli.database.sources import SourceState
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.source_results import StepOutcome


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
