"""Shared checkpoints that an earlier run left, because another session held the account."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

# Those of the nodes of these sources, and of nodes that no source carries any more, or only one
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
