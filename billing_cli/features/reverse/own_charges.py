"""What of a step's usage can be taken back: at most what our own charges of its minutes hold.

The rest was charged by the legacy writer. Its ledger row stays, and so do bucket and record.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.canonical import StoredUsage
from billing_cli.core.model import Bucket, BucketKey, Totals
from billing_cli.jobs.own_charges import own_bytes
from billing_cli.jobs.regions import in_recorded_regions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg import Connection

    from billing_cli.features.reverse.queries import StandingUsage


class Reversal(NamedTuple):
    """Usage of which something is taken back, and the bytes that stay on record for it."""

    standing: StandingUsage
    stays: Totals

    def correction(self) -> StoredUsage:
        """Return the record of what counts from now on."""
        record, standing = self.standing.record, self.standing
        return StoredUsage(
            record._replace(start=record.end, end=self.stays),
            standing.stream_id,
            standing.account_uuid,
            "correction",
            standing.revision + 1,
        )


def find_reversals(
    connection: Connection, usage: Sequence[StandingUsage]
) -> tuple[list[Reversal], int]:
    """Return what is taken back, and the bytes of the usage that the legacy writer charged."""
    own = own_bytes(connection, {_key(standing, "") for standing in usage})
    reversals, left = [], 0
    for standing in usage:
        key, (uplink, downlink) = _key(standing, ""), standing.record.end
        up = min(uplink, own[key])
        down = min(downlink, own[key] - up)
        own[key] -= up + down
        left += uplink - up + downlink - down
        if up or down:
            reversals.append(Reversal(standing, Totals(uplink - up, downlink - down)))
    return reversals, left


def buckets_of(connection: Connection, reversals: Iterable[Reversal], region: str) -> list[Bucket]:
    """Sum what is taken out of each bucket; `region` is that of minutes without one."""
    sums: defaultdict[BucketKey, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for standing, stays in reversals:
        key = _key(standing, region)
        (uplink, downlink), end = sums[key], standing.record.end
        sums[key] = uplink + stays.uplink - end.uplink, downlink + stays.downlink - end.downlink
    return in_recorded_regions(connection, (Bucket(key, *sums[key]) for key in sums))


def _key(standing: StandingUsage, region: str) -> BucketKey:
    record = standing.record
    return BucketKey(
        record.bucket_start,
        standing.stored_node_id,
        standing.account_uuid,
        region,
        record.name.inbound_tag,
    )
