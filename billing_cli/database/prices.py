"""Which accounts have a price of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from billing_cli.core.prices import LARGEST_PRICE

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import Connection

# NaN is above every number to PostgreSQL, and no price.
PRICED = """
       (package_name = ANY (%(free_packages)s::text[])
        OR base_price_per_byte > 0 AND base_price_per_byte <= %(largest)s)
"""

HAS_PRICED_PROFILE = (
    """
SELECT EXISTS (SELECT FROM public.account_billing_profiles WHERE
"""
    + PRICED
    + ")"
)

COUNT_UNPRICED = (
    """
SELECT count(*)
  FROM public.users
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = users.uuid
 WHERE NOT coalesce(
"""
    + PRICED
    + ", false)"
)


def has_priced_profile(connection: Connection, free_packages: Collection[str]) -> bool:
    """Return whether some account's profile has a price, or a package that is free."""
    return bool(_value(connection, HAS_PRICED_PROFILE, free_packages))


def count_unpriced(connection: Connection, free_packages: Collection[str]) -> int:
    """Return how many accounts have neither."""
    return int(_value(connection, COUNT_UNPRICED, free_packages))


def _value(connection: Connection, query: str, free_packages: Collection[str]) -> Any:
    parameters = {"free_packages": list(free_packages), "largest": LARGEST_PRICE}
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query.encode(), parameters).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return row[0]
