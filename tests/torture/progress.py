"""Which transactions of the jobs took place, and in which order: noted by the database itself.

How far a job gets is its own to choose, and what a kill or another writer leaves of it nobody
can foretell. So triggers note each transaction's watermarks and the range of what it corrected.
They vanish with a transaction that is rolled back, and say nothing of bytes or money: what a
transaction must have written follows from this, and is worked out apart from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from psycopg import Connection

WATCH = """
CREATE SCHEMA torture;
CREATE TABLE torture.progress (
  position bigint GENERATED ALWAYS AS IDENTITY,
  transaction_id text NOT NULL DEFAULT pg_current_xact_id()::text,
  run_id uuid, status text, stored_node_id text, watermark timestamptz,
  first_cell timestamptz, last_cell timestamptz
);
CREATE FUNCTION torture.note_run() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO torture.progress (run_id, status) VALUES (NEW.run_id, NEW.status);
  RETURN NULL;
END $$;
CREATE FUNCTION torture.note_watermark() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog AS $$
BEGIN
  IF NEW.watermark IS NOT NULL
     AND (TG_OP = 'INSERT' OR OLD.watermark IS DISTINCT FROM NEW.watermark) THEN
    INSERT INTO torture.progress (stored_node_id, watermark)
    VALUES (NEW.stored_node_id, NEW.watermark);
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION torture.note_corrections() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO torture.progress (stored_node_id, first_cell, last_cell)
  SELECT stream.stored_node_id, min(added.to_at), max(added.to_at)
    FROM added JOIN billing.streams AS stream USING (stream_id)
   WHERE added.kind = 'correction'
   GROUP BY 1;
  RETURN NULL;
END $$;
CREATE TRIGGER torture_runs AFTER INSERT OR UPDATE ON billing.runs
   FOR EACH ROW EXECUTE FUNCTION torture.note_run();
CREATE TRIGGER torture_sources AFTER INSERT OR UPDATE ON billing.sources
   FOR EACH ROW EXECUTE FUNCTION torture.note_watermark();
CREATE TRIGGER torture_records AFTER INSERT ON billing.usage_records
   REFERENCING NEW TABLE AS added
   FOR EACH STATEMENT EXECUTE FUNCTION torture.note_corrections();
"""

READ_PROGRESS = """
SELECT position, transaction_id, run_id::text, status,
       stored_node_id, watermark, first_cell, last_cell
  FROM torture.progress
 WHERE position > %s
 ORDER BY position
"""


@dataclass(slots=True)
class Deed:
    """A transaction that took place: whose it was, watermarks by node, cells corrected by node.

    `is_failure` tells one that only notes that the run failed.
    """

    run_id: str = ""
    is_failure: bool = False
    watermarks: dict[str, datetime] = field(default_factory=dict)
    corrected: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)


class Progress:
    """Reads what took place since it was last asked."""

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection
        self.position = 0
        connection.execute(WATCH)

    def deeds(self) -> list[Deed]:
        """Return the transactions since the last call, in their order.

        Each notes its run at its end, when it holds every lock that it needs; so their order is
        that in which they got hold of what they share.
        """
        rows = self.connection.execute(READ_PROGRESS, (self.position,)).fetchall()
        by_transaction: dict[str, Deed] = {}
        ended: dict[str, int] = {}
        for position, transaction_id, *noted in rows:
            _add(by_transaction.setdefault(transaction_id, Deed()), noted)
            ended[transaction_id] = self.position = position
        return [by_transaction[one] for one in sorted(ended, key=ended.__getitem__)]


def _add(deed: Deed, noted: Iterable[Any]) -> None:
    run_id, status, node, watermark, first_cell, last_cell = noted
    if run_id is not None:
        deed.run_id, deed.is_failure = run_id, status == "error"
    elif watermark is not None:
        deed.watermarks[node] = watermark
    else:
        first, last = deed.corrected.get(node, (first_cell, last_cell))
        deed.corrected[node] = min(first, first_cell), max(last, last_cell)
