"""Rows that found no partition of their month: they get one, or follow a month that was pruned."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from billing_cli.database import functions
from billing_cli.database.schema import APPEND_ONLY_TABLES, SCHEMA
from billing_cli.features.prune.queries import keep_sums
from billing_cli.features.prune.result import PrunedMonth, kept_since

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

REST_TABLES = tuple(f"{SCHEMA}.{table}_default" for table in APPEND_ONLY_TABLES)

READ_REST_MONTHS = """
SELECT date_trunc('month', bucket_start, 'UTC'), count(*) FROM billing.{table}_default GROUP BY 1
"""

READ_COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
  FROM pg_attribute
 WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped
"""

MAKE_PARTITION = "SELECT billing.make_partition(%(month)s)"


def read_rest_months(connection: Connection) -> dict[datetime, PrunedMonth]:
    """Return the rows that found no partition of theirs, by month."""
    records, charges = (
        dict[datetime, int](
            connection.execute(READ_REST_MONTHS.format(table=table).encode()).fetchall()
        )
        for table in APPEND_ONLY_TABLES
    )
    return {
        month: PrunedMonth(month, records.get(month, 0), charges.get(month, 0), 0, ())
        for month in sorted(records.keys() | charges.keys())
    }


def spread_rest(
    connection: Connection, months: Iterable[datetime], detached: Iterable[PrunedMonth]
) -> int:
    """Give the months of the rest their partitions; return how many rows leave it.

    Rows of the `detached` months, which were pruned, came in late: their sums are kept as those of
    the month were, and they join its tables. No other session can use the evidence then.
    """
    # A partition can't be made while rows of its month are in the rest.
    for table in APPEND_ONLY_TABLES:
        rest = f"{SCHEMA}.{table}_default"
        connection.execute(f"ALTER TABLE {SCHEMA}.{table} DETACH PARTITION {rest}".encode())
        connection.execute(f"ALTER TABLE {rest} RENAME TO {table}_moving".encode())
    for month in sorted(months):
        connection.execute(MAKE_PARTITION, {"month": month})
    moved = sum(_prune_late(connection, month) for month in detached)
    for table in APPEND_ONLY_TABLES:
        rest = f"{SCHEMA}.{table}_moving"
        moved += connection.execute(f"INSERT INTO {SCHEMA}.{table} TABLE {rest}".encode()).rowcount
        connection.execute(f"DROP TABLE {rest}".encode())
        for statement in functions.rest_of(table):
            connection.execute(statement.encode())
    return moved


def _prune_late(connection: Connection, month: PrunedMonth) -> int:
    """Prune the rows of a month that were moved out of the rest; return how many there are."""
    end = kept_since(month.month, -1)
    of_month = "WHERE bucket_start >= %(month)s AND bucket_start < %(end)s"
    late = {
        table: f"(SELECT * FROM {SCHEMA}.{table}_moving {of_month}) AS late"
        for table in APPEND_ONLY_TABLES
    }
    given = {"month": month.month, "end": end}
    keep_sums(connection, late["usage_records"], late["charges"], given)
    moved = 0
    for table in APPEND_ONLY_TABLES:
        moving, joined = f"{SCHEMA}.{table}_moving", f"{SCHEMA}.{table}_{month.month:%Y_%m}"
        # A table that was detached by an earlier version may lack columns.
        row = connection.execute(READ_COLUMNS, {"table": joined}).fetchone()
        columns = row[0] if row else "*"
        connection.execute(
            f"INSERT INTO {joined} ({columns}) SELECT {columns} FROM {late[table]}".encode(), given
        )
        # The guard of the table of which this was a part is still on it.
        connection.execute(f"ALTER TABLE {moving} DISABLE TRIGGER USER".encode())
        moved += connection.execute(f"DELETE FROM {moving} {of_month}".encode(), given).rowcount
    return moved
