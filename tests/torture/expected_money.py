"""What each account must have left, by whole numbers: 1e-9 of the currency, and exact fractions.

The price list of docs/design.md and docs/reconcile.md kept a second time, without a `Decimal`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from fractions import Fraction

    from billing_cli.simulator.oracle import BucketName, Bytes

    PriceOf = Callable[[str], Fraction]
    """Tells what an account pays for a byte now, in 1e-9 of the currency."""


@dataclass(slots=True)
class Paid:
    """What is left of one charge: its bytes, the price of those that cost, and their cost."""

    included: int
    rated: int
    price: Fraction
    cost: int

    def reprice(self, price: Fraction) -> int:
        """Bring it to a price; return by how much it costs more now.

        Where it costs the same, nothing is written, and the old price stays on record.
        """
        cost = cost_of(self.rated, price)
        more = cost - self.cost
        if more:
            self.price, self.cost = price, cost
        return more


@dataclass(slots=True)
class Purse:
    """What an account has: 1e-9 of the currency, and included bytes left."""

    nanos: int
    quota: int


class ExpectedMoney:
    """The funds of all accounts. A purse is opened by an account's first charge."""

    def __init__(self, opening_nanos: int, opening_quota: int) -> None:
        self.opening = Purse(opening_nanos, opening_quota)
        self.purses: dict[str, Purse] = {}
        self.revenue_nanos = 0
        self._paid: defaultdict[BucketName, list[Paid]] = defaultdict(list)

    def settle(self, changes: Mapping[BucketName, Bytes], price_of: PriceOf) -> None:
        """Charge what buckets gained, and give back what they lost, in the order of buckets."""
        for bucket in sorted(changes):
            total = sum(changes[bucket])
            purse = self._purse(bucket.account_uuid)
            if total > 0:
                included = min(max(purse.quota, 0), total)
                price = price_of(bucket.account_uuid)
                paid = Paid(included, total - included, price, cost_of(total - included, price))
                self._paid[bucket].append(paid)
                purse.quota -= included
                self._pay(purse, paid.cost)
            elif total < 0:
                self._give_back(purse, self._paid[bucket], -total)

    def open(self, accounts: Iterable[str]) -> None:
        """Open the purses of accounts that are about to pay."""
        for account in accounts:
            self._purse(account)

    def reprice(self, since: datetime, until: datetime, price_of: PriceOf) -> None:
        """Bring the charges of all minutes that begin in [since, until) to the present prices."""
        for bucket, charges in self._paid.items():
            if since <= bucket.bucket_start < until and bucket.account_uuid in self.purses:
                price = price_of(bucket.account_uuid)
                purse = self.purses[bucket.account_uuid]
                for paid in charges:
                    self._pay(purse, paid.reprice(price))

    def top_up(self, account: str, nanos: int, quota: int = 0) -> None:
        """Add what the account got beside the ledger."""
        purse = self.purses[account]
        purse.nanos += nanos
        purse.quota += quota

    def forget(self, account: str) -> None:
        """Close the purse of an account that was deleted; what it paid stays paid."""
        self.purses.pop(account, None)
        for bucket in [one for one in self._paid if one.account_uuid == account]:
            del self._paid[bucket]

    def _purse(self, account: str) -> Purse:
        if account not in self.purses:
            self.purses[account] = Purse(self.opening.nanos, self.opening.quota)
        return self.purses[account]

    def _pay(self, purse: Purse, nanos: int) -> None:
        purse.nanos -= nanos
        self.revenue_nanos += nanos

    def _give_back(self, purse: Purse, charges: list[Paid], total: int) -> None:
        """Take bytes out of the newest charge first, and out of those beyond the quota first."""
        for paid in reversed(charges):
            rated = min(total, paid.rated)
            included = min(total - rated, paid.included)
            total -= rated + included
            paid.rated -= rated
            paid.included -= included
            purse.quota += included
            self._pay(purse, paid.reprice(paid.price))
        if total:
            raise AssertionError(f"{total} bytes to give back that nobody paid")


def cost_of(rated_bytes: int, price: Fraction) -> int:
    """Return what the bytes cost in 1e-9 of the currency; `round` takes halves to even."""
    return round(rated_bytes * price)
