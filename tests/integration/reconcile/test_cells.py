"""What is on record of a node, as a comparison takes it up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.core.model import StreamName, Totals
from billing_cli.database.reconcile import read_cells

if TYPE_CHECKING:
    from psycopg import Connection

NODE = "prod:jp-1"
NAME = StreamName("x", "11111111-1111-1111-1111-111111111111")
NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

ADD_STREAM = """
INSERT INTO billing.streams
       (stored_node_id, inbound_tag, sample_uuid, account_uuid, origin, first_seen_at,
        first_uplink_total, first_downlink_total, seen_at, uplink_total, downlink_total,
        reset_epoch)
VALUES (%s, %s, %s, %s, 'new', %s, 0, 0, %s, 70, 0, 1)
RETURNING stream_id
"""
ADD_DELTA = """
INSERT INTO billing.usage_records
       (stream_id, bucket_start, from_at, to_at, reset_epoch, uplink_start, uplink_end,
        downlink_start, downlink_end, account_uuid, kind)
VALUES (%s, %s, %s, %s, %s, 0, %s, 0, 0, %s, 'delta')
"""
ADD_LINK = """
INSERT INTO billing.{table}
       (stream_id, {minute} from_at, to_at, reset_epoch, uplink_start, uplink_end,
        downlink_start, downlink_end)
VALUES (%s, {at} %s, %s, 0, 100, 5000, 0, 0)
"""
LINKS = {
    "held_deltas": ADD_LINK.format(table="held_deltas", minute="bucket_start,", at="now(),"),
    "pending_usage": ADD_LINK.format(table="pending_usage", minute="", at=""),
}


@pytest.fixture
def stream_id(connection: Connection[dict[str, Any]]) -> int:
    """Return a stream that came to 100 bytes by 12:01, and from a restart at 12:03 to 70."""
    row = connection.execute(
        ADD_STREAM, [NODE, *NAME, NAME.sample_uuid, NOON, NOON + 4 * MINUTE]
    ).fetchone()
    assert row is not None
    stream: int = row["stream_id"]
    for begin, epoch, end in ((0, 0, 100), (3, 1, 70)):
        from_at = NOON + begin * MINUTE
        to_at = from_at + MINUTE
        connection.execute(ADD_DELTA, [stream, to_at, from_at, to_at, epoch, end, NAME.sample_uuid])
    return stream


def test_the_record_before_a_restart_tells_what_had_been_seen(
    database_url: str, stream_id: int
) -> None:
    """Whatever the exporter has forgotten."""
    assert befores(database_url, {}) == ([Totals(0, 0), Totals(100, 0)], 0)
    assert stream_id


@pytest.mark.parametrize("table", LINKS)
def test_a_restart_after_what_is_in_no_record_is_not_guessed_at(
    database_url: str, connection: Connection[dict[str, Any]], stream_id: int, table: str
) -> None:
    """Held or waiting bytes were seen after that record: from it, they would be found once more."""
    times = [NOON + MINUTE, NOON + 2 * MINUTE]
    connection.execute(LINKS[table].encode(), [stream_id, *times])
    assert befores(database_url, {}) == ([Totals(0, 0)], 1)
    seen = {NOON + 3 * MINUTE: {NAME: Totals(5000, 0)}}
    assert befores(database_url, seen) == ([Totals(0, 0), Totals(5000, 0)], 0)


def befores(
    database_url: str, totals_at: dict[datetime, dict[StreamName, Totals]]
) -> tuple[list[Totals], int]:
    """Return what each cell's stream had come to, and how many can't be compared."""
    with psycopg.connect(database_url) as connection:
        cells, skipped = read_cells(connection, NODE, NOON, NOON + 10 * MINUTE, NOON, totals_at)
    return [cell.cell.before for cell in cells], skipped
