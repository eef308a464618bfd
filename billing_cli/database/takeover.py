"""What an older writer left on the same database: checkpoints, and minutes that it has charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import BucketKey, Totals
from billing_cli.core.takeover import OlderCheckpoint
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

# Only until a stream of ours stands for the account on that node: from then on the row is ours.
READ_OLDER_CHECKPOINTS = """
SELECT older.node_id, older.account_uuid::text, older.last_seen_at,
       older.last_uplink_total, older.last_downlink_total
  FROM public.traffic_stat_checkpoints AS older
 WHERE older.node_id = ANY (%(nodes)s::text[])
   AND older.account_uuid = ANY (%(account_uuids)s::uuid[])
   AND NOT EXISTS (SELECT FROM billing.streams AS stream
                    WHERE stream.stored_node_id = older.node_id
                      AND stream.account_uuid = older.account_uuid)
"""

# Minutes that somebody charged for whom we hold no evidence, with the bytes on record for them.
READ_FOREIGN_CHARGES = """
SELECT wanted.bucket_start, wanted.node_id, wanted.account_uuid::text, wanted.region,
       wanted.line_code, coalesce(bucket.uplink_bytes, 0), coalesce(bucket.downlink_bytes, 0)
  FROM unnest(%(ids)s::uuid[], %(buckets)s::timestamptz[], %(nodes)s::text[],
              %(account_uuids)s::uuid[], %(regions)s::text[], %(lines)s::text[])
    AS wanted (id, bucket_start, node_id, account_uuid, region, line_code)
  LEFT JOIN public.traffic_minute_buckets AS bucket
 USING (bucket_start, node_id, account_uuid, region, line_code)
 WHERE (bucket.bucket_start IS NOT NULL
        OR EXISTS (SELECT FROM public.billing_ledger AS entry WHERE entry.id = wanted.id))
   AND NOT EXISTS (SELECT FROM billing.charges AS own
                    WHERE own.bucket_start = wanted.bucket_start
                      AND own.account_uuid = wanted.account_uuid AND own.ledger_id = wanted.id)
"""


def read_older_checkpoints(
    connection: Connection, nodes: Iterable[str], account_uuids: Iterable[str]
) -> dict[tuple[str, str], OlderCheckpoint]:
    """Return the totals that an older writer left, by (stored node id, account)."""
    accounts = sorted(set(account_uuids))
    if not accounts:
        return {}
    rows = connection.execute(
        READ_OLDER_CHECKPOINTS,
        {"nodes": arrays.texts(nodes), "account_uuids": arrays.plain(accounts)},
    )
    return {
        (node, account): OlderCheckpoint(seen_at, Totals(uplink, downlink))
        for node, account, seen_at, uplink, downlink in rows
    }


def read_foreign_charges(
    connection: Connection, ledger_ids: Iterable[str], keys: Iterable[BucketKey]
) -> dict[BucketKey, Totals]:
    """Return the bytes on record for the buckets that another writer charged.

    `ledger_ids` are those of the minutes' charges, in the order of `keys`.
    """
    rows = connection.execute(
        READ_FOREIGN_CHARGES,
        {"ids": arrays.plain(ledger_ids), **arrays.bucket_keys(list(keys))},
    )
    return {BucketKey(*row[:5]): Totals(*row[5:]) for row in rows}
