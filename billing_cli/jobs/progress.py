"""What a run of several steps has done so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from billing_cli.jobs.larger_shares import LargerShares
from billing_cli.jobs.written import Written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from billing_cli.core.result import SourceResult
    from billing_cli.jobs.step import Step

# The figures of a source that are those of all its steps together.
SUMMED = (
    *("snapshots", "samples", "resets", "gaps", "rejected_samples", "held_deltas"),
    *("successions", "new_streams", "charged_bytes", "amount"),
)
# Of all steps of a source together: the row of the run is written with each.
MOST_NOTES = 50


@dataclass(frozen=True, slots=True)
class Progress:
    """What the finished steps did, by source and together; `shares` are those of the next step."""

    results: Mapping[str, SourceResult] = field(default_factory=dict)
    written: Written = field(default_factory=Written)
    steps: int = 0
    shares: LargerShares = field(default_factory=LargerShares)

    def after(self, step: Step, *, is_last: bool = False) -> Progress:
        """Return the same with one more step, after which the run takes no other if `is_last`."""
        return Progress(
            {**self.results, **{new.source_id: self._merged(new) for new in step.sources}},
            self.written.plus(step.written),
            self.steps + 1,
            self.shares.after(step.undecided, is_last=is_last),
        )

    def sources(self) -> Iterable[SourceResult]:
        """Return the results of all sources, with a note on those that stand still."""
        return self.shares.note_stopped(self.results).values()

    def _merged(self, latest: SourceResult) -> SourceResult:
        """Return a source's result with the counts of its steps before; its status is the worst."""
        earlier = self.results.get(latest.source_id)
        if earlier is None:
            return latest
        if latest.status == "skipped":
            # Another run has already brought it to the goal.
            return replace(
                earlier,
                last_completed_until=latest.last_completed_until,
                lag_seconds=latest.lag_seconds,
            )
        was_partial = "partial" in {earlier.status, latest.status}
        return replace(
            latest,
            status="partial" if latest.status == "ok" and was_partial else latest.status,
            **{name: getattr(earlier, name) + getattr(latest, name) for name in SUMMED},
            notes=tuple(dict.fromkeys([*earlier.notes, *latest.notes]))[:MOST_NOTES],
        )
