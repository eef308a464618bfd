"""The monthly partitions of the evidence: which are there, and making those that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.times import format_rfc3339
from billing_cli.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

# Looks at two names in the catalog, and makes partitions only where the last of those that should
# be ahead is not there: in the first run of a month.
MAKE_MISSING_PARTITIONS = """
SELECT billing.make_partitions()
 WHERE to_regclass('billing.charges_' || to_char(
         date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months', 'YYYY_MM')) IS NULL
"""

# This month and the next, as far as they have no partition, and whether the rest, which takes what
# has none, was ever written to.
READ_PARTITION_STATE = """
SELECT ARRAY (SELECT to_char(month, 'YYYY-MM')
                FROM (VALUES (date_trunc('month', now() AT TIME ZONE 'UTC')),
                             (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month'))
                  AS wanted (month)
               WHERE NOT EXISTS (
                     SELECT FROM pg_inherits
                      WHERE inhparent = to_regclass('billing.charges')
                        AND inhrelid = to_regclass('billing.charges_' || to_char(month, 'YYYY_MM')))
               ORDER BY month),
       coalesce(pg_relation_size(to_regclass('billing.usage_records_default')), 0)
       + coalesce(pg_relation_size(to_regclass('billing.charges_default')), 0) > 0
"""

# Evidence of earlier minutes was pruned. None where all of it is there.
READ_EVIDENCE_SINCE = "SELECT max(month) + interval '1 month' FROM billing.pruned"


class PartitionState(NamedTuple):
    """Months such as 2026-05 that should have a partition and have none; rows without one."""

    missing_months: tuple[str, ...]
    is_rest_used: bool


def read_partition_state(connection: Connection) -> PartitionState:
    """Return whether there is a partition for the minutes of this month and the next."""
    row = connection.execute(READ_PARTITION_STATE).fetchone()
    return PartitionState(tuple(row[0]), row[1]) if row else PartitionState((), False)


def make_missing_partitions(connection: Connection) -> None:
    """Make the partitions of the coming months where they are missing; cheap where they are not."""
    connection.execute(MAKE_MISSING_PARTITIONS)


def require_evidence(connection: Connection, since: datetime | None) -> None:
    """Raise UsageError where evidence of minutes from `since` on was pruned."""
    kept_since = read_evidence_since(connection)
    if since is not None and kept_since is not None and since < kept_since:
        raise UsageError(
            f"--since is before {format_rfc3339(kept_since)}: evidence of earlier minutes was "
            "pruned, and what they were billed by can't be looked at again"
        )


def read_evidence_since(connection: Connection) -> datetime | None:
    """Return the first instant of which evidence was kept; None where none was pruned."""
    row = connection.execute(READ_EVIDENCE_SINCE).fetchone()
    return row[0] if row else None
