"""True traffic of a fleet: users, nodes, streams, and the snapshots that exporters take of them.

Pure and reproducible: one seed gives one history, and time is whatever the caller says. Bytes
are whole bytes, rates are bytes per second, moments are aware UTC datetimes.
"""

from __future__ import annotations

import random
import uuid
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter

from billing_cli.core.model import NodeIdentity, StreamName
from billing_cli.simulator.stamps import (
    NANOSECONDS_PER_SECOND,
    moment_of,
    nanoseconds_of,
)

DEFAULT_START = datetime(2026, 4, 8, 12, tzinfo=UTC)
DEFAULT_RATE = 100_000.0
HISTORY = timedelta(hours=72)
"""How long an exporter keeps its snapshots."""


@dataclass(eq=False, slots=True)
class User:
    """An account of accounts.svc.plus. `former_proxy_uuids` were its own before a renewal."""

    uuid: str
    proxy_uuid: str
    email: str
    former_proxy_uuids: list[str] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Stream:
    """One counter pair of a node, and the log of what truly flowed through it.

    `log` holds flat groups of four: index of the next snapshot of the node, number of restarts
    so far, uplink bytes, downlink bytes. The totals are what exporters show; the log is the truth.
    """

    name: StreamName
    email: str
    index: int
    idle: bool = False
    uplink_total: int = 0
    downlink_total: int = 0
    log: array[int] = field(default_factory=lambda: array("q"))

    def movements(self) -> list[tuple[int, int, int, int]]:
        """Return what flowed: (next snapshot's index, restarts so far, uplink, downlink)."""
        columns = (self.log[offset::4] for offset in range(4))
        return list(zip(*columns, strict=True))


@dataclass(eq=False, slots=True)
class Snapshot:
    """The counters of a node at one instant.

    `totals` alternates uplink and downlink of the node's first `len(totals) / 2` streams, of
    which those in `absent` were not reported. `restarts` counts those of xray before it.
    """

    index: int
    stamp_nanoseconds: int
    published_nanoseconds: int
    restarts: int
    totals: array[int]
    absent: frozenset[int]
    forgotten: bool = False
    encoded: bytes | None = None

    @property
    def collected_at(self) -> datetime:
        """The stamp, cut to microseconds."""
        return moment_of(self.stamp_nanoseconds)

    @property
    def late(self) -> bool:
        """Whether it was published later than taken."""
        return self.published_nanoseconds > self.stamp_nanoseconds

    def holds(self, stream: Stream) -> bool:
        """Whether the stream is reported here."""
        return 2 * stream.index < len(self.totals) and stream.index not in self.absent


class Node:
    """A proxy node with its exporter. Made by `Fleet.add_node`."""

    def __init__(
        self, source_id: str, identity: NodeIdentity, start: datetime, rng: random.Random
    ) -> None:
        self.source_id = source_id
        self.identity = identity
        self.start = start
        self.now = start
        self.streams: list[Stream] = []
        self.snapshots: list[Snapshot] = []
        self.restarts: list[tuple[int, datetime]] = []
        self.outages: list[tuple[datetime, datetime]] = []
        self.poll_jitter_seconds = 0.25
        self.clock_error = timedelta()
        self._polled_at: datetime | None = None
        self._hidden: list[tuple[int, datetime, datetime]] = []
        self._dropped: set[int] = set()
        self._names: set[StreamName] = set()
        self._rng = rng

    def add_stream(self, sample_uuid: str, inbound_tag: str = "", *, idle: bool = False) -> Stream:
        """Add a counter pair that starts at 0. An idle one moves by `flow` only, never by `run`."""
        name = StreamName(inbound_tag, sample_uuid)
        if name in self._names:
            raise ValueError(f"{self.source_id} already has {name}")
        email = f"{sample_uuid.partition('-')[0]}@example.com"
        stream = Stream(name, email, len(self.streams), idle)
        self.streams.append(stream)
        self._names.add(name)
        return stream

    def flow(self, stream: Stream, uplink: int, downlink: int) -> None:
        """Let bytes flow now: after the last snapshot, before the next."""
        stream.uplink_total += uplink
        stream.downlink_total += downlink
        stream.log.extend((len(self.snapshots), len(self.restarts), uplink, downlink))
        if self._dropped:
            self._dropped.discard(stream.index)

    def run(
        self,
        until: datetime,
        poll_seconds: float = 60.0,
        rate: float = DEFAULT_RATE,
        activity: float = 0.7,
    ) -> None:
        """Advance to `until` with random traffic, polled on the grid that begins at the start.

        Polls stand in [now, until), so that runs chain without a seam. `rate` is the mean of a
        stream that is busy in an interval, `activity` the share of intervals in which it is.
        Polls within an outage are skipped while the traffic flows on; so are those that the
        exporter's clock, set back, would stamp before what it has.
        """
        step = timedelta(seconds=poll_seconds)
        poll = self.start + -((self.start - self.now) // step) * step
        while poll < until:
            self._advance(poll, rate, activity)
            if not self._already_polled(poll) and not self.is_down(poll):
                jitter = self._rng.randrange(int(self.poll_jitter_seconds * 1e6) + 1)
                at = poll + timedelta(microseconds=jitter)
                if not self.snapshots or at + self.clock_error > self.snapshots[-1].collected_at:
                    self.snapshot(at)
            poll += step
        self._advance(until, rate, activity)

    def snapshot(self, at: datetime, published_at: datetime | None = None) -> Snapshot:
        """Record a snapshot; the digits below microseconds are made up, as a real clock has them.

        Its stamp is off by the exporter's `clock_error`. Raises ValueError where that is not
        later than the one before.
        """
        stamp = nanoseconds_of(at + self.clock_error) + self._rng.randrange(1000)
        if self.snapshots and stamp // 1000 <= self.snapshots[-1].stamp_nanoseconds // 1000:
            raise ValueError(f"{self.source_id} already has a snapshot at or after {at}")
        totals = array("q")
        for stream in self.streams:
            totals.append(stream.uplink_total)
            totals.append(stream.downlink_total)
        hidden = {index for index, since, until in self._hidden if since <= at < until}
        snapshot = Snapshot(
            index=len(self.snapshots),
            stamp_nanoseconds=stamp,
            published_nanoseconds=nanoseconds_of(max(at, published_at or at)),
            restarts=len(self.restarts),
            totals=totals,
            absent=frozenset(hidden | self._dropped),
        )
        self.snapshots.append(snapshot)
        self._polled_at = at
        self.now = max(self.now, at)
        return snapshot

    def restart_xray(self, at: datetime, *, drop_counters: bool = False) -> None:
        """Restart the counters from 0: what flowed since the last snapshot can never be known.

        With `drop_counters` a stream is missing from snapshots until it moves again.
        """
        for stream in self.streams:
            stream.uplink_total = stream.downlink_total = 0
        if drop_counters:
            self._dropped.update(range(len(self.streams)))
        self.restarts.append((len(self.snapshots), at))
        self.now = max(self.now, at)

    def hide(self, since: datetime, until: datetime) -> None:
        """Take the exporter down for [since, until): no polls then, traffic flows on."""
        self.outages.append((since, until))

    def hide_stream(self, stream: Stream, since: datetime, until: datetime) -> None:
        """Leave the stream out of the snapshots taken in [since, until)."""
        self._hidden.append((stream.index, since, until))

    def withhold(self, since: datetime, until: datetime, published_at: datetime) -> None:
        """Publish the snapshots taken so far in [since, until) only at `published_at`."""
        for snapshot in self.snapshots:
            if since <= snapshot.collected_at < until:
                snapshot.published_nanoseconds = nanoseconds_of(published_at)

    def forget_before(self, at: datetime) -> None:
        """Lose the history before `at`, as an exporter does that restarts."""
        for snapshot in self.snapshots:
            snapshot.forgotten = snapshot.forgotten or snapshot.collected_at < at

    def is_down(self, at: datetime) -> bool:
        """Whether the exporter is in an outage then."""
        return any(since <= at < until for since, until in self.outages)

    def published(self, present: datetime | None) -> list[Snapshot]:
        """Return what the exporter offers at present, oldest first; None: all that it ever took."""
        if present is None:
            return [snapshot for snapshot in self.snapshots if not snapshot.forgotten]
        latest = nanoseconds_of(present) + 999
        oldest = latest - int(HISTORY.total_seconds()) * NANOSECONDS_PER_SECOND
        kept = bisect_left(self.snapshots, oldest, key=attrgetter("stamp_nanoseconds"))
        return [
            snapshot
            for snapshot in self.snapshots[kept:]
            if not snapshot.forgotten and snapshot.published_nanoseconds <= latest
        ]

    def _advance(self, moment: datetime, rate: float, activity: float) -> None:
        seconds = (moment - self.now).total_seconds()
        if seconds <= 0:
            return
        draw = self._rng.random
        most = 2 * rate * seconds
        for stream in self.streams:
            if not stream.idle and draw() < activity:
                uplink_share = 0.3 * draw()
                total = most * draw()
                self.flow(stream, int(total * uplink_share), int(total * (1 - uplink_share)))
        self.now = moment

    def _already_polled(self, poll: datetime) -> bool:
        return self._polled_at is not None and self._polled_at >= poll


class Fleet:
    """Nodes and users from one seed.

    `present` is what the exporters take for the present: they offer nothing published after it
    and do not answer during an outage. None means that all recorded history lies behind.
    """

    def __init__(self, seed: int = 7, start: datetime = DEFAULT_START) -> None:
        self.seed = seed
        self.start = start
        self.present: datetime | None = None
        self.nodes: dict[str, Node] = {}
        self.users: list[User] = []
        self._rng = random.Random(seed)  # noqa: S311 -- reproducible, not secret

    def add_node(self, source_id: str, node_id: str | None = None, env: str = "prod") -> Node:
        """Add a node; its `node_id` is derived from the source id where none is given."""
        if source_id in self.nodes:
            raise ValueError(f"the fleet already has a node {source_id}")
        identity = NodeIdentity(env, f"{source_id}.svc.plus" if node_id is None else node_id)
        rng = random.Random(f"{self.seed}/{source_id}")  # noqa: S311 -- reproducible, not secret
        node = Node(source_id, identity, self.start, rng)
        self.nodes[source_id] = node
        return node

    def add_user(self, uuid: str | None = None, proxy_uuid: str | None = None) -> User:
        """Add an account, with uuids of its own where none are given."""
        email = f"user-{len(self.users) + 1:03d}@example.com"
        user = User(uuid or self.new_uuid(), proxy_uuid or self.new_uuid(), email)
        self.users.append(user)
        return user

    def remove_user(self, user: User) -> None:
        """Delete an account; what its streams carry belongs to nobody from here on."""
        self.users.remove(user)

    def renew_proxy(self, user: User) -> str:
        """Give the user a new proxy uuid and return it; streams under the old one stay its own."""
        user.former_proxy_uuids.append(user.proxy_uuid)
        user.proxy_uuid = self.new_uuid()
        return user.proxy_uuid

    def new_uuid(self) -> str:
        """Return the next uuid of the seed, canonical and lower-case."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def run(self, until: datetime, poll_seconds: float = 60.0, rate: float = DEFAULT_RATE) -> None:
        """Advance every node, as `Node.run` does."""
        for node in self.nodes.values():
            node.run(until, poll_seconds, rate)
