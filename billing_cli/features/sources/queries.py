"""The statements that carry the counters of a node on to another name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database import arrays
from billing_cli.database.write_path import UPSERT_SHARED_CHECKPOINTS

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection


READ_NODE = """
SELECT (SELECT source_id FROM billing.sources WHERE stored_node_id = %(node)s),
       EXISTS (SELECT FROM billing.streams
                WHERE stored_node_id = %(node)s AND state IN ('active', 'duplicate'))
"""

# Streams of the node under its new id, with the totals of those under the old one. A stream that
# is there already ended when the node was given its present id, and goes on now.
CONTINUE_STREAMS = """
INSERT INTO billing.streams AS stream
       (stored_node_id, inbound_tag, sample_uuid, account_uuid, origin, first_seen_at,
        first_uplink_total, first_downlink_total, seen_at, uplink_total, downlink_total,
        reset_epoch, absent_since, before_uplink, before_downlink, surplus_uplink,
        surplus_downlink, state)
SELECT %(node)s, inbound_tag, sample_uuid, account_uuid, 'new', seen_at,
       uplink_total, downlink_total, seen_at, uplink_total, downlink_total,
       0, absent_since, before_uplink, before_downlink, surplus_uplink,
       surplus_downlink, state
  FROM billing.streams
 WHERE stored_node_id = %(former_node)s AND state <> 'continued'
    ON CONFLICT (stored_node_id, inbound_tag, sample_uuid) DO UPDATE
   SET account_uuid = excluded.account_uuid, seen_at = excluded.seen_at,
       uplink_total = excluded.uplink_total, downlink_total = excluded.downlink_total,
       absent_since = excluded.absent_since, before_uplink = excluded.before_uplink,
       before_downlink = excluded.before_downlink, surplus_uplink = excluded.surplus_uplink,
       surplus_downlink = excluded.surplus_downlink, state = excluded.state
RETURNING account_uuid::text
"""

# One for each account and each snapshot in which its counters were seen last; or a moment later,
# where a stream was given its totals just there. Ignored streams have no chain that would go on.
INSERT_SUCCESSIONS = """
WITH pair AS (
  SELECT ended.account_uuid,
         greatest(coalesce(ended.absent_since, %(samples_at)s),
                  (SELECT max(earlier.at) + interval '1 microsecond'
                     FROM billing.succession_streams AS part
                     JOIN billing.successions AS earlier USING (succession_id)
                    WHERE part.stream_id = ended.stream_id)) AS at,
         ended.stream_id AS ended_id, continued.stream_id AS continued_id,
         ended.uplink_total, ended.downlink_total
    FROM billing.streams AS ended
    JOIN billing.streams AS continued
      ON continued.stored_node_id = %(node)s AND continued.inbound_tag = ended.inbound_tag
     AND continued.sample_uuid = ended.sample_uuid
   WHERE ended.stored_node_id = %(former_node)s AND ended.state IN ('active', 'duplicate')
), added AS (
  INSERT INTO billing.successions (source_id, stored_node_id, at, kind, account_uuid, run_id)
  SELECT DISTINCT %(new)s, %(node)s, at, 'renamed', account_uuid, %(run_id)s::uuid FROM pair
  RETURNING succession_id, at, account_uuid
)
INSERT INTO billing.succession_streams
       (succession_id, stream_id, side, uplink_total, downlink_total)
SELECT succession_id, stream_id, side, uplink_total, downlink_total
  FROM pair
  JOIN added ON added.at = pair.at AND added.account_uuid IS NOT DISTINCT FROM pair.account_uuid
 CROSS JOIN LATERAL (VALUES (ended_id, 'ended'), (continued_id, 'continued'))
    AS part (stream_id, side)
"""

END_STREAMS = """
UPDATE billing.streams
   SET state = 'continued', absent_since = coalesce(absent_since, %(samples_at)s),
       before_uplink = NULL, before_downlink = NULL,
       surplus_uplink = NULL, surplus_downlink = NULL
 WHERE stored_node_id = %(former_node)s AND state IN ('active', 'duplicate')
"""

COPY_ACCOUNT_DEBTS = """
INSERT INTO billing.account_debts (stored_node_id, account_key, debt_bytes, as_of)
SELECT %(node)s, account_key, debt_bytes, as_of
  FROM billing.account_debts
 WHERE stored_node_id = %(former_node)s
    ON CONFLICT (stored_node_id, account_key) DO UPDATE
   SET debt_bytes = excluded.debt_bytes, as_of = excluded.as_of
"""

# Those that still exist, kept from being deleted until the transaction ends.
LOCK_ACCOUNTS = """
SELECT account.uuid::text FROM billing.lock_accounts(%(account_uuids)s::uuid[]) AS account (uuid)
"""


def read_node(connection: Connection, stored_node_id: str) -> tuple[str | None, bool]:
    """Return the source that carries a node, if any, and whether it has counters of its own."""
    row = connection.execute(READ_NODE, {"node": stored_node_id}).fetchone()
    return row if row is not None else (None, False)


def continue_counters(
    connection: Connection,
    *,
    source_id: str,
    former_node: str,
    node: str,
    samples_at: datetime,
    run_id: str,
) -> int:
    """Let a node's streams go on under another stored node id; return how many there are.

    `samples_at` is the last applied snapshot with samples: there, or where a stream was seen last,
    the totals are handed over.
    """
    given = {
        "new": source_id,
        "former_node": former_node,
        "node": node,
        "samples_at": samples_at,
        "run_id": run_id,
    }
    continued = connection.execute(CONTINUE_STREAMS, given).fetchall()
    connection.execute(INSERT_SUCCESSIONS, given)
    connection.execute(END_STREAMS, given)
    connection.execute(COPY_ACCOUNT_DEBTS, given)
    owners = sorted({account for (account,) in continued if account is not None})
    accounts = connection.execute(LOCK_ACCOUNTS, {"account_uuids": arrays.plain(owners)})
    kept = [account for (account,) in accounts]
    connection.execute(
        UPSERT_SHARED_CHECKPOINTS,
        {
            "checkpoint_nodes": arrays.texts([node] * len(kept)),
            "checkpoint_accounts": arrays.plain(kept),
            "checkpoint_stamps": arrays.moments([samples_at] * len(kept)),
        },
    )
    return len(continued)
