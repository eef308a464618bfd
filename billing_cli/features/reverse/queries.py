"""Usage records of a node with what is on record for them now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.database import arrays
from billing_cli.database.spans import IS_OF_FORMER_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Collection
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

READ_SPAN = "SELECT min(record.bucket_start), max(record.bucket_start)" + IN_SCOPE

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


class Scope(NamedTuple):
    """The minutes that begin in [since, until) of nodes, by their stored ids.

    None as `until` is no end, None as `account_uuid` is all accounts.
    """

    stored_node_ids: Collection[str]
    since: datetime
    until: datetime | None
    account_uuid: str | None


class StandingUsage(NamedTuple):
    """What counts of a usage record in a minute, from 0 to the bytes that are on record."""

    stream_id: int
    stored_node_id: str
    account_uuid: str
    revision: int
    record: UsageRecord


def read_span(connection: Connection, scope: Scope) -> tuple[datetime, datetime] | None:
    """Return the first and the last minute with usage; None where there is none."""
    row = connection.execute(READ_SPAN, _parameters(scope)).fetchone()
    return row if row is not None and row[0] is not None else None


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
