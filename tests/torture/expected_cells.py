"""One stream's steps from snapshot to snapshot, and what history can still change about them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.times import minute_of
from billing_cli.simulator.oracle import Bytes
from billing_cli.simulator.stamps import nanoseconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from billing_cli.simulator.traffic import Snapshot, Stream

NOTHING = Bytes()

# What the jobs are told that a line can carry, in bits per second: little enough that what is
# beyond it for hours costs less than the million up to which the shared columns are exact.
LINE_RATE = 8_000_000
LONGEST_CREDITED_SECONDS = 72 * 3600
IMPOSSIBLE_BYTES = 40_000_000_000


class Counted(NamedTuple):
    """Where a stream's counters stood when they were seen: totals, restarts before, log so far."""

    told: Bytes = NOTHING
    restarts: int = 0
    position: int = 0


class Step(NamedTuple):
    """What a stream moved from one sight of it to the next.

    `moved` can be billed. `lost` flowed before a restart that came between, `overtaken` is what a
    restart hides whose counters have passed their old values. `is_restart` tells a noticed one.
    """

    counted: Counted
    moved: Bytes
    lost: int
    overtaken: int
    is_restart: bool


class Shown(NamedTuple):
    """What history tells of a cell: bytes by minute, and what nobody can know all the same."""

    by_minute: dict[datetime, Bytes]
    lost: Counter[str]


def next_step(stream: Stream, before: Counted, snapshot: Snapshot) -> Step:
    """Go through the log up to a snapshot that holds the stream."""
    log, position = stream.log, before.position
    uplink = downlink = lost = 0
    while position < len(log) and log[position] <= snapshot.index:
        if log[position + 1] == snapshot.restarts:
            uplink += log[position + 2]
            downlink += log[position + 3]
        else:
            lost += log[position + 2] + log[position + 3]
        position += 4
    if snapshot.restarts == before.restarts:
        told = Bytes(before.told.uplink + uplink, before.told.downlink + downlink)
        counted = Counted(told, snapshot.restarts, position)
        return Step(counted, Bytes(uplink, downlink), lost, 0, is_restart=False)
    counted = Counted(Bytes(uplink, downlink), snapshot.restarts, position)
    if uplink < before.told.uplink or downlink < before.told.downlink:
        return Step(counted, counted.told, lost, 0, is_restart=True)
    moved = Bytes(uplink - before.told.uplink, downlink - before.told.downlink)
    return Step(counted, moved, lost, sum(before.told), is_restart=False)


def between(snapshots: Sequence[Snapshot], after: datetime, before: datetime) -> Sequence[Snapshot]:
    """Return the snapshots, oldest first, that were taken between the two moments."""
    stamp = attrgetter("stamp_nanoseconds")
    begin = bisect_left(snapshots, nanoseconds_of(after + timedelta.resolution), key=stamp)
    return snapshots[begin : bisect_left(snapshots, nanoseconds_of(before), key=stamp)]


def held_limit(from_at: datetime, to_at: datetime) -> int:
    """Return the most bytes that are believed of a step."""
    seconds = min(max((to_at - from_at).total_seconds(), 1), LONGEST_CREDITED_SECONDS)
    return int(LINE_RATE / 8 * seconds)


@dataclass(slots=True)
class Cell:
    """What a stream moved within a minute and an epoch, as it was billed, and as it is now.

    `before` is where its counters stood at `from_at`, `by_minute` what is billed for it.
    `is_start_unknown` tells a cell whose record starts at zero although more had been seen.
    """

    minute: datetime
    from_at: datetime
    end: Snapshot
    before: Counted
    epoch: int
    is_start_unknown: bool
    by_minute: dict[datetime, Bytes]
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> Bytes:
        """All bytes that are billed for it."""
        return Bytes(
            sum(one.uplink for one in self.by_minute.values()),
            sum(one.downlink for one in self.by_minute.values()),
        )

    def absorb(self, following: Cell) -> bool:
        """Take in what followed in the same minute and epoch; false where it did not."""
        if (self.minute, self.epoch) != (following.minute, following.epoch):
            return False
        self.end = following.end
        moved = self.by_minute[self.minute].plus(following.by_minute[self.minute])
        self.by_minute[self.minute] = moved
        self.lost.update(following.lost)
        return True

    def correct(self, shown: Shown) -> None:
        """Take what history shows for what is billed; what was moved away is on record as 0."""
        self.by_minute = dict.fromkeys(self.by_minute, NOTHING) | shown.by_minute
        self.lost = shown.lost

    def shown(
        self, stream: Stream, history: Sequence[Snapshot], *, has_previous: bool
    ) -> Shown | None:
        """Return what history tells, None where it tells nothing, or less than is known.

        `has_previous` tells that the stream has a record before this one among those that are
        compared.
        """
        within = between(history, self.from_at, self.end.collected_at)
        inside = [one for one in within if one.holds(stream)]
        if not inside:
            return None
        just_before = self.from_at - timedelta.resolution
        begin = between(history, just_before, self.from_at + timedelta.resolution)
        is_start_told = any(one.holds(stream) for one in begin)
        if self.is_start_unknown and not is_start_told and not has_previous:
            return None
        by_minute: defaultdict[datetime, Bytes] = defaultdict(Bytes)
        lost: Counter[str] = Counter()
        counted, at = self.before, self.from_at
        for snapshot in (*inside, self.end):
            step = next_step(stream, counted, snapshot)
            if sum(step.moved) > held_limit(at, snapshot.collected_at):
                return None
            if any(step.moved):
                minute = minute_of(snapshot.collected_at)
                by_minute[minute] = by_minute[minute].plus(step.moved)
            lost.update(reset=step.lost, hidden_reset=step.overtaken)
            counted, at = step.counted, snapshot.collected_at
        shown = Shown(dict(by_minute), lost)
        return None if self._knows_more_than(shown) else shown

    def _knows_more_than(self, shown: Shown) -> bool:
        """What is known is never forgotten: neither a minute with bytes, nor any bytes."""
        forgets_minute = any(
            any(moved) and minute not in shown.by_minute for minute, moved in self.by_minute.items()
        )
        is_corrected = len(self.by_minute) > 1
        total = Bytes(
            sum(one.uplink for one in shown.by_minute.values()),
            sum(one.downlink for one in shown.by_minute.values()),
        )
        is_less = total.uplink < self.total.uplink or total.downlink < self.total.downlink
        return is_less or (is_corrected and forgets_minute)
