"""Sources that a step can't move, because their share of its samples is too small to decide.

After a decrease that can be an earlier reading, up to an hour of snapshots decides
(`core.restart`). A part of them would be judged differently, so the source is asked for more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_cli.exporter.steps import weight
from billing_cli.jobs.reconcile_progress import LARGEST_STEP_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.exporter.api import Fetched
    from billing_cli.jobs.plans import SourcePlan


def standing_still(
    answers: Mapping[str, Fetched],
    accepted: Mapping[str, Fetched],
    advanced: Mapping[str, SourcePlan],
) -> dict[str, int | None]:
    """Return the sources that wait for more snapshots, and how many samples they got of late.

    None where not their share, but what was asked or accepted of all sources ended too early.
    """
    still: dict[str, int | None] = {}
    for source_id, plan in advanced.items():
        if plan.advance.waits_for_successor and not plan.advance.snapshots:
            snapshots = answers[source_id].snapshots
            is_cut = len(accepted[source_id].snapshots) < len(snapshots)
            is_for_all = is_cut or answers[source_id].complete
            still[source_id] = None if is_for_all else sum(map(weight, snapshots))
    return still


@dataclass(frozen=True, slots=True)
class LargerShares:
    """By what the shares of sources that stand still are multiplied in the next step.

    `samples` are what they got of late. The shares of those in `stopped` can't grow any more.
    """

    factors: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()

    def after(self, still: Mapping[str, int | None]) -> LargerShares:
        """Return the shares after a step: twice as large, as long as that brings more samples.

        All of them together stay within the largest step: the other sources are left to a later
        step or run.
        """
        factors: dict[str, int] = {}
        samples: dict[str, int] = {}
        stopped = set()
        room = LARGEST_STEP_SAMPLES
        for source_id, got in still.items():
            factor, before = self.factors.get(source_id, 1), self.samples.get(source_id, 0)
            if got is None:
                factors[source_id], samples[source_id] = factor, before
            elif got <= before * 5 // 4 or got >= LARGEST_STEP_SAMPLES:
                stopped.add(source_id)
            elif (wanted := min(2 * got, LARGEST_STEP_SAMPLES)) <= room:
                factors[source_id], samples[source_id] = factor * 2, got
                room -= wanted
        return LargerShares(factors, samples, frozenset(stopped))
