"""Sources in the database: whose node they carry, their watermark, their lock, their gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from billing_cli.core.model import NodeIdentity
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Gap

# The state of the named sources. A source that only the older writer knew has sync state alone.
READ_SOURCES = """
SELECT wanted.source_id, own.env, own.node_id, own.contract, own.watermark,
       shared.last_completed_until, shared.last_attempted_at
  FROM unnest(%(source_ids)s::text[]) AS wanted (source_id)
  LEFT JOIN billing.sources AS own USING (source_id)
  LEFT JOIN public.billing_source_sync_state AS shared USING (source_id)
"""

# A lock lasts until the transaction ends, so a killed run never leaves one behind. The OFFSET
# keeps the planner from asking for a lock twice.
TRY_LOCK_SOURCES = """
SELECT source_id, pg_try_advisory_xact_lock(hashtextextended('billing:source:' || source_id, 0))
  FROM (SELECT source_id FROM unnest(%(source_ids)s::text[]) AS wanted (source_id)
         ORDER BY source_id OFFSET 0) AS wanted
"""

# Which source a node belongs to already.
READ_NODE_OWNERS = """
SELECT stored_node_id, source_id
  FROM billing.sources
 WHERE stored_node_id = ANY (%(stored_node_ids)s::text[])
"""

# The watermark only ever rises; what a source is may only be set where it was agreed on before.
SAVE_SOURCES = """
INSERT INTO billing.sources AS own
       (source_id, env, node_id, stored_node_id, contract, first_snapshot_at, watermark)
SELECT source_id, env, node_id, stored_node_id, contract, first_snapshot_at, watermark
  FROM unnest(%(source_ids)s::text[], %(envs)s::text[], %(node_ids)s::text[],
              %(stored_node_ids)s::text[], %(contracts)s::text[],
              %(first_snapshots)s::timestamptz[], %(watermarks)s::timestamptz[])
    AS given (source_id, env, node_id, stored_node_id, contract, first_snapshot_at, watermark)
 ORDER BY source_id
    ON CONFLICT (source_id) DO UPDATE
   SET env = excluded.env, node_id = excluded.node_id, stored_node_id = excluded.stored_node_id,
       contract = excluded.contract, watermark = excluded.watermark,
       updated_at = now()
 WHERE own.watermark < excluded.watermark
"""

# What accounts.svc.plus sees of a source: attempts and errors always, progress only forward.
SAVE_SYNC_STATE = """
INSERT INTO public.billing_source_sync_state AS shared
       (source_id, last_completed_until, last_attempted_at, last_succeeded_at, last_error,
        updated_at)
SELECT source_id, watermark, %(now)s, CASE WHEN error = '' THEN %(now)s::timestamptz END, error,
       now()
  FROM unnest(%(source_ids)s::text[], %(watermarks)s::timestamptz[], %(errors)s::text[])
    AS given (source_id, watermark, error)
 ORDER BY source_id
    ON CONFLICT (source_id) DO UPDATE
   SET last_completed_until = greatest(shared.last_completed_until, excluded.last_completed_until),
       last_attempted_at = excluded.last_attempted_at,
       last_succeeded_at = coalesce(excluded.last_succeeded_at, shared.last_succeeded_at),
       last_error = excluded.last_error,
       updated_at = now()
"""

# A gap is found once. One that was still open when it was found ends with the next snapshot.
SAVE_GAPS = """
INSERT INTO billing.gaps (source_id, kind, from_at, to_at, streams)
SELECT source_id, kind, from_at, to_at, streams
  FROM unnest(%(source_ids)s::text[], %(kinds)s::text[], %(froms)s::timestamptz[],
              %(tos)s::timestamptz[], %(streams)s::integer[])
    AS given (source_id, kind, from_at, to_at, streams)
    ON CONFLICT (source_id, kind, from_at) DO NOTHING
RETURNING source_id
"""

# New snapshots end what had stalled.
END_STALLED = """
UPDATE billing.gaps AS gap
   SET to_at = given.first_at, resolved_at = %(now)s, resolution = 'snapshots came again'
  FROM unnest(%(source_ids)s::text[], %(firsts)s::timestamptz[]) AS given (source_id, first_at)
 WHERE gap.source_id = given.source_id AND gap.kind = 'stalled' AND gap.resolved_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class SourceState:
    """What the database knows of a source.

    `watermark` is None before the first snapshot; `older_watermark` is where an older writer
    stood that knew the source before us.
    """

    source_id: str
    identity: NodeIdentity | None = None
    contract: Literal["window", "latest"] | None = None
    watermark: datetime | None = None
    older_watermark: datetime | None = None
    last_attempted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """A source's new watermark, and whose counters it carries."""

    source_id: str
    identity: NodeIdentity
    contract: str
    first_snapshot_at: datetime
    watermark: datetime


def read_sources(connection: Connection, source_ids: Sequence[str]) -> dict[str, SourceState]:
    """Return the state of every named source, known or not."""
    rows = connection.execute(READ_SOURCES, {"source_ids": arrays.texts(source_ids)})
    states = {}
    for row in rows:
        source_id, env, node_id, contract, watermark, shared_until, attempted_at = row
        states[source_id] = SourceState(
            source_id=source_id,
            identity=None if node_id is None else NodeIdentity(env, node_id),
            contract=contract,
            watermark=watermark,
            older_watermark=shared_until if watermark is None else None,
            last_attempted_at=attempted_at,
        )
    return states


def try_lock_sources(connection: Connection, source_ids: Sequence[str]) -> set[str]:
    """Take the lock of each source that no other transaction holds; return those taken."""
    rows = connection.execute(TRY_LOCK_SOURCES, {"source_ids": arrays.texts(source_ids)})
    return {source_id for source_id, is_ours in rows if is_ours}


def read_node_owners(connection: Connection, stored_node_ids: Iterable[str]) -> dict[str, str]:
    """Return which source each of the nodes belongs to, as far as they are known."""
    parameters = {"stored_node_ids": arrays.texts(stored_node_ids)}
    return dict(connection.execute(READ_NODE_OWNERS, parameters).fetchall())


def save_progress(connection: Connection, progress: Sequence[SourceProgress]) -> None:
    """Advance the sources' watermarks."""
    if not progress:
        return
    connection.execute(
        SAVE_SOURCES,
        {
            "source_ids": arrays.texts(one.source_id for one in progress),
            "envs": arrays.texts(one.identity.env for one in progress),
            "node_ids": arrays.texts(one.identity.node_id for one in progress),
            "stored_node_ids": arrays.texts(one.identity.stored for one in progress),
            "contracts": arrays.texts(one.contract for one in progress),
            "first_snapshots": arrays.moments(one.first_snapshot_at for one in progress),
            "watermarks": arrays.moments(one.watermark for one in progress),
        },
    )


def save_attempts(
    connection: Connection,
    attempts: Sequence[tuple[str, datetime | None, str]],
    now: datetime,
) -> None:
    """Record for (source id, watermark, error) that the source was tried; '' is no error."""
    if not attempts:
        return
    connection.execute(
        SAVE_SYNC_STATE,
        {
            "source_ids": arrays.texts(one[0] for one in attempts),
            "watermarks": arrays.moments(one[1] for one in attempts),
            "errors": arrays.texts(one[2] for one in attempts),
            "now": now,
        },
    )


def save_gaps(
    connection: Connection, gaps: Sequence[tuple[str, Gap]], *, are_open: bool = False
) -> list[str]:
    """Record gaps by source, once each; return the sources of those that are new.

    With `are_open` a gap's end is not known yet.
    """
    if not gaps:
        return []
    rows = connection.execute(
        SAVE_GAPS,
        {
            "source_ids": arrays.texts(source_id for source_id, _ in gaps),
            "kinds": arrays.texts(gap.kind for _, gap in gaps),
            "froms": arrays.moments(gap.from_at for _, gap in gaps),
            "tos": arrays.moments(None if are_open else gap.to_at for _, gap in gaps),
            "streams": arrays.plain(gap.streams for _, gap in gaps),
        },
    )
    return [source_id for (source_id,) in rows]


def end_stalled(
    connection: Connection, firsts: Sequence[tuple[str, datetime]], now: datetime
) -> None:
    """Close the `stalled` gaps of sources that have new snapshots, at the first new stamp."""
    if not firsts:
        return
    connection.execute(
        END_STALLED,
        {
            "source_ids": arrays.texts(source_id for source_id, _ in firsts),
            "firsts": arrays.moments(first for _, first in firsts),
            "now": now,
        },
    )
