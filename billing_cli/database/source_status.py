"""What is stored of each source, for `status` and for the metrics file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.core.source_status import SourceStatus
from billing_cli.database import arrays
from billing_cli.database.busy import read_lock_holders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

# One row a configured source. Of a node that was renamed, what is held or was found under its
# former ids counts as well. Whether it waits for a successor is in the last run's result. Each
# count is taken once for all sources and costs as much as is open, except for the streams by
# account, which are all counted (some 40 ms for 100,000): with a metrics file this is asked every
# minute.
READ_SOURCE_STATUS = """
WITH open_gaps AS (
  SELECT source_id, jsonb_object_agg(kind, found) AS by_kind,
         jsonb_object_agg(kind, uncertain_bytes) AS uncertain_by_kind
    FROM (SELECT source_id, kind, count(*) AS found, sum(uncertain_bytes) AS uncertain_bytes
            FROM billing.gaps
           WHERE resolved_at IS NULL
           GROUP BY source_id, kind) AS counted
   GROUP BY source_id
), carried AS (
  SELECT source_id, unnest(array_append(former_nodes, stored_node_id)) AS stored_node_id
    FROM billing.sources
), held AS (
  SELECT carried.source_id, count(*) AS found,
         sum(uplink_end - uplink_start::numeric + downlink_end - downlink_start) AS size_bytes
    FROM billing.held_deltas AS held
    JOIN billing.streams AS stream USING (stream_id)
    JOIN carried USING (stored_node_id)
   WHERE held.state = 'held'
   GROUP BY carried.source_id
), unresolved AS (
  SELECT stored_node_id, count(*) AS found
    FROM billing.streams
   WHERE account_uuid IS NULL AND absent_since IS NULL
   GROUP BY stored_node_id
), uncharged AS (
  SELECT carried.source_id, count(DISTINCT stream.account_uuid) AS found
    FROM billing.pending_usage AS pending
    JOIN billing.streams AS stream USING (stream_id)
    JOIN carried USING (stored_node_id)
    JOIN public.users AS account ON account.uuid = stream.account_uuid
   WHERE pending.billed_at IS NULL AND pending.to_at < now() - interval '5 minutes'
   GROUP BY carried.source_id
), crowded AS (
  SELECT stored_node_id, max(found) AS found
    FROM (SELECT stored_node_id, count(*) AS found
            FROM billing.streams
           WHERE absent_since IS NULL
           GROUP BY stored_node_id, coalesce(account_uuid, sample_uuid)) AS by_account
   GROUP BY stored_node_id
), recent AS (
  SELECT carried.source_id, count(*) AS found, sum(uncertain_bytes) AS uncertain_bytes
    FROM billing.successions
    JOIN carried USING (stored_node_id)
   WHERE found_at >= now() - interval '24 hours'
   GROUP BY carried.source_id
), last_run AS (
  SELECT result
    FROM billing.runs
   WHERE job IN ('collect', 'catch-up')
   ORDER BY started_at DESC
   LIMIT 1
), waiting AS (
  SELECT listed.source_id
    FROM last_run
   CROSS JOIN jsonb_to_recordset(result -> 'sources')
      AS listed (source_id text, waits_for_successor boolean)
   WHERE waits_for_successor
)
SELECT wanted.source_id, own.node_id, own.env, own.contract, own.watermark,
       shared.last_attempted_at, shared.last_succeeded_at, coalesce(shared.last_error, ''),
       coalesce(open_gaps.by_kind, '{}'), coalesce(held.found, 0), coalesce(unresolved.found, 0),
       coalesce(uncharged.found, 0),
       coalesce(open_gaps.uncertain_by_kind, '{}'), coalesce(held.size_bytes, 0),
       coalesce(recent.found, 0), coalesce(recent.uncertain_bytes, 0),
       waiting.source_id IS NOT NULL,
       coalesce(totals.charged_bytes, 0), coalesce(totals.charged_amount, 0),
       coalesce(totals.new_streams, 0), coalesce(totals.successions, 0),
       coalesce(crowded.found, 0),
       coalesce(extract(epoch FROM busy.last_at - busy.since), 0)::double precision
  FROM unnest(%(source_ids)s::text[]) WITH ORDINALITY AS wanted (source_id, place)
  LEFT JOIN billing.sources AS own USING (source_id)
  LEFT JOIN public.billing_source_sync_state AS shared USING (source_id)
  LEFT JOIN open_gaps USING (source_id)
  LEFT JOIN held USING (source_id)
  LEFT JOIN unresolved USING (stored_node_id)
  LEFT JOIN uncharged USING (source_id)
  LEFT JOIN crowded USING (stored_node_id)
  LEFT JOIN recent USING (source_id)
  LEFT JOIN waiting USING (source_id)
  LEFT JOIN billing.source_totals AS totals USING (source_id)
  LEFT JOIN billing.busy_sources AS busy
    ON busy.source_id = wanted.source_id
   AND busy.since > coalesce(shared.last_attempted_at, '-infinity')
 ORDER BY place
"""


def read_source_status(connection: Connection, source_ids: Sequence[str]) -> list[SourceStatus]:
    """Return what is stored of each named source, in the order given."""
    rows = connection.execute(READ_SOURCE_STATUS, {"source_ids": arrays.texts(source_ids)})
    sources = [
        SourceStatus(
            source_id=source_id,
            node_id=node_id or "",
            env=env or "",
            contract=contract or "",
            watermark=watermark,
            last_attempted_at=attempted_at,
            last_succeeded_at=succeeded_at,
            last_error=last_error,
            gaps=gaps,
            held_deltas=held,
            unresolved_streams=unresolved,
            uncharged_accounts=uncharged,
            uncertain_bytes=uncertain,
            held_bytes=int(held_bytes),
            successions=successions,
            succession_uncertain_bytes=int(succession_uncertain_bytes),
            waits_for_successor=waits_for_successor,
            charged_bytes_total=int(charged_bytes),
            amount_total=amount,
            new_streams_total=new_streams,
            successions_total=total_successions,
            most_account_streams=most_account_streams,
            busy_seconds=busy_seconds,
        )
        for (
            source_id,
            node_id,
            env,
            contract,
            watermark,
            attempted_at,
            succeeded_at,
            last_error,
            gaps,
            held,
            unresolved,
            uncharged,
            uncertain,
            held_bytes,
            successions,
            succession_uncertain_bytes,
            waits_for_successor,
            charged_bytes,
            amount,
            new_streams,
            total_successions,
            most_account_streams,
            busy_seconds,
        ) in rows
    ]
    busy = [source.source_id for source in sources if source.busy_seconds]
    if not busy:
        return sources
    holders = read_lock_holders(connection, busy)
    return [replace(source, lock_holder=holders.get(source.source_id, "")) for source in sources]
