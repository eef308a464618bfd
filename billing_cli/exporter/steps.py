"""What of an exporter's history makes up one bounded step: pure, and the same for every source."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339, minute_of
from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from billing_cli.core.model import Snapshot


def whole_minutes(
    snapshots: Sequence[Snapshot], *, since: datetime, max_samples: int, exhausted: bool
) -> int:
    """Return how many leading snapshots make up a step of whole minutes; 0 where none do yet.

    `exhausted` tells that no further snapshot will come; otherwise the last minute may lack some
    and does not count. The step holds at most `max_samples` samples, but always at least one
    minute after that of `since`, or else it could stand still for ever.
    """
    first = minute_of(since)
    minutes = [
        (minute, list(group))
        for minute, group in groupby(snapshots, lambda s: minute_of(s.collected_at))
    ]
    if not exhausted:
        minutes = minutes[:-1]
    kept = samples = 0
    moved_on = False
    for minute, group in minutes:
        samples += sum(map(weight, group))
        if moved_on and samples > max_samples:
            return kept
        kept += len(group)
        moved_on = moved_on or minute > first
    return kept if moved_on or exhausted else 0


def weight(snapshot: Snapshot) -> int:
    """Return what a snapshot counts for: the samples decoded for it, one if there are none."""
    return max(1, len(snapshot.totals) + len(snapshot.rejected))


class IncomparableError(ExporterError):
    """A snapshot came twice, once as it was seen before and once spelled differently."""


def is_new(last: Snapshot | None, snapshot: Snapshot) -> bool:
    """Tell whether a snapshot follows the last one; false where it only repeats it.

    Both ends of a window are inclusive, so a page may begin with the snapshot that the one before
    it ended with. Raises ExporterError where time runs backwards, or where the same instant comes
    with other figures; IncomparableError where one of the two came without its figures.
    """
    if last is None or snapshot.collected_at > last.collected_at:
        return True
    stamp = format_rfc3339(snapshot.collected_at)
    if snapshot.collected_at < last.collected_at:
        raise ExporterError(
            f"snapshots out of order: {stamp} after {format_rfc3339(last.collected_at)}"
        )
    if snapshot.is_as_seen != last.is_as_seen:
        raise IncomparableError(f"two spellings of the snapshot of {stamp}")
    if snapshot.totals != last.totals:
        raise ExporterError(f"two different snapshots of {stamp}")
    return False
