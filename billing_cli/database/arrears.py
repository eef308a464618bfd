"""The arrears flag of accounts: when it is set, and whose it is.

The one rule: a flag is ours while `billing.arrears` has an open row of the account, and only such
a flag is cleared by us, once the balance is 0 or more. Any other flag was raised by another service
for a reason of its own, such as a failed payment, and stays.

`collect` records arrears before it updates quota states, and clears them afterwards; `suspend` does
both without traffic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import Connection

# Newer deployments keep the start of an account's arrears as well.
HAS_ARREARS_SINCE = """
SELECT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = 'public.account_quota_states'::regclass
                  AND attname = 'arrears_since' AND NOT attisdropped)
"""

# Accounts whose balance this transaction leaves below zero; as a rule they have their row already.
# It runs before their balances are written: where the balance that was found is 0 or more, a top-up
# ended the former arrears, and new ones begin. The accounts are locked.
RECORD_ARREARS = """
INSERT INTO billing.arrears (account_uuid, since)
SELECT account_uuid, now()
  FROM unnest(%(arrears_accounts)s::uuid[]) AS given (account_uuid)
  JOIN public.account_quota_states AS state USING (account_uuid)
 WHERE state.current_balance >= 0
    OR NOT EXISTS (SELECT FROM billing.arrears AS open
                    WHERE open.account_uuid = given.account_uuid AND open.cleared_at IS NULL)
 ORDER BY account_uuid
    ON CONFLICT (account_uuid) DO UPDATE
   SET since = excluded.since, cleared_at = NULL
"""

# For the same accounts, where the flag does not say so yet. A run that charges them does this
# by itself.
SET_ARREARS = """
UPDATE public.account_quota_states
   SET arrears = true, throttle_state = 'throttled', {set_since} updated_at = now()
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
   AND (NOT arrears OR throttle_state <> 'throttled')
"""

SET_ARREARS_SINCE = "arrears_since = coalesce(arrears_since, now()),"

# Every account of ours that is settled, with traffic or without. Rows that others hold are left to
# the next run. The result is the number of flags that were cleared.
CLEAR_ARREARS = """
WITH settled AS MATERIALIZED (
  SELECT state.account_uuid
    FROM billing.arrears AS flag
    JOIN public.account_quota_states AS state USING (account_uuid)
   WHERE flag.cleared_at IS NULL
     AND state.current_balance >= 0 AND state.current_balance < 'Infinity'
   ORDER BY state.account_uuid
     FOR UPDATE OF state SKIP LOCKED
), closed AS (
  UPDATE billing.arrears AS flag
     SET cleared_at = now()
    FROM settled
   WHERE flag.account_uuid = settled.account_uuid
)
UPDATE public.account_quota_states AS state
   SET arrears = false, throttle_state = 'normal', {clear_since} updated_at = now()
  FROM settled
 WHERE state.account_uuid = settled.account_uuid
"""

CLEAR_ARREARS_SINCE = "arrears_since = NULL,"


def has_arrears_since(connection: Connection) -> bool:
    """Tell whether this deployment keeps the start of an account's arrears."""
    return connection.execute(HAS_ARREARS_SINCE).fetchone() == (True,)


def record_arrears(connection: Connection, account_uuids: Collection[str]) -> None:
    """Record that the flags of these locked accounts are ours: their balances are below zero."""
    if account_uuids:
        connection.execute(RECORD_ARREARS, {"arrears_accounts": sorted(account_uuids)})


def set_arrears(connection: Connection, account_uuids: Collection[str]) -> int:
    """Flag these locked accounts, whose balances are below zero, and record the flags as ours.

    Returns how many were not flagged yet.
    """
    if not account_uuids:
        return 0
    record_arrears(connection, account_uuids)
    since = SET_ARREARS_SINCE if has_arrears_since(connection) else ""
    statement = SET_ARREARS.format(set_since=since)
    parameters = {"account_uuids": sorted(account_uuids)}
    return connection.execute(statement.encode(), parameters).rowcount


def clear_arrears(connection: Connection) -> int:
    """Clear the flags of ours on settled accounts; return how many there were."""
    since = CLEAR_ARREARS_SINCE if has_arrears_since(connection) else ""
    return connection.execute(CLEAR_ARREARS.format(clear_since=since).encode()).rowcount
