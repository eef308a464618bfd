"""Whole columns as PostgreSQL arrays, most of them in the binary format.

A statement receives all rows of a run as a few arrays and unfolds them with `unnest`, so that the
number of statements does not grow with the number of rows. Building the arrays here costs a small
part of what adapting every element through the driver would; and what is binary costs the server
a third of what reading text would.

A parameter must be cast to the type that its function here names: `%(stream_ids)s::bigint[]`.
"""

from __future__ import annotations

from binascii import unhexlify
from datetime import UTC, datetime, timedelta
from struct import Struct, error, pack
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from decimal import Decimal

    from billing_cli.core.model import BucketKey

# The format of `array_recv`: dimensions, whether there are NULLs, the type of the elements, their
# number, and what the first is counted as; then each element's length in bytes and its value. All
# is big-endian, a length of -1 stands for NULL, and types have their numbers in `pg_type`.
_HEAD = Struct(">iiIii").pack
_HEAD_SIZE, _EMPTY_SIZE = 20, 12
_head_of = Struct(">iiIi").unpack_from
_NULL = b"\xff\xff\xff\xff"
_BIGINT, _INTEGER, _TEXT, _DOUBLE, _TIMESTAMPTZ, _UUID = 20, 23, 25, 701, 1184, 2950

_LENGTH, _LENGTH_SIZE = Struct(">i").pack, 4
_bigint = Struct(">iq").pack

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BinaryArray(bytes):
    """An array in the format in which PostgreSQL receives it."""

    __slots__ = ()


def bigints(values: Sequence[int]) -> BinaryArray:
    """Return a `bigint[]`. Raises NumericValueOutOfRange, as the server would."""
    try:
        return _fixed(_BIGINT, len(values), pack(f">{len(values)}q", *values))
    except error:
        raise psycopg.errors.NumericValueOutOfRange("bigint out of range") from None


def integers(values: Sequence[int]) -> BinaryArray:
    """Return an `integer[]`. Raises NumericValueOutOfRange, as the server would."""
    try:
        return _fixed(_INTEGER, len(values), pack(f">{len(values)}i", *values))
    except error:
        raise psycopg.errors.NumericValueOutOfRange("integer out of range") from None


def doubles(values: Sequence[Decimal | str]) -> BinaryArray:
    """Return a `double precision[]` of the doubles that are nearest to the values.

    The text of a number is read several times faster than the `Decimal` itself.
    """
    return _fixed(_DOUBLE, len(values), pack(f">{len(values)}d", *map(float, values)))


def uuids(values: Collection[str]) -> BinaryArray:
    """Return a `uuid[]` of canonical UUIDs."""
    separator = "00000010"
    digits = (separator + separator.join(values)).encode() if values else b""
    return _array(_UUID, len(values), unhexlify(digits.translate(None, b"-")))


def optional(values: Sequence[str | None]) -> BinaryArray:
    """Return a `uuid[]` of canonical UUIDs, with NULL where there is none."""
    known = {
        value: _NULL if value is None else _sized(bytes.fromhex(value.replace("-", "")))
        for value in set(values)
    }
    return _array(_UUID, len(values), b"".join(map(known.__getitem__, values)), None in known)


def moments(values: Iterable[datetime | None]) -> BinaryArray:
    """Return a `timestamptz[]`. A run holds few different times: each is converted once."""
    column = list(values)
    known = {
        value: _NULL if value is None else _bigint(8, (value - _EPOCH) // _MICROSECOND)
        for value in set(column)
    }
    elements = b"".join(map(known.__getitem__, column))
    return _array(_TIMESTAMPTZ, len(column), elements, None in known)


def texts(values: Iterable[str]) -> BinaryArray:
    """Return a `text[]`, each different text converted once."""
    column = list(values)
    known = {value: _sized(value.encode()) for value in set(column)}
    return _array(_TEXT, len(column), b"".join(map(known.__getitem__, column)))


def plain(values: Iterable[int | Decimal | str]) -> str:
    """Return an array literal of numbers or canonical UUIDs, whose text never needs quotes.

    It fits any type of number, and is how exact decimals are sent.
    """
    return "{" + ",".join(map(str, values)) + "}"


def bucket_keys(keys: Sequence[BucketKey]) -> dict[str, BinaryArray]:
    """Return bucket keys as columns, by the parameter names of the statements that take them."""
    buckets, nodes, account_uuids, regions, lines = zip(*keys, strict=True) if keys else [()] * 5
    return {
        "buckets": moments(buckets),
        "nodes": texts(nodes),
        "account_uuids": uuids(account_uuids),
        "regions": texts(regions),
        "lines": texts(lines),
    }


class Places:
    """What bucket keys have in common besides their accounts: minute, node, region and line.

    A run has few of them. They are sent once, and each row carries only the number of its place,
    from 1.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[datetime, str, str, str], int] = {}

    def numbers(self, keys: Iterable[BucketKey]) -> BinaryArray:
        """Return the numbers of the keys' places, an `integer[]`."""
        columns = tuple(zip(*keys, strict=True))
        if not columns:
            return integers(())
        buckets, nodes, _, regions, lines = columns
        places = list(zip(buckets, nodes, regions, lines, strict=True))
        for place in dict.fromkeys(places):
            self._numbers.setdefault(place, len(self._numbers) + 1)
        return integers(list(map(self._numbers.__getitem__, places)))

    def columns(self) -> dict[str, BinaryArray]:
        """Return the places in the order of their numbers, by parameter names."""
        buckets, nodes, regions, lines = zip(*self._numbers, strict=True)
        return {
            "buckets": moments(buckets),
            "nodes": texts(nodes),
            "regions": texts(regions),
            "lines": texts(lines),
        }


class Tariffs:
    """What charges have in common besides their places: price and multiplier, in the same way."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Decimal, Decimal], int] = {}

    def numbers(self, prices: Iterable[Decimal], multipliers: Iterable[Decimal]) -> BinaryArray:
        """Return the numbers of the tariffs, an `integer[]`."""
        # Most are the very same objects, which are found much faster than equal ones.
        found: dict[tuple[int, int], int] = {}
        numbers = []
        for price, multiplier in zip(prices, multipliers, strict=True):
            objects = id(price), id(multiplier)
            if objects not in found:
                tariff = price, multiplier
                found[objects] = self._numbers.setdefault(tariff, len(self._numbers) + 1)
            numbers.append(found[objects])
        return integers(numbers)

    def columns(self) -> dict[str, str]:
        """Return the tariffs in the order of their numbers, by parameter names."""
        prices, multipliers = zip(*self._numbers, strict=True)
        return {"prices": plain(prices), "multipliers": plain(multipliers)}


Array = TypeVar("Array", BinaryArray, str)


def joined(parts: Sequence[Array]) -> Array:
    """Return one array of the elements of some, in their order; all were made by one function."""
    if isinstance(parts[0], str):
        return "{" + ",".join([part[1:-1] for part in parts if part != "{}"]) + "}"
    filled = [part for part in parts if len(part) > _EMPTY_SIZE]
    if not filled:
        return parts[0]
    heads = [_head_of(part) for part in filled]
    return _array(
        element_type=heads[0][2],
        count=sum(count for *_, count in heads),
        elements=b"".join([memoryview(part)[_HEAD_SIZE:] for part in filled]),
        has_nulls=any(nulls for _, nulls, _, _ in heads),
    )


def _array(
    element_type: int, count: int, elements: bytes | bytearray, has_nulls: bool = False
) -> BinaryArray:
    if count == 0:
        return BinaryArray(_HEAD(0, 0, element_type, 0, 0)[:_EMPTY_SIZE])
    return BinaryArray(_HEAD(1, has_nulls, element_type, count, 1) + elements)


def _fixed(element_type: int, count: int, values: bytes) -> BinaryArray:
    """Return an array of values of one size, of which some lie one after the other."""
    size = len(values) // count if count else 0
    elements = bytearray(_LENGTH(size) + bytes(size)) * count
    # The same byte of all of them at once: a loop over elements takes three times as long.
    for place in range(size):
        elements[_LENGTH_SIZE + place :: _LENGTH_SIZE + size] = values[place::size]
    return _array(element_type, count, elements)


def _sized(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


class _BinaryArrayDumper(Dumper):
    """Hands an array over as it is; the statement's cast says of which type it is."""

    format = Format.BINARY

    def dump(self, obj: BinaryArray) -> BinaryArray:
        return obj


psycopg.adapters.register_dumper(BinaryArray, _BinaryArrayDumper)
