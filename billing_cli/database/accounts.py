"""Accounts under lock: what they pay, and quota and balance as they are now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from billing_cli.core.prices import ProfileRow
from billing_cli.database import arrays
from billing_cli.database.quota_periods import renewals_by_account, send_read_renewals
from billing_cli.database.takeover import find_charged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection, Cursor

    from billing_cli.core.model import BucketKey, Renewal, Totals
    from billing_cli.database.takeover import ChargedCursors

# Accounts are kept from being deleted until the transaction ends. Locks are taken in key order,
# here and below, whatever the order of the parameters, so that runs side by side never deadlock.
# Those of accounts are taken by a function, because the role of the jobs may not change accounts.
# Most accounts have the same profile, or none: a row for each would take 20 MB for 100,000.
USERS = """
SELECT array_agg(account.uuid::text), profile.included_quota_bytes, profile.package_name,
       profile.base_price_per_byte, profile.region_multiplier, profile.line_multiplier,
       profile.peak_multiplier, profile.offpeak_multiplier
  FROM {lock_accounts}(%(account_uuids)s::uuid[]) AS account (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = account.uuid
 GROUP BY 2, 3, 4, 5, 6, 7, 8
"""
LOCK_USERS = USERS.format(lock_accounts="billing.lock_accounts")
# The same without waiting for anyone.
LOCK_AVAILABLE_USERS = USERS.format(lock_accounts="billing.lock_available_accounts")

READ_USERS = "SELECT uuid::text FROM public.users WHERE uuid = ANY (%(account_uuids)s::uuid[])"

# Top-ups by other services wait for this lock, or we for theirs: a balance is never stale.
# Only newer deployments have `period_start`: where the table lacks it, the name is that of the
# outer query's column, which is NULL.
QUOTA_STATES = """
SELECT state.account_uuid::text, state.remaining_included_quota, state.current_balance,
       state.period_start
  FROM (VALUES (NULL::timestamptz)) AS outer_query (period_start)
 CROSS JOIN LATERAL (
       SELECT account_uuid, remaining_included_quota, current_balance,
              period_start::timestamptz AS period_start
         FROM public.account_quota_states
        WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
        ORDER BY account_uuid
          FOR UPDATE{skip_locked}) AS state
"""
LOCK_QUOTA_STATES = QUOTA_STATES.format(skip_locked="")
LOCK_AVAILABLE_QUOTA_STATES = QUOTA_STATES.format(skip_locked=" SKIP LOCKED")

# The first quota states of accounts that have none, if no other session has locked the account.
# Where another session was quicker, its row stays.
ADD_QUOTA_STATES = """
INSERT INTO public.account_quota_states
       (account_uuid, remaining_included_quota, current_balance, arrears, throttle_state,
        suspend_state, effective_at, updated_at)
SELECT account.uuid,
       CASE WHEN profile.included_quota_bytes > 0 THEN profile.included_quota_bytes
            ELSE %(initial_quota_bytes)s END,
       balance, balance < 0, CASE WHEN balance < 0 THEN 'throttled' ELSE 'normal' END,
       'active', now(), now()
  FROM billing.lock_available_accounts(ARRAY(
         SELECT wanted.account_uuid
           FROM unnest(%(account_uuids)s::uuid[]) AS wanted (account_uuid)
          WHERE NOT EXISTS (SELECT FROM public.account_quota_states AS state
                             WHERE state.account_uuid = wanted.account_uuid)))
    AS account (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = account.uuid
 CROSS JOIN (SELECT %(initial_balance)s::double precision AS balance) AS opening
 ORDER BY account.uuid
    ON CONFLICT (account_uuid) DO NOTHING
"""

LIMIT_WAITING = "SELECT set_config('lock_timeout', %(lock_timeout)s, true)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Accounts to be locked, all of `kept`, and those of them whose quota states are, `charged`.

    Those without a quota state get one, with these figures where their profile has no quota.
    `fresh` and `late` are the buckets to be charged, in key order.
    """

    kept: Collection[str]
    charged: Collection[str]
    initial_quota_bytes: int
    initial_balance: Decimal
    fresh: Sequence[BucketKey] = ()
    late: Sequence[BucketKey] = ()


class QuotaState(NamedTuple):
    """A quota state that is locked, as stored: the quota in bytes."""

    account_uuid: str
    remaining_included_quota: int | None
    current_balance: float | None
    period_start: datetime | None


@dataclass(frozen=True, slots=True)
class LockedRows:
    """What was locked: `users` with the quota and the profile of each, and quota `states`.

    `existing` are all accounts that there are: others may hold some of them. `renewals` are, by
    account, the last that a run has seen, and those after the first minute to be charged.
    `on_record` are those of the buckets that were charged before, with their bytes.
    """

    users: Mapping[str, tuple[int | None, ProfileRow]]
    states: Iterable[QuotaState]
    existing: Collection[str]
    renewals: Mapping[str, tuple[Renewal, ...]]
    on_record: Mapping[BucketKey, Totals | None]


class Waits(NamedTuple):
    """For how many seconds a statement waits for a row: while rows are locked, and afterwards."""

    locking: float
    afterwards: float


def lock_accounts(
    connection: Connection, wanted: Wanted, waits: Waits, first: Sequence[LiteralString]
) -> LockedRows:
    """Lock accounts and quota states, and look up what is on record of the buckets.

    It is one round trip with the statements in `first`. Sets the savepoint `locks` after those, for
    `lock_available_accounts`. Raises LockNotAvailable where another session holds one of the rows
    for longer than that waits.
    """
    with connection.pipeline():
        for statement in (*first, "SAVEPOINT locks"):
            connection.execute(statement)
        _limit_waiting(connection, waits.locking)
        users = connection.execute(LOCK_USERS, {"account_uuids": arrays.plain(wanted.kept)})
        found = _lock_states(connection, LOCK_QUOTA_STATES, wanted)
        _limit_waiting(connection, waits.afterwards)
    return _locked_rows(wanted, users, *found)


def lock_available_accounts(
    connection: Connection, wanted: Wanted, waits: Waits, *, adds_states: bool
) -> LockedRows:
    """Do as `lock_accounts` does with the rows that no other session has locked.

    Raises LockNotAvailable where another session adds the quota state of one of the accounts as
    well and does not end; not without `adds_states`: accounts that have none get none then.
    """
    with connection.pipeline():
        connection.execute("ROLLBACK TO SAVEPOINT locks")
        _limit_waiting(connection, waits.locking)
        kept = {"account_uuids": arrays.plain(wanted.kept)}
        users = connection.execute(LOCK_AVAILABLE_USERS, kept)
        found = _lock_states(
            connection, LOCK_AVAILABLE_QUOTA_STATES, wanted, adds_states=adds_states
        )
        existing = connection.execute(READ_USERS, kept)
        _limit_waiting(connection, waits.afterwards)
    return replace(
        _locked_rows(wanted, users, *found), existing=[account for (account,) in existing]
    )


def _lock_states(
    connection: Connection, lock_states: LiteralString, wanted: Wanted, *, adds_states: bool = True
) -> tuple[Cursor[Any], Cursor[Any], ChargedCursors, ChargedCursors]:
    charged = {"account_uuids": arrays.plain(wanted.charged)}
    initial = {
        "initial_quota_bytes": wanted.initial_quota_bytes,
        "initial_balance": wanted.initial_balance,
    }
    if adds_states:
        connection.execute(ADD_QUOTA_STATES, charged | initial)
    first = (key.bucket_start for key in (*wanted.fresh[:1], *wanted.late[:1]))
    return (
        connection.execute(lock_states, charged),
        send_read_renewals(connection, wanted.charged, min(first, default=None)),
        find_charged(connection, wanted.fresh),
        find_charged(connection, wanted.late, few=True),
    )


def _locked_rows(
    wanted: Wanted,
    users: Cursor[Any],
    states: Cursor[Any],
    renewals: Cursor[Any],
    fresh: ChargedCursors,
    late: ChargedCursors,
) -> LockedRows:
    # Names that are in memory already are kept once.
    names = {account: account for account in wanted.kept}
    locked: dict[str, tuple[int | None, ProfileRow]] = {}
    for accounts, quota, *profile in users:
        locked |= dict.fromkeys(map(names.__getitem__, accounts), (quota, ProfileRow(*profile)))
    return LockedRows(
        locked,
        (QuotaState(names[account], *row) for account, *row in states),
        locked.keys(),
        renewals_by_account(renewals.fetchall()),
        fresh.bytes_by_key() | late.bytes_by_key(),
    )


def full_quota(included_quota_bytes: int | None, initial_quota_bytes: int) -> int:
    """Return the quota that a user with such a profile begins a period with, in bytes."""
    quota = included_quota_bytes or 0
    return quota if quota > 0 else initial_quota_bytes


def _limit_waiting(connection: Connection, seconds: float) -> None:
    connection.execute(LIMIT_WAITING, {"lock_timeout": f"{seconds * 1000:.0f}"})
