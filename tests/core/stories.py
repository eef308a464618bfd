"""Short ways to write snapshots down, and the part of the store that the core relies on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from billing_cli.core.deltas import Advance, advance
from billing_cli.core.model import (
    Checkpoint,
    DeltaPolicy,
    Gap,
    NodeIdentity,
    Snapshot,
    StreamName,
    Totals,
    UsageRecord,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NODE = NodeIdentity("prod", "jp-1.svc.plus")
NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)

ALICE = StreamName("xhttp", "11111111-1111-1111-1111-111111111111")
ALICE_TCP = StreamName("tcp", "11111111-1111-1111-1111-111111111111")
BOB = StreamName("xhttp", "22222222-2222-2222-2222-222222222222")

BELIEVE_ALL = DeltaPolicy(account_rate_bits_per_second=0)


def after_noon(clock: str) -> datetime:
    """Return the moment that is `minutes:seconds` after noon, such as `01:30`."""
    minutes, seconds = clock.split(":")
    return NOON + timedelta(minutes=int(minutes), seconds=float(seconds))


def snapshot(
    clock: str,
    totals: Mapping[StreamName, tuple[int, int]],
    *,
    rejected: tuple[str, ...] = (),
) -> Snapshot:
    """Return a snapshot taken at `minutes:seconds` after noon, with (uplink, downlink) totals."""
    counters = {name: Totals(*pair) for name, pair in totals.items()}
    return Snapshot(after_noon(clock), NODE, counters, rejected)


def alice(clock: str, uplink: int, downlink: int = 0) -> Snapshot:
    """Return a snapshot of a node that only Alice uses."""
    return snapshot(clock, {ALICE: (uplink, downlink)})


def record(
    name: StreamName,
    clocks: tuple[str, str],
    start: tuple[int, int],
    end: tuple[int, int],
    epoch: int = 0,
) -> UsageRecord:
    """Return the record of what grew from `start` to `end` between two moments after noon."""
    from_at, to_at = (after_noon(clock) for clock in clocks)
    minute = to_at.replace(second=0, microsecond=0)
    return UsageRecord(name, minute, epoch, from_at, to_at, Totals(*start), Totals(*end))


def first_run(*snapshots: Snapshot, policy: DeltaPolicy = BELIEVE_ALL) -> Advance:
    """Return what a source's first snapshots amount to."""
    return advance(None, {}, snapshots, policy)


@dataclass
class Books:
    """What the store keeps of one source between runs, by the store's own rules.

    A stream that the snapshot at the watermark held was seen there, whether or not its row was
    written; one that it did not hold keeps the stamp at which it vanished.
    """

    policy: DeltaPolicy = BELIEVE_ALL
    watermark: datetime | None = None
    rows: dict[StreamName, tuple[Totals, int, datetime | None]] = field(default_factory=dict)
    baselines: dict[StreamName, Totals] = field(default_factory=dict)
    records: list[UsageRecord] = field(default_factory=list)
    held: list[UsageRecord] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    resets: int = 0

    def run(self, *snapshots: Snapshot) -> Advance:
        """Apply the snapshots as a run does, keep what it leaves, and return what it did."""
        step = advance(self.watermark, self.checkpoints(snapshots), snapshots, self.policy)
        self.watermark = step.watermark
        for name, one in step.checkpoints.items():
            is_absent = step.watermark is not None and one.seen_at < step.watermark
            self.rows[name] = one.totals, one.reset_epoch, one.seen_at if is_absent else None
        for name, (first_sight, first) in step.first_sights.items():
            if first_sight == "baseline":
                self.baselines[name] = first.totals
        self.records.extend(step.records)
        self.held.extend(step.held)
        self.gaps.extend(step.gaps)
        self.resets += step.resets
        return step

    def checkpoints(self, snapshots: Sequence[Snapshot]) -> dict[StreamName, Checkpoint]:
        """Return the known streams: the present ones, and the vanished that are met again."""
        if self.watermark is None:
            return {}
        named = {name for one in snapshots for name in one.totals}
        return {
            name: Checkpoint(absent_since or self.watermark, totals, epoch)
            for name, (totals, epoch, absent_since) in self.rows.items()
            if absent_since is None or name in named
        }
