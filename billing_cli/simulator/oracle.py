"""What an honest biller must arrive at, from the true flow of bytes alone.

No difference of counters is taken here: each movement in a stream's log is carried by the first
snapshot that could tell of it, and is billable in that snapshot's minute unless it is known why
not. Every byte ends up in exactly one of the two: `bytes_by_bucket` or `unbilled`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from billing_cli.core.times import minute_of
from billing_cli.simulator.traffic import Fleet, Node, Snapshot, Stream

if TYPE_CHECKING:
    from billing_cli.core.model import StreamName

Bound = datetime | Mapping[str, datetime] | None
"""A moment for all nodes, or one for each by stored node id; None leaves the side open."""

Reason = Literal["baseline", "unseen", "reset", "hidden_reset", "unresolved"]
"""Why bytes are not billed.

baseline: they flowed before the first snapshot that a biller saw of the source.
unseen: no snapshot within the bounds tells of them yet.
reset: they flowed between the last snapshot seen and a restart of the counters.
hidden_reset: the counters had overtaken their old values when they were next seen, so that the
restart cannot be noticed and as many bytes as the old totals go missing.
unresolved: the sample's uuid belongs to no account.
"""


class Bytes(NamedTuple):
    """Bytes by direction."""

    uplink: int = 0
    downlink: int = 0

    def plus(self, other: Bytes) -> Bytes:
        """Return the sum by direction."""
        return Bytes(self.uplink + other.uplink, self.downlink + other.downlink)


class BucketName(NamedTuple):
    """An account's minute on one line of one node: the minute of the later snapshot."""

    bucket_start: datetime
    stored_node_id: str
    account_uuid: str
    line_code: str


@dataclass(frozen=True, slots=True)
class Unbilled:
    """Bytes of a stream that nobody can or should bill, and why.

    `seen_at` is the stamp of the snapshot at which that became final; None while still unseen.
    """

    reason: Reason
    stored_node_id: str
    name: StreamName
    account_uuid: str | None
    seen_at: datetime | None
    bytes: Bytes


def everything(node: Node, snapshot: Snapshot) -> bool:  # noqa: ARG001 -- the shape of `Seen`
    """Every snapshot ever taken is seen: the truth at its finest, as reconcile must reach it."""
    return True


def in_time(node: Node, snapshot: Snapshot) -> bool:  # noqa: ARG001 -- the shape of `Seen`
    """Snapshots published late are missed: what a run every minute can know."""
    return not snapshot.late


Seen = Callable[[Node, Snapshot], bool]
"""Which snapshots a biller gets to see."""


class Oracle:
    """Truth of a fleet for a biller that began at `since` and saw the snapshots that `seen` says.

    `until` is exclusive throughout, as the end of a minute is.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        since: Bound = None,
        seen: Seen = everything,
        charge_first_snapshot: bool = False,
    ) -> None:
        self.fleet = fleet
        self.since = since
        self.seen = seen
        self.charge_first_snapshot = charge_first_snapshot

    def bytes_by_account(self, until: Bound = None) -> dict[str, Bytes]:
        """Return the billable bytes of each account that has any."""
        return _summed((bucket.account_uuid, moved) for bucket, moved in self._billable(until))

    def bytes_by_node(self, until: Bound = None) -> dict[str, Bytes]:
        """Return the billable bytes of each stored node id that has any."""
        return _summed((bucket.stored_node_id, moved) for bucket, moved in self._billable(until))

    def bytes_by_bucket(self, until: Bound = None) -> dict[BucketName, Bytes]:
        """Return the billable bytes of each minute, node, account and line that has any."""
        return _summed(self._billable(until))

    def unbilled(self, until: Bound = None) -> list[Unbilled]:
        """Return every byte that flowed and is not in the buckets, with its reason."""
        return [
            Unbilled(
                share.reason,
                share.node.identity.stored,
                share.stream.name,
                share.account_uuid,
                share.snapshot.collected_at if share.snapshot else None,
                share.bytes,
            )
            for share in self._shares(until)
            if share.reason is not None and any(share.bytes)
        ]

    def flowed(self) -> Bytes:
        """Return all bytes that ever flowed through the fleet."""
        total = Bytes()
        for node in self.fleet.nodes.values():
            for stream in node.streams:
                total = total.plus(Bytes(sum(stream.log[2::4]), sum(stream.log[3::4])))
        return total

    def _billable(self, until: Bound) -> Iterator[tuple[BucketName, Bytes]]:
        for share in self._shares(until):
            if share.reason is None and share.account_uuid and share.snapshot and any(share.bytes):
                minute = minute_of(share.snapshot.collected_at)
                line = share.stream.name.inbound_tag
                yield (
                    BucketName(minute, share.node.identity.stored, share.account_uuid, line),
                    share.bytes,
                )

    def _shares(self, until: Bound) -> Iterator[_Share]:
        owners = _owners(self.fleet)
        for node in self.fleet.nodes.values():
            visible = self._visible(node, until)
            for stream in node.streams:
                owner = owners.get(stream.name.sample_uuid)
                for snapshot, reason, moved in self._follow(node, stream, visible):
                    final: Reason | None = reason
                    if reason is None and owner is None:
                        final = "unresolved"
                    yield _Share(node, stream, owner, snapshot, final, moved)

    def _visible(self, node: Node, until: Bound) -> list[Snapshot]:
        since = _bound(self.since, node)
        end = _bound(until, node)
        return [
            snapshot
            for snapshot in node.snapshots
            if (since is None or snapshot.collected_at >= since)
            and (end is None or snapshot.collected_at < end)
            and self.seen(node, snapshot)
        ]

    def _follow(
        self, node: Node, stream: Stream, visible: list[Snapshot]
    ) -> Iterator[tuple[Snapshot | None, Reason | None, Bytes]]:
        """Walk a stream's movements through the snapshots that carry them."""
        told = Bytes()
        told_restarts = 0
        for carrier, by_restarts in _carried(node, stream, visible):
            if carrier is None:
                yield None, "unseen", _total(by_restarts.values())
                continue
            current = by_restarts.pop(carrier.restarts, Bytes())
            lost = _total(by_restarts.values())
            if carrier is visible[0] and not self.charge_first_snapshot:
                yield carrier, "baseline", current.plus(lost)
            else:
                overtaken = Bytes()
                if carrier.restarts > told_restarts and _covers(current, told):
                    overtaken = told
                yield carrier, "reset", lost
                yield carrier, "hidden_reset", overtaken
                yield (
                    carrier,
                    None,
                    Bytes(current.uplink - overtaken.uplink, current.downlink - overtaken.downlink),
                )
            told = told.plus(current) if carrier.restarts == told_restarts else current
            told_restarts = carrier.restarts


@dataclass(frozen=True, slots=True)
class _Share:
    """Bytes of a stream that one snapshot told of; billable where there is no reason against."""

    node: Node
    stream: Stream
    account_uuid: str | None
    snapshot: Snapshot | None
    reason: Reason | None
    bytes: Bytes


_Key = TypeVar("_Key")


def _carried(
    node: Node, stream: Stream, visible: list[Snapshot]
) -> Iterator[tuple[Snapshot | None, dict[int, Bytes]]]:
    """Group a stream's movements by the snapshot that tells of them, each by restarts so far.

    A restart is told of as well, by zero bytes: a snapshot at 0 shows it, whatever comes later.
    """
    events = stream.movements()
    events.extend((index, count, 0, 0) for count, (index, _) in enumerate(node.restarts, start=1))
    events.sort(key=lambda event: event[:2])
    remaining = iter(visible)
    carrier: Snapshot | None = next(remaining, None)
    group: dict[int, Bytes] = {}
    for index, restarts, uplink, downlink in events:
        moved_on = carrier
        while moved_on is not None and (moved_on.index < index or not moved_on.holds(stream)):
            moved_on = next(remaining, None)
        if moved_on is not carrier and group:
            yield carrier, group
            group = {}
        carrier = moved_on
        group[restarts] = group.get(restarts, Bytes()).plus(Bytes(uplink, downlink))
    if group:
        yield carrier, group


def _owners(fleet: Fleet) -> dict[str, str]:
    """Map sample uuids to accounts as billing does: by uuid, else by any proxy uuid they had.

    A proxy uuid that two accounts share tells neither.
    """
    claims: dict[str, set[str]] = defaultdict(set)
    for user in fleet.users:
        for proxy_uuid in (*user.former_proxy_uuids, user.proxy_uuid):
            claims[proxy_uuid].add(user.uuid)
    owners = {proxy: min(users) for proxy, users in claims.items() if len(users) == 1}
    owners.update((user.uuid, user.uuid) for user in fleet.users)
    return owners


def _covers(counters: Bytes, told: Bytes) -> bool:
    """Whether restarted counters have reached what was told before, so that nothing shows."""
    return counters.uplink >= told.uplink and counters.downlink >= told.downlink


def _bound(bound: Bound, node: Node) -> datetime | None:
    if bound is None or isinstance(bound, datetime):
        return bound
    return bound.get(node.identity.stored)


def _summed(pairs: Iterable[tuple[_Key, Bytes]]) -> dict[_Key, Bytes]:
    sums: dict[_Key, Bytes] = defaultdict(Bytes)
    for key, moved in pairs:
        sums[key] = sums[key].plus(moved)
    return dict(sums)


def _total(parts: Iterable[Bytes]) -> Bytes:
    total = Bytes()
    for part in parts:
        total = total.plus(part)
    return total
