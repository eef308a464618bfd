"""Changes of an account's balance and quota between our own entries, as values.

Balances are compared as the doubles that were stored, with 9 decimal places. Quotas are in bytes.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

ROW_DELAY = timedelta(minutes=10)
"""How long after a change of the balance the row that explains it may arrive."""

LATEST = timedelta(days=1)
"""How long before the last of them the latest charges may have been written that are lost at once.

No writer holds a row that it read for longer than that.
"""


class Funds(NamedTuple):
    """A balance, as the stored double says it, and a quota in bytes."""

    balance: Decimal
    quota: int


def rounding(before: Funds, found: Funds) -> Decimal:
    """Return by how much a balance may differ from the sum of what explains it.

    Doubles round in the last place: the balance before, and the sum that a service stores.
    """
    return 2 * Decimal(math.ulp(float(max(abs(before.balance), abs(found.balance)))))


def repair_id_of(account_uuid: str, after_id: str) -> str:
    """Return the id of the repair of a loss after an entry: whoever repairs it and when."""
    return str(uuid.uuid5(uuid.UUID(after_id), f"repair|{account_uuid}"))


@dataclass(frozen=True, slots=True)
class Change:
    """Funds that one entry of ours left, and what the next one found in their place.

    `after_id` and `left_at` are those of the former entry; all three are None where there is no
    former one: such a change only shows with which funds the account began. `found_at` is None
    where it is the quota state as it is now that has other funds. Where entries used the quota of a
    former period, the stored one was left by an entry before them, `quota_known_at`.
    """

    after_id: str | None
    left_at: datetime | None
    left: Funds | None
    found_at: datetime | None
    found: Funds
    quota_known_at: datetime | None = None

    @property
    def quota_left_at(self) -> datetime | None:
        """When the stored quota was left that the change begins with."""
        return self.quota_known_at or self.left_at

    @property
    def rounding(self) -> Decimal:
        """By how much the balance may differ from the sum of what explains it."""
        return rounding(self.left or self.found, self.found)


class OtherRow(NamedTuple):
    """A ledger row of another service: when it was written, and by how much the balance changes.

    Where `is_doubtful`, its change may have been before the first entry of ours, or come later.
    """

    created_at: datetime
    amount: Decimal
    is_doubtful: bool = False


class LostCharge(NamedTuple):
    """A charge whose effect on balance or quota was undone."""

    ledger_id: str
    bucket_start: datetime | None
    amount_delta: Decimal
    included_bytes: int


@dataclass(frozen=True, slots=True)
class OwnEntry:
    """What we did to the funds of an account at once: one charge, or one repair of several.

    `is_on_record` means that the account is still the one of then. The ledger rows of one that was
    deleted and created again went with it, and its new funds do not follow from them.
    """

    entry_id: str
    at: datetime
    found: Funds
    amount_delta: Decimal
    included_bytes: int
    charges: tuple[LostCharge, ...]
    is_on_record: bool = True

    @property
    def left(self) -> Funds:
        """The funds that it left."""
        balance, quota = self.found
        return Funds(balance + self.amount_delta, quota - self.included_bytes)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else is known of an account.

    `period_start` is that of its present quota period, where the deployment has periods, and
    `renewals_seen` are when our runs saw a renewal first, however long after its period began;
    `full_quotas` are what a renewal may set the quota to.
    """

    rows: Sequence[OtherRow] = ()
    period_start: datetime | None = None
    full_quotas: frozenset[int] = frozenset()
    renewals_seen: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A change that no row explains, or that much of it: signed balance, signed bytes."""

    change: Change
    balance: Decimal
    quota: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Charges that a stale write undid; `amount` and `quota` are what it added to the funds.

    Of a row from before an account was created again, they are what it gave back of the charges.

    `is_last_quota` means that the quota was not renewed or changed by others since.
    """

    change: Change
    charges: tuple[LostCharge, ...]
    amount: Decimal
    quota: int
    is_last_quota: bool = True


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is left to be said of an account's changes.

    `unapplied` are rows of others by which no balance was changed.
    """

    unexplained: tuple[Unexplained, ...] = ()
    losses: tuple[Loss, ...] = ()
    unapplied: tuple[OtherRow, ...] = ()
