"""What recorded usage would have cost under other prices: pure, over stored records."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import Account, Bucket, Renewal
from billing_cli.core.prices import NoPrice, PriceList, price_of
from billing_cli.core.rating import EXACT, amount_of, multiplier_at, rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import BucketKey, Price
    from billing_cli.core.peak import PeakHours
    from billing_cli.core.prices import ProfileRow

ZERO = Decimal(0)


class Package(NamedTuple):
    """Other terms of a package; None keeps what the account has. Quota in bytes."""

    price_per_byte: Decimal | None = None
    included_quota_bytes: int | None = None
    region_multiplier: float | None = None
    line_multiplier: float | None = None
    peak_multiplier: float | None = None
    offpeak_multiplier: float | None = None


class RecordedBucket(NamedTuple):
    """What was charged for a bucket so far, corrections included; `amount` is positive."""

    key: BucketKey
    included_bytes: int
    rated_bytes: int
    amount: Decimal


class Cost(NamedTuple):
    """What an account paid, and what it would have paid; positive amounts."""

    total_bytes: int = 0
    amount: Decimal = ZERO
    simulated_amount: Decimal = ZERO

    @property
    def difference(self) -> Decimal:
        """How much more the account would have paid."""
        return self.simulated_amount - self.amount


class Terms(NamedTuple):
    """An account's simulated price, and its quota for each period where that is another one.

    `quota_left` of None keeps the included bytes as they were recorded.
    """

    price: Price
    quota_left: Account | None = None


def terms_of(
    account_uuid: str,
    profile: ProfileRow,
    prices: PriceList,
    packages: Mapping[str, Package],
    renewals: Sequence[datetime] = (),
) -> Terms | NoPrice:
    """Return the terms of an account, or why it has no price.

    `renewals` are the starts of its quota periods within the range, oldest first: with another
    quota, each period begins with the whole of it, and so does the range.
    """
    package = packages.get(profile.package_name or "", Package())
    others = {name: value for name, value in package._asdict().items() if value is not None}
    price_per_byte = others.pop("price_per_byte", None)
    quota = others.pop("included_quota_bytes", None)
    if price_per_byte is not None:
        others["base_price_per_byte"] = None
        prices = replace(
            prices,
            price_per_byte=price_per_byte,
            free_packages=frozenset(),
            allow_zero_price=True,
        )
    price = price_of(profile._replace(**others), prices)
    if isinstance(price, NoPrice) or quota is None:
        return price if isinstance(price, NoPrice) else Terms(price)
    periods = tuple(Renewal(start, quota) for start in renewals)
    return Terms(price, Account(account_uuid, quota, ZERO, price, periods))


def simulate(
    account_uuid: str,
    buckets: Iterable[RecordedBucket],
    terms: Terms,
    peak_hours: PeakHours | None,
) -> tuple[Cost, Terms]:
    """Return the cost of an account's buckets, and its terms with what is left of its quota.

    Buckets come in the order of their keys, in one call or in several.
    """
    recorded = sorted(buckets)
    with localcontext(EXACT):
        paid = sum((bucket.amount for bucket in recorded), ZERO)
        total = sum(bucket.included_bytes + bucket.rated_bytes for bucket in recorded)
        if terms.quota_left is None:
            amounts = (
                amount_of(
                    bucket.rated_bytes,
                    terms.price.per_byte,
                    multiplier_at(terms.price, bucket.key.bucket_start, peak_hours),
                )
                for bucket in recorded
            )
            return Cost(total, paid, -sum(amounts, ZERO)), terms
    usage = [
        Bucket(bucket.key, bucket.included_bytes + bucket.rated_bytes, 0) for bucket in recorded
    ]
    rating = rate(usage, {account_uuid: terms.quota_left}, peak_hours)
    amount = -sum((charge.amount_delta for charge in rating.charges), ZERO)
    return Cost(total, paid, amount), Terms(terms.price, rating.accounts[account_uuid])
