"""The counting process of a node: what xray counts, and the log of what truly flowed.

The log is the truth. Counters are what the process would answer, and they start again from zero
with every restart; names under which an exporter publishes them are of no concern here.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.model import StreamName

Direction = Literal["uplink", "downlink"]


class Bytes(NamedTuple):
    """Bytes by direction."""

    uplink: int = 0
    downlink: int = 0

    def plus(self, other: Bytes) -> Bytes:
        """Return the sum by direction."""
        return Bytes(self.uplink + other.uplink, self.downlink + other.downlink)

    def minus(self, other: Bytes) -> Bytes:
        """Return the difference by direction."""
        return Bytes(self.uplink - other.uplink, self.downlink - other.downlink)


class Life(NamedTuple):
    """Which run of a counter pair is meant: restarts of the process, and resets of one direction.

    Two readings of a direction belong to one uninterrupted counter where both numbers agree.
    """

    restarts: int
    uplink_resets: int = 0
    downlink_resets: int = 0


class Movement(NamedTuple):
    """Bytes that were counted: before which snapshot of the node, and in which life."""

    snapshot_index: int
    life: Life
    bytes: Bytes


@dataclass(eq=False, slots=True)
class Stream:
    """One counter pair of a process, and the log of what truly flowed through it.

    `name` is the inbound and the user as xray counts them. `log` holds flat groups of four: index
    of the next snapshot of the node, number of restarts so far, uplink bytes, downlink bytes.
    `spliced` are bytes of connections that xray counts only when they close. `resets` lists the
    resets of one direction as (length of the log then, index of the next snapshot, direction).
    """

    name: StreamName
    email: str
    index: int
    idle: bool = False
    uplink_total: int = 0
    downlink_total: int = 0
    log: array[int] = field(default_factory=lambda: array("q"))
    spliced: Bytes = Bytes()  # noqa: RUF009 -- a frozen tuple
    resets: list[tuple[int, int, Direction]] = field(default_factory=list)

    def movements(self) -> list[tuple[int, int, int, int]]:
        """Return what was counted: (next snapshot's index, restarts so far, uplink, downlink)."""
        columns = (self.log[offset::4] for offset in range(4))
        return list(zip(*columns, strict=True))

    def movements_by_life(self) -> list[Movement]:
        """Return what was counted, each movement with the life of the counters."""
        return [
            Movement(index, self._life(restarts, place=4 * number), Bytes(uplink, downlink))
            for number, (index, restarts, uplink, downlink) in enumerate(self.movements())
        ]

    def life_at(self, index: int, restarts: int) -> Life:
        """Return the life of the counters in the snapshot of that index."""
        return self._life(restarts, index=index)

    def flowed(self) -> Bytes:
        """Return all bytes that ever flowed, those of open spliced connections too."""
        return Bytes(sum(self.log[2::4]), sum(self.log[3::4])).plus(self.spliced)

    def _life(self, restarts: int, *, place: int | None = None, index: int | None = None) -> Life:
        if not self.resets:
            return Life(restarts)
        past = [
            direction
            for length, snapshot, direction in self.resets
            if (place is not None and length <= place) or (index is not None and snapshot <= index)
        ]
        return Life(restarts, past.count("uplink"), past.count("downlink"))


class Process:
    """An xray process with its counters, one pair for each user and inbound that it has served.

    `polls` is the number of snapshots that were taken of it; `restarts` lists the restarts as
    (snapshots before it, moment).
    """

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.restarts: list[tuple[int, datetime]] = []
        self.polls = 0
        self._names: dict[StreamName, Stream] = {}
        self._dropped: set[int] = set()

    def add_stream(self, name: StreamName, *, idle: bool) -> Stream:
        """Add a counter pair that starts at 0. Raises ValueError where there is one already."""
        if name in self._names:
            raise ValueError(f"the process already has {name}")
        email = f"{name.sample_uuid.partition('-')[0]}@example.com"
        stream = Stream(name, email, len(self.streams), idle)
        self.streams.append(stream)
        self._names[name] = stream
        return stream

    def flow(self, stream: Stream, uplink: int, downlink: int) -> None:
        """Let bytes flow that are counted at once."""
        stream.uplink_total += uplink
        stream.downlink_total += downlink
        stream.log.extend((self.polls, len(self.restarts), uplink, downlink))
        if self._dropped:
            self._dropped.discard(stream.index)

    def splice(self, stream: Stream, uplink: int, downlink: int) -> None:
        """Let bytes flow through a spliced connection: they are counted when it closes."""
        stream.spliced = stream.spliced.plus(Bytes(uplink, downlink))

    def close_splices(self, stream: Stream) -> None:
        """Close the spliced connections of a stream, which counts their bytes."""
        moved, stream.spliced = stream.spliced, Bytes()
        self.flow(stream, *moved)

    def restart(self, at: datetime, *, drop_counters: bool) -> None:
        """Start all counters from 0; spliced connections end, and their bytes go with the rest."""
        for stream in self.streams:
            if any(stream.spliced):
                self.close_splices(stream)
            stream.uplink_total = stream.downlink_total = 0
        if drop_counters:
            self._dropped.update(range(len(self.streams)))
        self.restarts.append((self.polls, at))

    def reset_counter(self, stream: Stream, direction: Direction) -> None:
        """Start one counter of a pair from 0, as a query of xray's statistics with reset does."""
        stream.resets.append((len(stream.log), self.polls, direction))
        if direction == "uplink":
            stream.uplink_total = 0
        else:
            stream.downlink_total = 0

    def read(self) -> tuple[array[int], frozenset[int]]:
        """Return the totals, uplink and downlink in turn, and the indexes of absent streams."""
        totals = array("q")
        for stream in self.streams:
            totals.append(stream.uplink_total)
            totals.append(stream.downlink_total)
        self.polls += 1
        return totals, frozenset(self._dropped)
