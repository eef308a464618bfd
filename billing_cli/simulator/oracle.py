"""What an honest biller must arrive at, from the true flow of bytes alone.

No difference of counters is taken here: each movement in a stream's log is carried by the first
snapshot that could report it, and is billable in that snapshot's minute unless it is known why
not. Every byte ends up in exactly one of the two: `bytes_by_bucket` or `unbilled`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from billing_cli.core.times import minute_of
from billing_cli.simulator.carriers import Reason, follow
from billing_cli.simulator.process import Bytes, Stream
from billing_cli.simulator.restarts import noticed_restarts
from billing_cli.simulator.traffic import Fleet, Node, Snapshot

if TYPE_CHECKING:
    from billing_cli.core.model import StreamName

__all__ = [
    "Bound",
    "BucketName",
    "Bytes",
    "Oracle",
    "Reason",
    "Seen",
    "Unbilled",
    "accounts_by_uuid",
    "everything",
    "in_time",
]

Bound = datetime | Mapping[str, datetime] | None
"""A moment for all nodes, or one for each by stored node id; None leaves the side open."""


class BucketName(NamedTuple):
    """An account's minute on one line of one node: the minute of the later snapshot."""

    bucket_start: datetime
    stored_node_id: str
    account_uuid: str
    line_code: str


@dataclass(frozen=True, slots=True)
class Unbilled:
    """Bytes of a stream that can't or should not be billed, and why.

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

    With `node_restarts` a restart that one stream shows is noticed for all streams of its node;
    without, each stream has to show it by itself. `until` is exclusive throughout, as the end of
    a minute is.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        since: Bound = None,
        seen: Seen = everything,
        charge_first_snapshot: bool = False,
        node_restarts: bool = False,
    ) -> None:
        self.fleet = fleet
        self.since = since
        self.seen = seen
        self.charge_first_snapshot = charge_first_snapshot
        self.node_restarts = node_restarts

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
                total = total.plus(stream.flowed())
        return total

    def _billable(self, until: Bound) -> Iterator[tuple[BucketName, Bytes]]:
        for share in self._shares(until):
            if share.reason is None and share.account_uuid and share.snapshot and any(share.bytes):
                snapshot = share.snapshot
                tag = snapshot.naming(share.stream.name)[0].inbound_tag
                minute, stored = minute_of(snapshot.collected_at), snapshot.identity.stored
                yield BucketName(minute, stored, share.account_uuid, tag), share.bytes

    def _shares(self, until: Bound) -> Iterator[_Share]:
        owners = accounts_by_uuid(self.fleet)
        for node in self.fleet.nodes.values():
            visible = self._visible(node, until)
            noticed = noticed_restarts(visible) if self.node_restarts else ()
            for stream in node.streams:
                owner = owners.get(stream.name.sample_uuid)
                for snapshot, reason, moved in follow(
                    node,
                    stream,
                    visible,
                    noticed=noticed,
                    charge_first_snapshot=self.charge_first_snapshot,
                ):
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


@dataclass(frozen=True, slots=True)
class _Share:
    """Bytes of a stream that one snapshot reported; billable where there is no reason against."""

    node: Node
    stream: Stream
    account_uuid: str | None
    snapshot: Snapshot | None
    reason: Reason | None
    bytes: Bytes


_Key = TypeVar("_Key")


def accounts_by_uuid(fleet: Fleet) -> dict[str, str]:
    """Map sample uuids to accounts as billing does: by uuid, else by any proxy uuid they had.

    A proxy uuid that two accounts share identifies neither.
    """
    claims: dict[str, set[str]] = defaultdict(set)
    for user in fleet.users:
        for proxy_uuid in (*user.former_proxy_uuids, user.proxy_uuid):
            claims[proxy_uuid].add(user.uuid)
    owners = {proxy: min(users) for proxy, users in claims.items() if len(users) == 1}
    owners.update((user.uuid, user.uuid) for user in fleet.users)
    return owners


def _bound(bound: Bound, node: Node) -> datetime | None:
    if bound is None or isinstance(bound, datetime):
        return bound
    return bound.get(node.identity.stored)


def _summed(pairs: Iterable[tuple[_Key, Bytes]]) -> dict[_Key, Bytes]:
    sums: dict[_Key, Bytes] = defaultdict(Bytes)
    for key, moved in pairs:
        sums[key] = sums[key].plus(moved)
    return dict(sums)
