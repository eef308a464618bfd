"""What counts of a node's usage now, and what of it can be taken back.

That is at most what our own charges of its minutes hold. The rest was charged by the legacy writer.
Its ledger row stays, and so do bucket and record.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.canonical import StoredUsage
from billing_cli.core.model import Bucket, BucketKey, StreamName, Totals, UsageRecord
from billing_cli.database import arrays
from billing_cli.database.spans import IS_OF_FORMER_ACCOUNT
from billing_cli.jobs.own_charges import own_bytes
from billing_cli.jobs.regions import in_recorded_regions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection

IN_SCOPE = """
  FROM billing.streams AS stream
  JOIN billing.usage_records AS record USING (stream_id)
 WHERE stream.stored_node_id = ANY (%(stored_node_ids)s::text[])
   AND record.bucket_start >= %(since)s
   AND (%(until)s::timestamptz IS NULL OR record.bucket_start < %(until)s)
   AND (%(account_uuid)s::uuid IS NULL OR record.account_uuid = %(account_uuid)s)
"""


class Scope(NamedTuple):
    """The minutes that begin in [since, until) of nodes, by their stored ids.

    None as `until` is no end, None as `account_uuid` is all accounts.
    """

    stored_node_ids: Collection[str]
    since: datetime
    until: datetime | None
    account_uuid: str | None


READ_SPAN = "SELECT min(record.bucket_start), max(record.bucket_start)" + IN_SCOPE


def read_span(connection: Connection, scope: Scope) -> tuple[datetime, datetime] | None:
    """Return the first and the last minute with usage; None where there is none."""
    row = connection.execute(READ_SPAN, _parameters(scope)).fetchone()
    return row if row is not None and row[0] is not None else None


# The newest revision of a record's minute says what counts: a correction's end, else the growth.
READ_STANDING = (
    """
SELECT DISTINCT ON (stream_id, record.from_at, record.bucket_start)
       stream_id, stream.stored_node_id, stream.inbound_tag, stream.sample_uuid::text,
       record.account_uuid::text, record.bucket_start, record.reset_epoch, record.from_at,
       record.to_at, record.revision,
       record.uplink_end - CASE revision WHEN 0 THEN record.uplink_start ELSE 0 END,
       record.downlink_end - CASE revision WHEN 0 THEN record.downlink_start ELSE 0 END
"""
    + IN_SCOPE
    + f" AND NOT {IS_OF_FORMER_ACCOUNT}"
    + " ORDER BY stream_id, record.from_at, record.bucket_start, record.revision DESC"
)


class StandingUsage(NamedTuple):
    """What counts of a usage record in a minute, from 0 to the bytes that are on record."""

    stream_id: int
    stored_node_id: str
    account_uuid: str
    revision: int
    record: UsageRecord


def read_standing_usage(connection: Connection, scope: Scope) -> list[StandingUsage]:
    """Return the usage that counts, without what was taken back already."""
    found = []
    for row in connection.execute(READ_STANDING, _parameters(scope)):
        stream_id, node, tag, sample, account, minute, epoch, from_at, to_at, revision, *end = row
        if any(end):
            record = UsageRecord(
                StreamName(tag, sample), minute, epoch, from_at, to_at, Totals(0, 0), Totals(*end)
            )
            found.append(StandingUsage(stream_id, node, account, revision, record))
    return found


def _parameters(scope: Scope) -> dict[str, object]:
    return scope._asdict() | {"stored_node_ids": arrays.texts(scope.stored_node_ids)}


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
