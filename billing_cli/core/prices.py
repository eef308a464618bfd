"""What an account pays for a byte: one rule, from its profile and the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import NamedTuple

from billing_cli.core.model import Price
from billing_cli.core.rating import EXACT, ONE

ZERO = Decimal(0)

# Of a price, of a multiplier, and of what a byte costs by all of them together: a petabyte at once
# is then an amount that the database can store, which is one below 10^21.
LARGEST_PRICE = Decimal(10) ** 6


class ProfileRow(NamedTuple):
    """An account's billing profile as stored; every value may be missing or not positive."""

    package_name: str | None = None
    base_price_per_byte: float | None = None
    region_multiplier: float | None = None
    line_multiplier: float | None = None
    peak_multiplier: float | None = None
    offpeak_multiplier: float | None = None


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices that are configured for all accounts.

    `price_per_byte` counts where a profile has none, and is 0 where it is not configured. Packages
    in `free_packages` cost nothing. `allow_zero_price` makes 0 a price like any other. Multipliers
    for peak and off-peak hours count only where there are such hours.
    """

    price_per_byte: Decimal = ZERO
    free_packages: frozenset[str] = frozenset()
    allow_zero_price: bool = False
    has_peak_hours: bool = True


class NoPrice(NamedTuple):
    """An account can't be charged, because it has no price that money can be computed with."""

    reason: str


FREE = Price(ZERO, ONE, ONE, ONE)
NOT_CONFIGURED = NoPrice("no price in its profile or in the configuration")
TOO_LARGE = NoPrice(f"a price or multiplier, or their product, above {LARGEST_PRICE:f}")


def price_of(profile: ProfileRow, prices: PriceList) -> Price | NoPrice:
    """Return an account's price, or why it has none.

    The price is 0 for a free package, else the profile's where that is above 0, else the
    configured one. The multiplier is region x line, with those for peak and off-peak hours aside;
    one that is missing or not positive counts as 1.
    """
    with localcontext(EXACT):
        base = exact_decimal(profile.base_price_per_byte)
        by_hour = (profile.peak_multiplier, profile.offpeak_multiplier)
        peak, offpeak = map(exact_decimal, by_hour if prices.has_peak_hours else (None, None))
        is_free = profile.package_name in prices.free_packages
        price = Price(
            per_byte=ZERO if is_free else base if base > 0 else prices.price_per_byte,
            multiplier=_or_one(exact_decimal(profile.region_multiplier))
            * _or_one(exact_decimal(profile.line_multiplier)),
            peak_multiplier=_or_one(peak),
            offpeak_multiplier=_or_one(offpeak),
        )
        highest = max(price.peak_multiplier, price.offpeak_multiplier, ONE)
        is_too_large = max(price.per_byte, price.multiplier, highest) > LARGEST_PRICE
        if is_too_large or price.per_byte * price.multiplier * highest > LARGEST_PRICE:
            return FREE if is_free else TOO_LARGE
    if price.per_byte == 0 and not (is_free or prices.allow_zero_price):
        return NOT_CONFIGURED
    return price


def exact_decimal(value: float | None) -> Decimal:
    """Return the shortest decimal that the double stands for; 0 where it is missing or NaN."""
    if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
        return ZERO
    return Decimal(repr(value))


def _or_one(value: Decimal) -> Decimal:
    return value if value > 0 else ONE
