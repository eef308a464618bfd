"""Accounts under lock: quota and balance as they are now, and what a run leaves of them."""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.prices import ProfileRow
from billing_cli.core.uuids import BYTES, uuid_texts
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection, Cursor

    from billing_cli.core.model import Account

# The accounts that exist, kept from being deleted until we are done, by what they pay: most have
# the same profile, or none.
# Locks are taken in key order, here and below, so that runs side by side never deadlock: the
# statements see to that, whatever the order of their parameters. Those of accounts are taken by a
# function, because the role of the jobs may not change accounts. Columns come back packed: that is
# a fraction of what texts cost here and there.
LOCK_USERS = """
SELECT string_agg(uuid_send(account.uuid), ''),
       profile.included_quota_bytes, profile.package_name, profile.base_price_per_byte,
       profile.region_multiplier, profile.line_multiplier,
       profile.peak_multiplier, profile.offpeak_multiplier
  FROM billing.lock_accounts(%(account_uuids)s::uuid[]) AS account (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = account.uuid
 GROUP BY 2, 3, 4, 5, 6, 7, 8
"""

# Top-ups by other services wait for this lock, or we for theirs: a balance is never stale.
LOCK_QUOTA_STATES = """
SELECT string_agg(uuid_send(account_uuid), ''), string_agg(int8send(remaining_included_quota), ''),
       string_agg(float8send(current_balance), '')
  FROM (SELECT account_uuid, remaining_included_quota, current_balance
          FROM public.account_quota_states
         WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
         ORDER BY account_uuid
           FOR UPDATE) AS state
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
  FROM (SELECT unnest(%(account_uuids)s::uuid[]) AS account_uuid,
               unnest(%(quotas)s::bigint[]) AS quota,
               unnest(%(balances)s::double precision[]) AS balance,
               unnest(%(last_buckets)s::timestamptz[]) AS last_bucket) AS given
 WHERE state.account_uuid = given.account_uuid
"""

ARREARS_SINCE = """
       arrears_since = CASE WHEN given.balance < 0 THEN coalesce(state.arrears_since, now()) END,
"""


class ProfiledUsers(NamedTuple):
    """Accounts that exist and have equal profiles: the quota included in bytes, and the prices."""

    account_uuids: Collection[str]
    included_quota_bytes: int | None
    profile: ProfileRow


@dataclass(frozen=True, slots=True)
class QuotaStates:
    """Quotas in bytes and balances as stored, by column; whose they are is packed."""

    packed_uuids: bytes = b""
    remaining_included_quotas: tuple[int, ...] = ()
    current_balances: tuple[float, ...] = ()

    def __len__(self) -> int:
        """Return how many accounts have one."""
        return len(self.current_balances)

    def rows(self) -> Iterator[tuple[str, int, float]]:
        """Yield each account's uuid, quota and balance."""
        uuids = _uuids(self.packed_uuids)
        return zip(uuids, self.remaining_included_quotas, self.current_balances, strict=True)


class Locking(NamedTuple):
    """Locks that were asked for, to keep accounts and to charge some of them.

    `users` are accounts that are kept, each part of them with its answer; `states` is the answer
    for those `charged`. Within a pipeline the answers come later.
    """

    users: tuple[tuple[Collection[str], Cursor[tuple[Any, ...]]], ...] = ()
    charged: AbstractSet[str] = frozenset()
    states: Cursor[tuple[Any, ...]] | None = None


NO_LOCKS = Locking()


def lock_users(
    connection: Connection, kept: Collection[str], locking: Locking = NO_LOCKS
) -> Locking:
    """Keep accounts from being deleted, besides those that are kept already.

    Runs never wait for each other's locks here, so several parts in turn are as good as one.
    """
    if not kept:
        return locking
    parameters = {"account_uuids": arrays.uuids(kept)}
    answer = connection.execute(LOCK_USERS, parameters, binary=True)
    return locking._replace(users=(*locking.users, (kept, answer)))


def lock_quota_states(
    connection: Connection, locking: Locking, charged: AbstractSet[str]
) -> Locking:
    """Lock the quota states of accounts to be charged, which are among those that are kept."""
    if not charged:
        return locking
    return locking._replace(charged=charged, states=_lock_quota_states(connection, charged))


def read_users(locking: Locking) -> list[ProfiledUsers]:
    """Return those of the accounts that exist."""
    return [
        ProfiledUsers(
            # As a rule they are all that were asked for, and need not be told which.
            kept if len(packed) == BYTES * len(kept) else _uuids(packed),
            included_quota_bytes,
            ProfileRow(*prices),
        )
        for kept, answer in locking.users
        for packed, included_quota_bytes, *prices in answer
    ]


def read_quota_states(locking: Locking) -> QuotaStates:
    """Return the states of those accounts to be charged that have one."""
    return _read_quota_states(locking.states)


def add_quota_states(
    connection: Connection,
    users: Sequence[tuple[str, int | None]],
    default_quota_bytes: int,
    initial_balance: Decimal,
) -> QuotaStates:
    """Give (account, quota included) users their initial quota states; lock and return those.

    Where somebody else was quicker, it is theirs that is returned.
    """
    account_uuids = [account_uuid for account_uuid, _ in users]
    quotas = [
        included if included is not None and included > 0 else default_quota_bytes
        for _, included in users
    ]
    connection.execute(
        ADD_QUOTA_STATES,
        {
            "account_uuids": arrays.uuids(account_uuids),
            "quotas": arrays.bigints(quotas),
            "balance": initial_balance,
        },
    )
    return _read_quota_states(_lock_quota_states(connection, account_uuids))


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


def _lock_quota_states(connection: Connection, wanted: Collection[str]) -> Cursor[Any]:
    parameters = {"account_uuids": arrays.uuids(wanted)}
    return connection.execute(LOCK_QUOTA_STATES, parameters, binary=True)


def _read_quota_states(rows: Cursor[Any] | None) -> QuotaStates:
    columns = rows.fetchone() if rows else None
    if columns is None or columns[0] is None:
        return QuotaStates()
    packed_uuids, quotas, balances = columns
    count = len(packed_uuids) // BYTES
    return QuotaStates(packed_uuids, unpack(f">{count}q", quotas), unpack(f">{count}d", balances))


def _uuids(packed: bytes) -> list[str]:
    """Return accounts by the texts that they have everywhere else, each kept once."""
    return list(map(intern, uuid_texts(packed)))
