"""What `verify` reads: the log, days, seals, and facts by seal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

from billing_cli.database.seals import (
    ADOPTION_JOB,
    CHARGES,
    PRUNE_JOB,
    REACHES_OVER,
    RECORDS,
    SEAL_COLUMNS,
    copy_lines,
    seal_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date, datetime

    from psycopg import Connection

    from billing_cli.core.seals import Seal
    from billing_cli.database.seals import FactTable

ROWS_AT_ONCE = 5_000

READ_LEAVES: LiteralString = f"""
SELECT seal.leaf_number, seal.appended_at, {SEAL_COLUMNS}
  FROM billing.seals AS seal
 WHERE seal.leaf_number IS NOT NULL
 ORDER BY seal.leaf_number
"""

READ_DAYS = """
SELECT leaf_number, sealed_at, day, accounts, salts_sha256, root
  FROM billing.sealed_days
 ORDER BY leaf_number
"""

# In the order in which they became complete.
READ_TREE = """
SELECT level, position, hash
  FROM billing.tree_nodes
 WHERE tree = %(tree)s
 ORDER BY (position + 1) << level, level
"""

READ_DAY_LEAVES = """
SELECT position, account_uuid::text, salt FROM billing.day_leaves WHERE day = %(day)s
 ORDER BY position, account_uuid
"""

READ_DAY_BOUNDS = """
SELECT (appended_at AT TIME ZONE 'UTC')::date, min(first_bucket), max(last_bucket),
       min(leaf_number), max(leaf_number)
  FROM billing.seals
 WHERE appended_at IS NOT NULL AND charges > 0 AND job NOT IN ('adoption', 'prune')
 GROUP BY 1
"""

READ_SEALS: LiteralString = f"""
SELECT {SEAL_COLUMNS}
  FROM billing.seals AS seal
 WHERE (seal.first_bucket, seal.run_id, seal.step)
       > (%(first_bucket)s::timestamptz, %(run_id)s::uuid, %(step)s::integer)
   AND seal.last_bucket >= %(scan_start)s
 ORDER BY seal.first_bucket, seal.run_id, seal.step
 LIMIT %(limit)s
"""

# Where the facts of the seals begin that were written since a time.
READ_SCAN_START = """
SELECT min(first_bucket) FROM billing.seals WHERE created_at >= %(since)s AND job <> 'prune'
"""

# Seals whose facts are gone, in part at least; and whether the log says so.
READ_PRUNED = """
SELECT count(*) FILTER (WHERE first_bucket < %(first_bucket)s AND created_at <= %(created_at)s
                          AND job <> 'prune'),
       bool_or(leaf_number IS NOT NULL) FILTER (WHERE run_id = %(run_id)s AND step = %(step)s)
  FROM billing.seals
"""

READ_COUNTS = """
SELECT count(*) FILTER (WHERE leaf_number IS NULL),
       coalesce(sum(records + charges) FILTER (WHERE last_bucket >= %(scan_start)s), 0)::bigint
  FROM billing.seals
"""

READ_RUNS_BETWEEN = """
SELECT run_id::text FROM billing.seals
 WHERE leaf_number >= %(first)s AND leaf_number < %(end)s
 LIMIT 2
"""

READ_CHECKS: LiteralString = "SELECT {column} FROM billing.seals WHERE run_id = %s AND step = %s"

# Of one seal; `step` 0 and any run for facts of earlier versions.
READ_FACTS_OF: LiteralString = """
SELECT {line}
  FROM {name} AS fact
 WHERE fact.bucket_start >= %(first_bucket)s AND fact.bucket_start <= %(last_bucket)s
   AND fact.step = %(step)s AND (fact.step = 0 OR fact.run_id = %(run_id)s)
 ORDER BY {key}
"""

# Of a prune: what is left of the seals that reach over it.
READ_LEFT: LiteralString = f"""
SELECT {{line}}
  FROM {{name}} AS fact
  JOIN billing.seals AS seal ON seal.run_id = fact.run_id AND seal.step = fact.step
 WHERE fact.bucket_start >= %(first_bucket)s AND fact.bucket_start <= %(last_bucket)s
   AND {REACHES_OVER.format(kept_since="%(first_bucket)s", pruned_at="%(created_at)s")}
 ORDER BY {{key}}
"""

# Usage has a charge in the same minute, and the other way round.
READ_ACCOUNTS_WITHOUT: LiteralString = """
SELECT DISTINCT other.account_uuid::text
  FROM {other} AS other
 WHERE other.bucket_start >= %(first_bucket)s AND other.bucket_start <= %(last_bucket)s
   AND other.run_id = %(run_id)s AND other.step = %(step)s
   AND NOT EXISTS (SELECT FROM {name} AS fact
                    WHERE fact.bucket_start = other.bucket_start
                      AND fact.account_uuid = other.account_uuid
                      AND fact.run_id = other.run_id AND fact.step = other.step)
 ORDER BY 1
 LIMIT %(limit)s
"""


@contextmanager
def rows_of(
    connection: Connection, query: LiteralString, parameters: Mapping[str, object] | None = None
) -> Iterator[Iterator[Sequence[Any]]]:
    """Read rows a part at a time, whatever their number."""
    with connection.cursor(name=f"verify_{id(query)}") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query, parameters)
        yield iter(cursor)


def read_seals(
    connection: Connection, after: tuple[datetime, str, int], scan_start: datetime, limit: int
) -> list[Seal]:
    """Return the next seals by their first bucket, whose facts reach beyond `scan_start`."""
    names = ("first_bucket", "run_id", "step")
    parameters = {
        **dict(zip(names, after, strict=True)),
        "scan_start": scan_start,
        "limit": limit,
    }
    return [seal_of(row) for row in connection.execute(READ_SEALS, parameters)]


def read_lines_of(
    connection: Connection, table: FactTable, seal: Seal, *, of_any_minute: bool
) -> Iterator[bytes]:
    """Yield the canonical lines of the facts of a seal, in key order.

    Those `of_any_minute` are also of minutes that are not the seal's.
    """
    bounds = _bounds(seal, any_run=True)
    if of_any_minute and seal.job != ADOPTION_JOB:
        bounds |= {"first_bucket": "-infinity", "last_bucket": "infinity"}
    query = READ_FACTS_OF
    if seal.job == PRUNE_JOB:
        query, bounds = READ_LEFT, {**_bounds(seal), "created_at": seal.created_at}
    return copy_lines(connection, query.format(**table._asdict()), bounds)


def read_checks(connection: Connection, table: FactTable, seal: Seal) -> bytes | None:
    """Return the checks of a seal's lines, if it has any."""
    column: LiteralString = "record_checks" if table is RECORDS else "charge_checks"
    query = READ_CHECKS.format(column=column)
    row = connection.execute(query, (seal.run_id, seal.step)).fetchone()
    return None if row is None else row[0]


def read_accounts_without(
    connection: Connection, table: FactTable, seal: Seal, limit: int
) -> list[str]:
    """Return accounts with a fact in the other table and none in this one, in the same minute."""
    other = CHARGES if table is RECORDS else RECORDS
    query = READ_ACCOUNTS_WITHOUT.format(name=table.name, other=other.name)
    rows = connection.execute(query, {**_bounds(seal), "limit": limit})
    return [account for (account,) in rows]


def read_day_bounds(connection: Connection) -> dict[date, dict[str, Any]]:
    """Return, by day of booking, where the charges are that were booked then."""
    names = ("first_bucket", "last_bucket", "first_leaf", "last_leaf")
    return {
        day: dict(zip(names, bounds, strict=True))
        for day, *bounds in connection.execute(READ_DAY_BOUNDS)
    }


def _bounds(seal: Seal, *, any_run: bool = False) -> dict[str, object]:
    is_adoption = any_run and seal.job == ADOPTION_JOB
    return {
        "run_id": seal.run_id,
        "step": 0 if is_adoption else seal.step,
        "first_bucket": seal.first_bucket,
        "last_bucket": seal.last_bucket,
    }
