"""The arrears flag of accounts: when it is set, and whose it is.

`billing.arrears` has an open row while an account's balance is below 0. Its flag is ours unless it
was raised already while the balance was 0 or more: then another service did, for a reason of its
own, such as a failed payment. Only a flag of ours is cleared, once the balance is 0 or more.
A closed row with a flag that is not ours is a flag of another service, seen while the balance was
0 or more.

`collect` records arrears before it updates quota states, and clears them afterwards; `suspend` does
both without traffic, and records flags of other services.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import Connection

# Newer deployments keep the start of an account's arrears as well. Where the column came after the
# last `billing migrate --grant-to`, it is not ours to keep: `check` says so.
HAS_ARREARS_SINCE = """
SELECT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = 'public.account_quota_states'::regclass
                  AND attname = 'arrears_since' AND NOT attisdropped
                  AND has_column_privilege(attrelid, attnum, 'UPDATE'))
"""

# Accounts whose balance this transaction leaves below zero; as a rule they have their row already.
# It runs before their balances are written: where the balance that was found is 0 or more, a top-up
# ended the former arrears, and new ones begin. A flag of another service that is gone is ours when
# it is set again; one that was seen while the balance was 0 or more is not ours, though another
# service has changed the balance since. The accounts are locked.
RECORD_ARREARS = """
INSERT INTO billing.arrears (account_uuid, since, is_flag_ours)
SELECT account_uuid, now(),
       state.arrears IS NOT TRUE
       OR (state.current_balance < 0 OR known.cleared_at IS NULL AND known.is_flag_ours IS TRUE)
          AND known.is_flag_ours IS NOT FALSE
  FROM unnest(%(arrears_accounts)s::uuid[]) AS given (account_uuid)
  JOIN public.account_quota_states AS state USING (account_uuid)
  LEFT JOIN billing.arrears AS known USING (account_uuid)
 WHERE state.current_balance >= 0 OR known.is_flag_ours IS NULL OR known.cleared_at IS NOT NULL
    OR (state.arrears IS NOT TRUE AND NOT known.is_flag_ours)
 ORDER BY account_uuid
    ON CONFLICT (account_uuid) DO UPDATE
   SET since = excluded.since, cleared_at = NULL, is_flag_ours = excluded.is_flag_ours
"""

# Where the balance is 0 or more, a flag that we did not clear is another service's, and is
# forgotten once it is gone. One that is there after we cleared ours may be ours, by a stale write
# of the whole row: unless its arrears began at another time, or no handler holds a row that long.
RECORD_FLAGS_OF_OTHERS = """
WITH changed AS MATERIALIZED (
  SELECT account_uuid, state.arrears IS TRUE AS is_flagged
    FROM public.account_quota_states AS state
    LEFT JOIN billing.arrears AS known USING (account_uuid)
   WHERE state.current_balance >= 0
     AND (known.account_uuid IS NULL AND state.arrears
          OR known.cleared_at IS NOT NULL AND NOT known.is_flag_ours AND state.arrears IS NOT TRUE
          OR known.cleared_at IS NOT NULL AND known.is_flag_ours AND state.arrears AND {is_another})
   ORDER BY account_uuid
     FOR UPDATE OF state SKIP LOCKED
)
INSERT INTO billing.arrears AS known (account_uuid, since, cleared_at, is_flag_ours)
SELECT account_uuid, now(), now(), NOT is_flagged
  FROM changed
    ON CONFLICT (account_uuid) DO UPDATE
   SET is_flag_ours = excluded.is_flag_ours
 WHERE known.cleared_at IS NOT NULL
"""

BEGAN_AT_ANOTHER_TIME = "state.arrears_since IS DISTINCT FROM known.since"
IS_LATER = "known.cleared_at < now() - interval '1 day'"

# For the same accounts, where the flag does not say so yet. A run that charges them does this
# by itself.
SET_ARREARS = """
UPDATE public.account_quota_states AS state
   SET arrears = true, throttle_state = 'throttled', {set_since} updated_at = now()
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
   AND (arrears IS NOT TRUE OR throttle_state IS DISTINCT FROM 'throttled' {or_unset})
"""

SET_ARREARS_SINCE = """
       arrears_since = coalesce(state.arrears_since,
         (SELECT open.since FROM billing.arrears AS open
           WHERE open.account_uuid = state.account_uuid AND open.cleared_at IS NULL)),
"""
IS_UNSET = """
        OR (state.arrears_since IS NULL
            AND EXISTS (SELECT FROM billing.arrears AS open
                         WHERE open.account_uuid = state.account_uuid
                           AND open.cleared_at IS NULL AND open.is_flag_ours))
"""

# Every account of ours that is settled, with traffic or without. Rows that others hold are left to
# the next run. The result is the number of flags that were cleared.
CLEAR_ARREARS = """
WITH settled AS MATERIALIZED (
  SELECT state.account_uuid, flag.is_flag_ours
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
 WHERE state.account_uuid = settled.account_uuid AND settled.is_flag_ours
"""

CLEAR_ARREARS_SINCE = "arrears_since = NULL,"


def has_arrears_since(connection: Connection) -> bool:
    """Return whether this deployment keeps the start of an account's arrears."""
    return connection.execute(HAS_ARREARS_SINCE).fetchone() == (True,)


def record_arrears(connection: Connection, account_uuids: Collection[str]) -> None:
    """Record arrears of these locked accounts, and whether their flags are ours.

    Their balances are below zero, or this transaction leaves them so. Must come before it does.
    """
    if account_uuids:
        connection.execute(RECORD_ARREARS, {"arrears_accounts": sorted(account_uuids)})


def set_arrears(connection: Connection, account_uuids: Collection[str]) -> int:
    """Flag these locked accounts, whose balances are below zero, and record their arrears.

    Returns how many were not flagged yet, or lacked the start of their arrears.
    """
    if not account_uuids:
        return 0
    record_arrears(connection, account_uuids)
    has_since = has_arrears_since(connection)
    statement = SET_ARREARS.format(
        set_since=SET_ARREARS_SINCE if has_since else "", or_unset=IS_UNSET if has_since else ""
    )
    parameters = {"account_uuids": sorted(account_uuids)}
    return connection.execute(statement.encode(), parameters).rowcount


def clear_arrears(connection: Connection) -> int:
    """Clear the flags of ours on settled accounts; return how many there were."""
    since = CLEAR_ARREARS_SINCE if has_arrears_since(connection) else ""
    return connection.execute(CLEAR_ARREARS.format(clear_since=since).encode()).rowcount


def record_flags_of_others(connection: Connection) -> None:
    """Record which flags other services raised; must come after ours were cleared."""
    is_another = BEGAN_AT_ANOTHER_TIME if has_arrears_since(connection) else IS_LATER
    connection.execute(RECORD_FLAGS_OF_OTHERS.format(is_another=is_another).encode())
