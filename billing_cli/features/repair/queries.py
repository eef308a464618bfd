"""What `repair` reads under lock and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.funds import Funds
from billing_cli.core.rating import balance_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.features.repair.result import Repair

# In key order, as every run locks them. Rows that others hold are left to the next repair.
LOCK_FUNDS = """
SELECT account_uuid::text, current_balance, remaining_included_quota
  FROM public.account_quota_states
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
 ORDER BY account_uuid
   FOR UPDATE SKIP LOCKED
"""

COUNT_STATES = """
SELECT count(*) FROM public.account_quota_states
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
"""

SET_FUNDS = """
UPDATE public.account_quota_states
   SET current_balance = %(balance)s::numeric::double precision,
       remaining_included_quota = %(quota)s, effective_at = now(), updated_at = now()
 WHERE account_uuid = %(account_uuid)s::uuid
"""

# The stamp is taken under the lock: entries that follow the repair are stamped after it.
ADD_REPAIR = """
INSERT INTO billing.repairs
       (account_uuid, after_id, repair_id, ledger_ids, amount_delta, balance_before,
        balance_after, quota_before, quota_after, reason, run_id, at)
VALUES (%(account_uuid)s, %(after_id)s, %(repair_id)s, %(ledger_ids)s::uuid[], %(amount_delta)s,
        %(balance_before)s, %(balance_after)s, %(quota_before)s, %(quota_after)s, %(reason)s,
        %(run_id)s, clock_timestamp())
RETURNING at
"""


class LockedFunds(NamedTuple):
    """Accounts under lock: their funds, or why nothing can be computed with them.

    `skipped` counts accounts that other sessions hold.
    """

    funds: dict[str, Funds]
    problems: dict[str, str]
    skipped: int


def lock_funds(connection: Connection, account_uuids: Sequence[str]) -> LockedFunds:
    """Lock accounts, except those that others hold, and read their funds."""
    wanted = {"account_uuids": list(account_uuids)}
    rows = connection.execute(LOCK_FUNDS, wanted).fetchall()
    count = connection.execute(COUNT_STATES, wanted).fetchone()
    funds, problems = {}, {}
    for account, balance, quota in rows:
        try:
            amount = balance_of(balance)
        except ValueError as error:
            problems[account] = f"{error}; set a valid balance first"
            continue
        if quota is None:
            problems[account] = "a remaining quota of NULL; set a valid quota first"
        else:
            funds[account] = Funds(amount, quota)
    return LockedFunds(funds, problems, (count[0] if count else 0) - len(rows))


def write_repair(connection: Connection, repair: Repair, reason: str, run_id: str) -> datetime:
    """Set the funds of a locked account and record why; return when."""
    connection.execute(
        SET_FUNDS,
        {
            "account_uuid": repair.account_uuid,
            "balance": repair.after.balance,
            "quota": repair.after.quota,
        },
    )
    row = connection.execute(
        ADD_REPAIR,
        {
            "account_uuid": repair.account_uuid,
            "after_id": repair.after_id,
            "repair_id": repair.repair_id,
            "ledger_ids": [charge.ledger_id for charge in repair.charges],
            "amount_delta": repair.after.balance - repair.before.balance,
            "balance_before": repair.before.balance,
            "balance_after": repair.after.balance,
            "quota_before": repair.before.quota,
            "quota_after": repair.after.quota,
            "reason": reason,
            "run_id": run_id,
        },
    ).fetchone()
    if row is None:
        raise AssertionError("an INSERT with RETURNING has a row")
    at: datetime = row[0]
    return at
