"""From bytes to money, in `Decimal`, rounded once.

charge = rated bytes x price x multiplier, half-even to 9 decimal places, where rated bytes are
those beyond the account's included quota.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from hashlib import sha1
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.makers import maker
from billing_cli.core.model import (
    Account,
    Bucket,
    BucketKey,
    Charge,
    Rating,
)
from billing_cli.core.times import format_rfc3339
from billing_cli.core.uuids import BYTES, uuid_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from hashlib import _Hash as HASH

    from billing_cli.core.model import Price, UsageRecord
    from billing_cli.core.peak import PeakHours

NANO = Decimal("1e-9")
ONE = Decimal(1)

# Products of bytes (19 digits), a price and up to three multipliers (17 digits each) stay exact,
# so that the only rounding is the last one.
EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)

LARGEST_BALANCE = Decimal(10) ** 15


_LARGEST_STORED_BALANCE = float(LARGEST_BALANCE)

_VERSION_5 = bytes(value & 0x0F | 0x50 for value in range(256))
_RFC_9562_VARIANT = bytes(value & 0x3F | 0x80 for value in range(256))

_account = maker(Account)
_bucket = maker(Bucket)
_bucket_key = maker(BucketKey)
_charge = maker(Charge)


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
    ordered = sorted(buckets)
    ids = ledger_ids(key for key, _, _ in ordered)
    with localcontext(EXACT):
        for entry_id, (key, uplink, downlink) in zip(ids, ordered, strict=True):
            account = left[key.account_uuid]
            charge = charge_bytes(account, key, entry_id, uplink + downlink, peak_hours)
            charges.append(charge)
            left[key.account_uuid] = after(account, charge)
    return Rating(tuple(charges), left)


def multipliers_of(
    buckets: Iterable[Bucket], prices: Mapping[str, Price], peak_hours: PeakHours | None = None
) -> list[Decimal]:
    """Return what the price of each bucket's account is multiplied by in its minute."""
    with localcontext(EXACT):
        return [
            multiplier_at(prices[key.account_uuid], key.bucket_start, peak_hours)
            for key, _, _ in buckets
        ]


def buckets_of(usage: Iterable[BilledUsage]) -> list[Bucket]:
    """Sum usage records into the minute buckets that they fall in, in key order."""
    places: defaultdict[tuple[datetime, str, str, str], dict[str, tuple[int, int]]]
    places = defaultdict(dict)
    for account_uuid, stored_node_id, region, record in usage:
        (line_code, _), minute, _, _, _, start, end = record
        up_start, down_start = start
        up_end, down_end = end
        sums = places[minute, stored_node_id, region, line_code]
        uplink, downlink = sums.get(account_uuid, (0, 0))
        sums[account_uuid] = uplink + up_end - up_start, downlink + down_end - down_start
    buckets: list[Bucket] = []
    for place in sorted(places):
        minute, stored_node_id, region, line_code = place
        sums = places[place]
        buckets += [
            _bucket(
                (
                    _bucket_key((minute, stored_node_id, account_uuid, region, line_code)),
                    *sums[account_uuid],
                )
            )
            # Texts are sorted several times faster than the keys that they are part of.
            for account_uuid in sorted(sums)
        ]
    if len(places) > 1:
        # Nearly in order already: only what is of one minute and node may have to change places.
        buckets.sort()
    return buckets


def is_balance(value: float) -> bool:
    """Tell whether money can be computed with a stored balance: NaN is none, nor is infinity."""
    return abs(value) < _LARGEST_STORED_BALANCE


def balance_of(value: float) -> Decimal:
    """Return a stored balance with 9 decimal places. Raises ValueError where it is no amount.

    What rounds to nothing is 0, whatever its sign was: `plus` makes "-0" of nothing.
    """
    if not is_balance(value):
        raise ValueError(f"a balance of {value}")
    return EXACT.plus(EXACT.quantize(Decimal(repr(value)), NANO))


def ledger_id(key: BucketKey) -> str:
    """Return the id of a minute's charge, the same that the older writer derives."""
    (entry_id,) = ledger_ids([key])
    return entry_id


def ledger_ids(keys: Iterable[BucketKey]) -> list[str]:
    """Return the ids of the charges of many minutes, in their order.

    Names that begin alike, with the minute and the node, are hashed that far once.
    """
    begun: dict[tuple[datetime, str], Callable[[], HASH]] = {}
    digests = []
    for start, stored_node_id, account_uuid, region, line_code in keys:
        place = start, stored_node_id
        if place not in begun:
            beginning = f"{format_rfc3339(start)}|{stored_node_id}|".encode()
            begun[place] = _hash(uuid.NAMESPACE_OID.bytes + beginning).copy
        name = begun[place]()
        name.update(f"{account_uuid}|{region}|{line_code}".encode())
        digests.append(name.digest())
    return _name_based_uuids(digests)


def adjustment_id(key: BucketKey, ordinal: int) -> str:
    """Return the id of a bucket's adjustment, the `ordinal`-th entry after its charge."""
    namespace = uuid.UUID(ledger_id(key)).bytes
    name = _hash(namespace + b"adjustment|%d" % ordinal)
    (entry_id,) = _name_based_uuids([name.digest()])
    return entry_id


def charge_bytes(
    account: Account,
    key: BucketKey,
    entry_id: str,
    total_bytes: int,
    peak_hours: PeakHours | None,
) -> Charge:
    """Charge bytes of a minute to an account as it stands, within `EXACT`."""
    _, quota, balance, price = account
    included = min(max(quota, 0), total_bytes)
    rated = total_bytes - included
    multiplier = multiplier_at(price, key.bucket_start, peak_hours)
    amount = amount_of(rated, price.per_byte, multiplier)
    return _charge(
        (
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
            "traffic_charge",
            None,
            "",
        )
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


def after(account: Account, charge: Charge) -> Account:
    """Return what a charge leaves of its account."""
    account_uuid, quota, _, price = account
    return _account((account_uuid, quota - charge.included_bytes, charge.balance_after, price))


def _hash(beginning: bytes) -> HASH:
    return sha1(beginning, usedforsecurity=False)


def _name_based_uuids(digests: Sequence[bytes]) -> list[str]:
    """Return what `uuid.uuid5` makes of SHA-1 digests (RFC 9562, 5.5)."""
    values = bytearray().join([digest[:BYTES] for digest in digests])
    values[6::BYTES] = values[6::BYTES].translate(_VERSION_5)
    values[8::BYTES] = values[8::BYTES].translate(_RFC_9562_VARIANT)
    return uuid_texts(values)
