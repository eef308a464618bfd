"""From cumulative snapshots to usage records: the part that must never be wrong.

A stream's counters only grow, and start again from zero when xray restarts. `advance` walks a
source's snapshots oldest first and turns each step of each stream into bytes with evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from billing_cli.core.makers import maker
from billing_cli.core.model import (
    MAX_TOTAL,
    Checkpoint,
    DeltaPolicy,
    FirstSight,
    Gap,
    Snapshot,
    StreamName,
    Totals,
    UsageRecord,
)
from billing_cli.core.times import minute_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ZERO = Totals(0, 0)

_checkpoint = maker(Checkpoint)
_usage_record = maker(UsageRecord)

LONGEST_CREDITED_SECONDS = 72 * 3600.0
EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Advance:
    """What a source's new snapshots amount to.

    `first_at` is the stamp of the first snapshot that was applied, `watermark` of the last.
    `records` are minutes with bytes, in time order. `held` has the shape of records, but their
    bytes are more than a line can carry and are not to be charged. `checkpoints` holds only
    streams whose row must change; one whose `seen_at` is before `watermark` has vanished.
    `first_sights` says how the history of each new stream began. `differences` counts streams
    whose totals at the old watermark are not those that were seen there.
    """

    watermark: datetime | None
    differences: int
    first_at: datetime | None = None
    snapshots: int = 0
    samples: int = 0
    records: tuple[UsageRecord, ...] = ()
    held: tuple[UsageRecord, ...] = ()
    checkpoints: Mapping[StreamName, Checkpoint] = field(default_factory=dict)
    first_sights: Mapping[StreamName, tuple[FirstSight, Checkpoint]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    resets: int = 0
    rejected: tuple[str, ...] = ()


def advance(
    watermark: datetime | None,
    checkpoints: Mapping[StreamName, Checkpoint],
    snapshots: Sequence[Snapshot],
    policy: DeltaPolicy,
    *,
    continuity_expected: bool = True,
) -> Advance:
    """Apply the snapshots that are newer than the watermark, oldest first.

    `checkpoints` are the source's known streams; those present at the watermark carry it as their
    `seen_at`, those that had vanished before carry the last snapshot that held them.
    `snapshots` are strictly rising. With `continuity_expected` the snapshot at the watermark must
    be met again among them; where it is not, a `history_lost` gap says so.

    A snapshot in the watermark's own minute is passed over: that minute is closed and written,
    and the counters carry its bytes into the next one.
    """
    fresh = not_yet_applied(watermark, snapshots)
    met = next((one for one in snapshots if one.collected_at == watermark), None)
    differences = 0
    if met is not None:
        differences = _differences(watermark, checkpoints, met)
    if not fresh:
        return Advance(watermark, differences)

    continuity_lost = continuity_expected and watermark is not None and met is None
    walk = _Walk(watermark, checkpoints, policy, continuity_lost=continuity_lost)
    for minute, together in groupby(fresh, lambda one: minute_of(one.collected_at)):
        walk.apply_minute(minute, list(together))
    return walk.finish(fresh, differences)


def not_yet_applied(
    watermark: datetime | None, snapshots: Sequence[Snapshot]
) -> Sequence[Snapshot]:
    """Return the snapshots in minutes after the watermark's own, which is written already."""
    if watermark is None:
        return snapshots
    written_minute = minute_of(watermark)
    return [one for one in snapshots if minute_of(one.collected_at) > written_minute]


def plausible_bytes(policy: DeltaPolicy, elapsed_seconds: float) -> int:
    """Return the most bytes a stream can have moved in the time.

    At least a second's worth, and at most that of the history which exporters keep: the stamp of
    a clock that once stood at 1970 must not make room for anything.
    """
    if policy.account_rate_bits_per_second <= 0:
        return MAX_TOTAL
    credited_seconds = min(max(elapsed_seconds, 1.0), LONGEST_CREDITED_SECONDS)
    return min(int(policy.account_rate_bits_per_second / 8 * credited_seconds), MAX_TOTAL)


def _differences(
    watermark: datetime | None, checkpoints: Mapping[StreamName, Checkpoint], met: Snapshot
) -> int:
    """Count the streams that the snapshot at the watermark now tells differently."""
    present = {name: one.totals for name, one in checkpoints.items() if one.seen_at == watermark}
    told = met.totals
    if present == told:
        return 0
    return sum(present.get(name) != told.get(name) for name in present.keys() | told.keys())


def _just_before(at: datetime) -> datetime:
    """Return where the evidence of a charged first snapshot begins: nothing is known before it.

    Records of a stream are told apart by where they begin, and the next one begins at `at`.
    """
    return at - min(timedelta.resolution, at - EARLIEST)


def _joined(steps: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Return the steps of one minute with those joined that follow each other in a stream."""
    finished: list[UsageRecord] = []
    last: dict[StreamName, UsageRecord] = {}
    for record in steps:
        joined = record
        earlier = last.get(record.name)
        if earlier is not None:
            if earlier.reset_epoch == record.reset_epoch and earlier.end == record.start:
                joined = record._replace(from_at=earlier.from_at, start=earlier.start)
            else:
                finished.append(earlier)
        last[record.name] = joined
    return [*finished, *last.values()]


class _Walk:
    """The state of one `advance`: mutable inside, never seen outside."""

    def __init__(
        self,
        watermark: datetime | None,
        checkpoints: Mapping[StreamName, Checkpoint],
        policy: DeltaPolicy,
        *,
        continuity_lost: bool,
    ) -> None:
        self.policy = policy
        self.previous_at = watermark
        self.continuity_lost = continuity_lost
        self.known = dict(checkpoints)
        self.absent = {name for name, one in checkpoints.items() if one.seen_at != watermark}
        # In the order in which they were touched first; some more than once.
        self.touched: list[StreamName] = []
        self.first_sights: dict[StreamName, tuple[FirstSight, Checkpoint]] = {}
        self.minute: datetime
        self.steps: list[UsageRecord] = []
        self.records: list[UsageRecord] = []
        self.held: list[UsageRecord] = []
        self.gaps: list[Gap] = []
        self.rejected: list[str] = []
        self.resets = 0
        self.samples = 0
        self.limit_from: datetime | None = None
        self.limit: int

    def apply_minute(self, minute: datetime, snapshots: Sequence[Snapshot]) -> None:
        """Apply all snapshots of one minute."""
        self.minute = minute
        for snapshot in snapshots:
            self._apply(snapshot)
        # Nearly every minute has one snapshot, and no stream that moved in it twice.
        self.records += self.steps if len(snapshots) == 1 else _joined(self.steps)
        self.steps.clear()

    def _apply(self, snapshot: Snapshot) -> None:
        at, previous_at = snapshot.collected_at, self.previous_at
        resets_before = self.resets
        self.limit_from = None

        known, absent = self.known, self.absent
        for name, totals in snapshot.totals.items():
            before = known.get(name)
            if before is None:
                self._first_sight(name, totals, at)
            elif absent and name in absent:
                if at <= before.seen_at:
                    # An older writer has seen this stream further than its source's watermark.
                    continue
                absent.discard(name)
                self._step(name, before, before.seen_at, totals, at)
            elif before.totals != totals:
                self._step(name, before, previous_at or at, totals, at)
        if len(known) - len(absent) != len(snapshot.totals):
            self._vanish(snapshot, previous_at or at)

        self._note_gaps(previous_at, at, self.resets - resets_before)
        self.previous_at = at
        self.samples += len(snapshot.totals)
        self.rejected.extend(snapshot.rejected)

    def finish(self, applied: Sequence[Snapshot], differences: int) -> Advance:
        """Return what all of it comes to."""
        watermark = applied[-1].collected_at
        checkpoints = {}
        for name in self.touched:
            checkpoint = self.known[name]
            if checkpoint.seen_at != watermark and name not in self.absent:
                checkpoint = checkpoint._replace(seen_at=watermark)
            checkpoints[name] = checkpoint
        return Advance(
            watermark=watermark,
            differences=differences,
            first_at=applied[0].collected_at,
            snapshots=len(applied),
            samples=self.samples,
            records=tuple(self.records),
            held=tuple(self.held),
            checkpoints=checkpoints,
            first_sights=self.first_sights,
            gaps=tuple(self.gaps),
            resets=self.resets,
            rejected=tuple(self.rejected),
        )

    def _first_sight(self, name: StreamName, totals: Totals, at: datetime) -> None:
        """A source's first snapshot is a baseline; a stream that appears later began at zero."""
        previous_at = self.previous_at
        checkpoint = Checkpoint(at, totals)
        if previous_at is None and not self.policy.charge_first_snapshot:
            self.known[name] = checkpoint
            self.touched.append(name)
            self.first_sights[name] = "baseline", checkpoint
            return
        self.first_sights[name] = "new", checkpoint
        from_at = previous_at or _just_before(at)
        self._step(
            name,
            Checkpoint(from_at, ZERO),
            from_at,
            totals,
            at,
            is_plausible=previous_at is None,
        )

    def _step(
        self,
        name: StreamName,
        before: Checkpoint,
        from_at: datetime,
        totals: Totals,
        at: datetime,
        *,
        is_plausible: bool = False,
    ) -> None:
        _, start, epoch = before
        uplink, downlink = totals
        uplink_before, downlink_before = start
        if uplink < uplink_before or downlink < downlink_before:
            # Either counter below its last value means that the process restarted, so both
            # began again at zero (what Prometheus' increase() assumes as well).
            uplink_before, downlink_before = start = ZERO
            epoch += 1
            self.resets += 1
        self.known[name] = _checkpoint((at, totals, epoch))
        self.touched.append(name)
        moved = uplink - uplink_before + downlink - downlink_before
        if not moved:
            return
        if from_at is not self.limit_from:
            self._limit(from_at, at)
        record = _usage_record((name, self.minute, epoch, from_at, at, start, totals))
        if moved > self.limit and not is_plausible:
            self.held.append(record)
        else:
            self.steps.append(record)

    def _limit(self, from_at: datetime, at: datetime) -> None:
        """Set what a stream can have moved; nearly all of a snapshot's go the same way."""
        self.limit_from = from_at
        self.limit = plausible_bytes(self.policy, (at - from_at).total_seconds())

    def _vanish(self, snapshot: Snapshot, last_held_at: datetime) -> None:
        for name in self.known.keys() - snapshot.totals.keys() - self.absent:
            self.known[name] = self.known[name]._replace(seen_at=last_held_at)
            self.absent.add(name)
            self.touched.append(name)

    def _note_gaps(self, previous_at: datetime | None, at: datetime, resets: int) -> None:
        if previous_at is None:
            return
        if self.continuity_lost:
            self.gaps.append(Gap("history_lost", previous_at, at))
            self.continuity_lost = False
        elif (at - previous_at).total_seconds() > self.policy.late_after_seconds:
            self.gaps.append(Gap("late", previous_at, at))
        if resets:
            self.gaps.append(Gap("reset", previous_at, at, streams=resets))
