"""What an archive of a month holds, and the note that it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from billing_cli.core.archives import ranges_between
from billing_cli.core.merkle import places_of, root_of_range
from billing_cli.database.seals import (
    LOG_TREE,
    REACHES_OVER,
    SEAL_COLUMNS,
    copy_lines,
    read_last_prune,
    read_nodes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.merkle import LeafRange
    from billing_cli.database.seals import FactTable

# Seals with facts in the month. What is left of seals that lost facts by a prune is covered by the
# seal of that, all of it. Of a month that was pruned, there are those that came in late.
IN_MONTH = """
       seal.first_bucket < %(end)s AND seal.last_bucket >= %(start)s
       AND (seal.last_bucket < %(kept_since)s AND seal.created_at <= %(pruned_at)s) IS NOT TRUE"""
CUT: LiteralString = REACHES_OVER.format(kept_since="%(kept_since)s", pruned_at="%(pruned_at)s")
OF_MONTH: LiteralString = f"""
       (seal.job <> 'prune' AND {IN_MONTH}
        OR EXISTS (SELECT FROM billing.seals AS seal WHERE {IN_MONTH} AND {CUT})
           AND ({CUT} OR seal.run_id = %(prune_run)s AND seal.step = %(prune_step)s))"""

READ_MONTH: LiteralString = f"""
SELECT count(*), count(*) FILTER (WHERE leaf_number IS NULL), min(first_bucket), max(last_bucket)
  FROM billing.seals AS seal
 WHERE {OF_MONTH}
"""

READ_SEALS: LiteralString = f"""
SELECT {SEAL_COLUMNS}, seal.leaf_number
  FROM billing.seals AS seal
 WHERE {OF_MONTH}
 ORDER BY seal.leaf_number
"""

# Facts of other months that are covered by seals of this one.
READ_OTHER_FACTS: LiteralString = f"""
SELECT fact.run_id, fact.step, {{line}}
  FROM {{name}} AS fact
  JOIN billing.seals AS seal ON seal.run_id = fact.run_id AND seal.step = fact.step
 WHERE fact.bucket_start >= %(first)s AND fact.bucket_start <= %(last)s
   AND (fact.bucket_start < %(start)s OR fact.bucket_start >= %(end)s)
   AND fact.step > 0 AND {OF_MONTH}
 ORDER BY {{key}}
"""

READ_DAYS = """
SELECT day.day::text, day.accounts, day.salts_sha256, day.root, day.leaf_number,
       leaf.account_uuid::text, leaf.position, leaf.salt, node.hash
  FROM billing.sealed_days AS day
  JOIN billing.day_leaves AS leaf USING (day)
  JOIN billing.tree_nodes AS node
    ON node.tree = to_char(day.day, 'YYYYMMDD')::integer AND node.level = 0
   AND node.position = leaf.position
 WHERE day.day >= %(start)s::date AND day.day < %(end)s::date
 ORDER BY day.day, leaf.position
"""

SAVE_ARCHIVE = """
INSERT INTO billing.archives
       (month, run_id, archived_at, directory, records, charges, seals, facts_sha256)
VALUES (%(month)s, %(run_id)s, %(archived_at)s, %(directory)s, %(records)s, %(charges)s, %(seals)s,
        %(facts_sha256)s)
    ON CONFLICT (month) DO UPDATE
   SET run_id = excluded.run_id, archived_at = excluded.archived_at,
       directory = excluded.directory, records = excluded.records, charges = excluded.charges,
       seals = excluded.seals, facts_sha256 = excluded.facts_sha256
"""


class MonthSeals(NamedTuple):
    """The seals of a month: how many, how many without a leaf, and the minutes of their facts."""

    seals: int
    waiting: int
    first: datetime | None
    last: datetime | None


def bounds_of(connection: Connection, start: datetime, end: datetime) -> dict[str, Any]:
    """Return a month, [start, end), and the last prune, as parameters of what is read of it."""
    prune = read_last_prune(connection)
    return {
        "start": start,
        "end": end,
        "kept_since": prune.first_bucket if prune else None,
        "pruned_at": prune.created_at if prune else None,
        "prune_run": prune.run_id if prune else None,
        "prune_step": prune.step if prune else None,
    }


def read_month(connection: Connection, bounds: dict[str, Any]) -> MonthSeals:
    """Return what seals there are of a month."""
    row = connection.execute(READ_MONTH, bounds).fetchone()
    return MonthSeals(*row) if row else MonthSeals(0, 0, None, None)


def read_seals(connection: Connection, bounds: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the seals of a month with their leaf numbers, in this order."""
    return connection.execute(READ_SEALS, bounds).fetchall()


def read_other_facts(
    connection: Connection, table: FactTable, bounds: dict[str, Any]
) -> Iterator[bytes]:
    """Yield run, step and canonical line of the facts of other months that a month needs."""
    return copy_lines(connection, READ_OTHER_FACTS.format(**table._asdict()), bounds)


def read_days(connection: Connection, start: datetime, end: datetime) -> Iterator[tuple[Any, ...]]:
    """Yield the leaves of accounts of the sealed days in [start, end)."""
    with connection.cursor(name="archive_days") as cursor:
        cursor.itersize = 10_000
        cursor.execute(READ_DAYS, {"start": start, "end": end})
        yield from cursor


def read_between(
    connection: Connection, numbers: Sequence[int], size: int
) -> list[tuple[LeafRange, bytes]]:
    """Return the roots of what lies between some leaves of the log."""
    ranges = ranges_between(numbers, size)
    nodes = read_nodes(connection, LOG_TREE, places_of(ranges))
    return [(leaf_range, root_of_range(leaf_range, nodes)) for leaf_range in ranges]
