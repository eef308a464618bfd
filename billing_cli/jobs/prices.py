"""Refuse to run where nothing can have a price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database.prices import count_unpriced, has_priced_profile
from billing_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.jobs.context import Tariff

NO_PRICES = (
    "no account has a price: set PRICE_PER_BYTE (price_per_byte), or give profiles a "
    "base_price_per_byte or a package of free_packages, or set allow_zero_price = true"
)


def require_prices(tariff: Tariff, connection: Connection) -> None:
    """Raise ConfigurationError where no account can have a price. Reads only."""
    if tariff.price_per_byte > 0 or tariff.allow_zero_price:
        return
    if not has_priced_profile(connection, tariff.free_packages):
        raise ConfigurationError(NO_PRICES)


def accounts_without_price(tariff: Tariff, connection: Connection) -> int:
    """Return how many accounts can't be charged yet. Raises as `require_prices` does."""
    require_prices(tariff, connection)
    if tariff.price_per_byte > 0 or tariff.allow_zero_price:
        return 0
    return count_unpriced(connection, tariff.free_packages)
