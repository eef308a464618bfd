"""Instants as exporters write them: whole nanoseconds since 1970, finer than Python's datetime."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from billing_cli.core.times import format_rfc3339, parse_rfc3339

NANOSECONDS_PER_SECOND = 1_000_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FRACTION = re.compile(r"\.(\d{1,9})", re.ASCII)


def nanoseconds_of(moment: datetime) -> int:
    """Return the nanoseconds since 1970 of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


def moment_of(nanoseconds: int) -> datetime:
    """Return the UTC datetime of a stamp, cut to microseconds as billing and PostgreSQL keep it."""
    return _EPOCH + nanoseconds // 1000 * _MICROSECOND


def format_stamp(nanoseconds: int) -> str:
    """Return an RFC 3339 stamp with 0 to 9 fractional digits: no trailing zeros, as Go writes."""
    seconds, fraction = divmod(nanoseconds, NANOSECONDS_PER_SECOND)
    whole = format_rfc3339(moment_of(seconds * NANOSECONDS_PER_SECOND))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{whole.removesuffix('Z')}.{digits}Z" if digits else whole


def parse_stamp(text: str) -> int:
    """Return the nanoseconds of an RFC 3339 stamp, all 9 digits kept. Raises ValueError."""
    moment = parse_rfc3339(text)
    match = _FRACTION.search(text)
    digits = match[1].ljust(9, "0") if match else "0"
    return nanoseconds_of(moment) + int(digits) % 1000
