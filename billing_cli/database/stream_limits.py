"""New streams of the last hour, and the operator's word that lets one run pass their limits."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from billing_cli.core.stream_limits import NewStreams
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

# Streams that took over the counters of others are marked. Those of the legacy writer are not
# new, nor are those of a run that an operator let pass. Without `first`, the least of `sinces`, the
# planner expects a third of all streams, and reads them instead of the index.
READ_NEW_STREAMS = """
SELECT source.source_id, stream.first_seen_at, stream.account_uuid IS NULL,
       EXISTS (SELECT FROM billing.succession_streams AS part
                 JOIN billing.successions AS succession USING (succession_id)
                WHERE part.stream_id = stream.stream_id AND part.side = 'continued'
                  AND succession.at = stream.first_seen_at) AS is_succession,
       count(*)
  FROM unnest(%(source_ids)s::text[], %(nodes)s::text[], %(sinces)s::timestamptz[])
    AS wanted (source_id, stored_node_id, since)
  JOIN billing.sources AS source USING (source_id)
  JOIN billing.streams AS stream ON stream.stored_node_id = wanted.stored_node_id
 WHERE stream.first_seen_at > greatest(wanted.since, source.accepted_until)
   AND stream.first_seen_at > %(first)s
   AND stream.origin <> 'taken_over'
 GROUP BY 1, 2, 3, 4
"""

READ_ACCEPTED = """
SELECT source_id
  FROM billing.sources
 WHERE source_id = ANY (%(source_ids)s::text[]) AND accepted_at > %(since)s
"""

# The run is over; what it brought does not count for the next ones.
USE_ACCEPTED = """
UPDATE billing.sources
   SET accepted_at = NULL, accepted_until = watermark
 WHERE source_id = ANY (%(source_ids)s::text[])
"""

ACCEPT = """
UPDATE billing.sources
   SET accepted_at = %(now)s, accepted_reason = %(reason)s, updated_at = now()
 WHERE source_id = %(source_id)s
"""


def read_new_streams(
    connection: Connection, wanted: Sequence[tuple[str, str, datetime]]
) -> Mapping[str, list[NewStreams]]:
    """Return the new streams by source id; `wanted` are source, stored node id, and since when."""
    rows = connection.execute(
        READ_NEW_STREAMS,
        {
            "source_ids": arrays.texts([node[0] for node in wanted]),
            "nodes": arrays.texts([node[1] for node in wanted]),
            "sinces": arrays.moments([node[2] for node in wanted]),
            "first": min(node[2] for node in wanted),
        },
    )
    found: defaultdict[str, list[NewStreams]] = defaultdict(list)
    for source_id, at, is_unresolved, is_succession, count in rows:
        found[source_id].append(NewStreams(at, is_unresolved, count, is_succession))
    return found


def read_accepted(connection: Connection, source_ids: Sequence[str], since: datetime) -> set[str]:
    """Return those of the sources of which an operator let a run pass after `since`."""
    rows = connection.execute(
        READ_ACCEPTED, {"source_ids": arrays.texts(source_ids), "since": since}
    )
    return {source_id for (source_id,) in rows}


def use_accepted(connection: Connection, source_ids: Sequence[str]) -> None:
    """Note that the run which an operator let pass was made."""
    connection.execute(USE_ACCEPTED, {"source_ids": arrays.texts(source_ids)})


def accept_one_run(connection: Connection, source_id: str, now: datetime, reason: str) -> None:
    """Let one run of a source pass the limits of its streams."""
    connection.execute(ACCEPT, {"source_id": source_id, "now": now, "reason": reason})
