"""Regions of minutes that may be on record already: a source's region may have changed since.

Bytes that are added to a minute go to a bucket that it has, and bytes are taken out of the buckets
that they were charged in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import Bucket, BucketKey
from billing_cli.database.adjustments import (
    read_bucket_histories,
    read_recorded_buckets,
    read_regions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.bucket_history import BucketHistory
    from billing_cli.database.billable import BillableUsage


def late_in_recorded_regions(
    connection: Connection,
    late: Sequence[BillableUsage],
    regions: Mapping[str | None, str],
    default_region: str,
) -> list[BillableUsage]:
    """Return late usage with the region of its minute, else that of its source in `regions`.

    That of sources that are not among them is the default.
    """
    keys = [
        BucketKey(
            usage.record.bucket_start,
            usage.stored_node_id,
            usage.account_uuid,
            regions.get(usage.source_id, default_region),
            usage.record.name.inbound_tag,
        )
        for usage in late
    ]
    recorded = read_regions(connection, keys)
    return [
        usage._replace(region=recorded.get(key, key.region))
        for usage, key in zip(late, keys, strict=True)
    ]


def in_recorded_regions(connection: Connection, changes: Iterable[Bucket]) -> list[Bucket]:
    """Return changes of buckets under the regions that are on record of their minutes.

    Of a minute with several regions, each bucket gives back at most what was charged for it.
    """
    changes = sorted(changes)
    recorded = read_recorded_buckets(connection, [change.key for change in changes])
    several = [buckets for buckets in recorded.values() if len(buckets) > 1]
    histories = read_bucket_histories(
        connection, [bucket.key for buckets in several for bucket in buckets]
    )
    placed = []
    for change in changes:
        buckets = recorded.get(change.key, [Bucket(change.key, 0, 0)])
        if len(buckets) == 1:
            placed.append(change._replace(key=buckets[0].key))
        else:
            placed += _split(change, buckets, histories)
    return placed


def _split(
    change: Bucket, buckets: Sequence[Bucket], histories: Mapping[BucketKey, BucketHistory]
) -> list[Bucket]:
    """Split a change of a minute over its buckets; the last takes what the others do not."""
    uplink, downlink = change.uplink_bytes, change.downlink_bytes
    parts = []
    for bucket in buckets[:-1]:
        entries = histories[bucket.key].entries
        charged = sum(entry.included_bytes + entry.rated_bytes for entry in entries)
        up = _taken(uplink, min(bucket.uplink_bytes, charged))
        down = _taken(downlink, min(bucket.downlink_bytes, charged + up))
        parts.append(Bucket(bucket.key, up, down))
        uplink, downlink = uplink - up, downlink - down
    parts.append(Bucket(buckets[-1].key, uplink, downlink))
    return [part for part in parts if part.uplink_bytes or part.downlink_bytes]


def _taken(change: int, most: int) -> int:
    """Return the part of a change that takes bytes, at most so many; none of one that adds any."""
    return max(min(change, 0), -max(most, 0))
