"""What the tables take on disk, after real runs, with all their partitions and indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.results import Storage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.world import World

# A row for each stream that moved in a minute.
FACTS = (
    "billing.usage_records",
    "billing.charges",
    "public.traffic_minute_buckets",
    "public.billing_ledger",
)

# A row for each stream or account, changed whenever it moves.
CHECKPOINTS = (
    "billing.streams",
    "public.traffic_stat_checkpoints",
    "public.account_quota_states",
)

# A table that has partitions takes nothing by itself.
READ_SIZES = """
SELECT sum(pg_table_size(relid)), sum(pg_indexes_size(relid))
  FROM (SELECT relid FROM pg_partition_tree(%(table)s::regclass)
         UNION SELECT %(table)s::regclass) AS part
"""


def read_storage(world: World, tables: Iterable[str]) -> list[Storage]:
    """Return what each table takes for a row."""
    found = []
    with psycopg.connect(world.url) as connection:
        for table in tables:
            rows = connection.execute(
                SQL("SELECT count(*) FROM {}").format(Identifier(*table.split(".")))
            ).fetchone()
            sizes = connection.execute(READ_SIZES, {"table": table}).fetchone()
            assert rows is not None
            assert sizes is not None
            count = int(rows[0])
            found.append(Storage(table, count, float(sizes[0] / count), float(sizes[1] / count)))
    return found
