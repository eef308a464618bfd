"""Sources that other sessions keep locked: for how long, and who it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from psycopg import Connection

# A row apart from that of the source, which is locked. What was found before counts no longer once
# a run that began later got through, or where no run came for an hour.
NOTE_BUSY_SOURCES = """
INSERT INTO billing.busy_sources AS busy (source_id, since, last_at)
SELECT source_id, %(now)s, %(now)s
  FROM unnest(%(source_ids)s::text[]) AS wanted (source_id)
 ORDER BY source_id
    ON CONFLICT (source_id) DO UPDATE
   SET since = CASE WHEN busy.last_at < excluded.last_at - interval '1 hour'
                      OR EXISTS (SELECT FROM public.billing_source_sync_state AS shared
                                  WHERE shared.source_id = busy.source_id
                                    AND shared.last_attempted_at >= busy.since)
                    THEN excluded.since ELSE busy.since END,
       last_at = excluded.last_at
RETURNING source_id, extract(epoch FROM last_at - since)::double precision
"""

# The transaction that locked a row is in its xmax. Where several share a lock it is not: then
# whoever has rows of the table locked is named.
READ_LOCK_HOLDERS = """
WITH holders AS (
  SELECT own.source_id, held.pid
    FROM billing.sources AS own
    JOIN pg_locks AS held
      ON held.locktype = 'transactionid' AND held.granted AND held.transactionid = own.xmax
   WHERE own.source_id = ANY (%(source_ids)s::text[])
)
SELECT wanted.source_id, coalesce(usename, 'of a prepared transaction'), pid
  FROM unnest(%(source_ids)s::text[]) AS wanted (source_id)
  JOIN LATERAL (
       SELECT pid FROM holders WHERE holders.source_id = wanted.source_id
        UNION
       SELECT pid FROM pg_locks
        WHERE relation = 'billing.sources'::regclass AND granted AND pid <> pg_backend_pid()
          AND mode <> 'AccessShareLock'
          AND NOT EXISTS (SELECT FROM holders WHERE holders.source_id = wanted.source_id)
       ) AS holder ON true
  LEFT JOIN pg_stat_activity USING (pid)
 WHERE pid IS DISTINCT FROM pg_backend_pid()
 ORDER BY 1, 3
"""

# Who holds a whole table, or the lock of migrations, and so whom a statement waited for in vain.
READ_TABLE_LOCK_HOLDERS = """
SELECT DISTINCT coalesce(usename, 'of a prepared transaction'), pid
  FROM pg_locks
  LEFT JOIN pg_class ON pg_class.oid = relation
  LEFT JOIN pg_stat_activity USING (pid)
 WHERE granted AND pid IS DISTINCT FROM pg_backend_pid()
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND ((locktype = 'advisory' AND classid::bigint << 32 | objid::bigint = 27700462113877607)
     OR (locktype = 'relation' AND relnamespace IN (to_regnamespace('billing'),
                                                    to_regnamespace('public'))
         AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                      'AccessExclusiveLock')))
 ORDER BY 1, 2
"""


class LockHolder(NamedTuple):
    """A session that holds a lock. `pid` is None for a prepared transaction."""

    role: str
    pid: int | None

    def __str__(self) -> str:
        return f"role {self.role} (pid {self.pid})" if self.pid else f"role {self.role}"


def note_busy_sources(
    connection: Connection, source_ids: Iterable[str], now: datetime
) -> dict[str, float]:
    """Record that a run found the sources locked; return since how many seconds runs find so."""
    wanted = {"source_ids": arrays.texts(source_ids), "now": now}
    return dict(connection.execute(NOTE_BUSY_SOURCES, wanted).fetchall())


def read_lock_holders(connection: Connection, source_ids: Iterable[str]) -> dict[str, str]:
    """Return in words who holds each of the sources that are locked."""
    rows = connection.execute(READ_LOCK_HOLDERS, {"source_ids": arrays.texts(source_ids)})
    holders: dict[str, list[str]] = {}
    for source_id, role, pid in rows:
        holders.setdefault(source_id, []).append(str(LockHolder(role, pid)))
    return {source_id: ", ".join(found) for source_id, found in holders.items()}


def read_table_lock_holders(connection: Connection) -> str:
    """Return in words who holds tables of ours locked; empty where they are not."""
    rows = connection.execute(READ_TABLE_LOCK_HOLDERS)
    return ", ".join(str(LockHolder(role, pid)) for role, pid in rows)
