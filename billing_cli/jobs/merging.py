"""What the steps of a run did, put together by source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from billing_cli.core.result import SourceResult
    from billing_cli.jobs.step import Step

# The figures of a source that are those of all its steps together.
SUMMED = (
    *("snapshots", "samples", "resets", "gaps", "rejected_samples", "held_deltas"),
    *("successions", "new_streams", "charged_bytes", "amount"),
)
# Of all steps of a source together: the row of the run is written with each.
MOST_NOTES = 50


def merge_step(results: dict[str, SourceResult], step: Step) -> None:
    """Add a step's counts to each source's; its status is the worst that it had."""
    for latest in step.sources:
        earlier = results.get(latest.source_id)
        if earlier is None:
            results[latest.source_id] = latest
            continue
        if latest.status == "skipped":
            # Another run has already brought it to the goal.
            results[latest.source_id] = replace(
                earlier,
                last_completed_until=latest.last_completed_until,
                lag_seconds=latest.lag_seconds,
            )
            continue
        was_partial = "partial" in {earlier.status, latest.status}
        results[latest.source_id] = replace(
            latest,
            status="partial" if latest.status == "ok" and was_partial else latest.status,
            **{name: getattr(earlier, name) + getattr(latest, name) for name in SUMMED},
            notes=tuple(dict.fromkeys([*earlier.notes, *latest.notes]))[:MOST_NOTES],
        )
