"""What earlier runs left: usage that has an account now, and stale shared checkpoints."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.core.times import minute_of
from billing_cli.database.spans import IS_OF_FORMER_ACCOUNT

if TYPE_CHECKING:
    from datetime import datetime

# A source that no run has asked for so long is not configured any more.
RETIRED_AGE = timedelta(days=1)

# Pending usage of streams that have an account now, by the rule of RESOLVE_ACCOUNTS. That of a node
# that no source carries any more is locked by row, and has no source here. Where there is more than
# the limit, streams take turns: usage that goes on waiting, because its account can't be charged,
# must not keep others from being settled.
#
# It is billed in its own minute, or in the first that was not pruned. Where an account was deleted
# and created again, the evidence of its former life stays in the minutes that were charged then,
# and its entries have their ids: it is billed in the newest minute of the node then, as what was
# held is. Where that was charged in the former life as well, it waits for a newer one.
READ_BILLABLE_USAGE = f"""
WITH carried AS MATERIALIZED (
  SELECT source_id, carried.stored_node_id, coalesce(samples_at, watermark) AS samples_at
    FROM billing.sources AS source
    LEFT JOIN public.billing_source_sync_state AS shared USING (source_id)
   CROSS JOIN LATERAL unnest(array_append(source.former_nodes, source.stored_node_id))
      AS carried (stored_node_id)
   WHERE source_id = ANY (%(source_ids)s::text[]) OR last_attempted_at >= %(retired_before)s
), waiting AS MATERIALIZED (
  SELECT carried.source_id, stream.stream_id, stream.stored_node_id, stream.inbound_tag,
         stream.sample_uuid, stream.account_uuid,
         coalesce(carried.samples_at, stream.seen_at) AS samples_at, random() AS turn
    FROM billing.streams AS stream
    LEFT JOIN carried USING (stored_node_id)
   WHERE stream.stream_id IN (SELECT stream_id FROM billing.pending_usage WHERE billed_at IS NULL)
     AND (carried.source_id IS NULL OR carried.source_id = ANY (%(source_ids)s::text[]))
), resolved AS MATERIALIZED (
  SELECT waiting.*, coalesce(own.uuid, proxy.uuid, last.uuid) AS found_uuid
    FROM waiting
    LEFT JOIN public.users AS own ON own.uuid = waiting.sample_uuid
    LEFT JOIN (SELECT proxy_uuid, min(uuid::text)::uuid AS uuid
                 FROM public.users
                WHERE proxy_uuid IN (SELECT sample_uuid FROM waiting)
                GROUP BY proxy_uuid
               HAVING count(*) = 1) AS proxy
      ON proxy.proxy_uuid = waiting.sample_uuid
    LEFT JOIN public.users AS last ON last.uuid = waiting.account_uuid
), uncarried AS MATERIALIZED (
  SELECT stream_id, from_at
    FROM billing.pending_usage
   WHERE billed_at IS NULL
     AND stream_id IN (SELECT stream_id FROM resolved
                        WHERE source_id IS NULL AND found_uuid IS NOT NULL)
   ORDER BY random()
   LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED
)
SELECT stream.source_id, stream.stream_id, stream.stored_node_id, stream.found_uuid::text,
       stream.found_uuid IS DISTINCT FROM stream.account_uuid, stream.samples_at,
       (SELECT record.bucket_start
          FROM (SELECT stream.found_uuid AS account_uuid,
                       unnest(ARRAY[minute.own, minute.newest]) AS bucket_start) AS record
         WHERE NOT {IS_OF_FORMER_ACCOUNT}
         ORDER BY bucket_start
         LIMIT 1),
       stream.inbound_tag, stream.sample_uuid::text, pending.reset_epoch,
       pending.from_at, pending.to_at,
       pending.uplink_start, pending.downlink_start, pending.uplink_end, pending.downlink_end
  FROM resolved AS stream
  JOIN billing.pending_usage AS pending USING (stream_id)
 CROSS JOIN LATERAL (
       SELECT greatest(date_trunc('minute', pending.to_at), kept.since) AS own,
              date_trunc('minute', greatest(pending.to_at, kept.since, stream.samples_at)) AS newest
         FROM (SELECT max(month) + interval '1 month' AS since FROM billing.pruned) AS kept)
      AS minute
 WHERE pending.billed_at IS NULL AND stream.found_uuid IS NOT NULL
   AND (stream.source_id IS NOT NULL
        OR (stream_id, pending.from_at) IN (SELECT stream_id, from_at FROM uncarried))
 ORDER BY turn, pending.to_at
 LIMIT %(limit)s
"""

# What is settled in one run at most; the rest follows in the next.
MAX_BILLABLE_RECORDS = 20_000


class BillableUsage(NamedTuple):
    """Pending usage of a stream that has an account now; `is_found` where its row has another.

    `source_id` is None where no source carries its node any more. `samples_at` is the node's last
    applied snapshot with samples. `region` is that of its minute, else that of the source's
    configuration, which the database does not know. With `must_wait` its own minute and the newest
    of its node were charged to the former life of its account.
    """

    source_id: str | None
    stream_id: int
    stored_node_id: str
    account_uuid: str
    is_found: bool
    samples_at: datetime
    record: UsageRecord
    region: str = ""
    must_wait: bool = False


def billable_usage(
    source_id: str | None,
    stream_id: int,
    stored_node_id: str,
    account_uuid: str,
    is_found: bool,
    samples_at: datetime,
    billed_in: datetime | None,
    tag: str,
    sample_uuid: str,
    epoch: int,
    from_at: datetime,
    to_at: datetime,
    *totals: int,
) -> BillableUsage:
    """Return the usage in a row of READ_BILLABLE_USAGE."""
    record = UsageRecord(
        StreamName(tag, sample_uuid),
        billed_in or minute_of(to_at),
        epoch,
        from_at,
        to_at,
        Totals(*totals[:2]),
        Totals(*totals[2:]),
    )
    return BillableUsage(
        source_id,
        stream_id,
        stored_node_id,
        account_uuid,
        is_found,
        samples_at,
        record,
        must_wait=billed_in is None,
    )


# Shared checkpoints that an earlier run left, because another session held the account: those of
# the nodes of these sources, and of nodes that no source carries any more, or only one
# that is not collected any more: their streams do not move, so that whoever sums them up finds the
# same.
READ_STALE_CHECKPOINTS = """
SELECT CASE WHEN source.source_id = ANY (%(source_ids)s::text[]) THEN source.source_id END,
       stale.stored_node_id, stale.account_uuid::text,
       coalesce(source.samples_at, source.watermark, stale.noted_at)
  FROM billing.stale_checkpoints AS stale
  LEFT JOIN billing.sources AS source
    ON stale.stored_node_id = ANY (array_append(source.former_nodes, source.stored_node_id))
  LEFT JOIN public.billing_source_sync_state AS shared USING (source_id)
 WHERE stale.is_stale
   AND (source.source_id = ANY (%(source_ids)s::text[])
        OR coalesce(shared.last_attempted_at, '-infinity') < %(retired_before)s)
"""


class StaleCheckpoint(NamedTuple):
    """A shared checkpoint to be written; `samples_at` is the node's last snapshot with samples.

    `source_id` is None where no source carries the node any more, or none that is collected.
    """

    source_id: str | None
    stored_node_id: str
    account_uuid: str
    samples_at: datetime
