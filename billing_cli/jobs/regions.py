"""Regions of minutes that may be on record already: a source's region may have changed since.

Bytes that are added to a minute go to a bucket that it has, and bytes are taken out of the buckets
that they were charged in.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from billing_cli.core.model import Bucket, BucketKey
from billing_cli.database.adjustments import (
    read_own_bytes,
    read_recorded_buckets,
    read_regions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg import Connection

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

    Of a minute with several regions, each bucket gives back at most what was charged for it. A
    bucket that is gone, or under another region by now, gives back what we charged.
    """
    changes = sorted(changes)
    recorded = read_recorded_buckets(connection, [change.key for change in changes])
    own = read_own_bytes(connection, [change.key for change in changes])
    own_by_minute: defaultdict[BucketKey, list[Bucket]] = defaultdict(list)
    # Charges have no direction: either may be as much as all.
    for key, charged in own.items():
        own_by_minute[key._replace(region="")].append(Bucket(key, charged, charged))
    placed = []
    for change in changes:
        buckets = recorded.get(change.key, [])
        if change.total_bytes < 0:
            known = {bucket.key for bucket in buckets}
            charged_in = own_by_minute[change.key._replace(region="")]
            gone = (one for one in charged_in if one.uplink_bytes > 0 and one.key not in known)
            buckets = sorted([*buckets, *gone])
        if len(buckets) > 1:
            placed += _split(change, buckets, own)
        else:
            placed.append(change._replace(key=buckets[0].key) if buckets else change)
    return placed


def _split(change: Bucket, buckets: Sequence[Bucket], own: Mapping[BucketKey, int]) -> list[Bucket]:
    """Split a change of a minute over its buckets; the last takes what the others do not."""
    uplink, downlink = change.uplink_bytes, change.downlink_bytes
    parts = []
    for bucket in buckets[:-1]:
        charged = own.get(bucket.key, 0)
        up = _taken(uplink, min(bucket.uplink_bytes, charged))
        down = _taken(downlink, min(bucket.downlink_bytes, charged + up))
        parts.append(Bucket(bucket.key, up, down))
        uplink, downlink = uplink - up, downlink - down
    parts.append(Bucket(buckets[-1].key, uplink, downlink))
    return [part for part in parts if part.uplink_bytes or part.downlink_bytes]


def _taken(change: int, most: int) -> int:
    """Return the part of a change that takes bytes, at most so many; none of one that adds any."""
    return max(min(change, 0), -max(most, 0))
