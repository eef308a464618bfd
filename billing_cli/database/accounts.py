"""Accounts under lock: what they pay, and quota and balance as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString, NamedTuple

from billing_cli.core.prices import ProfileRow
from billing_cli.database import arrays
from billing_cli.database.quota_periods import renewals_by_account, send_read_renewals

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.model import Renewal

# Accounts are kept from being deleted until the transaction ends. Locks are taken in key order,
# here and below, whatever the order of the parameters, so that runs side by side never deadlock.
# Those of accounts are taken by a function, because the role of the jobs may not change accounts.
LOCK_USERS = """
SELECT account.uuid::text, profile.included_quota_bytes, profile.package_name,
       profile.base_price_per_byte, profile.region_multiplier, profile.line_multiplier,
       profile.peak_multiplier, profile.offpeak_multiplier
  FROM billing.lock_accounts(%(account_uuids)s::uuid[]) AS account (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = account.uuid
"""

# The same without waiting for anyone.
LOCK_AVAILABLE_USERS = """
SELECT account.uuid::text, profile.included_quota_bytes, profile.package_name,
       profile.base_price_per_byte, profile.region_multiplier, profile.line_multiplier,
       profile.peak_multiplier, profile.offpeak_multiplier
  FROM billing.lock_available_accounts(%(account_uuids)s::uuid[]) AS account (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = account.uuid
"""

READ_USERS = "SELECT uuid::text FROM public.users WHERE uuid = ANY (%(account_uuids)s::uuid[])"

# Top-ups by other services wait for this lock, or we for theirs: a balance is never stale.
# Only newer deployments have `period_start`: where the table lacks it, the name is that of the
# outer query's column, which is NULL.
QUOTA_STATES = """
SELECT state.account_uuid::text, state.remaining_included_quota, state.current_balance,
       state.period_start
  FROM (VALUES (NULL::timestamptz)) AS outer_query (period_start)
 CROSS JOIN LATERAL (
       SELECT account_uuid, remaining_included_quota, current_balance, period_start
         FROM public.account_quota_states
        WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
        ORDER BY account_uuid
          FOR UPDATE{skip_locked}) AS state
"""
LOCK_QUOTA_STATES = QUOTA_STATES.format(skip_locked="")
LOCK_AVAILABLE_QUOTA_STATES = QUOTA_STATES.format(skip_locked=" SKIP LOCKED")

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

# Newer deployments keep the start of an account's arrears as well.
HAS_ARREARS_SINCE = """
SELECT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = 'public.account_quota_states'::regclass
                  AND attname = 'arrears_since' AND NOT attisdropped)
"""

LIMIT_WAITING = "SELECT set_config('lock_timeout', %(lock_timeout)s, true)"


class User(NamedTuple):
    """An account that exists and is locked: the quota included in bytes, and what it pays."""

    account_uuid: str
    included_quota_bytes: int | None
    profile: ProfileRow


class QuotaState(NamedTuple):
    """A quota state that is locked, as stored: the quota in bytes."""

    account_uuid: str
    remaining_included_quota: int | None
    current_balance: float | None
    period_start: datetime | None


class LockedRows(NamedTuple):
    """What was locked, and the accounts that exist: others may hold some of those.

    `renewals` are, by account, the last that a run has seen, and those after the first minute.
    """

    users: Sequence[User]
    states: Sequence[QuotaState]
    existing: Collection[str]
    renewals: Mapping[str, tuple[Renewal, ...]]


def lock_accounts(
    connection: Connection,
    kept: Collection[str],
    charged: Collection[str],
    first_minute: datetime | None,
    *,
    savepoints: Sequence[LiteralString],
    wait_seconds: float,
    wait_seconds_afterwards: float,
) -> LockedRows:
    """Lock accounts to be kept, and the quota states of those of them to be charged.

    Sets the savepoints first. Raises LockNotAvailable where another session holds one of the rows
    for longer than `wait_seconds`.
    """
    with connection.pipeline():
        for savepoint in savepoints:
            connection.execute(f"SAVEPOINT {savepoint}")
        _limit_waiting(connection, wait_seconds)
        users = connection.execute(LOCK_USERS, {"account_uuids": arrays.plain(kept)})
        states = connection.execute(LOCK_QUOTA_STATES, {"account_uuids": arrays.plain(charged)})
        renewals = send_read_renewals(connection, charged, first_minute)
        _limit_waiting(connection, wait_seconds_afterwards)
    locked = [User(row[0], row[1], ProfileRow(*row[2:])) for row in users.fetchall()]
    return LockedRows(
        locked,
        [QuotaState(*row) for row in states.fetchall()],
        [one[0] for one in locked],
        renewals_by_account(renewals.fetchall()),
    )


def lock_available_accounts(
    connection: Connection,
    kept: Collection[str],
    charged: Collection[str],
    first_minute: datetime | None,
) -> LockedRows:
    """Do as `lock_accounts` does with the rows that nobody else holds now."""
    wanted = {"account_uuids": arrays.plain(kept)}
    with connection.pipeline():
        users = connection.execute(LOCK_AVAILABLE_USERS, wanted)
        states = connection.execute(
            LOCK_AVAILABLE_QUOTA_STATES, {"account_uuids": arrays.plain(charged)}
        )
        renewals = send_read_renewals(connection, charged, first_minute)
        existing = connection.execute(READ_USERS, wanted)
    return LockedRows(
        [User(row[0], row[1], ProfileRow(*row[2:])) for row in users.fetchall()],
        [QuotaState(*row) for row in states.fetchall()],
        [account_uuid for (account_uuid,) in existing],
        renewals_by_account(renewals.fetchall()),
    )


def add_quota_states(
    connection: Connection,
    users: Sequence[User],
    default_quota_bytes: int,
    initial_balance: Decimal,
) -> None:
    """Give users their first quota states. Where another session was quicker, its row stays."""
    quotas = [full_quota(user, default_quota_bytes) for user in users]
    wanted = arrays.plain(user.account_uuid for user in users)
    connection.execute(
        ADD_QUOTA_STATES,
        {"account_uuids": wanted, "quotas": arrays.plain(quotas), "balance": initial_balance},
    )


def has_arrears_since(connection: Connection) -> bool:
    """Tell whether this deployment keeps the start of an account's arrears."""
    return connection.execute(HAS_ARREARS_SINCE).fetchone() == (True,)


def full_quota(user: User, default_quota_bytes: int) -> int:
    """Return the quota that a user begins a period with, in bytes."""
    quota = user.included_quota_bytes or 0
    return quota if quota > 0 else default_quota_bytes


def _limit_waiting(connection: Connection, seconds: float) -> None:
    connection.execute(LIMIT_WAITING, {"lock_timeout": f"{seconds * 1000:.0f}"})
