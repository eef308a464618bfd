"""What the whole database must say after the transactions that took place."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.times import minute_of
from billing_cli.simulator.books import Funds
from billing_cli.simulator.oracle import BucketName, Bytes
from tests.torture.expected_bytes import FollowedNode, HeldBytes, minus
from tests.torture.expected_money import ExpectedMoney

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from billing_cli.simulator.traffic import Fleet, Node, Snapshot, User
    from tests.torture.expected_money import PriceOf
    from tests.torture.progress import Deed

    Offered = Callable[[Node], Sequence[Snapshot]]
    """Tells what a node's exporter offers at present."""


class Expected:
    """The books as they must be. It is told of each transaction that took place, in their order.

    `offered` is what exporters answered meanwhile, `users` who existed, `price_of` what they paid.
    """

    def __init__(self, fleet: Fleet, opening: Funds, offered: Offered, price_of: PriceOf) -> None:
        self.fleet = fleet
        self.offered = offered
        self.price_of = price_of
        self.money = ExpectedMoney(nanos_of(opening.balance), opening.quota)
        self.buckets: defaultdict[BucketName, Bytes] = defaultdict(Bytes)
        self.nodes: dict[str, FollowedNode] = {}
        self.held: list[HeldBytes] = []
        self.gone: Counter[str] = Counter()

    def collected(self, deed: Deed) -> None:
        """Take in a transaction that moved watermarks."""
        changes: defaultdict[BucketName, Bytes] = defaultdict(Bytes)
        for node in self._named(deed.watermarks):
            watermark = deed.watermarks[node.node.identity.stored]
            advanced = node.advance(self.offered(node.node), watermark, self.fleet.users)
            self.held.extend(advanced.held)
            for bucket, moved in advanced.buckets.items():
                changes[bucket] = changes[bucket].plus(moved)
        self._change(changes)

    def reconciled(self, deed: Deed, since: datetime, until: datetime) -> None:
        """Take in a transaction that corrected cells of a range."""
        changes: defaultdict[BucketName, Bytes] = defaultdict(Bytes)
        for node in self._named(deed.corrected):
            first, last = map(minute_of, deed.corrected[node.node.identity.stored])
            assert since <= first <= last < until, "corrected beyond what was asked for"
            offered, users = self.offered(node.node), self.fleet.users
            compared = node.compare(offered, since, until, users, within=(first, last))
            for bucket, moved in compared.items():
                changes[bucket] = changes[bucket].plus(moved)
        self._change(changes)

    def left_to_reconcile(self, node_id: str, since: datetime, until: datetime) -> list[str]:
        """Return the buckets in which history shows something else than what is billed."""
        node = self.nodes[node_id]
        changes = node.compare(self.offered(node.node), since, until, self.fleet.users)
        return [f"not reconciled: {bucket} by {moved}" for bucket, moved in changes.items()]

    def rerated(self, since: datetime, until: datetime) -> None:
        """Take in a transaction that brought all charges of a range to the present prices."""
        self.money.reprice(since, until, self.price_of)

    def released(self, deltas: Iterable[HeldBytes]) -> None:
        """Charge held deltas in the minute of their source's watermark."""
        changes: defaultdict[BucketName, Bytes] = defaultdict(Bytes)
        for delta in deltas:
            watermark = self.nodes[delta.followed.node.identity.stored].watermark
            assert watermark is not None
            bucket = delta.followed.bucket(minute_of(watermark))
            changes[bucket] = changes[bucket].plus(delta.moved)
            self.held.remove(delta)
            delta.followed.held = minus(delta.followed.held, delta.moved)
        self._change(changes)

    def user_is_deleted(self, user: User) -> None:
        """Forget what the account's deletion takes with it."""
        self.money.forget(user.uuid)
        for bucket in [one for one in self.buckets if one.account_uuid == user.uuid]:
            self.gone["deleted"] += sum(self.buckets.pop(bucket))

    def funds(self) -> dict[str, Funds]:
        """Return what each account has that ever paid."""
        return {
            account: Funds(Decimal(purse.nanos).scaleb(-9), purse.quota)
            for account, purse in self.money.purses.items()
        }

    def unbilled(self) -> Counter[str]:
        """Return all bytes that flowed and are in no bucket, by the reason why."""
        reasons = Counter(self.gone)
        for node in self.fleet.nodes.values():
            flowed = sum(sum(one.log[2::4]) + sum(one.log[3::4]) for one in node.streams)
            followed = self.nodes.get(node.identity.stored)
            known = 0
            for stream in followed.streams if followed else ():
                reasons.update(stream.lost)
                reasons["waiting"] += sum(stream.waiting)
                reasons["held"] += sum(stream.held)
                known += sum(stream.stream.log[2 : stream.counted.position : 4])
                known += sum(stream.stream.log[3 : stream.counted.position : 4])
            reasons["unseen"] += flowed - known
        return +reasons

    def flowed(self) -> int:
        """Return all bytes that ever flowed."""
        return sum(
            sum(stream.log[2::4]) + sum(stream.log[3::4])
            for node in self.fleet.nodes.values()
            for stream in node.streams
        )

    def is_whole(self) -> bool:
        """Whether each byte that flowed is in a bucket, or unbilled for a reason that is named."""
        billed = sum(sum(moved) for moved in self.buckets.values())
        return billed + self.unbilled().total() == self.flowed()

    def _named(self, stored: Iterable[str]) -> list[FollowedNode]:
        by_id = {node.identity.stored: node for node in self.fleet.nodes.values()}
        return [
            self.nodes.setdefault(node_id, FollowedNode(by_id[node_id]))
            for node_id in sorted(stored)
        ]

    def _change(self, changes: dict[BucketName, Bytes]) -> None:
        for bucket, moved in changes.items():
            self.buckets[bucket] = self.buckets[bucket].plus(moved)
        self.money.settle(changes, self.price_of)


def nanos_of(amount: Decimal) -> int:
    """Return an amount with 9 decimal places in 1e-9 of the currency."""
    return int(amount.scaleb(9).to_integral_exact())
