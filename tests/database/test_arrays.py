"""Columns on their way to PostgreSQL: what arrives is what was sent, whatever it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_cli.core.model import MAX_TOTAL, BucketKey
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import Connection

UUIDS = st.uuids().map(str)
TIMES = st.datetimes(timezones=st.just(UTC))
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=9)
ROUND_TRIPS = {
    "bigint[]": (arrays.bigints, st.integers(-MAX_TOTAL - 1, MAX_TOTAL)),
    "integer[]": (arrays.integers, st.integers(-(2**31), 2**31 - 1)),
    "numeric[]": (arrays.plain, DECIMALS),
    "timestamptz[]": (arrays.moments, st.none() | TIMES),
    "text[]": (arrays.texts, TEXTS),
    "uuid[]": (arrays.optional, st.none() | UUIDS),
}


@pytest.mark.parametrize("type_name", ROUND_TRIPS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@pytest.mark.parametrize("type_name", ROUND_TRIPS)
@given(data=st.data())
def test_a_column_may_be_made_in_parts(type_name: str, data: st.DataObject) -> None:
    """Some of them empty, some with NULLs: together they are the column made at once."""
    convert, elements = ROUND_TRIPS[type_name]
    parts = data.draw(st.lists(st.lists(elements, max_size=3), min_size=1, max_size=4))
    whole = [value for part in parts for value in part]
    assert arrays.joined([convert(part) for part in parts]) == convert(whole)


def test_rows_find_their_places_again(connection: Connection[Any]) -> None:
    """Whatever column of rows was made first, a place has one number."""
    minute = datetime(2026, 4, 8, tzinfo=UTC)
    keys = [
        BucketKey(minute + timedelta(minutes=number % 2), "n", str(number), "r", "l" * (number % 3))
        for number in range(9)
    ]
    places = arrays.Places()
    numbers = arrays.joined([places.numbers(keys[:4]), places.numbers(keys[4:])])
    columns = {"numbers": numbers, **places.columns()}
    assert len(received(connection, "text[]", columns["lines"])) == 6
    rows = connection.execute(
        "SELECT bucket, node, region, line"
        "  FROM unnest(%(numbers)s::integer[]) WITH ORDINALITY AS given (number, at)"
        "  JOIN unnest(%(buckets)s::timestamptz[], %(nodes)s::text[], %(regions)s::text[],"
        "              %(lines)s::text[])"
        "    WITH ORDINALITY AS place (bucket, node, region, line, number)"
        "    ON place.number = given.number ORDER BY given.at",
        columns,
    ).fetchall()
    assert [tuple(row.values()) for row in rows] == [key[:2] + key[3:] for key in keys]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(UUIDS, max_size=5))
def test_uuids_arrive_as_they_were(connection: Connection[Any], values: list[str]) -> None:
    """The quick way without NULLs."""
    assert list(map(str, received(connection, "uuid[]", arrays.uuids(values)))) == values


def test_amounts_become_the_nearest_doubles(connection: Connection[Any]) -> None:
    """The same doubles that the server makes of the exact figures."""
    amounts = [Decimal("0.1"), Decimal("-999999.123456789"), Decimal(0), Decimal("1e-9")]
    sent = received(connection, "double precision[]", arrays.doubles(amounts))
    assert sent == received(connection, "double precision[]", arrays.plain(amounts))


def test_times_of_any_zone_are_the_same_moment(connection: Connection[Any]) -> None:
    """What counts is the moment, not the words for it."""
    there = datetime(2026, 4, 8, 21, 0, 0, 1, timezone(timedelta(hours=9)))
    assert received(connection, "timestamptz[]", arrays.moments([there])) == [there]


def test_bucket_keys_of_no_buckets_are_empty_columns(connection: Connection[Any]) -> None:
    """A statement over nothing does nothing."""
    for column in arrays.bucket_keys([]).values():
        assert len(column) == 12
    key = BucketKey(
        datetime(2026, 4, 8, tzinfo=UTC), "n", "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "r", "l"
    )
    lines = arrays.bucket_keys([key, key])["lines"]
    assert received(connection, "text[]", lines) == ["l", "l"]


@pytest.mark.parametrize(
    ("convert", "value"), [(arrays.bigints, 2**63), (arrays.integers, -(2**31) - 1)]
)
def test_numbers_beyond_their_type_are_refused(
    convert: Callable[[Sequence[int]], object], value: int
) -> None:
    """With the error that the server has for it, which is about one source's data."""
    with pytest.raises(psycopg.DataError, match="out of range"):
        convert([value])


def received(connection: Connection[Any], type_name: str, column: object) -> list[Any]:
    """Return what the server makes of a column."""
    row = connection.execute(f"SELECT %s::{type_name} AS given", [column]).fetchone()
    assert row is not None
    return list(row["given"])
