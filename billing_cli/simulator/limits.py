"""Which minutes are above the plausible rates, by decision 7 of the design.

A token bucket per account and one for the node: credit grows with the stamps of the snapshots, up
to two hours of it, starts at 0 at the baseline, and is spent by what is charged.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.core.times import minute_of
from billing_cli.simulator.process import Bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from billing_cli.simulator.history import Snapshot

MOST_CREDIT_SECONDS = 7200


@dataclass(frozen=True, slots=True)
class Limits:
    """Plausible rates in bits per second; 0 believes everything."""

    account_rate: int = 2_000_000_000
    line_rate: int = 10_000_000_000


@dataclass(slots=True)
class _Bucket:
    """Credit in bytes that grows at a rate, and when it was last brought up to date."""

    bits_per_second: int
    since: datetime
    credit: float = 0

    def grow(self, now: datetime) -> None:
        if now > self.since:
            earned = self.credit + (now - self.since).total_seconds() * self.bits_per_second / 8
            self.credit = min(earned, MOST_CREDIT_SECONDS * self.bits_per_second / 8)
            self.since = now

    def allows(self, amount: int) -> bool:
        return not self.bits_per_second or amount <= self.credit


def held_minutes(
    limits: Limits, read: Sequence[Snapshot], moved: Iterable[tuple[Snapshot, str, Bytes]]
) -> Iterator[tuple[str, Bytes]]:
    """Yield the account and the bytes of each minute that is held.

    `read` are the snapshots in the order in which they are read, `moved` what would be charged, by
    the snapshot that carries it and by account.
    """
    minutes = _by_minute(moved)
    accounts = {account for minute in minutes.values() for account in minute}
    if not read:
        return
    baseline = read[0].collected_at
    node = _Bucket(limits.line_rate, baseline)
    buckets = {account: _Bucket(limits.account_rate, baseline) for account in accounts}
    # A minute counts up to its last snapshot.
    ends = {minute_of(snapshot.collected_at): snapshot.collected_at for snapshot in read}
    for minute, end in sorted(ends.items()):
        node.grow(end)
        plausible = {}
        for account, amount in minutes.get(minute, {}).items():
            buckets[account].grow(end)
            if buckets[account].allows(sum(amount)):
                plausible[account] = amount
            else:
                yield account, amount
        if not node.allows(sum(sum(amount) for amount in plausible.values())):
            yield from plausible.items()
            continue
        for account, amount in plausible.items():
            buckets[account].credit -= sum(amount)
            node.credit -= sum(amount)


def _by_minute(
    moved: Iterable[tuple[Snapshot, str, Bytes]],
) -> Mapping[datetime, Mapping[str, Bytes]]:
    minutes: defaultdict[datetime, defaultdict[str, Bytes]] = defaultdict(
        lambda: defaultdict(Bytes)
    )
    for snapshot, account, amount in moved:
        accounts = minutes[minute_of(snapshot.collected_at)]
        accounts[account] = accounts[account].plus(amount)
    return minutes
