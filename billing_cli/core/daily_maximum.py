"""The most that an account, or all accounts on a node, are charged for the minutes of a UTC day."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Literal, NamedTuple

from billing_cli.core.rating import EXACT, apply_charge, charge_bytes, ledger_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from billing_cli.core.model import Account, Bucket, BucketKey, Charge
    from billing_cli.core.peak import PeakHours


class Payer(NamedTuple):
    """Whose maximum it is: an account's, by its uuid, or a node's, by its stored id."""

    kind: Literal["account", "node"]
    name: str


Amounts = dict[tuple[Payer, date], Decimal]
"""What was charged by payer and UTC day, as positive figures."""


def above_maximum(
    buckets: Iterable[Bucket],
    accounts: Mapping[str, Account],
    charged: Mapping[tuple[Payer, date], Decimal],
    maxima: Mapping[Payer, Decimal],
    peak_hours: PeakHours | None = None,
) -> set[BucketKey]:
    """Return the buckets whose charge would exceed a maximum, taken in key order.

    They use no quota, and make no room; a bucket that costs nothing never exceeds any. `charged`
    is what the days had before. A payer without a maximum has no limit.
    """
    left = dict(accounts)
    so_far = defaultdict(Decimal, charged)
    above: set[BucketKey] = set()
    with localcontext(EXACT):
        for bucket in sorted(buckets):
            account = left[bucket.key.account_uuid]
            key = bucket.key
            charge = charge_bytes(account, key, ledger_id(key), bucket.total_bytes, peak_hours)
            cost = -charge.amount_delta
            days = [day for day in payers(key) if day[0] in maxima]
            if cost > 0 and any(so_far[day] + cost > maxima[day[0]] for day in days):
                above.add(key)
                continue
            left[key.account_uuid] = apply_charge(account, charge)
            for day in days:
                so_far[day] += cost
    return above


def amounts_of(charges: Iterable[Charge], maxima: Mapping[Payer, Decimal]) -> Amounts:
    """Sum charges by the payers that have a maximum, and by day."""
    amounts: defaultdict[tuple[Payer, date], Decimal] = defaultdict(Decimal)
    with localcontext(EXACT):
        for charge in charges:
            for payer in payers(charge.key):
                if payer[0] in maxima and charge.amount_delta:
                    amounts[payer] -= charge.amount_delta
    return dict(amounts)


def payers(key: BucketKey) -> list[tuple[Payer, date]]:
    """Return whose maxima a bucket counts for, and the UTC day."""
    day = key.bucket_start.astimezone(UTC).date()
    names = Payer("account", key.account_uuid), Payer("node", key.stored_node_id)
    return [(payer, day) for payer in names]
