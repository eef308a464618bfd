"""What accounts.svc.plus does to the shared tables while billing works on them: small actions.

Each takes the connection to do it on and commits nothing: on a connection in autocommit mode every
statement stands alone, as those of the read service do, so that a crash may come between two.
Money is `Decimal` with up to 9 places, quotas are whole bytes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.simulator.traffic import User

EntryType = Literal["topup", "manual_adjustment"]

RECORD_ENTRY = """
INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
                                   rated_bytes, amount_delta, balance_after, created_at)
SELECT %(id)s, account_uuid, %(at)s, %(at)s, %(entry_type)s, 0, %(amount)s,
       current_balance + %(amount)s, %(at)s
  FROM public.account_quota_states
 WHERE account_uuid = %(account)s
"""

CHANGE_BALANCE = """
UPDATE public.account_quota_states
   SET current_balance = current_balance + %(amount)s, updated_at = now()
 WHERE account_uuid = %(account)s
"""

ADD_PERIOD_COLUMNS = """
ALTER TABLE public.account_quota_states
  ADD COLUMN IF NOT EXISTS arrears_since timestamptz,
  ADD COLUMN IF NOT EXISTS period_start timestamptz,
  ADD COLUMN IF NOT EXISTS period_end timestamptz
"""

RENEW = """
UPDATE public.account_quota_states
   SET remaining_included_quota = %(quota)s, period_start = %(start)s, period_end = %(end)s,
       updated_at = now()
 WHERE account_uuid = %(account)s
"""

READ_QUOTA_STATE = """
SELECT * FROM public.account_quota_states WHERE account_uuid = %s
"""

LOCK_USER = "SELECT 1 FROM public.users WHERE uuid = %s FOR UPDATE"

LOCK_QUOTA_STATE = """
SELECT 1 FROM public.account_quota_states WHERE account_uuid = %s FOR UPDATE
"""

DELETE_ACCOUNT = """
DELETE FROM public.users WHERE uuid = %s
"""

ADD_ACCOUNT = """
INSERT INTO public.users (uuid, proxy_uuid, username, password, email, active)
VALUES (%(uuid)s, %(proxy_uuid)s, %(email)s, '', %(email)s, true)
"""

SET_ACTIVE = """
UPDATE public.users SET active = %s WHERE uuid = %s
"""


def top_up(connection: Connection[Any], account: str, amount: Decimal, at: datetime) -> None:
    """Credit an account as the read service does: the ledger row first, then the balance."""
    record_entry(connection, account, "topup", amount, at)
    change_balance(connection, account, amount)


def record_entry(
    connection: Connection[Any], account: str, entry_type: EntryType, amount: Decimal, at: datetime
) -> None:
    """Append a ledger row of the read service's own: the first statement of a top-up.

    Nothing is written for an account without a quota state.
    """
    values = {
        "id": uuid.uuid4(),
        "account": account,
        "entry_type": entry_type,
        "amount": float(amount),
        "at": at,
    }
    connection.execute(RECORD_ENTRY, values)


def change_balance(connection: Connection[Any], account: str, amount: Decimal) -> None:
    """Add to a balance: the second statement of a top-up; alone, a change that no row explains."""
    connection.execute(CHANGE_BALANCE, {"account": account, "amount": float(amount)})


def add_period_columns(connection: Connection[Any]) -> None:
    """Bring the table of quota states to the shape of newer deployments."""
    connection.execute(ADD_PERIOD_COLUMNS)


def renew_quota(
    connection: Connection[Any], account: str, quota: int, start: datetime, end: datetime
) -> None:
    """Begin a new period with its included quota; needs `add_period_columns`."""
    connection.execute(RENEW, {"account": account, "quota": quota, "start": start, "end": end})


@dataclass(frozen=True, slots=True)
class StaleRow:
    """A whole quota state as a handler read it, without a lock, to be written back later."""

    values: Mapping[str, Any]

    def write_back(self, connection: Connection[Any], **changes: Any) -> None:
        """Write all columns as they were read, but for `changes`: what came between is lost."""
        values = {**self.values, **changes}
        account = values.pop("account_uuid")
        columns = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
            for name in values
        )
        statement = sql.SQL(
            "UPDATE public.account_quota_states SET {} WHERE account_uuid = {}"
        ).format(columns, sql.Placeholder("account"))
        connection.execute(statement, {**values, "account": account})


def read_row(connection: Connection[Any], account: str) -> StaleRow:
    """Read a whole quota state without a lock. Raises LookupError where there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(READ_QUOTA_STATE, (account,)).fetchone()
    if row is None:
        raise LookupError(f"account {account} has no quota state")
    return StaleRow(row)


def lock_row(connection: Connection[Any], account: str) -> None:
    """Lock a quota state until the connection's transaction ends: a session that is stuck."""
    connection.execute(LOCK_QUOTA_STATE, (account,))


def lock_user(connection: Connection[Any], account: str) -> None:
    """Lock an account's own row likewise, as before a deletion."""
    connection.execute(LOCK_USER, (account,))


def set_column(connection: Connection[Any], account: str, column: str, value: Any) -> None:
    """Write one column of a quota state, such as a NULL or NaN balance.

    A NOT NULL constraint of the column is dropped for a None.
    """
    name = sql.Identifier(column)
    if value is None:
        connection.execute(
            sql.SQL("ALTER TABLE public.account_quota_states ALTER COLUMN {} DROP NOT NULL").format(
                name
            )
        )
    connection.execute(
        sql.SQL("UPDATE public.account_quota_states SET {} = %s WHERE account_uuid = %s").format(
            name
        ),
        (value, account),
    )


def delete_account(connection: Connection[Any], account: str) -> None:
    """Delete an account; the rows that refer to it go with it."""
    connection.execute(DELETE_ACCOUNT, (account,))


def add_account(connection: Connection[Any], user: User) -> None:
    """Create an account, which may have the uuid of one that was deleted."""
    connection.execute(
        ADD_ACCOUNT, {"uuid": user.uuid, "proxy_uuid": user.proxy_uuid, "email": user.email}
    )


def set_active(connection: Connection[Any], account: str, *, is_active: bool) -> None:
    """Suspend an account, or let it in again: xray stops or goes on; its counters stay."""
    connection.execute(SET_ACTIVE, (is_active, account))
