"""What is billed today, and the last runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.features.status.result import DayTotals, JournalEntry

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

# The key of charges begins with the minute: however many there are, only the day's are read.
READ_DAY_TOTALS = """
SELECT coalesce(sum(included_bytes), 0)::bigint,
       coalesce(sum(rated_bytes), 0)::bigint,
       0 - coalesce(sum(amount_delta), 0)
  FROM billing.charges
 WHERE bucket_start >= %(since)s
"""

READ_LAST_RUNS = """
SELECT run_id::text, job, status, started_at,
       extract(epoch FROM finished_at - started_at)::double precision,
       coalesce((result ->> 'written_minutes')::bigint, 0), error
  FROM billing.runs
 ORDER BY started_at DESC
 LIMIT %(limit)s
"""


def read_day_totals(connection: Connection, since: datetime) -> DayTotals:
    """Return what is billed for the minutes from `since` on."""
    row = connection.execute(READ_DAY_TOTALS, {"since": since}).fetchone()
    return DayTotals(since, *row) if row else DayTotals(since)


def read_last_runs(connection: Connection, limit: int) -> list[JournalEntry]:
    """Return the newest runs, newest first."""
    rows = connection.execute(READ_LAST_RUNS, {"limit": limit})
    return [JournalEntry(*row) for row in rows]
