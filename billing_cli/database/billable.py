"""Usage that waited for an account and has one now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.core.times import minute_of

if TYPE_CHECKING:
    from datetime import datetime

# Pending usage of streams that have an account now, by the rule of RESOLVE_ACCOUNTS.
READ_BILLABLE_USAGE = """
WITH waiting AS MATERIALIZED (
  SELECT source.source_id, stream.stream_id, stream.stored_node_id, stream.inbound_tag,
         stream.sample_uuid, stream.account_uuid,
         coalesce(source.samples_at, source.watermark) AS samples_at
    FROM billing.sources AS source
   CROSS JOIN LATERAL unnest(array_append(source.former_nodes, source.stored_node_id))
      AS carried (stored_node_id)
    JOIN billing.streams AS stream ON stream.stored_node_id = carried.stored_node_id
   WHERE source.source_id = ANY (%(source_ids)s::text[])
     AND stream.stream_id IN (SELECT stream_id FROM billing.pending_usage WHERE billed_at IS NULL)
), resolved AS (
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
)
SELECT resolved.source_id, resolved.stream_id, resolved.stored_node_id, resolved.found_uuid::text,
       resolved.found_uuid IS DISTINCT FROM resolved.account_uuid, resolved.samples_at,
       resolved.inbound_tag, resolved.sample_uuid::text, pending.reset_epoch,
       pending.from_at, pending.to_at,
       pending.uplink_start, pending.downlink_start, pending.uplink_end, pending.downlink_end
  FROM resolved
  JOIN billing.pending_usage AS pending USING (stream_id)
 WHERE pending.billed_at IS NULL AND resolved.found_uuid IS NOT NULL
 ORDER BY pending.to_at, pending.stream_id
 LIMIT %(limit)s
"""

# What is settled in one run at most; the rest follows in the next.
MAX_BILLABLE_RECORDS = 20_000


class BillableUsage(NamedTuple):
    """Pending usage of a stream that has an account now; `is_found` where its row has another.

    `samples_at` is the node's last applied snapshot with samples. `region` is that of the source's
    configuration, which the database does not know.
    """

    source_id: str
    stream_id: int
    stored_node_id: str
    account_uuid: str
    is_found: bool
    samples_at: datetime
    record: UsageRecord
    region: str = ""


def billable_usage(
    source_id: str,
    stream_id: int,
    stored_node_id: str,
    account_uuid: str,
    is_found: bool,
    samples_at: datetime,
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
        minute_of(to_at),
        epoch,
        from_at,
        to_at,
        Totals(*totals[:2]),
        Totals(*totals[2:]),
    )
    return BillableUsage(
        source_id, stream_id, stored_node_id, account_uuid, is_found, samples_at, record
    )
