"""From cumulative snapshots to usage records: the part that must never be wrong.

`advance` applies a node's new snapshots oldest first. Each one is compared with the totals before
it: streams that changed, are new, returned, or are gone. Names that change without their counters
are successions (`succession`), counters that decrease are judged by the snapshots that follow
(`restart`), and what exceeds the plausible rate is held (`plausibility`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from billing_cli.core.model import HeldDelta
from billing_cli.core.plausibility import FULL_CREDIT, NodeCredit
from billing_cli.core.times import minute_of
from billing_cli.core.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import (
        Checkpoint,
        DeltaPolicy,
        Gap,
        Snapshot,
        StreamName,
        StreamOrigin,
        Succession,
        Totals,
        UsageRecord,
    )


@dataclass(frozen=True, slots=True)
class NodeState:
    """What is known of a node before its new snapshots.

    `watermark` is the stamp of the last snapshot that was applied, `samples_at` of the last one
    that held samples. `streams` that were present there carry `samples_at` as their `seen_at`,
    absent ones an earlier stamp. Absent streams not seen since `restarted_at` start from zero.
    `earlier` are totals of LONGEST_DISORDER before the watermark, of streams whose checkpoint may
    be a reading of another clock; they are needed only for streams that were `unsure` without.
    With `awaits_baseline` no sample of the snapshots up to the watermark could be used.
    """

    watermark: datetime | None = None
    samples_at: datetime | None = None
    streams: Mapping[StreamName, Checkpoint] = field(default_factory=dict)
    restarted_at: datetime | None = None
    credit: NodeCredit = FULL_CREDIT
    earlier: Mapping[StreamName, Totals] = field(default_factory=dict)
    awaits_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Advance:
    """What a node's new snapshots amount to.

    `first_at` is the stamp of the first snapshot that was applied, `watermark` of the last.
    `records` are minutes with bytes, in time order; `held` are not charged until an operator
    decides. `checkpoints` holds only streams whose row must change; one whose `seen_at` is before
    `samples_at` is absent. `origins` says how each new stream began. `differences` counts streams
    whose totals in the snapshot at the old watermark are not those that were applied.
    With `waits_for_successor` it stopped before a snapshot in which a counter decreased. `unsure`
    are streams that were taken for restarted, unless their `earlier` totals say otherwise.
    """

    watermark: datetime | None
    samples_at: datetime | None
    differences: int
    first_at: datetime | None = None
    snapshots: int = 0
    samples: int = 0
    records: tuple[UsageRecord, ...] = ()
    held: tuple[HeldDelta, ...] = ()
    checkpoints: Mapping[StreamName, Checkpoint] = field(default_factory=dict)
    origins: Mapping[StreamName, tuple[StreamOrigin, Checkpoint]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    resets: int = 0
    rejected: tuple[str, ...] = ()
    successions: tuple[Succession, ...] = ()
    restarted_at: datetime | None = None
    credit: NodeCredit = FULL_CREDIT
    waits_for_successor: bool = False
    unsure: frozenset[StreamName] = frozenset()


def advance(
    node: NodeState,
    snapshots: Sequence[Snapshot],
    accounts: Mapping[str, str],
    policy: DeltaPolicy,
    *,
    continuity_expected: bool = True,
    decide_now: bool = False,
    is_cut: bool = False,
) -> Advance:
    """Apply the snapshots that are newer than the watermark, oldest first.

    `snapshots` are strictly rising. `accounts` gives the account of each sample uuid that has one.
    With `continuity_expected` the snapshot at the watermark must be among them; where it is not, a
    `history_lost` gap says so. With `decide_now` a decreased counter is not left to the node's
    next snapshot, but where it can be an earlier reading to the next run. Where history `is_cut`,
    the next step has more of it: what the snapshots at its end do not decide is left to that.

    A snapshot in the watermark's own minute is skipped: that minute is closed and written, and
    the counters carry its bytes into the next one. For the same reason a minute whose last
    snapshot has to wait is left out as a whole.
    """
    at_watermark = next(
        (snapshot for snapshot in snapshots if snapshot.collected_at == node.watermark), None
    )
    differences = _differences(node, at_watermark) if at_watermark else 0
    fresh = not_yet_applied(node.watermark, snapshots)
    is_lost = continuity_expected and node.watermark is not None and at_watermark is None
    end = len(fresh)
    while True:
        walk = Walk(node, accounts, policy, is_lost=is_lost)
        stopped = walk.apply_all(fresh, end, decide_now=decide_now, is_cut=is_cut)
        if stopped == end:
            break
        minute = minute_of(fresh[stopped].collected_at)
        end = next(
            i for i, snapshot in enumerate(fresh) if minute_of(snapshot.collected_at) == minute
        )
    return _advance_of(walk, node, differences, waits_for_successor=end < len(fresh))


def hold_takeover(step: Advance, snapshots: Iterable[Snapshot], watermark: datetime) -> Advance:
    """Hold what a node's counters differ by from those that another source reported of it.

    `snapshots` are those of the source that takes over. Where the one at the `watermark` has the
    totals that were applied, the counters go on, and nothing is held. One without samples shows
    nothing.
    """
    has_totals = any(
        snapshot.collected_at == watermark and snapshot.totals for snapshot in snapshots
    )
    goes_on = has_totals and not step.differences
    first = [record for record in step.records if record.from_at <= watermark]
    if goes_on or not first:
        return step
    held = (*step.held, *(HeldDelta(record, "line_rate") for record in first))
    rest = tuple(record for record in step.records if record.from_at > watermark)
    return replace(step, records=rest, held=held)


def not_yet_applied(
    watermark: datetime | None, snapshots: Sequence[Snapshot]
) -> Sequence[Snapshot]:
    """Return the snapshots in minutes after the watermark's own, which is written already."""
    if watermark is None:
        return snapshots
    written_minute = minute_of(watermark)
    return [snapshot for snapshot in snapshots if minute_of(snapshot.collected_at) > written_minute]


def _differences(node: NodeState, at_watermark: Snapshot) -> int:
    """Count the streams whose totals in the snapshot at the watermark are not those applied."""
    if not at_watermark.totals:
        return 0
    present = {
        name: checkpoint.totals
        for name, checkpoint in node.streams.items()
        if checkpoint.seen_at == node.watermark
    }
    reported = at_watermark.totals
    if present == reported:
        return 0
    names = present.keys() | reported.keys()
    return sum(present.get(name) != reported.get(name) for name in names)


def _advance_of(
    walk: Walk, node: NodeState, differences: int, *, waits_for_successor: bool
) -> Advance:
    if not walk.applied:
        return Advance(
            node.watermark,
            node.samples_at,
            differences,
            restarted_at=node.restarted_at,
            credit=node.credit,
            waits_for_successor=waits_for_successor,
        )
    watermark = walk.applied[-1].collected_at
    return Advance(
        watermark=watermark,
        samples_at=walk.samples_at,
        differences=differences,
        first_at=walk.applied[0].collected_at,
        snapshots=len(walk.applied),
        samples=sum(len(snapshot.totals) for snapshot in walk.applied),
        records=tuple(walk.minutes.records),
        held=tuple(walk.minutes.held),
        checkpoints=walk.checkpoints(),
        origins=walk.origins,
        gaps=tuple(walk.gaps.found),
        resets=walk.resets,
        rejected=tuple(reason for snapshot in walk.applied for reason in snapshot.rejected),
        successions=tuple(walk.successions),
        restarted_at=walk.restarted_at,
        credit=walk.minutes.credit.state(watermark),
        waits_for_successor=waits_for_successor,
        unsure=frozenset(walk.unsure),
    )
