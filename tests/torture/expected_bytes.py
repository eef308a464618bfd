"""What each minute must show, from the true flow of bytes and from which snapshots were read.

The books that an honest biller keeps by docs/design.md and docs/reconcile.md, kept a second time.
No difference of counters is taken here: the simulator's log tells what flowed, and each byte ends
in exactly one place: a bucket, usage that waits for its account, a held delta, or `lost`, by the
reason why nobody can bill it. What the program says of bytes or money is never looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.times import MINUTE, minute_of
from billing_cli.simulator.oracle import BucketName, Bytes
from tests.torture.expected_cells import Cell, Counted, between, held_limit, next_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from billing_cli.simulator.traffic import Node, Snapshot, Stream, User

NOTHING = Bytes()

# Further back no clock of an exporter is ever set.
LONGEST_AGO = timedelta(days=1)


class HeldBytes(NamedTuple):
    """More than a line can carry: which stream, from where on, and how much."""

    followed: Followed
    from_at: datetime
    moved: Bytes


@dataclass(eq=False, slots=True)
class Followed:
    """A stream as one who reads snapshots knows it.

    `owner` is the account that it was found to belong to, for good. `waiting` are its bytes that
    nobody could be charged for yet. `lost` are those that nobody ever can be, by reason.
    """

    node: Node
    stream: Stream
    counted: Counted = field(default_factory=Counted)
    epoch: int = 0
    seen: Snapshot | None = None
    is_present: bool = False
    owner: str | None = None
    waiting: Bytes = NOTHING
    held: Bytes = NOTHING
    cells: list[Cell] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)

    def bucket(self, minute: datetime) -> BucketName:
        """Return the bucket of the owner's bytes on this line in a minute."""
        if self.owner is None:
            raise AssertionError("bytes of nobody have no bucket")
        tag = self.stream.name.inbound_tag
        return BucketName(minute, self.node.identity.stored, self.owner, tag)

    def apply(self, snapshot: Snapshot, previous: Snapshot | None) -> Cell | HeldBytes | None:
        """Go on to a snapshot that holds the stream; return what moved, if anything did.

        `previous` is the snapshot of the node that was applied before; without one this is the
        source's first, whose totals are a baseline.
        """
        before, began_at = self.counted, self._from(previous)
        step = next_step(self.stream, before, snapshot)
        self.counted, self.seen = step.counted, snapshot
        if previous is None:
            self.lost["baseline"] += sum(step.counted.told) + step.lost
            return None
        self.lost["reset"] += step.lost
        self.lost["hidden_reset"] += step.overtaken
        self.epoch += step.is_restart
        if not any(step.moved):
            return None
        if sum(step.moved) > held_limit(began_at, snapshot.collected_at):
            return HeldBytes(self, began_at, step.moved)
        starts_at_zero = step.is_restart or not any(before.told)
        return Cell(
            minute=minute_of(snapshot.collected_at),
            from_at=began_at,
            end=snapshot,
            before=before,
            epoch=self.epoch,
            is_start_unknown=self.epoch > 0 and starts_at_zero,
            by_minute={minute_of(snapshot.collected_at): step.moved},
            lost=Counter(reset=step.lost, hidden_reset=step.overtaken),
        )

    def _from(self, previous: Snapshot | None) -> datetime:
        """Return since when what moved may have moved: from when the stream was last seen."""
        if self.seen is not None and not self.is_present:
            return self.seen.collected_at
        return previous.collected_at if previous else self.node.start


class Advanced(NamedTuple):
    """What a node's new snapshots add to buckets, and what of them is held."""

    buckets: dict[BucketName, Bytes]
    held: list[HeldBytes]


class FollowedNode:
    """A node as one who reads its snapshots knows it, up to `watermark`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.watermark: datetime | None = None
        self.applied: Snapshot | None = None
        self.streams: list[Followed] = []

    def advance(
        self, offered: Sequence[Snapshot], watermark: datetime, users: Sequence[User]
    ) -> Advanced:
        """Apply what was offered up to the new watermark; charge it to the users that exist.

        Raises AssertionError where the watermark is no snapshot that was offered, or no progress.
        """
        old = self.watermark
        assert old is None or minute_of(watermark) > minute_of(old), f"{old} went to {watermark}"
        self._meet_new_streams()
        since = old or self.node.start - LONGEST_AGO
        read = between(offered, since - timedelta.resolution, watermark + timedelta.resolution)
        assert read, f"nobody said {watermark}"
        assert read[-1].collected_at == watermark, f"nobody said {watermark}"
        fresh = [one for one in read if old is None or minute_of(one.collected_at) > minute_of(old)]
        may_be_owned = {one for one in self.streams if one.is_present or any(one.waiting)}
        may_be_owned |= {one for one in self.streams if any(map_holds(read, one.stream))}
        moved, held = self._walk(fresh)
        may_be_owned |= moved.keys()
        self.watermark, self.applied = watermark, fresh[-1]
        self._find_owners(may_be_owned, users)

        payers = {user.uuid for user in users}
        buckets: defaultdict[BucketName, Bytes] = defaultdict(Bytes)
        for followed in self.streams:
            cells = moved.get(followed, [])
            if followed.owner not in payers:
                for cell in cells:
                    followed.waiting = followed.waiting.plus(cell.total)
                continue
            for cell in cells:
                followed.cells.append(cell)
                for minute, amount in cell.by_minute.items():
                    name = followed.bucket(minute)
                    buckets[name] = buckets[name].plus(amount)
            if any(followed.waiting):
                name = followed.bucket(minute_of(watermark))
                buckets[name] = buckets[name].plus(followed.waiting)
                followed.waiting = NOTHING
        return Advanced(dict(buckets), held)

    def compare(
        self,
        offered: Sequence[Snapshot],
        since: datetime,
        until: datetime,
        users: Iterable[User],
        *,
        within: tuple[datetime, datetime] | None = None,
    ) -> dict[BucketName, Bytes]:
        """Hold the cells that end in [since, until) against history; return what changes.

        The change is made where `within` gives the first and the last minute in which it was.
        """
        payers = {user.uuid for user in users}
        changes: defaultdict[BucketName, Bytes] = defaultdict(Bytes)
        for followed in self.streams:
            if followed.owner not in payers:
                continue
            previous: Cell | None = None
            for cell in followed.cells:
                if not since <= cell.minute < until:
                    continue
                shown = cell.shown(followed.stream, offered, has_previous=previous is not None)
                previous = cell
                if shown is None or not (within is None or within[0] <= cell.minute <= within[1]):
                    continue
                for minute in cell.by_minute.keys() | shown.by_minute.keys():
                    was = cell.by_minute.get(minute, NOTHING)
                    now = shown.by_minute.get(minute, NOTHING)
                    name = followed.bucket(minute)
                    changes[name] = changes[name].plus(minus(now, was))
                if within is not None:
                    followed.lost.subtract(cell.lost)
                    followed.lost.update(shown.lost)
                    cell.correct(shown)
        return {name: moved for name, moved in changes.items() if any(moved)}

    def forget_cells_before(self, moment: datetime) -> None:
        """Forget what is never compared again: history does not reach back that far."""
        for followed in self.streams:
            followed.cells = [one for one in followed.cells if one.minute >= moment]

    def is_current(self, offered: Sequence[Snapshot], until: datetime) -> bool:
        """Whether nothing is on offer in closed minutes after the watermark's."""
        began_at = self.node.start - LONGEST_AGO
        since = minute_of(self.watermark) + MINUTE if self.watermark else began_at
        return not between(offered, since - timedelta.resolution, until)

    def _meet_new_streams(self) -> None:
        for stream in self.node.streams[len(self.streams) :]:
            self.streams.append(Followed(self.node, stream))

    def _walk(
        self, fresh: Sequence[Snapshot]
    ) -> tuple[dict[Followed, list[Cell]], list[HeldBytes]]:
        """Apply the snapshots; what one stream moved within a minute and an epoch is one cell."""
        moved: dict[Followed, list[Cell]] = {}
        held: list[HeldBytes] = []
        sealed: set[Followed] = set()
        previous = self.applied
        for snapshot in fresh:
            for followed in self.streams:
                if not snapshot.holds(followed.stream):
                    if followed.is_present:
                        moved.setdefault(followed, [])
                    followed.is_present = False
                    continue
                if followed.seen is None:
                    moved.setdefault(followed, [])
                found = followed.apply(snapshot, previous)
                followed.is_present = True
                if isinstance(found, HeldBytes):
                    held.append(found)
                    followed.held = followed.held.plus(found.moved)
                    moved.setdefault(followed, [])
                    sealed.add(followed)
                elif found is not None:
                    cells = moved.setdefault(followed, [])
                    if followed in sealed or not (cells and cells[-1].absorb(found)):
                        cells.append(found)
                    sealed.discard(followed)
            previous = snapshot
        return moved, held

    def _find_owners(self, candidates: Iterable[Followed], users: Sequence[User]) -> None:
        own = {user.uuid: user.uuid for user in users}
        by_proxy: defaultdict[str, list[str]] = defaultdict(list)
        for user in users:
            by_proxy[user.proxy_uuid].append(user.uuid)
        for followed in candidates:
            if followed.owner is None:
                sample = followed.stream.name.sample_uuid
                proxied = by_proxy.get(sample, [])
                followed.owner = own.get(sample) or (proxied[0] if len(proxied) == 1 else None)


def map_holds(snapshots: Iterable[Snapshot], stream: Stream) -> Iterable[bool]:
    """Tell of each snapshot whether it holds the stream."""
    return (one.holds(stream) for one in snapshots)


def minus(left: Bytes, right: Bytes) -> Bytes:
    """Return the difference by direction."""
    return Bytes(left.uplink - right.uplink, left.downlink - right.downlink)
