"""How far a step of a catch-up goes, so that all its sources come equally far.

Readers take an account's newest ledger entries by the time of their creation. An account that is
on a dense and on a sparse node has them in bucket order only if no step writes a minute of the one
while an earlier minute of the other is still to come.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from billing_cli.core.times import MINUTE, minute_of
from billing_cli.exporter.steps import weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from billing_cli.exporter.api import Fetched

BEFORE_ALL_HISTORY = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CatchUpWindow:
    """How far all sources have come together, and how dense each one's history was of late."""

    horizon: datetime = BEFORE_ALL_HISTORY
    samples_per_minute: Mapping[str, float] = field(default_factory=dict)

    def bound(self, begins: Mapping[str, datetime], until: datetime, max_samples: int) -> datetime:
        """Return the end of what the next step asks for: about `max_samples` from all sources.

        `begins` says where each source goes on from. It is `until` as long as the density
        of their histories is unknown, and then at least one minute after the first that is open.
        """
        density = sum(self.samples_per_minute.get(source_id, 0.0) for source_id in begins)
        if not density:
            return until
        at = max(self.horizon, min(map(minute_of, begins.values())) + MINUTE)
        minutes = max(1, int(max_samples / density))
        return until if minutes >= (until - at) / MINUTE else at + minutes * MINUTE

    def shares(self, source_ids: Iterable[str], max_samples: int) -> dict[str, int]:
        """Share `max_samples` out: equally among sources of unknown density, else by density."""
        densities = {
            source_id: self.samples_per_minute.get(source_id, 0.0) for source_id in source_ids
        }
        equal = max_samples // max(1, len(densities))
        left = max_samples - equal * list(densities.values()).count(0.0)
        whole = sum(densities.values())
        return {
            source_id: max(1, int(left * density / whole) if density else equal)
            for source_id, density in densities.items()
        }

    def after(
        self, begins: Mapping[str, datetime], fetched: Mapping[str, Fetched], horizon: datetime
    ) -> CatchUpWindow:
        """Return the window after a step that got this and reached this horizon."""
        seen = {
            source_id: _samples_per_minute(begins[source_id], answer)
            for source_id, answer in fetched.items()
        }
        return CatchUpWindow(horizon, {**self.samples_per_minute, **seen})


def end_of_history(fetched: Fetched, bound: datetime) -> datetime:
    """Return the end of the minutes up to which a source's history is known completely."""
    if fetched.complete:
        return bound
    return minute_of(fetched.snapshots[-1].collected_at) + MINUTE


def cut_at(fetched: Fetched, horizon: datetime, *, is_last: bool) -> Fetched:
    """Leave out what lies after the horizon; what was left out is still on offer.

    The result is `complete` where the source has nothing more before the goal, which is known only
    of the last step: those before it ask for what lies before their own bound.
    """
    kept = bisect_left(fetched.snapshots, horizon, key=lambda snapshot: snapshot.collected_at)
    is_complete = fetched.complete and is_last and kept == len(fetched.snapshots)
    return replace(fetched, snapshots=fetched.snapshots[:kept], complete=is_complete)


def _samples_per_minute(begin: datetime, fetched: Fetched) -> float:
    """Return what a minute costs, with the snapshot that is reported once more in each step."""
    fresh = [snapshot for snapshot in fetched.snapshots if snapshot.collected_at > begin]
    if not fresh:
        return 0.0
    first, last = (minute_of(snapshot.collected_at) for snapshot in (fresh[0], fresh[-1]))
    return sum(map(weight, fetched.snapshots)) / ((last - first) / MINUTE + 1)
