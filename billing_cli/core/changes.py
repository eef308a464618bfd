"""How a snapshot differs from the totals before it: the input of every decision about it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.succession import ZERO, AccountChange, covers, minus, smaller, total_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import Checkpoint, Snapshot, StreamName, Totals


class Changed(NamedTuple):
    """A known stream, the checkpoint that it goes on from, and its totals now."""

    name: StreamName
    before: Checkpoint
    totals: Totals


@dataclass(frozen=True, slots=True)
class Changes:
    """The streams of a snapshot that are not as they were.

    `changed` were present before, `returned` were absent. `new` have no checkpoint to go on from:
    unknown names, and names whose counters continue elsewhere. `gone` were present before, with
    their last totals. `decreased` are the earlier totals of those of which a counter fell.
    """

    changed: list[Changed] = field(default_factory=list)
    returned: list[Changed] = field(default_factory=list)
    new: dict[StreamName, Totals] = field(default_factory=dict)
    gone: dict[StreamName, Totals] = field(default_factory=dict)
    decreased: dict[StreamName, Totals] = field(default_factory=dict)
    uncertain: dict[str, int] = field(default_factory=dict)

    @property
    def known(self) -> list[Changed]:
        """The streams that go on from a checkpoint."""
        return [*self.changed, *self.returned]

    @property
    def is_present_decreased(self) -> bool:
        """Whether a counter fell of a stream that was present before."""
        return any(name in self.decreased for name, _, _ in self.changed)

    @property
    def grown(self) -> int:
        """How many known streams grew."""
        return len(self.changed) + len(self.returned) - len(self.decreased)


def compare(
    snapshot: Snapshot,
    known: Mapping[StreamName, Checkpoint],
    absent: Collection[StreamName],
    restarted_at: datetime | None,
) -> Changes:
    """Compare a snapshot with the checkpoints of the streams that are known.

    Absent streams that were not seen since `restarted_at` go on from zero. A snapshot without
    samples says nothing about streams: the exporter has no user statistics.
    """
    changes = Changes()
    if not snapshot.totals:
        return changes
    not_before = 0
    for name, totals in snapshot.totals.items():
        before = known.get(name)
        if before is None:
            not_before += 1
            changes.new[name] = totals
        elif absent and name in absent:
            not_before += 1
            # The legacy writer may have applied a stream further than its source's watermark.
            if snapshot.collected_at > before.seen_at:
                _compare_returned(changes, Changed(name, before, totals), restarted_at)
        elif before.totals != totals:
            changes.changed.append(Changed(name, before, totals))
    if len(known) - len(absent) != len(snapshot.totals) - not_before:
        names = [name for name in known if name not in snapshot.totals and name not in absent]
        changes.gone.update((name, known[name].totals) for name in names)
    changes.decreased.update(_decreased(changes.changed))
    changes.decreased.update(_decreased(changes.returned))
    return changes


def begin_again(
    changes: Changes,
    known: Mapping[StreamName, Checkpoint],
    account_of: Callable[[StreamName], str],
) -> None:
    """Let absent streams begin at zero that take over from other streams of their account.

    An upgrade is rolled back whose restart went unnoticed: the former names return, with totals
    that the names in between counted since, which are gone or fall. Where the former names could
    also go on from their own totals, that is what happens if it charges less (decision 6a).
    """
    own = by_account(
        (
            (stream.name, known[stream.name].totals)
            for stream in changes.returned
            if _is_active(stream)
        ),
        account_of,
    )
    fell = [
        stream
        for stream in changes.changed
        if stream.name in changes.decreased and _is_active(stream)
    ]
    ended = by_account(
        [
            *(
                (name, totals)
                for name, totals in changes.gone.items()
                if known[name].state == "active"
            ),
            *((stream.name, stream.before.totals) for stream in fell),
        ],
        account_of,
    )
    counted = by_account(
        [
            *changes.new.items(),
            *((stream.name, stream.totals) for stream in (*changes.returned, *fell)),
        ],
        account_of,
    )
    began: set[StreamName] = set()
    for account in own.keys() & ended.keys():
        before, between = total_of(own[account].values()), total_of(ended[account].values())
        if not covers(total_of(counted[account].values()), between):
            continue
        if sum(between) >= sum(before) or not own[account].keys().isdisjoint(changes.decreased):
            began |= own[account].keys()
        else:
            changes.uncertain[account] = sum(before) - sum(between)
    for place, stream in enumerate(changes.returned):
        if stream.name in began:
            changes.returned[place] = stream._replace(before=from_zero(stream.before))
            changes.decreased.pop(stream.name, None)


def account_changes(
    changes: Changes,
    known: Mapping[StreamName, Checkpoint],
    account_of: Callable[[StreamName], str],
    uncharged: Collection[StreamName] = (),
) -> list[AccountChange]:
    """Group the streams that can be part of a succession by account, where any is gone.

    A stream of which a counter fell, in an account with streams that begin, may be gone and new
    under the same name: its counter was split. Streams that are not charged take no part, nor do
    the new ones that continue them (`uncharged`).
    """
    gone: defaultdict[str, dict[StreamName, Totals]] = defaultdict(dict)
    new: defaultdict[str, dict[StreamName, Totals]] = defaultdict(dict)
    growth: defaultdict[str, dict[StreamName, Totals]] = defaultdict(dict)
    for name, totals in changes.new.items():
        if name not in uncharged:
            new[account_of(name)][name] = totals
    for name, totals in changes.gone.items():
        if known[name].state == "active":
            gone[account_of(name)][name] = totals
    begun = {account_of(stream.name) for stream in changes.returned if stream.before.totals == ZERO}
    for name, before, totals in changes.known:
        account = account_of(name)
        if before.state != "active":
            continue
        if name not in changes.decreased:
            growth[account][name] = minus(totals, before.totals)
        elif account in new or account in begun:
            gone[account][name] = before.totals
            new[account][name] = totals
    return [AccountChange(gone[account], new[account], growth[account]) for account in gone]


def _decreased(streams: Sequence[Changed]) -> dict[StreamName, Totals]:
    """Return the earlier totals of the streams of which a counter fell."""
    return {
        name: before.totals
        for name, before, (uplink, downlink) in streams
        if uplink < before.totals.uplink or downlink < before.totals.downlink
    }


def _compare_returned(changes: Changes, stream: Changed, restarted_at: datetime | None) -> None:
    name, before, totals = stream
    if before.state == "continued":
        changes.new[name] = totals
        return
    was_restarted = restarted_at is not None and before.seen_at < restarted_at
    if was_restarted and before.before_restart is None and totals != before.totals:
        before = from_zero(before)
    changes.returned.append(Changed(name, before, totals))


def from_zero(before: Checkpoint) -> Checkpoint:
    """Return a stream whose counter restarted: its user is owed at most what it has charged."""
    if before.totals == ZERO:
        return before
    owed = smaller(before.surplus or ZERO, before.totals)
    return before._replace(
        totals=ZERO, reset_epoch=before.reset_epoch + 1, surplus=owed if any(owed) else None
    )


def _is_active(stream: Changed) -> bool:
    return stream.before.state == "active"


def by_account(
    streams: Iterable[tuple[StreamName, Totals]], account_of: Callable[[StreamName], str]
) -> dict[str, dict[StreamName, Totals]]:
    """Group streams with their totals by account."""
    accounts: defaultdict[str, dict[StreamName, Totals]] = defaultdict(dict)
    for name, totals in streams:
        accounts[account_of(name)][name] = totals
    return accounts
