"""What was charged by account or node, and UTC day: kept for those that have a daily maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.daily_maximum import Payer
from billing_cli.database import arrays
from billing_cli.database.parameters import rows_as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.daily_maximum import Amounts
    from billing_cli.core.model import Charge

# The sum of a node and day without one is 0 from then on: so it can be locked.
LOCK_DAILY_CHARGES = """
WITH wanted AS (
  SELECT kind, name, day
    FROM jsonb_to_recordset(%(wanted)s::jsonb) AS wanted (kind text, name text, day date)
), of_node AS (
  INSERT INTO billing.daily_charges AS own (day, kind, name, amount)
  SELECT day, kind, name, 0
    FROM wanted
   WHERE kind = 'node'
   ORDER BY day, kind, name
      ON CONFLICT (day, kind, name) DO UPDATE SET amount = own.amount
  RETURNING kind, name, day, amount
)
SELECT kind, name, day, amount FROM of_node
 UNION ALL
SELECT own.kind, own.name, own.day, own.amount
  FROM wanted
  JOIN billing.daily_charges AS own USING (day, kind, name)
 WHERE own.kind = 'account'
"""

# No sum falls below 0: what is given back may be from before the maximum was configured. Sums that
# rise and those that fall are changed in one order, so that jobs side by side don't deadlock.
ADD_DAILY_CHARGES = """
INSERT INTO billing.daily_charges AS own (day, kind, name, amount)
SELECT day, kind, name, added.amount
  FROM jsonb_to_recordset(%(amounts)s::jsonb)
    AS added (day date, kind text, name text, amount numeric)
  LEFT JOIN billing.daily_charges AS known USING (day, kind, name)
 WHERE added.amount > 0 OR known.amount IS NOT NULL
 ORDER BY day, kind, name
    ON CONFLICT (day, kind, name) DO UPDATE SET amount = greatest(own.amount + excluded.amount, 0)
"""

# The range limits the months that are read.
READ_RELEASED = """
SELECT charge.ledger_id::text
  FROM unnest(%(buckets)s::timestamptz[], %(account_uuids)s::uuid[], %(ids)s::uuid[])
    AS wanted (bucket_start, account_uuid, ledger_id)
  JOIN billing.charges AS charge USING (bucket_start, account_uuid, ledger_id)
  JOIN billing.seals AS seal USING (run_id, step)
 WHERE seal.job = 'held-release'
   AND charge.bucket_start BETWEEN %(first_bucket)s AND %(last_bucket)s
"""


def lock_daily_charges(
    connection: Connection, wanted: Iterable[tuple[Payer, date]]
) -> Mapping[tuple[Payer, date], Decimal]:
    """Return what was charged by payer and day, in the currency of the ledger.

    The caller has locked the accounts, which their sums stay with. Those of nodes are locked here,
    until the transaction ends: `rerate` changes them without the source.
    """
    rows = [_key(payer, day) for payer, day in sorted(set(wanted))]
    found = connection.execute(LOCK_DAILY_CHARGES, {"wanted": rows_as_json(rows)})
    return {(Payer(kind, name), day): amount for kind, name, day, amount in found}


def add_daily_charges(connection: Connection, amounts: Amounts) -> None:
    """Add what a run charged; the accounts are locked."""
    rows = [
        {**_key(payer, day), "amount": f"{amount:f}"}
        for (payer, day), amount in sorted(amounts.items())
    ]
    if rows:
        connection.execute(ADD_DAILY_CHARGES, {"amounts": rows_as_json(rows)})


def read_released(connection: Connection, charges: Iterable[Charge]) -> set[str]:
    """Return the ledger ids of what `held release` charged, of all that the entries adjust."""
    adjusting = [charge for charge in charges if charge.adjusts]
    if not adjusting:
        return set()
    minutes = [charge.key.bucket_start for charge in adjusting]
    given = {
        **arrays.bucket_keys([charge.key for charge in adjusting]),
        "ids": arrays.plain(charge.adjusts for charge in adjusting),
        "first_bucket": min(minutes),
        "last_bucket": max(minutes),
    }
    return {ledger_id for (ledger_id,) in connection.execute(READ_RELEASED, given)}


def _key(payer: Payer, day: date) -> dict[str, str]:
    return {"kind": payer.kind, "name": payer.name, "day": day.isoformat()}
