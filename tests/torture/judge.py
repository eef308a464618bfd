"""Judges what is charged by the simulator's truth: what flowed, and which snapshots were read.

Per node and account, what is charged, held or pending must lie within two figures of
`simulator.expectation`: at most what all snapshots up to the watermark can tell, as a reconcile
may find it, and, when everything is settled, at least what those that were collected tell.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import MINUTE, minute_of
from billing_cli.simulator.books import NANO, rows
from billing_cli.simulator.expectation import expected_by_account
from billing_cli.simulator.oracle import accounts_by_uuid
from billing_cli.simulator.process import Bytes
from tests.torture.disorder import doubled
from tests.torture.findings import Findings
from tests.torture.judge_queries import (
    READ_BILLED,
    READ_CORRECTED,
    READ_OVERDUE,
    READ_PRICES,
    READ_RESTARTS,
    READ_REVOCABLE,
    READ_REVOKED,
    READ_UNASSIGNED,
    READ_UNCERTAIN,
    READ_WAITING,
    READ_WATERMARKS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.model import StreamName
    from billing_cli.simulator.expectation import Expected
    from billing_cli.simulator.traffic import Fleet, Node, Snapshot, User

    # What a node's exporter offers at present.
    Offered = Callable[[Node], Sequence[Snapshot]]
    # By stored node id and account; users without an account have their own uuid.
    ByAccount = dict[tuple[str, str], Bytes]


class Judge:
    """Follows which snapshots of a fleet were collected, and judges what became of them.

    `prices` are all that an account could ever be charged, `reborn` accounts of which rows went
    with a deletion, with how many snapshots of each node were collected before it: what an account
    must have at least is what it moved beyond what those can have charged, restarts that were
    none included (`revocable_then`): later growth absorbs it. `former` gives deleted accounts by
    the proxy uuids that they had: their streams go by either uuid.
    """

    def __init__(self, fleet: Fleet, connection: Connection[Any], offered: Offered) -> None:
        self.fleet = fleet
        self.connection = connection
        self.offered = offered
        self.collected: dict[str, list[Snapshot]] = {}
        self.prices: set[Decimal] = set()
        self.profiles: defaultdict[str, set[tuple[Decimal, Decimal]]] = defaultdict(set)
        self.reborn: dict[str, dict[str, int]] = {}
        self.revocable_then: ByAccount = {}
        self.former: dict[str, str] = {}
        self.doubled_by_history: defaultdict[str, defaultdict[StreamName, Bytes]] = defaultdict(
            lambda: defaultdict(Bytes)
        )

    def deleted(self, user: User) -> None:
        """Note that an account's rows are gone: what was collected so far is gone."""
        self.reborn[user.uuid] = {
            stored: len(collected) for stored, collected in self.collected.items()
        }
        self.former |= dict.fromkeys((*user.former_proxy_uuids, user.proxy_uuid), user.uuid)
        revocable = self._revocable(is_settled=False)
        for stored in self.collected:
            key = stored, user.uuid
            self.revocable_then[key] = revocable.get(key, Bytes())

    def follow(self) -> bool:
        """Note which snapshots the watermarks have passed since; tell whether there are any.

        To be called before anything else is published. Raises AssertionError where a watermark is
        no snapshot that was on offer.
        """
        has_moved = False
        for stored, watermark in rows(self.connection, READ_WATERMARKS):
            node = self._node(stored)
            collected = self.collected.setdefault(stored, [])
            fresh = _fresh(self.offered(node), collected, watermark)
            if not collected or collected[-1].collected_at < watermark:
                assert fresh, f"nobody published {watermark}"
                assert fresh[-1].collected_at == watermark, f"nobody published {watermark}"
                collected += fresh
                has_moved = True
        return has_moved

    def problems(self, *, is_settled: bool) -> Findings:
        """Return what was charged beyond the truth; once all is settled, what is missing too."""
        findings = Findings()
        told, unassigned = self._told(), self._unassigned()
        revocable = self._revocable(is_settled=is_settled)
        uncertain = {stored for (stored,) in self._rows(READ_UNCERTAIN)}
        known = {user.uuid for user in self.fleet.users}
        for stored, collected in self.collected.items():
            node = self._node(stored)
            least = expected_by_account(self.fleet, node, collected) if is_settled else {}
            most = self._most(node, collected)
            undecidable = self._undecidable(node, collected)
            for account in sorted(most.keys() | {name for where, name in told if where == stored}):
                has = told.get((stored, account), Bytes())
                high = most.get(account, Bytes()).plus(revocable.get((stored, account), Bytes()))
                high = high.plus(undecidable.get(account, Bytes()))
                high = high.plus(unassigned.get((stored, account), Bytes()))
                _too_much(findings, f"{stored} {account}", has, high, in_sum=stored in uncertain)
                if account in least and account in known:
                    low = self._least_since_deletion(node, account, collected, least[account])
                    _too_little(findings, f"{stored} {account}", has, low)
        self._judge_prices(findings)
        return findings

    def _most(self, node: Node, collected: Sequence[Snapshot]) -> dict[str, Bytes]:
        """Return what all snapshots up to the last one that was collected can tell of."""
        most: defaultdict[str, Bytes] = defaultdict(Bytes)
        read = _all_up_to(node, collected)
        for account, expected in expected_by_account(self.fleet, node, read).items():
            name = self.former.get(account, account)
            most[name] = most[name].plus(expected.high)
        return dict(most)

    def _least_since_deletion(
        self, node: Node, account: str, collected: Sequence[Snapshot], least: Expected
    ) -> Expected:
        """Return what must be on record: all, or what was moved since the account was deleted.

        The totals that it goes on from are those of before, also where a stream was left out then.
        """
        earlier = collected[: self.reborn.get(account, {}).get(node.identity.stored, 0)]
        if not earlier:
            return least
        before = expected_by_account(self.fleet, node, earlier)[account].high
        before = before.plus(self.revocable_then.get((node.identity.stored, account), Bytes()))
        return replace(
            least, low=Bytes(*(max(0, size_bytes) for size_bytes in least.low.minus(before)))
        )

    def unsettled(self, until: datetime) -> list[str]:
        """Return what should be done when all faults have ended and all runs are over (I6).

        Minutes before `until` are closed.
        """
        found = [f"usage of {account} is pending" for (account,) in self._rows(READ_OVERDUE)]
        for node in self.fleet.nodes.values():
            collected = self.collected.get(node.identity.stored, [])
            closed = [
                snapshot.collected_at
                for snapshot in self.offered(node)
                if snapshot.collected_at < until
            ]
            reached = minute_of(collected[-1].collected_at) if collected else node.start
            if closed and minute_of(closed[-1]) > reached:
                found.append(f"{node.source_id} has {closed[-1]} and was collected up to {reached}")
        return found

    def _told(self) -> ByAccount:
        """Return what is on record: charged, held or pending."""
        owners = self._owners()
        told: defaultdict[tuple[str, str], Bytes] = defaultdict(Bytes)
        for stored, account, *moved in self._rows(READ_BILLED):
            told[stored, account] = told[stored, account].plus(Bytes(*moved))
        for stored, sample, *moved in self._rows(READ_WAITING):
            key = stored, owners.get(sample, sample)
            told[key] = told[key].plus(Bytes(*moved))
        return dict(told)

    def _unassigned(self) -> ByAccount:
        """Return what waits under proxy uuids that were renewed before a run read them.

        Nobody knows whose they were (docs: "what cannot be told apart"): under another name, such
        a counter begins at zero.
        """
        owners = self._owners()
        unassigned: defaultdict[tuple[str, str], Bytes] = defaultdict(Bytes)
        for stored, sample, *moved in self._rows(READ_UNASSIGNED):
            if sample in owners:
                key = stored, owners[sample]
                unassigned[key] = unassigned[key].plus(Bytes(*moved))
        return dict(unassigned)

    def _revocable(self, *, is_settled: bool) -> ByAccount:
        """Return what may be on record too much; a restart is revoked once all is settled."""
        owners = self._owners()
        revocable: defaultdict[tuple[str, str], Bytes] = defaultdict(Bytes)
        for stored, sample, *moved in self._rows(READ_REVOCABLE):
            key, since, surplus = (stored, owners.get(sample, sample)), moved[:2], moved[2:]
            for part in [surplus] if is_settled else [since, surplus]:
                revocable[key] = revocable[key].plus(Bytes(*part))
        return dict(revocable)

    def _undecidable(self, node: Node, collected: Sequence[Snapshot]) -> dict[str, Bytes]:
        """Return what readings out of order may have doubled: they look like a restart."""
        stored, owners = node.identity.stored, self._owners()
        restarts, revoked = (
            {at for where, at in self._rows(query) if where == stored}
            for query in (READ_RESTARTS, READ_REVOKED)
        )
        by_stream: defaultdict[StreamName, Bytes] = defaultdict(Bytes)
        for stream, moved in doubled(node.streams, collected, restarts, revoked):
            by_stream[stream.name] = by_stream[stream.name].plus(moved)
        for name, moved in self._doubled_by_history(node, restarts, revoked).items():
            by_stream[name] = _larger(by_stream[name], moved)
        found: defaultdict[str, Bytes] = defaultdict(Bytes)
        for name, moved in by_stream.items():
            account = owners.get(name.sample_uuid, name.sample_uuid)
            found[account] = found[account].plus(moved)
        for account, moved in self._begun_anew(node, collected):
            found[account] = found[account].plus(moved)
        return found

    def _doubled_by_history(
        self, node: Node, restarts: AbstractSet[datetime], revoked: AbstractSet[datetime]
    ) -> Mapping[StreamName, Bytes]:
        """Return what a reconcile may have doubled likewise, by the most that was ever on offer."""
        stored, offered = node.identity.stored, self.offered(node)
        most = self.doubled_by_history[stored]
        corrected = {minute for where, minute in self._rows(READ_CORRECTED) if where == stored}
        if offered and corrected:
            stamps = {snapshot.collected_at for snapshot in offered}
            restarts = restarts | {stamp for stamp in stamps if minute_of(stamp) in corrected}
            now: defaultdict[StreamName, Bytes] = defaultdict(Bytes)
            for stream, moved in doubled(node.streams, offered, restarts, revoked):
                now[stream.name] = now[stream.name].plus(moved)
            for name, moved in now.items():
                most[name] = _larger(most[name], moved)
        return most

    def _begun_anew(self, node: Node, collected: Sequence[Snapshot]) -> Iterator[tuple[str, Bytes]]:
        """Yield what streams of deleted accounts had counted when they changed their uuid.

        Nobody knows any more that the two uuids were of one account (docs: "what cannot be told
        apart"): the new name begins at zero.
        """
        owners = self._owners()
        for place, (before, after) in enumerate(pairwise(collected), start=1):
            for stream in node.streams if before.naming is not after.naming else ():
                account = owners.get(stream.name.sample_uuid, stream.name.sample_uuid)
                since = self.reborn.get(account, {}).get(node.identity.stored)
                uuids = [one.naming(stream.name)[0].sample_uuid for one in (before, after)]
                if since is not None and place >= since and len(set(uuids)) > 1:
                    yield account, Bytes(*before.totals[2 * stream.index : 2 * stream.index + 2])

    def _owners(self) -> dict[str, str]:
        """Map sample uuids to accounts, also to deleted ones."""
        return self.former | accounts_by_uuid(self.fleet)

    def _judge_prices(self, findings: Findings) -> None:
        for account, price, multiplier, rated_bytes in self._rows(READ_PRICES):
            allowed = self._allowed(account)
            if price * multiplier not in allowed:
                findings.problems.append(f"{account} pays {price} x {multiplier} for a byte")
                off = min(abs(price * multiplier - allowed_price) for allowed_price in allowed)
                findings.wrong_nanos += max(1, int(off * rated_bytes / NANO))

    def _allowed(self, account: str) -> set[Decimal]:
        own = {
            (price or configured) * multiplier
            for price, multiplier in self.profiles[account]
            for configured in self.prices
        }
        return self.prices | own

    def _rows(self, query: Any) -> list[tuple[Any, ...]]:
        return rows(self.connection, query)

    def _node(self, stored: str) -> Node:
        (node,) = (node for node in self.fleet.nodes.values() if node.identity.stored == stored)
        return node


def _larger(moved: Bytes, other: Bytes) -> Bytes:
    return Bytes(*map(max, moved, other))


def _fresh(
    offered: Sequence[Snapshot], collected: Sequence[Snapshot], watermark: datetime
) -> Sequence[Snapshot]:
    """Return what is on offer of minutes after the last one collected, up to the watermark."""
    stamp = attrgetter("collected_at")
    begin = 0
    if collected:
        begin = bisect_left(offered, minute_of(stamp(collected[-1])) + MINUTE, key=stamp)
    return offered[begin : bisect_right(offered, watermark, lo=begin, key=stamp)]


def _all_up_to(node: Node, collected: Sequence[Snapshot]) -> list[Snapshot]:
    """Return every snapshot ever taken from the first to the last one that was collected."""
    last = max(snapshot.index for snapshot in collected)
    return node.snapshots[collected[0].index : last + 1]


def _too_much(findings: Findings, where: str, has: Bytes, high: Bytes, *, in_sum: bool) -> None:
    """Compare each direction; `in_sum` both together: the smaller amount of two can hold more."""
    beyond = [moved - most for moved, most in zip(has, high, strict=True)]
    excess = sum(max(0, size_bytes) for size_bytes in ([sum(beyond)] if in_sum else beyond))
    if excess:
        findings.problems.append(f"{where}: {tuple(has)} on record, at most {tuple(high)} flowed")
        findings.doubled_bytes += excess


def _too_little(findings: Findings, where: str, has: Bytes, expected: Expected) -> None:
    missing = sum(max(0, least - moved) for moved, least in zip(has, expected.low, strict=True))
    if missing:
        findings.problems.append(
            f"{where}: {tuple(has)} on record, at least {tuple(expected.low)} must be"
        )
        findings.lost_bytes += missing
