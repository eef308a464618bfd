"""The plausibility limit: how many bytes an account on a node, and a node, can have moved.

A token bucket. Credit grows at the configured rate with the stamps of snapshots, up to
`burst_hours` of it, and every byte that is charged consumes it. It is kept as *debt*, capacity
minus credit, so that a counter pair that stays within its limit needs no row: its debt is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import MAX_TOTAL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from billing_cli.core.model import DeltaPolicy

MICROSECONDS = 1_000_000
BITS = 8
_MICROSECOND = timedelta(microseconds=1)
# A debt that the next minute pays off is not kept.
KEPT_SECONDS = 60


class Debt(NamedTuple):
    """Bytes of credit that were in use at an instant."""

    size_bytes: int
    at: datetime


@dataclass(frozen=True, slots=True)
class NodeCredit:
    """The limits' state for one node.

    `node` is the debt of the node (None: no debt). `accounts` are debts by account; an account
    without one has none, or after a baseline at `since` what is left of the debt that every
    account starts with there.
    """

    node: Debt | None = None
    accounts: Mapping[str, Debt] = field(default_factory=dict)
    since: datetime | None = None


FULL_CREDIT = NodeCredit()


def plausible_bytes(policy: DeltaPolicy, since: datetime | None, until: datetime) -> int:
    """Return what an account can have moved on a node between two instants, in bytes."""
    limit = Limit(policy.account_rate_bits_per_second, policy.burst_hours)
    if limit.rate <= 0:
        return MAX_TOTAL
    return limit.capacity if since is None else min(limit.credit(since, until), limit.capacity)


class Limit:
    """One rate with its capacity: `rate` in bits a second, 0 for no limit."""

    def __init__(self, rate: int, burst_hours: float) -> None:
        self.rate = rate
        self.capacity = int(rate * burst_hours * 3600) // BITS

    def drained(self, debt: Debt, at: datetime) -> int:
        """Return what is left of a debt at a later instant, in bytes."""
        return max(debt.size_bytes - self.credit(debt.at, at), 0)

    def allows(self, debt_bytes: int) -> bool:
        """Return whether a debt is within the capacity."""
        return self.rate <= 0 or debt_bytes <= self.capacity

    def is_kept(self, debt_bytes: int) -> bool:
        """Return whether a debt matters beyond the next minute."""
        return debt_bytes > self.rate * KEPT_SECONDS // BITS

    def credit(self, since: datetime, until: datetime) -> int:
        """Return the credit that grows between two instants, in bytes."""
        elapsed = (until - since) // _MICROSECOND
        return self.rate * max(elapsed, 0) // (BITS * MICROSECONDS)


class CreditBook:
    """The limits while a node's snapshots are applied: decides what is held, minute by minute."""

    def __init__(self, policy: DeltaPolicy, credit: NodeCredit) -> None:
        self._account_limit = Limit(policy.account_rate_bits_per_second, policy.burst_hours)
        self._node_limit = Limit(policy.line_rate_bits_per_second, policy.burst_hours)
        self._node = credit.node
        self._accounts = dict(credit.accounts)
        self._since = credit.since
        # The debts that `spend` has changed.
        self.spent: dict[str, Debt] = {}
        self.spent_by_node: Debt | None = None

    def start(self, at: datetime) -> None:
        """Begin with no credit: the node's baseline was taken."""
        self._since = at
        self._node = Debt(self._node_limit.capacity, at)

    def admit(self, usage: Mapping[str, int], at: datetime) -> tuple[set[str], bool]:
        """Consume the credit of a minute's bytes by account, as far as it covers them.

        Returns the accounts whose bytes of the minute are to be held, and whether all of the
        node's are. What is held consumes nothing.
        """
        # No minute of an account may exceed what a BIGINT holds, whatever the limits are.
        held = {account for account, size_bytes in usage.items() if size_bytes > MAX_TOTAL}
        debts = {}
        default = self._default_debt(at)
        if self._account_limit.rate > 0:
            for account, size_bytes in usage.items():
                before = self._accounts.get(account)
                debt = size_bytes + (self._account_limit.drained(before, at) if before else default)
                if debt > self._account_limit.capacity:
                    held.add(account)
                else:
                    debts[account] = debt
        total = sum(usage.values()) - sum(usage[account] for account in held)
        if self._node_limit.rate > 0:
            node_debt = (self._node_limit.drained(self._node, at) if self._node else 0) + total
            if node_debt > self._node_limit.capacity:
                return held, True
            self._node = Debt(node_debt, at)
        for account, debt in debts.items():
            if self._account_limit.is_kept(debt - default):
                self._accounts[account] = Debt(debt, at)
            else:
                self._accounts.pop(account, None)
        return held, False

    def spend(self, account: str, size_bytes: int, at: datetime) -> bool:
        """Consume credit for bytes that were found later; False, and nothing, if it is too little.

        Unlike after a minute, small debts are kept: bytes may be found again and again.
        """
        before = self._accounts.get(account)
        own = self._account_limit.drained(before, at) if before else self._default_debt(at)
        debt = own + size_bytes
        node_debt = size_bytes + (self._node_limit.drained(self._node, at) if self._node else 0)
        if not (self._account_limit.allows(debt) and self._node_limit.allows(node_debt)):
            return False
        if self._account_limit.rate > 0:
            self.spent[account] = self._accounts[account] = Debt(debt, at)
        if self._node_limit.rate > 0:
            self.spent_by_node = self._node = Debt(node_debt, at)
        return True

    def state(self, at: datetime) -> NodeCredit:
        """Return what has to be remembered at the watermark."""
        node = Debt(self._node_limit.drained(self._node, at), at) if self._node else None
        default = self._default_debt(at)
        kept = {
            account: debt
            for account, debt in self._accounts.items()
            if self._account_limit.is_kept(self._account_limit.drained(debt, at) - default)
        }
        return NodeCredit(
            node if node and node.size_bytes else None, kept, self._since if default else None
        )

    def _default_debt(self, at: datetime) -> int:
        """Return the debt of an account that has no row: what the baseline has left of it."""
        if self._since is None:
            return 0
        return self._account_limit.drained(Debt(self._account_limit.capacity, self._since), at)
