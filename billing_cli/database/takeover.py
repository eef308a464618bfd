"""What the legacy writer left on the same database: checkpoints, and minutes that it charged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.model import BucketKey, Totals
from billing_cli.core.rating import ledger_id
from billing_cli.core.takeover import LegacyCheckpoint
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from psycopg import Connection, Cursor

# Only until a stream of ours stands for the account on that node: from then on the row is ours.
READ_LEGACY_CHECKPOINTS = """
SELECT legacy.node_id, legacy.account_uuid::text, legacy.last_seen_at,
       legacy.last_uplink_total, legacy.last_downlink_total
  FROM public.traffic_stat_checkpoints AS legacy
 WHERE legacy.node_id = ANY (%(nodes)s::text[])
   AND legacy.account_uuid = ANY (%(account_uuids)s::uuid[])
   AND NOT EXISTS (SELECT FROM billing.streams AS stream
                    WHERE stream.stored_node_id = legacy.node_id
                      AND stream.account_uuid = legacy.account_uuid)
"""

# Minutes that have their charge, whoever wrote it.
READ_CHARGED = "SELECT id::text FROM public.billing_ledger WHERE id = ANY (%(ids)s::uuid[])"

# Buckets of the minutes and nodes. As a rule there are none: the key leads there at once.
READ_BUCKETS = """
SELECT bucket_start, node_id, account_uuid::text, region, line_code, uplink_bytes, downlink_bytes
  FROM public.traffic_minute_buckets
 WHERE bucket_start = ANY (%(minutes)s::timestamptz[]) AND node_id = ANY (%(nodes)s::text[])
   AND (%(account_uuids)s::uuid[] IS NULL OR account_uuid = ANY (%(account_uuids)s::uuid[]))
"""


def read_legacy_checkpoints(
    connection: Connection, nodes: Iterable[str], account_uuids: Iterable[str]
) -> dict[tuple[str, str], LegacyCheckpoint]:
    """Return the totals that the legacy writer left, by (stored node id, account)."""
    accounts = sorted(set(account_uuids))
    if not accounts:
        return {}
    rows = connection.execute(
        READ_LEGACY_CHECKPOINTS,
        {"nodes": arrays.texts(nodes), "account_uuids": arrays.plain(accounts)},
    )
    return {
        (node, account): LegacyCheckpoint(seen_at, Totals(uplink, downlink))
        for node, account, seen_at, uplink, downlink in rows
    }


class ChargedCursors(NamedTuple):
    """What READ_CHARGED and READ_BUCKETS found, once the pipeline in which they ran has ended."""

    ids: Mapping[str, BucketKey]
    entries: Cursor[Any]
    buckets: Cursor[Any]

    def bytes_by_key(self) -> dict[BucketKey, Totals | None]:
        """Return the buckets that were charged already, whoever did it, and the bytes on record.

        None where there is a ledger row and no bucket: the row holds only the rated bytes.
        """
        charged: dict[BucketKey, Totals | None]
        charged = {self.ids[entry_id]: None for (entry_id,) in self.entries}
        stored = {BucketKey(*row[:5]): Totals(*row[5:]) for row in self.buckets}
        if stored:
            charged |= {key: stored[key] for key in self.ids.values() if key in stored}
        return charged


def find_charged(
    connection: Connection, keys: Collection[BucketKey], *, few: bool = False
) -> ChargedCursors:
    """Look for buckets that were charged already, within the pipeline that is open.

    A `few` keys may be of any minutes; else they are of minutes in which hardly any node that is
    among them has buckets yet.
    """
    ids = {ledger_id(key): key for key in keys}
    accounts = sorted({key.account_uuid for key in keys}) if few else None
    return ChargedCursors(
        ids,
        connection.execute(READ_CHARGED, {"ids": arrays.plain(ids)}),
        connection.execute(
            READ_BUCKETS,
            {
                "minutes": arrays.moments(sorted({key.bucket_start for key in keys})),
                "nodes": arrays.texts(sorted({key.stored_node_id for key in keys})),
                "account_uuids": None if accounts is None else arrays.plain(accounts),
            },
        ),
    )
