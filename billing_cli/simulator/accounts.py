"""Plays accounts.svc.plus, the owner of users, quota states and profiles, in a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg import Connection

    from billing_cli.simulator.books import Funds
    from billing_cli.simulator.traffic import User

SAVE_USER = """
INSERT INTO public.users (uuid, proxy_uuid, username, password, email)
VALUES (%(uuid)s, %(proxy_uuid)s, %(email)s, '', %(email)s)
    ON CONFLICT (uuid) DO UPDATE SET proxy_uuid = excluded.proxy_uuid
"""

SAVE_FUNDS = """
INSERT INTO public.account_quota_states
       (account_uuid, remaining_included_quota, current_balance, arrears, effective_at)
VALUES (%(account)s, %(quota)s, %(balance)s, %(balance)s < 0, now())
    ON CONFLICT (account_uuid) DO UPDATE
   SET remaining_included_quota = excluded.remaining_included_quota,
       current_balance = excluded.current_balance, arrears = excluded.arrears
"""

SAVE_PROFILE = """
INSERT INTO public.account_billing_profiles
       (account_uuid, package_name, included_quota_bytes, base_price_per_byte, region_multiplier,
        line_multiplier, peak_multiplier, offpeak_multiplier, pricing_rule_version)
VALUES (%(account)s, 'simulated', %(quota)s, %(price)s, 1, %(line_multiplier)s, 1, 1, '')
    ON CONFLICT (account_uuid) DO UPDATE
   SET included_quota_bytes = excluded.included_quota_bytes,
       base_price_per_byte = excluded.base_price_per_byte,
       line_multiplier = excluded.line_multiplier
"""


def save_users(connection: Connection[Any], users: Iterable[User]) -> None:
    """Add the users, or bring their proxy uuids up to date."""
    with connection.cursor() as cursor:
        cursor.executemany(
            SAVE_USER,
            [
                {"uuid": user.uuid, "proxy_uuid": user.proxy_uuid, "email": user.email}
                for user in users
            ],
        )


def save_funds(connection: Connection[Any], funds: Mapping[str, Funds]) -> None:
    """Give accounts their balance and included quota, by uuid."""
    with connection.cursor() as cursor:
        cursor.executemany(
            SAVE_FUNDS,
            [
                {"account": account, "quota": given.quota, "balance": float(given.balance)}
                for account, given in funds.items()
            ],
        )


def save_profile(
    connection: Connection[Any],
    account_uuid: str,
    *,
    price_per_byte: float = 0.0,
    included_quota_bytes: int = 0,
    line_multiplier: float = 1.0,
) -> None:
    """Give an account a billing profile; a figure of 0 leaves it to the configuration."""
    connection.execute(
        SAVE_PROFILE,
        {
            "account": account_uuid,
            "quota": included_quota_bytes,
            "price": price_per_byte,
            "line_multiplier": line_multiplier,
        },
    )
