"""Accounts under lock: quota and balance as they are now, and what a run leaves of them."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.rating import ProfileRow
from billing_cli.store import arrays
from billing_cli.store.batches import in_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.model import Account

# The accounts that exist, kept from being deleted until we are done, and what they pay.
# Locks are taken in key order, here and below, so that runs side by side never deadlock: the
# statements see to that, whatever the order of their parameters. Those of accounts are taken by a
# function, because the role of the jobs may not change accounts.
LOCK_USERS = """
SELECT account.uuid::text, profile.included_quota_bytes, profile.base_price_per_byte,
       profile.region_multiplier, profile.line_multiplier,
       profile.peak_multiplier, profile.offpeak_multiplier
  FROM billing.lock_accounts(%(account_uuids)s::uuid[]) AS account (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = account.uuid
"""

# Top-ups by other services wait for this lock, or we for theirs: a balance is never stale.
LOCK_QUOTA_STATES = """
SELECT account_uuid::text, remaining_included_quota, current_balance
  FROM public.account_quota_states
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
 ORDER BY account_uuid
   FOR UPDATE
"""

ADD_QUOTA_STATES = """
INSERT INTO public.account_quota_states
       (account_uuid, remaining_included_quota, current_balance, arrears, throttle_state,
        suspend_state, effective_at, updated_at)
SELECT account_uuid, quota, balance, balance < 0,
       CASE WHEN balance < 0 THEN 'throttled' ELSE 'normal' END, 'active', now(), now()
  FROM unnest(%(account_uuids)s::uuid[], %(quotas)s::bigint[])
    AS given (account_uuid, quota), (SELECT %(balance)s::double precision AS balance) AS opening
 ORDER BY account_uuid
    ON CONFLICT (account_uuid) DO NOTHING
"""

# Newer deployments keep the start of an account's arrears beside it.
HAS_ARREARS_SINCE = """
SELECT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = 'public.account_quota_states'::regclass
                  AND attname = 'arrears_since' AND NOT attisdropped)
"""

UPDATE_QUOTA_STATES = """
UPDATE public.account_quota_states AS state
   SET remaining_included_quota = given.quota,
       current_balance = given.balance,
       arrears = given.balance < 0,
       {arrears_since}
       throttle_state = CASE WHEN given.balance < 0 THEN 'throttled' ELSE 'normal' END,
       last_rated_bucket_at = greatest(state.last_rated_bucket_at, given.last_bucket),
       effective_at = now(),
       updated_at = now()
  FROM unnest(%(account_uuids)s::uuid[], %(quotas)s::bigint[],
              %(balances)s::double precision[], %(last_buckets)s::timestamptz[])
    AS given (account_uuid, quota, balance, last_bucket)
 WHERE state.account_uuid = given.account_uuid
"""

ARREARS_SINCE = """
       arrears_since = CASE WHEN given.balance < 0 THEN coalesce(state.arrears_since, now()) END,
"""


class LockedUser(NamedTuple):
    """An account that exists: the quota its profile includes, and the profile's prices."""

    account_uuid: str
    included_quota_bytes: int | None
    profile: ProfileRow


class QuotaState(NamedTuple):
    """An account's quota in bytes and balance as stored."""

    remaining_included_quota: int
    current_balance: float


def lock_users(connection: Connection, account_uuids: Iterable[str]) -> dict[str, LockedUser]:
    """Keep the accounts from being deleted; return those that exist."""
    wanted = list(set(account_uuids))
    if not wanted:
        return {}
    rows = connection.execute(LOCK_USERS, {"account_uuids": arrays.uuids(wanted)})
    # Most accounts have the same profile, or none.
    profiles: dict[tuple[float | None, ...], ProfileRow] = {}
    users = {}
    for text, included_quota_bytes, *prices in in_batches(rows):
        profile = profiles.get(key := tuple(prices))
        if profile is None:
            profile = profiles[key] = ProfileRow(*key)
        account_uuid = intern(text)
        users[account_uuid] = LockedUser(account_uuid, included_quota_bytes, profile)
    return users


def lock_quota_states(
    connection: Connection,
    users: Sequence[LockedUser],
    default_quota_bytes: int,
    initial_balance: Decimal,
) -> dict[str, QuotaState]:
    """Lock and return the quota state of each user; those without one get the initial one."""
    wanted = {"account_uuids": arrays.uuids([user.account_uuid for user in users])}
    states = _read_quota_states(connection, wanted)
    missing = sorted(user for user in users if user.account_uuid not in states)
    if missing:
        quotas = [
            user.included_quota_bytes
            if user.included_quota_bytes is not None and user.included_quota_bytes > 0
            else default_quota_bytes
            for user in missing
        ]
        connection.execute(
            ADD_QUOTA_STATES,
            {
                "account_uuids": arrays.uuids([user.account_uuid for user in missing]),
                "quotas": arrays.bigints(quotas),
                "balance": initial_balance,
            },
        )
        states = _read_quota_states(connection, wanted)
    return states


def has_arrears_since(connection: Connection) -> bool:
    """Tell whether this deployment keeps the start of an account's arrears."""
    row = connection.execute(HAS_ARREARS_SINCE).fetchone()
    return bool(row and row[0])


def save_accounts(
    connection: Connection,
    accounts: Sequence[tuple[Account, datetime]],
    *,
    has_arrears_since: bool,
) -> None:
    """Write what is left of each (account, last rated bucket's start)."""
    if not accounts:
        return
    arrears_since = ARREARS_SINCE if has_arrears_since else ""
    connection.execute(
        UPDATE_QUOTA_STATES.format(arrears_since=arrears_since).encode(),
        {
            "account_uuids": arrays.uuids([one.account_uuid for one, _ in accounts]),
            "quotas": arrays.bigints([one.remaining_included_quota for one, _ in accounts]),
            "balances": arrays.doubles([one.current_balance for one, _ in accounts]),
            "last_buckets": arrays.moments(last for _, last in accounts),
        },
    )


def _read_quota_states(
    connection: Connection, wanted: dict[str, arrays.BinaryArray]
) -> dict[str, QuotaState]:
    rows = in_batches(connection.execute(LOCK_QUOTA_STATES, wanted))
    return {intern(account): QuotaState(quota, balance) for account, quota, balance in rows}
