"""Sources that a step can't move, because their share of its samples is too small to decide.

After a decrease that can be an earlier reading, up to an hour of snapshots decides
(`core.restart`). A part of them would be judged differently, so the source is asked for more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from billing_cli.exporter.steps import weight
from billing_cli.jobs.reconcile_progress import LARGEST_STEP_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from billing_cli.config.source import Source
    from billing_cli.core.result import SourceResult
    from billing_cli.exporter.api import Fetched
    from billing_cli.jobs.plans import SourcePlan

STOPPED = (
    "stands still: a decrease is decided by more snapshots than this run could read; run `billing "
    "catch-up --source {}`, with a larger BILLING_STEP_MAX_SAMPLES where that is not enough"
)


def undecided_sources(
    answers: Mapping[str, Fetched],
    accepted: Mapping[str, Fetched],
    advanced: Mapping[str, SourcePlan],
) -> dict[str, int | None]:
    """Return the sources that wait for more snapshots, and how many samples they got of late.

    None where not their share, but what was asked or accepted of all sources ended too early.
    """
    undecided: dict[str, int | None] = {}
    for source_id, plan in advanced.items():
        if plan.advance.waits_for_successor and not plan.advance.snapshots:
            snapshots = answers[source_id].snapshots
            is_cut = len(accepted[source_id].snapshots) < len(snapshots)
            is_for_all = is_cut or answers[source_id].complete
            undecided[source_id] = None if is_for_all else sum(map(weight, snapshots))
    return undecided


@dataclass(frozen=True, slots=True)
class LargerShares:
    """How many samples are `wanted` in the next step of sources that stand still, by source id.

    Those in `postponed` want so many as well, and take no part in the step, for want of room: else
    none could pass another, and all their hours would be in memory at once. Those in `stopped` are
    not asked again in this run.
    """

    wanted: Mapping[str, int] = field(default_factory=dict)
    postponed: Mapping[str, int] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()

    def after(self, undecided: Mapping[str, int | None], *, is_last: bool = False) -> LargerShares:
        """Return the shares after a step, or after the last one that a run takes.

        A source is asked for twice what it got, or was asked for where the next minute alone was
        larger, up to the largest step. All of them together stay within that: those that want most
        come first, so that they are done first.
        """
        if is_last:
            return LargerShares(stopped=self.stopped | undecided.keys() | self.postponed.keys())
        asks = dict(self.postponed)
        stopped = set()
        for source_id, got in undecided.items():
            asked = self.wanted.get(source_id, 0)
            if got is None:
                asks[source_id] = asked
            elif max(got, asked) >= LARGEST_STEP_SAMPLES:
                stopped.add(source_id)
            else:
                asks[source_id] = min(2 * max(got, asked), LARGEST_STEP_SAMPLES)
        room = LARGEST_STEP_SAMPLES
        wanted, postponed = {}, {}
        for source_id in sorted(asks, key=lambda name: (-asks[name], name)):
            if asks[source_id] <= room:
                wanted[source_id] = asks[source_id]
                room -= asks[source_id]
            else:
                postponed[source_id] = asks[source_id]
        return LargerShares(wanted, postponed, self.stopped | stopped)

    def taking_part(self, sources: Mapping[str, Source]) -> dict[str, Source]:
        """Return the sources without those that wait for room."""
        return {name: source for name, source in sources.items() if name not in self.postponed}

    def left(self, sources: Mapping[str, Source], source_ids: Iterable[str]) -> dict[str, Source]:
        """Return those of `source_ids` that are to be asked again, with those that took no part."""
        left = frozenset(source_ids) - self.stopped | self.wanted.keys() | self.postponed.keys()
        return {name: source for name, source in sources.items() if name in left}

    def note_stopped(self, results: Mapping[str, SourceResult]) -> dict[str, SourceResult]:
        """Return the results; sources that were stopped are partial, with a note what to do."""
        noted = dict(results)
        for source_id in self.stopped & results.keys():
            result = results[source_id]
            noted[source_id] = replace(
                result,
                status="partial" if result.status == "ok" else result.status,
                notes=(*result.notes, STOPPED.format(source_id)),
            )
        return noted
