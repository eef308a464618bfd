"""What was charged by account or node, and UTC day: kept for those that have a daily maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.daily_maximum import Payer
from billing_cli.database.parameters import rows_as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.daily_maximum import Amounts

READ_DAILY_CHARGES = """
SELECT own.kind, own.name, own.day, own.amount
  FROM jsonb_to_recordset(%(wanted)s::jsonb) AS wanted (kind text, name text, day date)
  JOIN billing.daily_charges AS own USING (day, kind, name)
"""

ADD_DAILY_CHARGES = """
INSERT INTO billing.daily_charges AS own (day, kind, name, amount)
SELECT day, kind, name, amount
  FROM jsonb_to_recordset(%(amounts)s::jsonb)
    AS added (day date, kind text, name text, amount numeric)
 ORDER BY day, kind, name
    ON CONFLICT (day, kind, name) DO UPDATE SET amount = own.amount + excluded.amount
"""


def read_daily_charges(
    connection: Connection, wanted: Iterable[tuple[Payer, date]]
) -> Mapping[tuple[Payer, date], Decimal]:
    """Return what was charged by payer and day. The payers' accounts and sources are locked."""
    rows = [_key(payer, day) for payer, day in sorted(set(wanted))]
    found = connection.execute(READ_DAILY_CHARGES, {"wanted": rows_as_json(rows)})
    return {(Payer(kind, name), day): amount for kind, name, day, amount in found}


def add_daily_charges(connection: Connection, amounts: Amounts) -> None:
    """Add what a run charged."""
    rows = [
        {**_key(payer, day), "amount": f"{amount:f}"}
        for (payer, day), amount in sorted(amounts.items())
    ]
    if rows:
        connection.execute(ADD_DAILY_CHARGES, {"amounts": rows_as_json(rows)})


def _key(payer: Payer, day: date) -> dict[str, str]:
    return {"kind": payer.kind, "name": payer.name, "day": day.isoformat()}
