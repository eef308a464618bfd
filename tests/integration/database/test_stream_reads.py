"""What a run reads of streams: those that are present, and new ones, however many are gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.database import arrays
from billing_cli.database.stream_limits import READ_NEW_STREAMS
from billing_cli.database.streams import READ_STREAMS

if TYPE_CHECKING:
    import psycopg

NODE = "prod:jp-1"
NOON = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
STREAMS, PRESENT, NEW = 5_000, 40, 10

# Each 125th stream is present; a new one came each second.
ADD_STREAMS = """
INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, origin, first_seen_at,
  first_uplink_total, first_downlink_total, seen_at, uplink_total, downlink_total, absent_since)
SELECT %(node)s, '', gen_random_uuid(), 'new', noon - (number - 1) * interval '1 second',
       0, 0, noon, 7, 8, CASE WHEN number %% 125 > 0 THEN noon END
  FROM generate_series(1, %(streams)s) AS number, CAST(%(noon)s AS timestamptz) AS noon
"""
ADD_SOURCE = "INSERT INTO billing.sources (source_id) VALUES ('jp-1')"


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_a_run_does_not_read_streams_that_are_gone(
    connection: psycopg.Connection[dict[str, Any]], is_analyzed: bool
) -> None:
    """A hostile node leaves up to 100,000 an hour, and the sources of a run share the statement."""
    add_streams(connection, is_analyzed=is_analyzed)
    given = {"stored_node_ids": arrays.texts([NODE])}
    assert rows_read(connection, READ_STREAMS, given) == PRESENT


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_a_new_stream_does_not_make_a_run_read_all_others(
    connection: psycopg.Connection[dict[str, Any]], is_analyzed: bool
) -> None:
    """The limits of an hour count the streams of that hour."""
    add_streams(connection, is_analyzed=is_analyzed)
    since = NOON - timedelta(seconds=NEW)
    given = {
        "source_ids": arrays.texts(["jp-1"]),
        "nodes": arrays.texts([NODE]),
        "sinces": arrays.moments([since]),
        "first": since,
    }
    assert rows_read(connection, READ_NEW_STREAMS, given) == NEW


def add_streams(connection: psycopg.Connection[dict[str, Any]], *, is_analyzed: bool) -> None:
    """Add a source and its streams, of which few are present."""
    connection.execute(ADD_SOURCE)
    connection.execute(ADD_STREAMS, {"node": NODE, "noon": NOON, "streams": STREAMS})
    if is_analyzed:
        connection.execute("ANALYZE billing.streams")


def rows_read(
    connection: psycopg.Connection[dict[str, Any]], statement: str, given: dict[str, Any]
) -> int:
    """Run a statement; return how many rows of streams it looked at, wanted or not."""
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    row = connection.execute(explain.encode(), given).fetchone()
    assert row is not None
    return _rows_of_streams(row["QUERY PLAN"][0]["Plan"])


def _rows_of_streams(plan: dict[str, Any]) -> int:
    below = sum(_rows_of_streams(part) for part in plan.get("Plans", ()))
    if plan.get("Relation Name") != "streams":
        return below
    read = plan["Actual Rows"] + sum(
        plan.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck")
    )
    return below + int(read * plan["Actual Loops"])
