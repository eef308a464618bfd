"""Which snapshots make up one bounded step: the same for HTTP and for files, and without I/O."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339, minute_of
from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from billing_cli.core.model import Snapshot
    from billing_cli.exporter.api import FetchRequest
    from billing_cli.exporter.limits import Limits

# Exporters may cut `since` to whole seconds.
_EARLY_TOLERANCE = timedelta(seconds=1)


class StepSnapshots:
    """The snapshots of one step while they come in, oldest first.

    `kept` are those that make up the step so far, in whole minutes; `samples` counts what was
    taken in. `outside` counts snapshots that the exporter sent although they lie outside of the
    window, and `skipped` those beyond what is used of a minute. `largest` is the weight of the
    largest snapshot.
    """

    def __init__(self, request: FetchRequest, limits: Limits) -> None:
        self._request = request
        self._limits = limits
        self._last: Snapshot | None = None
        self._wanted: list[Snapshot] = []
        # Of the last minute among them.
        self._in_minute = self._minute_samples = 0
        self._exhausted = False
        self.kept: tuple[Snapshot, ...] = ()
        self.samples = 0
        self.outside = 0
        self.skipped = 0
        self.largest = 0

    @property
    def complete(self) -> bool:
        """Whether the source has nothing more before `until`."""
        return self._exhausted and len(self.kept) == len(self._wanted)

    def add(self, snapshots: Iterable[Snapshot], *, has_more: bool, is_late: bool = False) -> bool:
        """Take snapshots in; true once the step is full, or the source has no more for it.

        A source that `is_late` has used up its time: what is there makes a step, if it can.

        Raises ExporterError for snapshots out of order.
        """
        for snapshot in snapshots:
            self._add(snapshot)
        self._exhausted = not has_more or (
            self._last is not None and self._last.collected_at >= self._request.until
        )
        is_full = is_late or self.samples >= self._request.max_samples
        if self._exhausted or is_full:
            count = whole_minutes(
                self._wanted,
                since=self._request.since,
                max_samples=self._request.max_samples,
                exhausted=self._exhausted,
            )
            self.kept = tuple(self._wanted[:count])
        return self._exhausted or bool(self.kept)

    def _add(self, snapshot: Snapshot) -> None:
        if not is_new(self._last, snapshot):
            return
        self._last = snapshot
        since, until = self._request.since, self._request.until
        self.largest = max(self.largest, weight(snapshot))
        if snapshot.collected_at >= until:
            self.outside += snapshot.collected_at > until
        elif snapshot.collected_at < since:
            self.outside += snapshot.collected_at < since - _EARLY_TOLERANCE
        else:
            self._keep(snapshot)

    def _keep(self, snapshot: Snapshot) -> None:
        """Keep a snapshot; where its minute is full, in place of the one before it."""
        limits, size = self._limits, weight(snapshot)
        if self._wanted and minute_of(self._wanted[-1].collected_at) == minute_of(
            snapshot.collected_at
        ):
            # The first one of all stays: it shows that the history goes on from the watermark.
            is_large = self._minute_samples + size > limits.minute_samples
            is_full = is_large or self._in_minute >= limits.minute_snapshots
            if is_full and len(self._wanted) > 1:
                size -= weight(self._wanted.pop())
                self._in_minute -= 1
                self.skipped += 1
        else:
            self._in_minute = self._minute_samples = 0
        self._wanted.append(snapshot)
        self._in_minute += 1
        self._minute_samples += size
        self.samples += size


def whole_minutes(
    snapshots: Sequence[Snapshot], *, since: datetime, max_samples: int, exhausted: bool
) -> int:
    """Return how many leading snapshots make up a step of whole minutes; 0 where none do yet.

    `exhausted` means that no further snapshot will come; otherwise the last minute may lack some
    and does not count. The step holds at most `max_samples` samples, but always at least two
    minutes after that of `since`, or else it could stand still for ever: a snapshot in which a
    counter decreased is applied only together with its successor.
    """
    first = minute_of(since)
    minutes = [
        (minute, list(group))
        for minute, group in groupby(snapshots, lambda s: minute_of(s.collected_at))
    ]
    if not exhausted:
        minutes = minutes[:-1]
    kept = samples = 0
    moved_on = 0
    for minute, group in minutes:
        samples += sum(map(weight, group))
        if moved_on > 1 and samples > max_samples:
            return kept
        kept += len(group)
        moved_on += minute > first
    return kept if moved_on > 1 or exhausted else 0


def weight(snapshot: Snapshot) -> int:
    """Return what a snapshot counts for: its samples, rejected ones included; one if empty."""
    return max(1, len(snapshot.totals) + len(snapshot.rejected))


def is_new(last: Snapshot | None, snapshot: Snapshot) -> bool:
    """Return whether a snapshot follows the last one; false where it only repeats it.

    Both ends of a window are inclusive, so a page may begin with the snapshot that the one before
    it ended with. Raises ExporterError where time runs backwards, or where the same instant comes
    with other totals.
    """
    if last is None or snapshot.collected_at > last.collected_at:
        return True
    stamp = format_rfc3339(snapshot.collected_at)
    if snapshot.collected_at < last.collected_at:
        raise ExporterError(
            f"snapshots out of order: {stamp} after {format_rfc3339(last.collected_at)}",
            code="invalid_answer",
        )
    if snapshot.totals != last.totals:
        raise ExporterError(f"two different snapshots of {stamp}", code="invalid_answer")
    return False
