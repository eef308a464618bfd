"""A fleet: users, and nodes with their counting processes and exporters.

Pure and reproducible: one seed gives one history, and time is whatever the caller says. Bytes
are whole bytes, rates are bytes per second, moments are aware UTC datetimes.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from billing_cli.core.model import NodeIdentity, StreamName
from billing_cli.core.times import minute_of
from billing_cli.simulator.history import History, Snapshot
from billing_cli.simulator.process import Process, Stream
from billing_cli.simulator.publication import Naming, as_counted
from billing_cli.simulator.stamps import nanoseconds_of

__all__ = ["DEFAULT_RATE", "DEFAULT_START", "Fleet", "Node", "Snapshot", "Stream", "User"]

DEFAULT_START = datetime(2026, 4, 8, 12, tzinfo=UTC)
DEFAULT_RATE = 100_000.0


@dataclass(eq=False, slots=True)
class User:
    """An account of accounts.svc.plus. `former_proxy_uuids` were its own before a renewal."""

    uuid: str
    proxy_uuid: str
    email: str
    former_proxy_uuids: list[str] = field(default_factory=list)


class Node:
    """A proxy node: an xray process and its exporter. Made by `Fleet.add_node`.

    The exporter polls the process; `naming` says under which names it publishes the counters.
    Its clock is off by `clock_error`. With `truncates_stamps` it stamps whole minutes. With
    `takes_older_stamps` it goes on when its clock is set back, as real exporters do: a snapshot
    replaces the one of the same stamp, and history is sorted by stamp. Without, it takes no polls
    until its clock has caught up. `has_statistics` means that xray counts users at all.
    """

    def __init__(
        self, source_id: str, identity: NodeIdentity, start: datetime, rng: random.Random
    ) -> None:
        self.source_id = source_id
        self.identity = identity
        self.start = start
        self.now = start
        self.process = Process()
        self.snapshots: list[Snapshot] = []
        self.history = History()
        self.outages: list[tuple[datetime, datetime]] = []
        self.naming: Naming = as_counted
        self.poll_jitter_seconds = 0.25
        self.clock_error = timedelta()
        self.truncates_stamps = False
        self.takes_older_stamps = False
        self.has_statistics = True
        self._polled_at: datetime | None = None
        self._hidden: list[tuple[int, datetime, datetime]] = []
        self._rng = rng

    @property
    def streams(self) -> list[Stream]:
        """The counter pairs of the process."""
        return self.process.streams

    @property
    def restarts(self) -> list[tuple[int, datetime]]:
        """The restarts of the process: snapshots before it, and when."""
        return self.process.restarts

    def add_stream(self, sample_uuid: str, inbound_tag: str = "", *, idle: bool = False) -> Stream:
        """Add a counter pair that starts at 0. An idle one moves by `flow` only, never by `run`."""
        return self.process.add_stream(StreamName(inbound_tag, sample_uuid), idle=idle)

    def flow(self, stream: Stream, uplink: int, downlink: int) -> None:
        """Let bytes flow now: after the last snapshot, before the next."""
        self.process.flow(stream, uplink, downlink)

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
        exporter's clock, set back, would stamp before what it has, unless it takes older stamps.
        """
        step = timedelta(seconds=poll_seconds)
        poll = self.start + -((self.start - self.now) // step) * step
        while poll < until:
            self._advance(poll, rate, activity)
            if not self._already_polled(poll) and not self.is_down(poll):
                jitter = self._rng.randrange(int(self.poll_jitter_seconds * 1e6) + 1)
                at = poll + timedelta(microseconds=jitter)
                if self._accepts(self._stamp(at)):
                    self.snapshot(at)
            poll += step
        self._advance(until, rate, activity)

    def snapshot(self, at: datetime, published_at: datetime | None = None) -> Snapshot:
        """Take a snapshot; the digits below microseconds are made up, as a real clock has them.

        Its stamp is off by the exporter's `clock_error`. Raises ValueError where that is not
        later than the one before, unless the exporter takes older stamps.
        """
        stamp = self._stamp(at)
        if not self.truncates_stamps:
            stamp += self._rng.randrange(1000)
        if not self._accepts(stamp):
            raise ValueError(f"{self.source_id} already has a snapshot at or after {at}")
        totals, dropped = self.process.read()
        hidden = self._left_out(at)
        if not self.has_statistics:
            hidden.update(range(len(self.streams)))
        snapshot = Snapshot(
            index=len(self.snapshots),
            stamp_nanoseconds=stamp,
            taken_nanoseconds=nanoseconds_of(at),
            published_nanoseconds=nanoseconds_of(max(at, published_at or at)),
            restarts=len(self.restarts),
            totals=totals,
            absent=dropped | hidden,
            identity=self.identity,
            streams=self.streams,
            naming=self.naming,
        )
        self.snapshots.append(snapshot)
        self.history.add(snapshot)
        self._polled_at = at
        self.now = max(self.now, at)
        return snapshot

    def restart_xray(self, at: datetime, *, drop_counters: bool = False) -> None:
        """Restart the counters from 0: what flowed since the last snapshot can never be known.

        With `drop_counters` a stream is missing from snapshots until it moves again.
        """
        self.process.restart(at, drop_counters=drop_counters)
        self.now = max(self.now, at)

    def rename(self, node_id: str) -> None:
        """Publish later snapshots under another node id; the earlier ones keep theirs."""
        self.identity = self.identity._replace(node_id=node_id)

    def hide(self, since: datetime, until: datetime) -> None:
        """Take the exporter down for [since, until): no polls then, traffic flows on."""
        self.outages.append((since, until))

    def hide_stream(self, stream: Stream, since: datetime, until: datetime) -> None:
        """Leave the stream out of the snapshots taken in [since, until), with all that goes by it.

        What is left out is a sample: also the other counters that it is the sum of.
        """
        self._hidden.append((stream.index, since, until))

    def withhold(self, since: datetime, until: datetime, published_at: datetime) -> None:
        """Publish the snapshots taken so far in [since, until) only at `published_at`.

        What they replaced is on offer until then.
        """
        for snapshot in self.snapshots:
            if since <= snapshot.collected_at < until:
                self.history.postpone(snapshot, nanoseconds_of(published_at))

    def forget_before(self, at: datetime) -> None:
        """Lose the history stamped before `at`, for whatever is taken for the present."""
        for snapshot in self.snapshots:
            snapshot.forgotten = snapshot.forgotten or snapshot.collected_at < at

    def lose_history(self, at: datetime) -> None:
        """Restart the exporter then: it offers nothing any more of what it took before."""
        self.history.lose(at)

    def is_down(self, at: datetime) -> bool:
        """Whether the exporter is in an outage then."""
        return any(since <= at < until for since, until in self.outages)

    def published(self, present: datetime | None) -> list[Snapshot]:
        """Return what the exporter offers at present, oldest first; None: all that it has kept."""
        return self.history.offered(present)

    def _left_out(self, at: datetime) -> set[int]:
        """Return the indexes of the streams whose samples are left out then."""
        hidden = {index for index, since, until in self._hidden if since <= at < until}
        if not hidden:
            return hidden
        names = {name for index in hidden for name in self.naming(self.streams[index].name)}
        return {
            stream.index
            for stream in self.streams
            if not names.isdisjoint(self.naming(stream.name))
        }

    def _stamp(self, at: datetime) -> int:
        shown = at + self.clock_error
        return nanoseconds_of(minute_of(shown) if self.truncates_stamps else shown)

    def _accepts(self, stamp: int) -> bool:
        if self.takes_older_stamps or not self.snapshots:
            return True
        return stamp // 1000 > self.snapshots[-1].stamp_nanoseconds // 1000

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
        """Delete an account; what its streams carry has no account from here on."""
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
