"""What is billed today, the last runs, and what the last audits found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.features.status.result import PARTS, DayTotals, LastHour, RunEntry

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

# The key of charges begins with the minute: however many there are, only the day's are read.
READ_DAY_TOTALS = """
SELECT coalesce(sum(included_bytes), 0),
       coalesce(sum(rated_bytes), 0),
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

# The last audit, and the last one of everything: one that began earlier and looked at less may have
# ended later.
READ_LAST_VIOLATIONS = """
SELECT coalesce(max(audited.violations), 0)
  FROM (VALUES (false), (true)) AS scope (is_full)
 CROSS JOIN LATERAL (SELECT violations FROM billing.audits AS audit
                      WHERE audit.is_full OR NOT scope.is_full
                      ORDER BY audit_id DESC LIMIT 1) AS audited
"""

# What the run history has of each source, in parts of the hour before `now`, 0 the newest.
READ_LAST_HOUR = """
SELECT listed.source_id,
       least(floor(extract(epoch FROM %(now)s - run.finished_at) / %(part_seconds)s),
             %(parts)s - 1)::int AS part,
       coalesce(sum(listed.charged_bytes), 0), max(listed.lag_seconds)
  FROM billing.runs AS run
 CROSS JOIN jsonb_to_recordset(run.result -> 'sources')
    AS listed (source_id text, charged_bytes numeric, lag_seconds double precision)
 WHERE run.started_at >= %(now)s::timestamptz - interval '1 hour' AND run.finished_at <= %(now)s
   AND run.job IN ('collect', 'catch-up')
 GROUP BY listed.source_id, part
"""

PART_SECONDS = 3600 / PARTS


def read_last_hour(connection: Connection, now: datetime) -> dict[str, LastHour]:
    """Return the bytes charged and the lag of the last hour, by source."""
    rows = connection.execute(
        READ_LAST_HOUR, {"now": now, "part_seconds": PART_SECONDS, "parts": PARTS}
    )
    charged: dict[str, list[int]] = {}
    lag: dict[str, list[float | None]] = {}
    for source_id, part, charged_bytes, lag_seconds in rows:
        charged.setdefault(source_id, [0] * PARTS)[PARTS - 1 - part] = int(charged_bytes)
        lag.setdefault(source_id, [None] * PARTS)[PARTS - 1 - part] = lag_seconds
    return {name: LastHour(tuple(charged[name]), tuple(lag[name])) for name in charged}


def read_day_totals(connection: Connection, since: datetime) -> DayTotals:
    """Return what is billed for the minutes from `since` on."""
    row = connection.execute(READ_DAY_TOTALS, {"since": since}).fetchone()
    if row is None:
        return DayTotals(since)
    included_bytes, charged_bytes, amount = row
    return DayTotals(since, int(included_bytes), int(charged_bytes), amount)


def read_last_runs(connection: Connection, limit: int) -> list[RunEntry]:
    """Return the newest runs, newest first."""
    rows = connection.execute(READ_LAST_RUNS, {"limit": limit})
    return [RunEntry(*row) for row in rows]


def read_last_violations(connection: Connection) -> int:
    """Return how many violations the last audits of all accounts found."""
    row = connection.execute(READ_LAST_VIOLATIONS).fetchone()
    return int(row[0]) if row else 0
