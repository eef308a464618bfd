"""The statements that carry a source's progress on to another source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.core.model import NodeIdentity

READ_PROGRESS = """
SELECT env, node_id, stored_node_id, contract, first_snapshot_at, watermark, samples_at,
       restarted_at, debt_bytes, debt_at, credit_since, former_nodes
  FROM billing.sources
 WHERE source_id = %(old)s
"""

# The former row stays without progress, so that a node belongs to one source only. That it was
# moved keeps what the shared sync state says of it from being taken for the legacy writer's.
CLEAR_PROGRESS = """
UPDATE billing.sources
   SET env = NULL, node_id = NULL, stored_node_id = NULL, contract = NULL,
       first_snapshot_at = NULL, watermark = NULL, samples_at = NULL, restarted_at = NULL,
       debt_bytes = 0, debt_at = NULL, credit_since = NULL, former_nodes = '{}',
       moved_to = %(new)s, updated_at = now()
 WHERE source_id = %(old)s
"""

SET_PROGRESS = """
UPDATE billing.sources
   SET env = %(env)s, node_id = %(node_id)s, stored_node_id = %(stored_node_id)s,
       contract = %(contract)s, first_snapshot_at = %(first_snapshot_at)s,
       watermark = %(watermark)s, samples_at = %(samples_at)s, restarted_at = %(restarted_at)s,
       debt_bytes = %(debt_bytes)s, debt_at = %(debt_at)s, credit_since = %(credit_since)s,
       former_nodes = %(former_nodes)s, moved_to = NULL, updated_at = now()
 WHERE source_id = %(new)s
"""

MOVE_GAPS = "UPDATE billing.gaps SET source_id = %(new)s WHERE source_id = %(old)s"

# The row of the former id stays as it is: other services may read it.
COPY_SYNC_STATE = """
INSERT INTO public.billing_source_sync_state AS shared
       (source_id, last_completed_until, last_attempted_at, last_succeeded_at, last_error,
        updated_at)
SELECT %(new)s, last_completed_until, last_attempted_at, last_succeeded_at, '', now()
  FROM public.billing_source_sync_state
 WHERE source_id = %(old)s
    ON CONFLICT (source_id) DO UPDATE
   SET last_completed_until = excluded.last_completed_until,
       last_attempted_at = excluded.last_attempted_at,
       last_succeeded_at = excluded.last_succeeded_at,
       last_error = '', updated_at = now()
"""


def move_progress(connection: Connection, old: str, new: str, node: NodeIdentity) -> None:
    """Carry progress and gaps of a source on to another, which may be the same, and to a node."""
    names = {"old": old, "new": new}
    cursor = connection.execute(READ_PROGRESS, names)
    columns = [column.name for column in cursor.description or ()]
    (row,) = cursor.fetchall()
    progress = dict(zip(columns, row, strict=True))
    former_node = progress["stored_node_id"]
    if node.stored != former_node:
        # What the node was called so far; its history begins with the snapshot that was last.
        known = [*progress["former_nodes"], former_node]
        progress["former_nodes"] = [node_id for node_id in known if node_id != node.stored]
        progress["first_snapshot_at"] = progress["samples_at"] or progress["watermark"]
    progress |= {"env": node.env, "node_id": node.node_id, "stored_node_id": node.stored}
    connection.execute(CLEAR_PROGRESS, names)
    connection.execute(SET_PROGRESS, progress | names)
    if old != new:
        connection.execute(MOVE_GAPS, names)
        connection.execute(COPY_SYNC_STATE, names)
