"""Columns on their way to PostgreSQL: what arrives is what was sent, whatever it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_cli.core.model import MAX_TOTAL, BucketKey
from billing_cli.database import arrays

if TYPE_CHECKING:
    from psycopg import Connection

UUIDS = st.uuids().map(str)
TIMES = st.datetimes(timezones=st.just(UTC))
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=9)
ROUND_TRIPS = {
    "bigint[]": (arrays.plain, st.none() | st.integers(-MAX_TOTAL - 1, MAX_TOTAL)),
    "numeric[]": (arrays.plain, DECIMALS),
    "timestamptz[]": (arrays.moments, st.none() | TIMES),
    "text[]": (arrays.texts, TEXTS),
    "uuid[]": (arrays.plain, st.none() | UUIDS),
}


@pytest.mark.parametrize("type_name", ROUND_TRIPS)
@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_columns_arrive_as_they_were(
    connection: Connection[Any], type_name: str, data: st.DataObject
) -> None:
    """Every type, empty ones and NULLs included."""
    convert, elements = ROUND_TRIPS[type_name]
    values = data.draw(st.lists(elements, max_size=5))
    assert list(map(str, received(connection, type_name, convert(values)))) == list(
        map(str, values)
    )


def test_times_of_any_zone_are_the_same_moment(connection: Connection[Any]) -> None:
    """What counts is the moment, not the words for it."""
    there = datetime(2026, 4, 8, 21, 0, 0, 1, timezone(timedelta(hours=9)))
    assert received(connection, "timestamptz[]", arrays.moments([there])) == [there]


def test_bucket_keys_of_no_buckets_are_empty_columns(connection: Connection[Any]) -> None:
    """A statement over nothing does nothing."""
    for column in arrays.bucket_keys([]).values():
        assert received(connection, "text[]", column) == []
    key = BucketKey(
        datetime(2026, 4, 8, tzinfo=UTC), "n", "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "r", "l"
    )
    lines = arrays.bucket_keys([key, key])["lines"]
    assert received(connection, "text[]", lines) == ["l", "l"]


def received(connection: Connection[Any], type_name: str, column: object) -> list[Any]:
    """Return what the server makes of a column."""
    row = connection.execute(f"SELECT %s::{type_name} AS given", [column]).fetchone()
    assert row is not None
    return list(row["given"])
