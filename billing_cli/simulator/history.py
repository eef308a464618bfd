"""Snapshots, and the history of them that an exporter offers.

An exporter stamps by its own clock, keeps one snapshot for each stamp (a later one replaces it)
and answers sorted by stamp. Where its clock was set the history holds two time lines.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

from billing_cli.core.model import Snapshot as CoreSnapshot
from billing_cli.simulator.publication import Naming, as_counted, publish
from billing_cli.simulator.stamps import NANOSECONDS_PER_SECOND, moment_of, nanoseconds_of

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence
    from datetime import datetime

    from billing_cli.core.model import NodeIdentity, StreamName, Totals
    from billing_cli.simulator.process import Stream

KEPT = timedelta(hours=72)
"""How long an exporter keeps its snapshots."""


@dataclass(eq=False, slots=True)
class Snapshot:
    """The counters of a node at one instant, and under which names they are published.

    `totals` alternates uplink and downlink of the first `len(totals) / 2` of the `streams`, of
    which those in `absent` were not reported. `restarts` counts those of xray before it. `index`
    is its place in true time, `taken_nanoseconds` when that was; the stamp is the exporter's
    word. From `gone_nanoseconds` on it is not offered any more.
    """

    index: int
    stamp_nanoseconds: int
    taken_nanoseconds: int
    published_nanoseconds: int
    restarts: int
    totals: array[int]
    absent: frozenset[int]
    identity: NodeIdentity
    streams: Sequence[Stream]
    naming: Naming = as_counted
    gone_nanoseconds: int | None = None
    forgotten: bool = False
    encoded: bytes | None = None

    @property
    def collected_at(self) -> datetime:
        """The stamp, cut to microseconds."""
        return moment_of(self.stamp_nanoseconds)

    @property
    def late(self) -> bool:
        """Whether it was published later than taken."""
        return self.published_nanoseconds > self.taken_nanoseconds

    def holds(self, stream: Stream) -> bool:
        """Whether the stream's counters are reported here."""
        return 2 * stream.index < len(self.totals) and stream.index not in self.absent

    def published(self) -> dict[StreamName, tuple[Totals, str]]:
        """Return the published totals and e-mail by name."""
        totals = self.totals
        return publish(
            self.naming,
            [
                (stream, uplink, downlink)
                for stream, uplink, downlink in zip(
                    self.streams, totals[::2], totals[1::2], strict=False
                )
                if stream.index not in self.absent
            ],
        )

    def decoded(self) -> CoreSnapshot:
        """Return it as the core gets it from the wire."""
        totals = {name: counted for name, (counted, _) in self.published().items()}
        return CoreSnapshot(self.collected_at, self.identity, totals)


class History:
    """All snapshots that an exporter ever took, and which of them it offers when."""

    def __init__(self) -> None:
        self.by_stamp: list[Snapshot] = []

    def add(self, snapshot: Snapshot) -> None:
        """Keep the snapshot; it replaces the one of the same stamp from when it is published."""
        same = self._standing_at(snapshot.stamp_nanoseconds)
        if same is not None:
            _end(same, snapshot.published_nanoseconds)
        insort(self.by_stamp, snapshot, key=attrgetter("stamp_nanoseconds"))

    def postpone(self, snapshot: Snapshot, nanoseconds: int) -> None:
        """Publish a snapshot later; until then, what it replaced is on offer again."""
        for earlier in self.by_stamp:
            is_replaced = earlier.gone_nanoseconds == snapshot.published_nanoseconds
            if (
                is_replaced
                and earlier.collected_at == snapshot.collected_at
                and earlier is not snapshot
            ):
                earlier.gone_nanoseconds = nanoseconds
        snapshot.published_nanoseconds = nanoseconds

    def lose(self, at: datetime) -> None:
        """Offer nothing from `at` on of what was taken before."""
        moment = nanoseconds_of(at)
        for snapshot in self.by_stamp:
            if snapshot.taken_nanoseconds < moment:
                _end(snapshot, moment)

    def offered(self, present: datetime | None) -> list[Snapshot]:
        """Return what is offered at present, oldest stamp first; None: when all has been taken."""
        if present is None:
            return [
                taken
                for taken in self.by_stamp
                if not taken.forgotten and taken.gone_nanoseconds is None
            ]
        latest = nanoseconds_of(present) + 999
        oldest = latest - int(KEPT.total_seconds()) * NANOSECONDS_PER_SECOND
        kept = bisect_left(self.by_stamp, oldest, key=attrgetter("stamp_nanoseconds"))
        return [
            taken
            for taken in self.by_stamp[kept:]
            if not taken.forgotten
            and taken.published_nanoseconds <= latest
            and (taken.gone_nanoseconds is None or taken.gone_nanoseconds > latest)
        ]

    def _standing_at(self, stamp_nanoseconds: int) -> Snapshot | None:
        """Return what has the stamp, as far as billing keeps its digits, and is still offered."""
        microseconds = stamp_nanoseconds // 1000
        stamp = attrgetter("stamp_nanoseconds")
        begin = bisect_left(self.by_stamp, microseconds * 1000, key=stamp)
        end = bisect_left(self.by_stamp, (microseconds + 1) * 1000, key=stamp)
        same = (taken for taken in self.by_stamp[begin:end] if taken.gone_nanoseconds is None)
        return next(same, None)


def _end(snapshot: Snapshot, nanoseconds: int) -> None:
    if snapshot.gone_nanoseconds is None or nanoseconds < snapshot.gone_nanoseconds:
        snapshot.gone_nanoseconds = nanoseconds
