"""From bytes to money, in `Decimal`, rounded once.

charge = rated bytes x price x multiplier, half-even to 9 decimal places, where rated bytes are
those beyond the account's included quota.
"""

from __future__ import annotations

import uuid
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import (
    Account,
    Bucket,
    BucketKey,
    Charge,
    Rating,
)
from billing_cli.core.quota_periods import quota_at, use_quota
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from billing_cli.core.model import Price, UsageRecord
    from billing_cli.core.peak import PeakHours

NANO = Decimal("1e-9")
ONE = Decimal(1)

# Products of bytes (19 digits), a price and up to three multipliers (17 digits each) stay exact,
# so that the only rounding is the last one.
EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)

LARGEST_BALANCE = Decimal(10) ** 15
_LARGEST_STORED = float(LARGEST_BALANCE)


class BilledUsage(NamedTuple):
    """A usage record and whose it is: the account, the source's node and its region."""

    account_uuid: str
    stored_node_id: str
    region: str
    record: UsageRecord


def rate(
    buckets: Iterable[Bucket],
    accounts: Mapping[str, Account],
    peak_hours: PeakHours | None = None,
) -> Rating:
    """Charge the buckets in key order, using up each account's included quota first.

    Every bucket's account must be among `accounts`.
    """
    left = dict(accounts)
    charges: list[Charge] = []
    with localcontext(EXACT):
        for key, uplink_bytes, downlink_bytes in sorted(buckets):
            account = left[key.account_uuid]
            total_bytes = uplink_bytes + downlink_bytes
            charge = charge_bytes(account, key, ledger_id(key), total_bytes, peak_hours)
            charges.append(charge)
            left[key.account_uuid] = apply_charge(account, charge)
    return Rating(tuple(charges), left)


def buckets_of(usage: Iterable[BilledUsage]) -> list[Bucket]:
    """Sum usage records into the minute buckets that they fall in, in key order."""
    sums: dict[BucketKey, tuple[int, int]] = {}
    for billed in usage:
        key, start, end = bucket_key(billed), billed.record.start, billed.record.end
        uplink, downlink = sums.get(key, (0, 0))
        sums[key] = uplink + end[0] - start[0], downlink + end[1] - start[1]
    return [Bucket(key, *sums[key]) for key in sorted(sums)]


def bucket_key(usage: BilledUsage) -> BucketKey:
    """Return the bucket that a usage record falls in."""
    account_uuid, stored_node_id, region, record = usage
    tag = record.name.inbound_tag
    return BucketKey(record.bucket_start, stored_node_id, account_uuid, region, tag)


def is_balance(value: float | None) -> bool:
    """Return whether a stored balance can be computed with: not NULL, NaN or infinity."""
    return value is not None and abs(value) < _LARGEST_STORED


def balance_of(value: float | None) -> Decimal:
    """Return a stored balance with 9 decimal places. Raises ValueError where it is no amount.

    What rounds to nothing is 0, whatever its sign was: `plus` makes "-0" of nothing.
    """
    if value is None or not is_balance(value):
        raise ValueError(f"a balance of {'NULL' if value is None else value}")
    return EXACT.plus(EXACT.quantize(Decimal(repr(value)), NANO))


def ledger_id(key: BucketKey) -> str:
    """Return the id of a minute's charge, the same that the legacy writer derives."""
    start, stored_node_id, account_uuid, region, line_code = key
    name = f"{_minute_text(start)}|{stored_node_id}|{account_uuid}|{region}|{line_code}"
    return _name_based_uuid(uuid.NAMESPACE_OID, name)


def adjustment_id(key: BucketKey, ordinal: int) -> str:
    """Return the id of a bucket's adjustment, the `ordinal`-th entry after its charge."""
    return _name_based_uuid(uuid.UUID(ledger_id(key)), f"adjustment|{ordinal}")


def charge_bytes(
    account: Account,
    key: BucketKey,
    entry_id: str,
    total_bytes: int,
    peak_hours: PeakHours | None,
) -> Charge:
    """Charge bytes of a minute to an account as it stands, within `EXACT`."""
    balance, price = account.current_balance, account.price
    quota = quota_at(account, key.bucket_start)
    included = min(quota, total_bytes) if quota > 0 else 0
    rated = total_bytes - included
    multiplier = multiplier_at(price, key.bucket_start, peak_hours)
    amount = amount_of(rated, price.per_byte, multiplier)
    return Charge(
        entry_id,
        key,
        included,
        rated,
        price.per_byte,
        multiplier,
        amount,
        quota,
        balance,
        balance + amount,
    )


def multiplier_at(price: Price, minute: datetime, peak_hours: PeakHours | None) -> Decimal:
    """Return what a price is multiplied by in a minute, within `EXACT`."""
    if peak_hours is None:
        return price.multiplier
    is_peak = peak_hours.contains(minute)
    return price.multiplier * (price.peak_multiplier if is_peak else price.offpeak_multiplier)


def amount_of(rated_bytes: int, price_per_byte: Decimal, multiplier: Decimal) -> Decimal:
    """Return what the bytes take from a balance, rounded once, within `EXACT`.

    0 - x rather than -x: nothing charged is 0, never "-0".
    """
    return 0 - (rated_bytes * price_per_byte * multiplier).quantize(NANO)


def apply_charge(account: Account, charge: Charge) -> Account:
    """Return what a charge leaves of its account."""
    account_uuid, quota, _, price, renewals = account
    if renewals:
        paid = account._replace(current_balance=charge.balance_after)
        return use_quota(paid, charge.key.bucket_start, charge.included_bytes)
    return Account(account_uuid, quota - charge.included_bytes, charge.balance_after, price)


@lru_cache(maxsize=4096)
def _minute_text(minute: datetime) -> str:
    return format_rfc3339(minute)


def _name_based_uuid(namespace: uuid.UUID, name: str) -> str:
    """Return what `uuid.uuid5` does, as text (RFC 9562, 5.5), in a third of its time."""
    digest = sha1(namespace.bytes + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
